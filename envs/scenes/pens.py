"""What scenes are drawn with: the font that Pillow ships, colours with names, and words of any alphabet."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

COLOURS = {
    "red": (214, 39, 40),
    "blue": (31, 97, 200),
    "green": (40, 150, 50),
    "yellow": (240, 200, 0),
    "purple": (140, 60, 180),
    "orange": (250, 125, 15),
    "black": (25, 25, 25),
    "pink": (240, 120, 190),
}
"""Colours that people and small models tell apart, by name."""

UNMISTAKABLE = "ACEFHJKLMNPRTUVWXY34679"
"""Capitals and digits of which no two look alike in print: without 0 and O, 1 and I, 2 and Z, 5 and S, 8 and B, ..."""

_CONSONANTS, _VOWELS = "bdfgklmnprstv", "aeiou"


@lru_cache(maxsize=64)
def font(size: int) -> FreeTypeFont:
    """Pillow's own font (Aileron, CC0): the same on every machine. Its capitals are 2/3 of `size` pixels high."""
    import PIL.ImageFont

    return PIL.ImageFont.load_default(size)  # pyright: ignore[reportReturnType] - with a size, it is a FreeType font


def font_for_capitals(height: float) -> FreeTypeFont:
    """The font whose capitals are about `height` pixels high."""
    return font(max(4, round(height * 1.5)))


def centred(draw: ImageDraw, at: tuple[float, float], text: str, pen: FreeTypeFont, fill: Any, halo: int = 0) -> None:
    """Write `text` so that what is inked lies centred at `at`, with `halo` white pixels around the letters."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=pen)
    at = at[0] - (left + right) / 2, at[1] - (top + bottom) / 2
    draw.text(at, text, font=pen, fill=fill, stroke_width=halo, stroke_fill="white" if halo else None)


def word(rng: random.Random, letters: str, length: int) -> str:
    """`length` characters of `letters`, each drawn for itself."""
    return "".join(rng.choice(letters) for _ in range(length))


def place_name(rng: random.Random) -> str:
    """A name that can be said, of two or three syllables: `Melto`, `Kirade`."""
    made = "".join(rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(rng.choice((2, 2, 3))))
    return (made + rng.choice(("", "n", "r", "s"))).capitalize()
