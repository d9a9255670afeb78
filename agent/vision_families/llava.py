"""LLaVA: a picture is its patches, one `<image>` each, and nothing around them."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

from agent.parts import Parts, control
from agent.vision_families.eyes import Feature, Pixels, Size, by_shape, encoded

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from torch import Tensor

IMAGE = "<image>"


@final
class LlavaEyes:
    """Every picture becomes the processor's one size, and so as many features as any other."""

    placeholder: str = IMAGE
    controls: tuple[str, ...] = (IMAGE,)
    tags: tuple[str, ...] = ()
    unexpanded: tuple[str, ...] = (IMAGE,)
    towers: tuple[str, ...] = ("vision_tower", "multi_modal_projector")

    def __init__(self, config: Any, processor: Any) -> None:
        vision = config.vision_config
        self.processor = processor
        edge = processor.crop_size if getattr(processor, "do_center_crop", None) else processor.size
        patches = (edge["height"] // vision.patch_size) * (edge["width"] // vision.patch_size)
        # CLIP puts a class token before the patches; the strategy "default" drops whatever stands first.
        first = "clip" in vision.model_type
        self.each = patches + first - (config.vision_feature_select_strategy == "default")

    def parts(self, size: Size) -> Parts:
        return (control(IMAGE),) * self.each

    def pixels(self, picture: Picture) -> Pixels:
        return {"pixel_values": self.processor(picture, return_tensors="pt")["pixel_values"][0]}

    def features(self, model: Any, pixels: Sequence[Pixels]) -> list[Feature]:
        import torch

        found: dict[int, Feature] = {}
        for group in by_shape(pixels):
            values = torch.stack([pixels[index]["pixel_values"] for index in group]).to(model.device, model.dtype)
            pooled = model.get_image_features(pixel_values=values, return_dict=True).pooler_output
            found |= {index: Feature(rows=rows) for index, rows in zip(group, pooled, strict=True)}
        return [found[index] for index in range(len(pixels))]

    def inputs(self, features: Sequence[Feature], sizes: Sequence[Size], ids_BT: Tensor) -> dict[str, Any]:
        return encoded([feature.rows for feature in features])
