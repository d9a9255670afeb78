"""Idefics3 and SmolVLM: `<fake_token_around_image><global-img><image>...<fake_token_around_image>`, tiles before it."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

from agent.parts import Part, Parts, control, markup
from agent.vision_families.eyes import Feature, Pixels, Size, by_shape, encoded

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from torch import Tensor

IMAGE, AROUND, WHOLE = "<image>", "<fake_token_around_image>", "<global-img>"
LONGEST = 4096
"""Pixels; the processor never makes an edge longer."""


@final
class IdeficsEyes:
    """A picture is scaled to `size`, cut into tiles where `do_image_splitting` says so, and shown whole after them."""

    placeholder: str = IMAGE
    controls: tuple[str, ...] = (AROUND, IMAGE)
    tags: tuple[str, ...] = (WHOLE, *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)))
    unexpanded: tuple[str, ...] = (IMAGE,)
    towers: tuple[str, ...] = ("vision_model", "connector")

    def __init__(self, config: Any, processor: Any) -> None:
        vision = config.vision_config
        self.processor = processor
        self.each = int((vision.image_size // vision.patch_size) ** 2 / config.scale_factor**2)
        """Features of one tile."""

    def tiles(self, size: Size) -> tuple[int, int]:
        """(rows, columns) into which a picture is cut; (0, 0) where it is shown whole only.

        The processor's own `get_number_of_image_patches` says another number than it cuts, where its longest edge is
        not made of whole tiles.
        """
        if not self.processor.do_image_splitting:
            return 0, 0
        tile = self.processor.max_image_size["longest_edge"]
        width, height = _in_tiles(_scaled(size, self.processor.size["longest_edge"]), tile)
        return (height // tile, width // tile) if max(width, height) > tile else (0, 0)

    def parts(self, size: Size) -> Parts:
        rows, columns = self.tiles(size)
        out: list[Part] = []
        for row in range(rows):
            for column in range(columns):
                out += [control(AROUND), markup(f"<row_{row + 1}_col_{column + 1}>"), *self._one()]
            out.append(markup("\n"))
        if rows:
            out.append(markup("\n"))
        return (*out, control(AROUND), markup(WHOLE), *self._one(), control(AROUND))

    def _one(self) -> Parts:
        return (control(IMAGE),) * self.each

    def pixels(self, picture: Picture) -> Pixels:
        made = self.processor([[picture]], return_tensors="pt")
        return {name: made[name][0] for name in ("pixel_values", "pixel_attention_mask")}

    def features(self, model: Any, pixels: Sequence[Pixels]) -> list[Feature]:
        import torch

        found: dict[int, Feature] = {}
        for group in by_shape(pixels):
            values, masks = (
                torch.stack([pixels[index][name] for index in group])
                for name in ("pixel_values", "pixel_attention_mask")
            )
            device = model.device
            pooled = model.get_image_features(values.to(device), masks.to(device), return_dict=True).pooler_output
            found |= {index: Feature(rows=rows) for index, rows in zip(group, pooled, strict=True)}
        return [found[index] for index in range(len(pixels))]

    def inputs(self, features: Sequence[Feature], sizes: Sequence[Size], ids_BT: Tensor) -> dict[str, Any]:
        return encoded([feature.rows for feature in features])


def _scaled(size: Size, longest: int) -> Size:
    """The longer edge becomes `longest`, the other keeps the ratio and is even."""
    width, height = size
    ratio = width / height
    if width >= height:
        width, height = longest, _even(int(longest / ratio))
    else:
        width, height = _even(int(longest * ratio)), longest
    width, height = max(1, width), max(1, height)
    ratio = width / height
    if width >= height and width > LONGEST:
        return LONGEST, max(1, int(LONGEST / ratio))
    if height > width and height > LONGEST:
        return max(1, int(LONGEST * ratio)), LONGEST
    return width, height


def _in_tiles(size: Size, tile: int) -> Size:
    """Both edges rounded up to tiles, the longer one first."""
    width, height = size
    ratio = width / height
    if width >= height:
        width = math.ceil(width / tile) * tile
        return width, math.ceil(int(width / ratio) / tile) * tile
    height = math.ceil(height / tile) * tile
    return math.ceil(int(height * ratio) / tile) * tile, height


def _even(edge: int) -> int:
    return edge + edge % 2
