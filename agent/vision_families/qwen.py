"""Qwen2.5-VL and Qwen3-VL: `<|vision_start|><|image_pad|>...<|vision_end|>`, as many as the picture has patches."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

from agent.parts import Parts, control
from agent.vision_families.eyes import Feature, Pixels, Size, encoded

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from torch import Tensor

START, IMAGE, END = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"


@final
class QwenEyes:
    """A picture keeps its shape: both edges are rounded to whole merged patches within a bound of pixels."""

    placeholder: str = IMAGE
    controls: tuple[str, ...] = (START, IMAGE, END)
    tags: tuple[str, ...] = ()
    unexpanded: tuple[str, ...] = (START, IMAGE, END)
    towers: tuple[str, ...] = ("visual",)

    def __init__(self, config: Any, processor: Any) -> None:
        self.processor = processor
        self.image_token_id: int = config.image_token_id
        self.layers = len(getattr(config.vision_config, "deepstack_visual_indexes", ()))

    def grid(self, size: Size) -> tuple[int, int]:
        """(rows, columns) of patches, before they are merged. Raises `ValueError` where one edge is 200 times the
        other."""
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        made = self.processor
        width, height = size
        bounds = {"min_pixels": made.size["shortest_edge"], "max_pixels": made.size["longest_edge"]}
        rows, columns = smart_resize(height, width, made.patch_size * made.merge_size, **bounds)
        return rows // made.patch_size, columns // made.patch_size

    def parts(self, size: Size) -> Parts:
        rows, columns = self.grid(size)
        count = rows * columns // self.processor.merge_size**2
        return control(START), *(control(IMAGE),) * count, control(END)

    def pixels(self, picture: Picture) -> Pixels:
        made = self.processor(picture, return_tensors="pt")
        return {"pixel_values": made["pixel_values"], "image_grid_thw": made["image_grid_thw"][0]}

    def features(self, model: Any, pixels: Sequence[Pixels]) -> list[Feature]:
        import torch

        values = torch.cat([one["pixel_values"] for one in pixels]).to(model.device)
        grids = torch.stack([one["image_grid_thw"] for one in pixels]).to(model.device)
        made = model.get_image_features(values, grids, return_dict=True)
        deep: list[Any] = list(made.deepstack_features) if self.layers else []
        return [
            Feature(rows=rows, deep=tuple(layer[index] for layer in deep))
            for index, rows in enumerate(made.pooler_output)
        ]

    def inputs(self, features: Sequence[Feature], sizes: Sequence[Size], ids_BT: Tensor) -> dict[str, Any]:
        import torch

        deep = [[feature.deep[layer] for feature in features] for layer in range(self.layers)]
        grids = torch.tensor([(1, *self.grid(size)) for size in sizes], device=ids_BT.device)
        return {
            **encoded([feature.rows for feature in features], deep),
            "image_grid_thw": grids,  # where each patch is, for the positions of its features
            "mm_token_type_ids": (ids_BT == self.image_token_id).int(),
        }
