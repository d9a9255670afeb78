"""What pictures cost from bytes to what a model is shown: `Gallery` and its tools beside the same work in plain Pillow.

Both sides start from encoded bytes and end with PNG bytes (the same compression level) and their sha256, and both
scale with the same filter; the Pillow side does no more than that: no checks, no numbering, no threads, nothing kept.
Pillow's `thumbnail` decodes a large JPEG at a fraction of its size, as ours does. Where the two must agree pixel for
pixel, they are compared before they are timed.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import io
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import PIL.Image
from _common import Row, alternate, arguments, report, row
from PIL import ImageDraw, ImageFont

from tools import BlobStore, Tool, ToolResult
from tools.image import Gallery, ImageBudget, image_tools
from tools.image.drawing import Circle, Label, Line, Op, Rectangle, drawn

BUDGET = ImageBudget(max_pixels=512 * 512)
BICUBIC = PIL.Image.Resampling.BICUBIC


def photograph(width: int, height: int, kind: str) -> bytes:
    """Something with as much detail as a photograph: noise, magnified and laid over itself."""
    rng = random.Random(0)
    coarse, fine = (
        PIL.Image.frombytes("RGB", (w, h), rng.randbytes(w * h * 3)).resize((width, height), BICUBIC)
        for w, h in ((width // 50, height // 50), (width // 4, height // 4))
    )
    buffer = io.BytesIO()
    settings = {"quality": 90} if kind == "JPEG" else {}
    PIL.Image.blend(coarse, fine, 0.3).save(buffer, kind, **settings)
    return buffer.getvalue()


def as_png(picture: PIL.Image.Image) -> tuple[bytes, str]:
    """What both sides end with."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue(), hashlib.sha256(buffer.getvalue()).hexdigest()


def entered(data: bytes) -> Gallery:
    """A new episode with one picture."""
    gallery = Gallery(BlobStore(), BUDGET)
    gallery.add(data)
    return gallery


def plain_entered(data: bytes, size: tuple[int, int]) -> None:
    """The bytes hashed, the picture small."""
    hashlib.sha256(data).hexdigest()
    picture = PIL.Image.open(io.BytesIO(data))
    picture.thumbnail(size, BICUBIC)
    as_png(picture.convert("RGB"))


def plain_kept(data: bytes) -> None:
    """The bytes hashed, the pixels read to see that they can be."""
    hashlib.sha256(data).hexdigest()
    PIL.Image.open(io.BytesIO(data)).load()


def plain_zoomed(data: bytes, box: tuple[int, int, int, int], size: tuple[int, int]) -> PIL.Image.Image:
    """A part cut from the bytes, scaled where it must be."""
    picture = PIL.Image.open(io.BytesIO(data))
    return picture.crop(box) if (box[2] - box[0], box[3] - box[1]) == size else picture.resize(size, BICUBIC, box=box)


SHAPES: tuple[Op, ...] = tuple(
    shape
    for i in range(10)
    for shape in (
        Rectangle(box=(20 + 40 * i, 30, 50 + 40 * i, 90), colour="red", width=4),
        Line(start=(10, 10 * i), end=(500, 300), colour="blue", width=4),
        Circle(at=(300, 150), radius=10 * i, colour="green", width=2),
        Label(at=(20 + 40 * i, 100), text=f"cup {i}", colour="red"),
    )
)


def plain_drawn(data: bytes) -> PIL.Image.Image:
    """The same shapes by Pillow's own calls."""
    picture = PIL.Image.open(io.BytesIO(data))
    picture.load()
    canvas = ImageDraw.Draw(picture)
    font = ImageFont.load_default(14)
    for i in range(10):
        canvas.rectangle((20 + 40 * i, 30, 50 + 40 * i, 90), outline="red", width=4)
        canvas.line(((10, 10 * i), (500, 300)), fill="blue", width=4)
        canvas.ellipse((300 - 10 * i, 150 - 10 * i, 300 + 10 * i, 150 + 10 * i), outline="green", width=2)
        canvas.text((20 + 40 * i, 100), f"cup {i}", fill="red", font=font)
    return picture


def plain_turned(data: bytes) -> PIL.Image.Image:
    """A quarter of a turn."""
    return PIL.Image.open(io.BytesIO(data)).rotate(90, expand=True)


async def _result(tool: Tool, arguments: Mapping[str, Any]) -> ToolResult:
    return await tool.fn(**arguments)


def compared(what: str, ours: Callable[[], object], plain: Callable[[], object], repeats: int) -> Row:
    """Milliseconds of CPU of both sides, over all threads."""
    for side in (ours, plain):
        side()
    seconds = alternate({"ours": ours, "plain": plain}, repeats, time.process_time)
    return row(what, "plain Pillow", seconds["ours"] * 1e3, seconds["plain"] * 1e3, "CPU ms")


def rows(repeats: int, loop: asyncio.Runner) -> list[Row]:
    """Everything, on a photograph of 15 million pixels and on a picture that is shown as it is."""
    photo, screen = photograph(5000, 3000, "JPEG"), photograph(640, 400, "PNG")
    large, small = entered(photo), entered(screen)
    names = ("image_zoom_in_tool", "image_rotate_tool")
    tools = {gallery: {tool.name: tool for tool in image_tools(gallery, *names)} for gallery in (large, small)}
    size = large.shown(1).width, large.shown(1).height

    def call(gallery: Gallery, name: str, **arguments: Any) -> int:
        """Make a call; the number of the picture that came of it."""
        tool = tools[gallery][name]
        made = loop.run(_result(tool, arguments))
        return made.data["images"][0]["index"]

    made = [
        compared("enter a 5000x3000 JPEG", lambda: entered(photo), lambda: plain_entered(photo, size), repeats),
        compared("enter a 640x400 PNG", lambda: entered(screen), lambda: plain_kept(screen), repeats * 5),
    ]
    box = [100.0, 100.0, 200.0, 160.0]
    for what, gallery, data, times in (("5000x3000 JPEG", large, photo, 1), ("640x400 PNG", small, screen, 5)):
        cut = gallery[call(gallery, "image_zoom_in_tool", bbox_2d=box)]
        part, seen = cut.part, (cut.shown.width, cut.shown.height)
        assert gallery.blobs.open(cut.shown).tobytes() == plain_zoomed(data, part, seen).tobytes()
        ours = functools.partial(call, gallery, "image_zoom_in_tool", bbox_2d=box)
        plain = functools.partial(plain_zoomed, data, part, seen)
        made.append(compared(f"zoom into the {what}", ours, lambda cut=plain: as_png(cut()), repeats * times))
    assert drawn(small.shown_pixels(1), SHAPES).tobytes() == plain_drawn(screen).tobytes()
    draw = compared(
        "draw 40 shapes on 640x400",
        lambda: small.add_all([drawn(small.shown_pixels(1), SHAPES)]),
        lambda: as_png(plain_drawn(screen)),
        repeats * 5,
    )
    turn = compared(
        "turn 640x400 by 90 degrees",
        lambda: call(small, "image_rotate_tool", angle=90.0),
        lambda: as_png(plain_turned(screen)),
        repeats * 5,
    )
    return [*made, draw, turn]


def main() -> None:
    with asyncio.Runner() as loop:
        report("images", rows(3 if arguments(__doc__).quick else 12, loop), ["pillow"])


if __name__ == "__main__":
    main()
