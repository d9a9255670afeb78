"""Whole pictures turned, mirrored, resized and made clearer, at full resolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from tools.image.describe import NUMBER, described
from tools.image.gallery import Gallery
from tools.image.memory import off_loop
from tools.tool import Tool, ToolError, ToolResult

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

MOST_FACTOR = 8.0
"""Of `image_resize_tool` and of each number of `image_enhance_tool`."""


def rotate_tool(gallery: Gallery) -> Tool:
    """`image_rotate_tool(angle, img_idx)`: counter-clockwise, as in DeepEyes' tool box; the picture grows, white."""

    async def rotate(angle: float, img_idx: int = 1) -> ToolResult:
        if not -360 <= angle <= 360:
            raise ToolError(f"angle is {angle}; it goes from -360 to 360 degrees.")
        return await _changed(gallery, img_idx, lambda picture: rotated(picture, angle), f"turned by {angle:g} degrees")

    return described(
        rotate,
        "image_rotate_tool",
        "Turn an image and see the result as a new image.",
        {"angle": "Degrees; positive is counter-clockwise.", "img_idx": NUMBER},
        gallery.slots(copies=3),
    )


def flip_tool(gallery: Gallery) -> Tool:
    """`image_flip_tool(direction, img_idx)`."""

    async def flip(direction: Literal["horizontal", "vertical"], img_idx: int = 1) -> ToolResult:
        from PIL.Image import Transpose

        ways = {"horizontal": Transpose.FLIP_LEFT_RIGHT, "vertical": Transpose.FLIP_TOP_BOTTOM}
        if direction not in ways:
            raise ToolError(f"direction is {direction!r}; it is horizontal or vertical.")
        return await _changed(
            gallery, img_idx, lambda picture: picture.transpose(ways[direction]), f"mirrored: {direction}"
        )

    return described(
        flip,
        "image_flip_tool",
        "Mirror an image and see the result as a new image.",
        {"direction": "horizontal swaps left and right, vertical swaps top and bottom.", "img_idx": NUMBER},
        gallery.slots(copies=2),
    )


def resize_tool(gallery: Gallery) -> Tool:
    """`image_resize_tool(factor, img_idx)`: the whole picture larger or smaller, within the gallery's budget."""

    async def resize(factor: float, img_idx: int = 1) -> ToolResult:
        if not 1 / MOST_FACTOR <= factor <= MOST_FACTOR:
            raise ToolError(f"factor is {factor}; it goes from {1 / MOST_FACTOR:g} to {MOST_FACTOR:g}.")
        picture = gallery[img_idx]
        wide, high = (max(1, round(side * factor)) for side in (picture.shown.width, picture.shown.height))
        size = gallery.budget.shown_size(wide, high)
        made = await off_loop(lambda: gallery.add_part(img_idx, (0, 0, *picture.size), size))
        return gallery.result(made, text=f"image_{img_idx} at another size:", data={"of": img_idx})

    return described(
        resize,
        "image_resize_tool",
        "See a whole image larger or smaller, as a new image.",
        {"factor": f"How many times as wide and high, {1 / MOST_FACTOR:g} to {MOST_FACTOR:g}.", "img_idx": NUMBER},
        gallery.slots(),
    )


def enhance_tool(gallery: Gallery) -> Tool:
    """`image_enhance_tool(contrast, brightness, sharpness, img_idx)`: factors, 1 leaves the picture as it is."""

    async def enhance(
        contrast: float = 1.0, brightness: float = 1.0, sharpness: float = 1.0, img_idx: int = 1
    ) -> ToolResult:
        factors = {"contrast": contrast, "brightness": brightness, "sharpness": sharpness}
        for name, factor in factors.items():
            if not 0 <= factor <= MOST_FACTOR:
                raise ToolError(f"{name} is {factor}; it goes from 0 to {MOST_FACTOR:g}, and 1 changes nothing.")
        used = {name: factor for name, factor in factors.items() if factor != 1}
        if not used:
            raise ToolError("Give contrast, brightness or sharpness; all three are 1, which changes nothing.")
        what = ", ".join(f"{name} {factor:g}" for name, factor in used.items())
        return await _changed(gallery, img_idx, lambda picture: enhanced(picture, **used), f"with {what}")

    one = f"A factor from 0 to {MOST_FACTOR:g}; 1 changes nothing."
    return described(
        enhance,
        "image_enhance_tool",
        "Change the contrast, brightness or sharpness of an image and see the result as a new image.",
        {"contrast": one, "brightness": one, "sharpness": one, "img_idx": NUMBER},
        gallery.slots(copies=3),
    )


def rotated(picture: PILImage, angle: float) -> PILImage:
    """An RGB picture turned counter-clockwise; quarters of a turn move every pixel exactly."""
    from PIL.Image import Resampling

    return picture.rotate(angle, Resampling.BICUBIC, expand=True, fillcolor="white")


def enhanced(picture: PILImage, *, contrast: float = 1.0, brightness: float = 1.0, sharpness: float = 1.0) -> PILImage:
    """Contrast, then brightness, then sharpness changed by their factors."""
    from PIL import ImageEnhance

    for kind, factor in (
        (ImageEnhance.Contrast, contrast),
        (ImageEnhance.Brightness, brightness),
        (ImageEnhance.Sharpness, sharpness),
    ):
        if factor != 1:
            picture = kind(picture).enhance(factor)
    return picture


async def _changed(gallery: Gallery, index: int, change: Callable[[PILImage], PILImage], what: str) -> ToolResult:
    """A whole picture changed at full resolution, stored as a photograph where it was one."""
    picture = gallery[index]

    def work() -> int:
        lossy = picture.source.media_type == "image/jpeg" and picture.shown != picture.source
        return gallery.add_all([change(gallery.pixels(index))], lossy=lossy)[0]

    made = await off_loop(work)
    return gallery.result(made, text=f"image_{index} {what}:", data={"of": index})
