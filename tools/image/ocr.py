"""Reading the words in a picture.

The reader is RapidOCR (PP-OCRv4; `pip install 'toolweave[ocr]'`, Python below 3.13), whose package holds its weights:
nothing is downloaded. It runs on one CPU core; a picture of 640 x 360 takes about a second. It often leaves out the
spaces between words.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any, Protocol, cast, final

from tools.content import Text
from tools.errors import ConfigError
from tools.image.coordinates import Box, BoxRule, Convention, from_pixels, read_box, scaled
from tools.image.describe import COORDINATES, NUMBER, described
from tools.image.gallery import Gallery
from tools.record import record
from tools.tool import Tool, ToolResult, in_thread

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


@record
class Words:
    """A line of text found in a picture."""

    text: str
    box: Box
    """Pixels of the picture that was read."""
    score: float
    """The reader's confidence, 0 to 1."""


class Reader(Protocol):
    """Anything that reads text in pictures. Called from threads, several at once."""

    def read(self, picture: PILImage) -> tuple[Words, ...]:
        """The lines of text, from top to bottom."""
        ...


@final
class RapidReader:
    """RapidOCR, loaded on first use (half a second, 60 MB)."""

    def __init__(self) -> None:
        self._engine: Any = None
        self._lock = threading.Lock()  # its detector keeps the size of the picture it is working on

    def read(self, picture: PILImage) -> tuple[Words, ...]:
        """The lines of text. Raises `ConfigError` where RapidOCR is not installed."""
        import numpy

        pixels = numpy.asarray(picture.convert("RGB"))[:, :, ::-1]  # it takes blue, green, red
        with self._lock:
            self._engine = self._engine or _rapid_ocr()
            found, _ = self._engine(numpy.ascontiguousarray(pixels))
        lines = cast(list[tuple[list[list[float]], str, float]], found or [])
        return tuple(
            Words(text=text, box=_around(corners), score=float(score))
            for corners, text, score in sorted(lines, key=lambda line: _around(line[0])[1])
        )


@functools.cache
def shared_reader() -> RapidReader:
    """The process's own."""
    return RapidReader()


def ocr_tool(gallery: Gallery, convention: Convention = "pixel", reader: Reader | None = None) -> Tool:
    """`ocr(img_idx, bbox_2d)`: the text in an image or in a part of it, read at full resolution, a line each."""
    reader = reader or shared_reader()

    async def ocr(img_idx: int = 1, bbox_2d: list[float] | None = None) -> ToolResult:
        return await in_thread(lambda: _read(gallery, reader, convention, img_idx, bbox_2d))

    return described(
        ocr,
        "ocr",
        f"Read the text in an image, or in a part of it. Boxes are {COORDINATES[convention]}.",
        {"img_idx": NUMBER, "bbox_2d": "The part to read, as [x1, y1, x2, y2]; the whole image if left out."},
        gallery.slots(copies=2),
    )


def _read(
    gallery: Gallery, reader: Reader, convention: Convention, index: int, bbox_2d: list[float] | None
) -> ToolResult:
    picture = gallery[index]
    shown = picture.shown.width, picture.shown.height
    whole = (0.0, 0.0, float(shown[0]), float(shown[1]))
    box = whole if bbox_2d is None else read_box(bbox_2d, "bbox_2d", convention, shown, BoxRule(max_aspect=1e9))
    part = scaled(box, shown, (0, 0, *picture.size))
    wide, high = shown[0] / picture.size[0], shown[1] / picture.size[1]
    lines: list[str] = []
    for words in reader.read(gallery.pixels(index, part=part)):
        ends: list[float] = []
        for x, y in (words.box[:2], words.box[2:]):
            ends += from_pixels(((part[0] + x) * wide, (part[1] + y) * high), convention, shown)
        lines.append(f"[{', '.join(_short(value, convention) for value in ends)}] {words.text}")
    return ToolResult(content=(Text(text="\n".join(lines) or "(no text found)"),), data={"of": index})


def _short(value: float, convention: Convention) -> str:
    return f"{value:.0f}" if convention in ("pixel", "per_mille") else f"{value:.3f}"


def _around(corners: list[list[float]]) -> Box:
    across, down = [float(x) for x, _ in corners], [float(y) for _, y in corners]
    return min(across), min(down), max(across), max(down)


def _rapid_ocr() -> Any:
    try:
        from rapidocr_onnxruntime import RapidOCR  # pyright: ignore
    except ImportError as error:
        raise ConfigError(
            "reading text in pictures needs rapidocr-onnxruntime, which is not installed",
            hint="pip install 'toolweave[ocr]' (Python below 3.13)",
        ) from error
    return cast(Any, RapidOCR)(intra_op_num_threads=1, inter_op_num_threads=1)
