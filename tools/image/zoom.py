"""Zoom: a part of a picture, cut from its full resolution and shown larger."""

from __future__ import annotations

from dataclasses import replace

from tools.image.budget import ImageBudget
from tools.image.coordinates import Box, BoxRule, Convention, read_box, scaled
from tools.image.describe import COORDINATES, NUMBER, described
from tools.image.drawing import printable
from tools.image.gallery import Gallery
from tools.image.memory import off_loop
from tools.record import record
from tools.tool import Tool, ToolResult


@record
class ZoomRule:
    """Which boxes may be zoomed into, and how large the part is shown."""

    box: BoxRule = BoxRule()
    size: ImageBudget | None = None
    """How large the part is shown, within the gallery's budget; None: as that says of every picture."""
    least: float = 1.0
    """The shorter side of a part, in pixels shown; a smaller box grows around its middle until it has it."""
    square: bool = False
    """The part is a square around the box's middle, as far as the picture reaches."""


DEEPEYES = ZoomRule(box=BoxRule(min_side=30, max_aspect=100), size=ImageBudget(min_side=28))
"""DeepEyes (arXiv 2505.14362): clamped to the picture, refused below 30 pixels or beyond 1:100, shown at 28 or more."""

GEOVISTA = ZoomRule(
    box=BoxRule(max_aspect=128), size=ImageBudget(min_pixels=256 * 256, max_pixels=2048 * 1024, multiple_of=28)
)
"""GeoVista (arXiv 2511.15705): between 256 x 256 and 2048 x 1024 pixels, both sides multiples of 28."""

UV_COT = ZoomRule(least=224, square=True)
"""UV-CoT (arXiv 2504.18397), as evaluated: a square around the box's middle, half its side at least 112 pixels."""


def zoom_tool(gallery: Gallery, convention: Convention = "pixel", rule: ZoomRule | None = None) -> Tool:
    """`image_zoom_in_tool(bbox_2d, label, img_idx)`: DeepEyes' form, and which of several pictures is meant."""
    rule = rule or ZoomRule()
    rule = replace(rule, size=gallery.budget.also(rule.size) if rule.size else gallery.budget)

    async def zoom(bbox_2d: list[float], label: str = "", img_idx: int = 1) -> ToolResult:
        return await off_loop(lambda: zoomed(gallery, img_idx, bbox_2d, convention, rule, label))

    return described(
        zoom,
        "image_zoom_in_tool",
        "Zoom in on a region of an image: it is cut out of the full resolution and shown as a new image.",
        {
            "bbox_2d": f"The region as [x1, y1, x2, y2], {COORDINATES[convention]}; x1, y1 is the upper left corner.",
            "label": "What is in the region.",
            "img_idx": f"{NUMBER} The first one if left out.",
        },
        gallery.slots(),
    )


def zoomed(
    gallery: Gallery, index: int, bbox_2d: object, convention: Convention, rule: ZoomRule, label: str = ""
) -> ToolResult:
    """Cut the part, number it and show it. Raises `ToolError` for a box or a number that cannot be."""
    picture = gallery[index]
    shown = picture.shown.width, picture.shown.height
    box = _grown(read_box(bbox_2d, "bbox_2d", convention, shown, rule.box), shown, rule)
    left, top, right, bottom = scaled(box, shown, (0, 0, *picture.size))
    size = (rule.size or gallery.budget).shown_size(right - left, bottom - top)
    made = gallery.add_part(index, (left, top, right, bottom), size)
    what = f" ({printable(label)})" if label else ""
    return gallery.result(made, text=f"A part of image_{index}{what}:", data={"of": index})


def _grown(box: Box, shown: tuple[int, int], rule: ZoomRule) -> Box:
    """The box made a square or as large as the rule asks, around its middle, moved to lie within the picture."""
    left, top, right, bottom = box
    wide, high = max(right - left, rule.least), max(bottom - top, rule.least)
    if rule.square:
        wide = high = max(wide, high)
    wide, high = min(wide, shown[0]), min(high, shown[1])
    left = min(max((left + right - wide) / 2, 0.0), shown[0] - wide)
    top = min(max((top + bottom - high) / 2, 0.0), shown[1] - high)
    return left, top, left + wide, top + high
