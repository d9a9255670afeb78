"""Coloured shapes scattered over a ground, none on another: to be counted, compared, measured."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from envs.scenes.pens import COLOURS
from envs.scenes.photos import open_photo
from tools.record import record

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from PIL.ImageDraw import ImageDraw

KINDS = ("circle", "square", "triangle", "star", "cross")
PARTS = 3
"""A part of a photograph is a third of it in each direction."""


@record
class Shape:
    """One of them."""

    kind: str
    colour: str
    x: int
    """Its middle, in pixels."""
    y: int
    r: int
    """Half its width and height, in pixels."""

    @property
    def name(self) -> str:
        """As people say it: `red circle`."""
        return f"{self.colour} {self.kind}"

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom."""
        return self.x - self.r, self.y - self.r, self.x + self.r, self.y + self.r


def scatter(
    rng: random.Random, what: Sequence[tuple[str, str]], size: tuple[int, int], radii: tuple[int, int], foot: int = 0
) -> tuple[Shape, ...] | None:
    """A shape for each (colour, kind), at least a few pixels between any two; None where they do not fit.

    `foot` pixels at the lower edge are left free.
    """
    placed: list[Shape] = []
    for colour, kind in what:
        for _ in range(200):
            r = rng.randint(*radii)
            if 2 * r + 2 >= size[0] or 2 * r + 2 >= size[1] - foot:
                return None
            x, y = rng.randint(r + 1, size[0] - r - 2), rng.randint(r + 1, size[1] - foot - r - 2)
            apart = 1.0 + r / 4
            if all(max(abs(x - one.x), abs(y - one.y)) > r + one.r + apart for one in placed):
                placed.append(Shape(kind=kind, colour=colour, x=x, y=y, r=r))
                break
        else:
            return None
    return tuple(placed)


def plural(name: str) -> str:
    """`red circles`, `red crosses`."""
    return f"{name}es" if name.endswith("s") else f"{name}s"


def distance(a: Shape, b: Shape) -> float:
    """Between their middles, in pixels."""
    return math.hypot(a.x - b.x, a.y - b.y)


def to_json(shapes: Sequence[Shape]) -> list[list[Any]]:
    """Shapes as JSON values."""
    return [[one.kind, one.colour, one.x, one.y, one.r] for one in shapes]


def from_json(value: Sequence[Sequence[Any]]) -> tuple[Shape, ...]:
    """What `to_json` wrote."""
    return tuple(Shape(kind=one[0], colour=one[1], x=one[2], y=one[3], r=one[4]) for one in value)


def ground(size: tuple[int, int], photo: str | None, part: tuple[int, int] | None = None) -> PILImage:
    """White, or a photograph made pale so that what stands on it is seen.

    `part` is the corner of what is seen of a photograph `PARTS` times as wide and high; None shows all of it.
    """
    import PIL.Image

    if photo is None:
        return PIL.Image.new("RGB", size, "white")
    if part is None:
        return _paled(open_photo(photo, size))
    left, top = part
    whole = open_photo(photo, (size[0] * PARTS, size[1] * PARTS))
    return _paled(whole.crop((left, top, left + size[0], top + size[1])))


def _paled(picture: PILImage) -> PILImage:
    import PIL.Image

    return PIL.Image.blend(PIL.Image.new("RGB", picture.size, "white"), picture, 0.4)


def scene(value: Mapping[str, Any]) -> PILImage:
    """The picture of a scene: `size`, `photo` (a name, or None), `shapes`, perhaps `part` and a `ruler` at its foot."""
    import PIL.ImageDraw

    picture = ground((value["size"][0], value["size"][1]), value["photo"], value.get("part"))
    pen = PIL.ImageDraw.Draw(picture)
    for one in from_json(value["shapes"]):
        _PENS[one.kind](pen, one, COLOURS[one.colour])
    if ruler := value.get("ruler"):
        x, y, length = ruler["x"], ruler["y"], ruler["length"]
        pen.line((x, y, x + length, y), fill="black", width=2)
        for end in (x, x + length):
            pen.line((end, y - 3, end, y + 3), fill="black", width=2)
    return picture


def _circle(pen: ImageDraw, one: Shape, fill: tuple[int, int, int]) -> None:
    pen.ellipse(one.box, fill=fill)


def _square(pen: ImageDraw, one: Shape, fill: tuple[int, int, int]) -> None:
    pen.rectangle(one.box, fill=fill)


def _triangle(pen: ImageDraw, one: Shape, fill: tuple[int, int, int]) -> None:
    left, top, right, bottom = one.box
    pen.polygon([(one.x, top), (right, bottom), (left, bottom)], fill=fill)


def _star(pen: ImageDraw, one: Shape, fill: tuple[int, int, int]) -> None:
    def tip(index: int) -> tuple[float, float]:
        far = one.r if index % 2 == 0 else one.r * 0.42
        angle = math.pi * index / 5
        return one.x + far * math.sin(angle), one.y - far * math.cos(angle)

    pen.polygon([tip(index) for index in range(10)], fill=fill)


def _cross(pen: ImageDraw, one: Shape, fill: tuple[int, int, int]) -> None:
    left, top, right, bottom = one.box
    arm = max(1, round(one.r * 0.3))
    pen.rectangle((one.x - arm, top, one.x + arm, bottom), fill=fill)
    pen.rectangle((left, one.y - arm, right, one.y + arm), fill=fill)


_PENS: Mapping[str, Any] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
}
