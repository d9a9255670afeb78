"""Finding what a phrase names in a picture: a tool over whatever detector is given; none is brought along."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tools.content import Text
from tools.image.coordinates import Box, Convention, from_pixels
from tools.image.describe import COORDINATES, NUMBER, described
from tools.image.gallery import Gallery
from tools.record import record
from tools.tool import Tool, ToolError, ToolResult, in_thread

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


@record
class Found:
    """Something a phrase names."""

    box: Box
    """Pixels of the picture that was searched."""
    score: float
    """0 to 1."""


class Detector(Protocol):
    """An open-vocabulary detector such as Grounding DINO. Called from threads, several at once."""

    def detect(self, picture: PILImage, phrase: str) -> tuple[Found, ...]:
        """What the phrase names, the surest first."""
        ...


def find_tool(gallery: Gallery, detector: Detector, convention: Convention = "pixel", most: int = 10) -> Tool:
    """`image_find_tool(phrase, img_idx)`: boxes, the surest first, of what the image as shown holds."""

    async def find(phrase: str, img_idx: int = 1) -> ToolResult:
        if not phrase.strip():
            raise ToolError("phrase is empty; name what to look for.")
        shown = gallery[img_idx].shown
        found = await in_thread(lambda: detector.detect(gallery.shown_pixels(img_idx), phrase))
        boxes = [_written(one.box, convention, (shown.width, shown.height)) for one in found[:most]]
        lines = [f"{box} ({one.score:.2f})" for box, one in zip(boxes, found, strict=False)]
        said = "\n".join(lines) or f"Nothing found for {phrase!r} in image_{img_idx}."
        return ToolResult(content=(Text(text=said),), data={"of": img_idx, "boxes": boxes})

    return described(
        find,
        "image_find_tool",
        f"Find what a phrase names in an image: boxes as [x1, y1, x2, y2], {COORDINATES[convention]}.",
        {"phrase": "What to look for.", "img_idx": NUMBER},
        gallery.slots(),
    )


def _written(box: Box, convention: Convention, size: tuple[int, int]) -> list[float]:
    ends = (*from_pixels(box[:2], convention, size), *from_pixels(box[2:], convention, size))
    return [round(value, 1 if convention in ("pixel", "per_mille") else 4) for value in ends]
