"""Real photographs to put things on: those that installed packages ship, or those of a folder. None is in this project.

A scene names a photograph and a size; the picture is read when the scene is drawn. Of large photographs no package of
a reasonable size has many: a smaller one is enlarged. To search real ones of 15 megapixels and more, give a folder; the
guide docs/concepts/images.md names a Debian package that has them.
"""

from __future__ import annotations

import importlib.util
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tools.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

SHIPPED = {
    "skimage": (
        "data",
        (
            *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
            *("gravel.png", "hubble_deep_field.jpg", "moon.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg"),
        ),
    ),
    "sklearn": ("datasets/images", ("china.jpg", "flower.jpg")),
    "matplotlib": ("mpl-data/sample_data", ("grace_hopper.jpg",)),
}
"""Photographs by package: their folder in it and their names. The packages state each one's origin and licence."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_PLACES = {"train": (0, 1, 3, 4, 5, 7, 8), "val": (6,), "test": (2, 9)}
"""Of ten photographs, those of each split."""
_SMALL = 512 * 512
"""Photographs of so many pixels at most are read once for many scenes."""
MOST_PIXELS = 120_000_000
"""A photograph with more is refused before it is decoded."""


def photos_of(source: str, split: str) -> tuple[str, ...]:
    """The photographs of a split, as names that `open_photo` knows: of ten, seven are for training, one to validate.

    `source` is one package of `SHIPPED`, `packages` for those of all that are installed, a folder, or `none`, which has
    none. Raises `ConfigError` for a folder that is not there, and where there are too few to hold some out.
    """
    if source == "none":
        return ()
    found = _in_packages(source) if source == "packages" or source in SHIPPED else _in_folder(source)
    if len(found) < 5:
        raise ConfigError(
            f"photos={source} has {len(found)} photographs; 5 are needed, as splits must not share one",
            hint="pip install 'toolweave[tasks]' brings some; photos=FOLDER takes your own; photos=none draws a ground",
        )
    if split not in _PLACES:
        raise ConfigError(f"split is {split!r}; it must be one of {', '.join(_PLACES)}")
    if len(found) <= _PLACES["val"][0]:  # of five or six photographs the last one validates, and the others do not
        found, last = found[:-1], found[-1:]
        if split == "val":
            return last
    return tuple(name for index, name in enumerate(found) if index % 10 in _PLACES[split])


def open_photo(name: str, size: tuple[int, int]) -> PILImage:
    """The photograph, cut to the proportions of `size` about its middle and scaled to it, in RGB; to be drawn on.

    Raises `ConfigError` where it is gone, or cannot be read.
    """
    return _read_once(name, size).copy() if size[0] * size[1] <= _SMALL else _read(name, size)


@lru_cache(maxsize=64)
def _read_once(name: str, size: tuple[int, int]) -> PILImage:
    return _read(name, size)


def _read(name: str, size: tuple[int, int]) -> PILImage:
    import PIL.Image
    import PIL.ImageOps

    path = _path_of(name)
    try:
        with PIL.Image.open(path) as photo:
            if photo.width * photo.height > MOST_PIXELS:
                raise ConfigError(
                    f"the photograph {path} has {photo.width}x{photo.height} pixels", hint="scale it down"
                )
            photo.draft("RGB", size)  # a JPEG is decoded no larger than it is needed
            upright = PIL.ImageOps.exif_transpose(photo).convert("RGB")
    except (OSError, PIL.Image.DecompressionBombError) as error:
        raise ConfigError(f"the photograph {path} cannot be read: {error}") from error
    return PIL.ImageOps.fit(upright, size, PIL.Image.Resampling.BICUBIC)


@cache
def _in_packages(source: str) -> tuple[str, ...]:
    found: list[str] = []
    for package, (folder, names) in SHIPPED.items():
        root = _root_of(package) if source in (package, "packages") else None
        if root is not None:
            found += [f"{package}/{name}" for name in names if (root / folder / name).is_file()]
    return tuple(found)


def _root_of(package: str) -> Path | None:
    """Where a package is installed; it is not imported."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _in_folder(source: str) -> tuple[str, ...]:
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"there is no folder of photographs {source}", hint="photos=skimage, photos=none or a folder")
    inside = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
    return tuple(str(path.resolve()) for path in inside)


def _path_of(name: str) -> Path:
    package, _, file = name.partition("/")
    root = _root_of(package) if package in SHIPPED else None
    path = root / SHIPPED[package][0] / file if root is not None else Path(name)
    if not path.is_file():
        raise ConfigError(
            f"the photograph {name} is not there", hint="pip install 'toolweave[tasks]', or give its folder"
        )
    return path
