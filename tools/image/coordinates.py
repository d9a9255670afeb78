"""Coordinates as models write them, converted in one place to pixels of the picture that was shown.

pixel                 0 to width, 0 to height: pixel edges, so that [0, 0, width, height] is the whole picture
unit                  0 to 1 of width and of height
per_mille             0 to 1000 of width and of height
unit_square_padded    0 to 1 of the square around the picture: the shorter side is padded equally on both ends

Points and boxes stay floats until pixels are cut. A cut takes every pixel that the box touches: the left and upper
edges round down, the right and lower ones up, and what is within a millionth of a pixel of a pixel's edge is that edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, cast, get_args

from tools.record import record
from tools.tool import ToolError

Convention: TypeAlias = Literal["pixel", "unit", "per_mille", "unit_square_padded"]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)

Size: TypeAlias = tuple[int, int]
Point: TypeAlias = tuple[float, float]
Box: TypeAlias = tuple[float, float, float, float]
PixelBox: TypeAlias = tuple[int, int, int, int]

_NEAR = 1e-6


@record
class BoxRule:
    """Which boxes are taken. Sizes are in pixels of the picture shown."""

    clamp: bool = True
    """A box that reaches beyond the picture is cut off at its edge; else it is refused."""
    min_side: float = 0.0
    """A box with a shorter side is refused."""
    max_aspect: float = 200.0
    """A box whose longer side is more than this many times the shorter one is refused."""


def to_pixels(point: Point, convention: Convention, size: Size) -> Point:
    """A point in pixels of a picture of `size`.

    >>> to_pixels((0.5, 0.5), "unit", (640, 480)), to_pixels((500, 250), "per_mille", (640, 480))
    ((320.0, 240.0), (320.0, 120.0))
    >>> to_pixels((0.5, 0.125), "unit_square_padded", (640, 480))
    (320.0, 0.0)
    """
    (x, y), (width, height) = point, size
    if convention == "pixel":
        return float(x), float(y)
    if convention == "unit":
        return x * width, y * height
    if convention == "per_mille":
        return x * width / 1000, y * height / 1000
    side = max(size)
    return x * side - (side - width) / 2, y * side - (side - height) / 2


def from_pixels(point: Point, convention: Convention, size: Size) -> Point:
    """The inverse of `to_pixels`.

    >>> from_pixels((320, 0), "unit_square_padded", (640, 480))
    (0.5, 0.125)
    """
    (x, y), (width, height) = point, size
    if convention == "pixel":
        return float(x), float(y)
    if convention == "unit":
        return x / width, y / height
    if convention == "per_mille":
        return x * 1000 / width, y * 1000 / height
    side = max(size)
    return (x + (side - width) / 2) / side, (y + (side - height) / 2) / side


def valid_range(convention: Convention, size: Size) -> str:
    """What a model may write, in words."""
    if convention == "pixel":
        return f"x goes from 0 to {size[0]} and y from 0 to {size[1]}, in pixels of the picture as shown"
    most = "1000" if convention == "per_mille" else "1"
    what = {
        "unit": "of its width and height",
        "per_mille": "thousandths of its width and height",
        "unit_square_padded": "of the picture padded to a square",
    }
    return f"x and y go from 0 to {most}, {what[convention]}"


def read_point(value: Any, name: str, convention: Convention, size: Size, *, clamp: bool = True) -> Point:
    """A point that a model wrote, in pixels shown. Raises `ToolError` that says what was wrong and what is valid."""
    written = _numbers(value, 2, f"{name} must be two numbers [x, y]")
    x, y = to_pixels((written[0], written[1]), convention, size)
    inside = min(max(x, 0.0), float(size[0])), min(max(y, 0.0), float(size[1]))
    if not clamp and math.dist((x, y), inside) > _NEAR:
        raise ToolError(f"{name} {_said(value)} lies outside the picture; {valid_range(convention, size)}.")
    return inside


def read_box(value: Any, name: str, convention: Convention, size: Size, rule: BoxRule | None = None) -> Box:
    """A box `[x1, y1, x2, y2]` that a model wrote, in pixels shown.

    >>> read_box([0.25, 0, 0.75, 1], "bbox_2d", "unit", (640, 480))
    (160.0, 0.0, 480.0, 480.0)

    Raises `ToolError` that says what was wrong and what is valid.
    """
    rule = rule or BoxRule()
    valid = valid_range(convention, size)
    numbers = _numbers(value, 4, f"{name} must be four numbers [x1, y1, x2, y2]")
    left, top = to_pixels((numbers[0], numbers[1]), convention, size)
    right, bottom = to_pixels((numbers[2], numbers[3]), convention, size)
    if right - left <= _NEAR or bottom - top <= _NEAR:
        wrong = "is inverted" if right < left - _NEAR or bottom < top - _NEAR else "has no area"
        raise ToolError(f"{name} {_said(value)} {wrong}: x1 must be less than x2 and y1 less than y2; {valid}.")
    box = max(left, 0.0), max(top, 0.0), min(right, float(size[0])), min(bottom, float(size[1]))
    if not rule.clamp and max(abs(a - b) for a, b in zip(box, (left, top, right, bottom), strict=True)) > _NEAR:
        raise ToolError(f"{name} {_said(value)} reaches outside the picture; {valid}.")
    width, height = box[2] - box[0], box[3] - box[1]
    if width <= _NEAR or height <= _NEAR:
        raise ToolError(f"{name} {_said(value)} lies outside the picture; {valid}.")
    if min(width, height) < rule.min_side - _NEAR:
        raise ToolError(
            f"{name} {_said(value)} is {width:.4g} x {height:.4g} pixels; each side must be at least {rule.min_side:g}."
        )
    if max(width, height) > rule.max_aspect * min(width, height) * (1 + _NEAR):
        raise ToolError(
            f"{name} {_said(value)} is {width:.4g} x {height:.4g} pixels; the longer side may be at most "
            f"{rule.max_aspect:g} times the shorter one."
        )
    return box


def scaled(box: Box, shown: Size, part: PixelBox) -> PixelBox:
    """The pixels of a picture that `box` touches, where `part` of that picture is what was shown at size `shown`.

    >>> scaled((10, 10, 20.5, 20), (100, 50), (1000, 0, 3000, 1000))
    (1200, 200, 1410, 400)
    """
    wide, high = (part[2] - part[0]) / shown[0], (part[3] - part[1]) / shown[1]
    left, top = math.floor(box[0] * wide + _NEAR), math.floor(box[1] * high + _NEAR)
    right, bottom = math.ceil(box[2] * wide - _NEAR), math.ceil(box[3] * high - _NEAR)
    left, top = min(left, part[2] - part[0] - 1), min(top, part[3] - part[1] - 1)
    right, bottom = min(max(right, left + 1), part[2] - part[0]), min(max(bottom, top + 1), part[3] - part[1])
    return part[0] + left, part[1] + top, part[0] + right, part[1] + bottom


def _numbers(value: Any, count: int, rule: str) -> tuple[float, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise ToolError(f"{rule}, not {_said(value)}.")
    items = cast(Sequence[Any], value)
    if len(items) != count:
        raise ToolError(f"{rule}, not {len(items)} values: {_said(value)}.")
    for item in items:
        if isinstance(item, bool) or not isinstance(item, int | float):
            raise ToolError(f"{rule}; {_said(item)} is no number.")
        if not abs(item) <= _FAR:
            raise ToolError(f"{rule}; {_said(item)} is {'no number' if item != item else 'too large'}.")
    return tuple(float(item) for item in items)


_FAR = 1e9
"""No coordinate is larger: an infinite one, or an integer that no float holds, would fail later and less clearly."""


def _said(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
