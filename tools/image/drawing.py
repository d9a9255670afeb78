"""What can be drawn on a picture: one list of operations, drawn by Pillow in their order.

Each operation covers what lies under it and looks at nothing else, so a list drawn at once and its parts drawn one
after the other give the same pixels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from tools.image.coordinates import Box, Point
from tools.record import record

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

Colour: TypeAlias = str
"""A name or `#rrggbb`, as Pillow reads them: `colour_problem` says what it does not."""


@record
class Rectangle:
    """The outline of a box."""

    box: Box
    colour: Colour = "black"
    width: int = 1


@record
class Line:
    """A straight line."""

    start: Point
    end: Point
    colour: Colour = "black"
    width: int = 1


@record
class Dot:
    """A filled disc."""

    at: Point
    radius: float
    colour: Colour = "black"


@record
class Circle:
    """The outline of a circle."""

    at: Point
    radius: float
    colour: Colour = "black"
    width: int = 1


@record
class Arrow:
    """A line with a head at its end: two strokes of five line widths, 30 degrees to either side."""

    start: Point
    end: Point
    colour: Colour = "black"
    width: int = 1


@record
class Label:
    """A line of text, `at` its upper left corner. The font that Pillow brings has Latin letters alone."""

    at: Point
    text: str
    colour: Colour = "black"
    size: int = 14


Op: TypeAlias = Rectangle | Line | Dot | Circle | Arrow | Label

LONGEST_LABEL = 80
_REACH = 20_000
"""Pixels from the picture's corner, beyond which coordinates are pulled in: Pillow's time grows with a shape's size."""


def drawn(picture: PILImage, ops: Sequence[Op]) -> PILImage:
    """A copy of an RGB picture with `ops` drawn on it, coordinates in its pixels."""
    from PIL.ImageDraw import Draw

    copy = picture.copy()
    canvas = Draw(copy)
    for op in ops:
        _draw(canvas, op)
    return copy


def colour_problem(colour: str) -> str | None:
    """What is wrong with a colour that a model wrote, or None.

    >>> colour_problem("tomato"), colour_problem("#12"), colour_problem("#ff000080")
    (None, "'#12' is no colour; use a name such as red or #rrggbb", "'#ff000080' is not opaque")
    """
    from PIL import ImageColor

    try:
        rgb = ImageColor.getrgb(colour)
    except (ValueError, AttributeError):
        return f"{colour[:40]!r} is no colour; use a name such as red or #rrggbb"
    return None if len(rgb) == 3 else f"{colour[:40]!r} is not opaque"


def is_bright(colour: Colour) -> bool:
    """Luma (ITU-R BT.601) above the middle."""
    from PIL import ImageColor

    red, green, blue = ImageColor.getrgb(colour)[:3]
    return 0.299 * red + 0.587 * green + 0.114 * blue > 128


def printable(text: str) -> str:
    """One line of a model's text, short enough to draw."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= LONGEST_LABEL else f"{line[: LONGEST_LABEL - 3]}..."


def _draw(canvas: ImageDraw, op: Op) -> None:
    match op:
        case Rectangle():
            canvas.rectangle((*_at(op.box[:2]), *_at(op.box[2:])), outline=op.colour, width=op.width)
        case Line():
            canvas.line((_at(op.start), _at(op.end)), fill=op.colour, width=op.width)
        case Dot():
            canvas.ellipse(_around(op.at, op.radius), fill=op.colour)
        case Circle():
            canvas.ellipse(_around(op.at, op.radius), outline=op.colour, width=op.width)
        case Arrow():
            _arrow(canvas, op)
        case Label():
            canvas.text(_at(op.at), printable(op.text), fill=op.colour, font=_font(op.size))


def _arrow(canvas: ImageDraw, op: Arrow) -> None:
    start, end = _at(op.start), _at(op.end)
    canvas.line((start, end), fill=op.colour, width=op.width)
    back = math.atan2(end[1] - start[1], end[0] - start[0]) + math.pi
    for side in (-math.pi / 6, math.pi / 6):
        length = 5 * op.width
        tip = end[0] + length * math.cos(back + side), end[1] + length * math.sin(back + side)
        canvas.line((end, _at(tip)), fill=op.colour, width=op.width)


def _at(point: Sequence[float]) -> tuple[int, int]:
    """The pixel that holds a point."""
    x, y = (int(min(max(math.floor(value), -_REACH), _REACH)) for value in point)
    return x, y


def _around(point: Point, radius: float) -> tuple[int, int, int, int]:
    (x, y), reach = _at(point), int(min(max(radius, 0.0), _REACH))
    return x - reach, y - reach, x + reach, y + reach


@functools.lru_cache(maxsize=16)
def _font(size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)
