"""Pictures as data sets store them, brought into a BlobStore; nothing is unpickled and nothing is fetched."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from envs.rows import Row
from tools.content import BlobStore, Content, Image, Text
from tools.errors import ConfigError
from tools.image.intake import take


def images_of(row: Row, *names: str, store: BlobStore) -> tuple[Image, ...]:
    """The pictures of a column, in any of four encodings: `{bytes, path}`, bytes, base64 (also a data: URI), a path.

    A list is several. Paths lie in the folder of the data file or above it, never outside. Raises `ConfigError` for
    a missing column or file, a link, and bytes that are no picture.
    """
    value = row.need(*names)
    name = f"{row.where}: the column {row.name_of(names)}"
    parts = cast(list[Any], value) if isinstance(value, list | tuple) else [value]
    return tuple(_image(part, name, row.folder, store) for part in parts)


def _image(value: Any, name: str, folder: Path, store: BlobStore) -> Image:
    if isinstance(value, dict):
        fields = cast(dict[str, Any], value)
        value = fields.get("bytes") or fields.get("path")
    if isinstance(value, str) and value:
        value = _from_text(value, name, folder)
    if not isinstance(value, bytes | bytearray) or not value:
        raise ConfigError(
            f"{name} holds no picture", hint="known: {bytes, path}, bytes, base64, a path beside the data"
        )
    try:
        return take(bytes(value), store)
    except ValueError as error:
        raise ConfigError(f"{name} holds bytes that are no picture: {error}") from error


def _from_text(value: str, name: str, folder: Path) -> bytes:
    """The bytes of a file, or of base64."""
    if value.startswith(("http://", "https://")):
        raise ConfigError(
            f"{name} is a link, and nothing is fetched: {value[:80]}", hint="use a copy with the pictures"
        )
    encoded = value.partition(",")[2] if value.startswith("data:") else value
    if len(value) < 1024 and not value.startswith("data:"):
        file = _file(value, folder)
        if file is not None:
            return file.read_bytes()
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        where = f"there is no file {value[:80]} in {folder}" if len(value) < 1024 else "it is no base64 either"
        raise ConfigError(f"{name} is no picture: {where}", hint="put the pictures beside the data file") from None


def _file(value: str, folder: Path) -> Path | None:
    """`value` below the data file's folder, or below one of the two folders above it."""
    relative = Path(value.removeprefix("./"))
    for root in (folder, folder / "images", folder.parent, folder.parent.parent):
        try:
            found = (root / relative).resolve()
            if found.is_relative_to(root.resolve()) and found.is_file():
                return found
        except (OSError, ValueError):  # base64 makes no file name
            return None
    return None


MARK = "<image>"
"""Where a picture stands in the text of a row, in the order of its column of pictures."""


def placed(text: str, images: Sequence[Image], where: str) -> tuple[Content, ...]:
    """Text with each `<image>` replaced by the next picture. Without any mark the pictures stand before the text.

    >>> pixel = Image(sha256="0", media_type="image/png", width=1, height=1)
    >>> [type(part).__name__ for part in placed("Look: <image> What is it?", [pixel], "row 1")]
    ['Text', 'Image', 'Text']

    Raises `ConfigError` where there are more marks or fewer than pictures.
    """
    pieces = text.split(MARK)
    if len(pieces) == 1:
        return (*images, *((Text(text=text),) if text.strip() else ()))
    if len(pieces) - 1 != len(images):
        raise ConfigError(
            f"{where}: the text says {MARK} {len(pieces) - 1} times, and there are {len(images)} pictures"
        )
    parts: list[Content] = []
    for index, piece in enumerate(pieces):
        if piece.strip():
            parts.append(Text(text=piece.strip("\n")))
        if index < len(images):
            parts.append(images[index])
    return tuple(parts)
