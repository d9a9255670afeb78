"""A small sign on a large picture: what it says is only seen from near."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from envs.scenes.pens import COLOURS, centred, font_for_capitals
from tools.record import record

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

BRIGHT = ("yellow", "orange", "pink", "red", "blue", "green")


@record
class Sign:
    """A board with a coloured frame, letters dark on white."""

    text: str
    frame: str
    x: int
    """Left edge, in pixels of the picture."""
    y: int
    """Upper edge."""
    capital: int
    """How high its capitals are, in pixels of the picture."""

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom, frame included."""
        width, height = board_size(self.text, self.capital)
        return self.x, self.y, self.x + width, self.y + height


def board_size(text: str, capital: int) -> tuple[int, int]:
    """Width and height of the board of a text: room for the widest letters, and a frame."""
    return round(capital * (len(text) * 1.15 + 1.4)), round(capital * 2.4)


def place(
    rng: random.Random, text: str, frame: str, capital: int, size: tuple[int, int], taken: list[Sign]
) -> Sign | None:
    """A sign anywhere on a picture of `size`, clear of the others; None where there is no room."""
    width, height = board_size(text, capital)
    if width + 2 >= size[0] or height + 2 >= size[1]:
        return None
    for _ in range(200):
        sign = Sign(
            text=text,
            frame=frame,
            x=rng.randint(1, size[0] - width - 1),
            y=rng.randint(1, size[1] - height - 1),
            capital=capital,
        )
        if not any(_touch(sign.box, other.box, capital) for other in taken):
            return sign
    return None


def to_json(sign: Sign) -> list[Any]:
    """A sign as JSON values."""
    return [sign.text, sign.frame, sign.x, sign.y, sign.capital]


def from_json(value: list[Any]) -> Sign:
    """What `to_json` wrote."""
    return Sign(text=value[0], frame=value[1], x=value[2], y=value[3], capital=value[4])


def meadow(size: tuple[int, int], seed: int) -> PILImage:
    """A ground of soft, pale patches, for when there is no photograph: noise, enlarged."""
    import PIL.Image

    rng = random.Random(seed)
    columns, rows = 8, 6
    greys = [rng.randrange(110, 175) for _ in range(columns * rows)]
    noise = bytes(grey + rng.randrange(-14, 15) for grey in greys for _ in range(3))
    return PIL.Image.frombytes("RGB", (columns, rows), noise).resize(size, PIL.Image.Resampling.BICUBIC)


def draw(scene: Mapping[str, Any]) -> PILImage:
    """The picture of a scene: `size`, `photo` (a name, or None), `seed` of the ground, `signs`."""
    import PIL.ImageDraw

    size = (scene["size"][0], scene["size"][1])
    if scene["photo"] is None:
        picture = meadow(size, scene["seed"])
    else:
        from envs.scenes.photos import open_photo

        picture = open_photo(scene["photo"], size)
    pen = PIL.ImageDraw.Draw(picture)
    for value in scene["signs"]:
        sign = from_json(value)
        left, top, right, bottom = sign.box
        edge = max(1, round(sign.capital * 0.35))
        pen.rectangle((left, top, right - 1, bottom - 1), fill=COLOURS[sign.frame])
        pen.rectangle((left + edge, top + edge, right - 1 - edge, bottom - 1 - edge), fill="white")
        letters = font_for_capitals(sign.capital)
        middle = ((left + right) / 2, (top + bottom) / 2)
        centred(pen, middle, sign.text, letters, COLOURS["black"])
    return picture


def _touch(a: tuple[int, int, int, int], b: tuple[int, int, int, int], gap: int) -> bool:
    return a[0] - gap < b[2] and b[0] - gap < a[2] and a[1] - gap < b[3] and b[1] - gap < a[3]
