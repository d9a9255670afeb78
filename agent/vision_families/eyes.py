"""What a family of models that see has to say about pictures."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from agent.parts import Parts
from tools.record import record

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from torch import Tensor

Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""

Pixels: TypeAlias = dict[str, Any]
"""What an image processor makes of one picture: tensors by name."""


@record
class Feature:
    """One picture as the language model takes it in."""

    rows: Tensor
    """(features, hidden): what stands in place of the placeholders' embeddings."""
    deep: tuple[Tensor, ...] = ()
    """The same for each further layer that is given features (Qwen3-VL's deepstack)."""


class Eyes(Protocol):
    """One family. Sizes and parts are pure arithmetic; nothing is decoded to know how many tokens a picture takes."""

    placeholder: str
    """The token that stands for one feature."""
    controls: tuple[str, ...]
    """The special tokens it cannot do without."""
    tags: tuple[str, ...]
    """What it writes as a special token where the tokenizer has one, and else as text."""
    unexpanded: tuple[str, ...]
    """How a picture stands in a prompt that a server expands by itself; nothing where that cannot be said exactly."""
    towers: tuple[str, ...]
    """The submodules of `model.base_model` that turn pixels into features."""

    def parts(self, size: Size) -> Parts:
        """A picture of that size, as written into a prompt. Raises `ValueError` for a size the family cannot take."""
        ...

    def pixels(self, picture: Picture) -> Pixels:
        """An RGB picture as its image processor has it."""
        ...

    def features(self, model: Any, pixels: Sequence[Pixels]) -> list[Feature]:
        """One for each of `pixels`, in order; `model` is the one with `get_image_features`."""
        ...

    def inputs(self, features: Sequence[Feature], sizes: Sequence[Size], ids_BT: Tensor) -> dict[str, Any]:
        """What the model's forward takes beside ids and attention mask, for pictures in the order they stand in."""
        ...


def by_shape(pixels: Sequence[Pixels], name: str = "pixel_values") -> list[list[int]]:
    """Indices of `pixels` whose tensors can be stacked, in groups."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, one in enumerate(pixels):
        groups.setdefault(tuple(one[name].shape), []).append(index)
    return list(groups.values())


def encoded(pooled: Any, deep: Any = None) -> dict[str, Any]:
    """Features as transformers hands them from an encoder to a language model."""
    from types import SimpleNamespace

    return {"mm_encoder_outputs": {"image": SimpleNamespace(pooler_output=pooled, deepstack_features=deep)}}
