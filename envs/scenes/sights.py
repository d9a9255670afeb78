"""Something to see on a small picture: writing in many typefaces, digits by hand, coloured shapes."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from envs.scenes import shapes
from envs.scenes.pens import font
from tools.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from PIL.ImageFont import FreeTypeFont

TYPEFACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic"),
    *("STIXGeneralBolIta", "cmr10", "cmb10", "cmss10", "cmtt10"),
)
"""Those of matplotlib that hold letters and digits; beside them there is Pillow's own, `Aileron`."""
OWN = "Aileron"


@cache
def typefaces() -> tuple[str, ...]:
    """The typefaces that are here. Only Pillow's, where matplotlib is not installed."""
    folder = _matplotlib_fonts()
    return (OWN, *(name for name in TYPEFACES if folder is not None and (folder / f"{name}.ttf").is_file()))


@cache
def written_digits() -> tuple[tuple[int, bytes], ...]:
    """The 1,797 digits that people wrote for the UCI repository, as scikit-learn ships them: (digit, 8x8 greys).

    Raises `ConfigError` without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
    except ImportError as error:
        raise ConfigError("digits written by hand come with scikit-learn", hint="pip install scikit-learn") from error
    found: Any = cast(Any, load_digits)()
    greys = (found.images / 16 * 255).round().astype("uint8")
    return tuple((int(digit), grey.tobytes()) for digit, grey in zip(found.target, greys, strict=True))


def draw(scene: Mapping[str, Any]) -> PILImage:
    """The picture of a scene: `shapes.scene`'s, then its `digit`, then its `writings`, where it has them.

    Each of `writings` is {text, typeface, height, x, y, ink, turn}: how high its letters are and where its middle is,
    in pixels (moved to where all of it is on the picture), its colour, its angle in degrees. `digit` is {number, left,
    top, edge}: which of `written_digits`, and where.
    """
    import PIL.Image
    import PIL.ImageOps

    picture = shapes.scene(scene)
    if digit := scene.get("digit"):
        number: int = digit["number"]
        grey = PIL.Image.frombytes("L", (8, 8), written_digits()[number][1])
        edge = digit["edge"]
        ink = PIL.ImageOps.invert(grey.resize((edge, edge), PIL.Image.Resampling.BICUBIC))
        picture.paste(PIL.Image.merge("RGB", (ink, ink, ink)), (digit["left"], digit["top"]))
    for writing in scene.get("writings", ()):
        _write(picture, writing)
    return picture


def _write(picture: PILImage, writing: Mapping[str, Any]) -> None:
    import PIL.Image
    import PIL.ImageDraw

    pen = _typeface(writing["typeface"], writing["height"])
    left, top, right, bottom = pen.getbbox(writing["text"])
    edge = 2
    mask = PIL.Image.new("L", (round(right - left) + 2 * edge, round(bottom - top) + 2 * edge))
    PIL.ImageDraw.Draw(mask).text((edge - left, edge - top), writing["text"], font=pen, fill=255)
    mask = mask.rotate(writing["turn"], resample=PIL.Image.Resampling.BICUBIC, expand=True)
    middle, room = (writing["x"], writing["y"]), (picture.width - mask.width, picture.height - mask.height)
    corner = [max(0, min(round(at - edge / 2), free)) for at, edge, free in zip(middle, mask.size, room, strict=True)]
    red, green, blue = writing["ink"]
    picture.paste(PIL.Image.new("RGB", mask.size, (red, green, blue)), (corner[0], corner[1]), mask)


@lru_cache(maxsize=512)
def _typeface(name: str, height: int) -> FreeTypeFont:
    """Of capitals about `height` pixels high."""
    import PIL.ImageFont

    size = max(4, round(height * 1.4))
    if name == OWN:
        return font(size)
    folder = _matplotlib_fonts()
    try:
        return PIL.ImageFont.truetype(str((folder or Path()) / f"{name}.ttf"), size)
    except OSError as error:
        raise ConfigError(f"the typeface {name} comes with matplotlib", hint="pip install matplotlib") from error


def _matplotlib_fonts() -> Path | None:
    spec = importlib.util.find_spec("matplotlib")
    return Path(spec.origin).parent / "mpl-data/fonts/ttf" if spec is not None and spec.origin else None
