"""Gemma 3: `<start_of_image>`, one `<image_soft_token>` for each feature, `<end_of_image>`, an empty line around."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

from agent.parts import Parts, control, markup
from agent.vision_families.eyes import Feature, Pixels, Size, encoded
from tools.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from torch import Tensor

START, IMAGE, END = "<start_of_image>", "<image_soft_token>", "<end_of_image>"


@final
class GemmaEyes:
    """Every picture becomes one square, whose features see each other in both directions."""

    placeholder: str = IMAGE
    controls: tuple[str, ...] = (START, IMAGE, END)
    tags: tuple[str, ...] = ()
    unexpanded: tuple[str, ...] = ()
    towers: tuple[str, ...] = ("vision_tower", "multi_modal_projector")

    def __init__(self, config: Any, processor: Any) -> None:
        if getattr(processor, "do_pan_and_scan", None):
            raise ConfigError(
                "the image processor cuts pictures into crops (do_pan_and_scan), which are not counted here",
                hint="set do_pan_and_scan to false in preprocessor_config.json; a zoom tool crops where it is asked to",
            )
        self.processor = processor
        self.image_token_id: int = config.image_token_id
        self.each: int = config.mm_tokens_per_image

    def parts(self, size: Size) -> Parts:
        return markup("\n\n"), control(START), *(control(IMAGE),) * self.each, control(END), markup("\n\n")

    def pixels(self, picture: Picture) -> Pixels:
        return {"pixel_values": self.processor(picture, return_tensors="pt")["pixel_values"][0]}

    def features(self, model: Any, pixels: Sequence[Pixels]) -> list[Feature]:
        import torch

        values = torch.stack([one["pixel_values"] for one in pixels]).to(model.device, model.dtype)
        return [Feature(rows=rows) for rows in model.get_image_features(values, return_dict=True).pooler_output]

    def inputs(self, features: Sequence[Feature], sizes: Sequence[Size], ids_BT: Tensor) -> dict[str, Any]:
        import torch

        pooled = torch.stack([feature.rows for feature in features])
        return {**encoded(pooled), "token_type_ids": (ids_BT == self.image_token_id).long()}
