"""What messages and tool results are made of: text, and images identified by the hash of their bytes."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tools.errors import ConfigError
from tools.record import record

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


@record
class Text:
    """A piece of text."""

    text: str


@record
class Image:
    """A picture, by reference: its bytes live once, in a `BlobStore`, under their hash."""

    sha256: str
    """Hex digest of the encoded bytes."""
    media_type: str
    """For example `image/png`."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""


Content: TypeAlias = Text | Image

_SUFFIX = {"image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif", "image/webp": ".webp"}


class BlobStore:
    """Bytes by sha256, in memory or in a folder that also survives the process.

    >>> store = BlobStore()
    >>> import PIL.Image
    >>> red = store.put_image(PIL.Image.new("RGB", (4, 2), "red"))
    >>> (red.width, red.height, store.open(red).getpixel((0, 0)))
    (4, 2, (255, 0, 0))
    """

    def __init__(self, root: Path | str | None = None, passing: bool = False) -> None:
        self.root = Path(root) if root is not None else None
        self.passing = passing
        """Whether all in it can be made again, so that whoever is done with it may clear it."""
        self._memory: dict[str, bytes] = {}

    def put(self, data: bytes) -> Image:
        """Store encoded image bytes (PNG, JPEG, GIF or WebP). Raises `ValueError` for anything else."""
        import PIL.Image

        try:
            with PIL.Image.open(io.BytesIO(data)) as header:
                width, height = header.size
                media_type = PIL.Image.MIME.get(header.format or "", "")
        except (OSError, PIL.Image.DecompressionBombError) as error:
            raise ValueError(f"not an image that can be stored: {error}") from error
        if media_type not in _SUFFIX:
            raise ValueError(f"image type {media_type or 'unknown'} is not one of {', '.join(_SUFFIX)}")
        image = Image(sha256=hashlib.sha256(data).hexdigest(), media_type=media_type, width=width, height=height)
        if self.root is None:
            self._memory[image.sha256] = data
        elif not (path := self._path(image)).exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
            partial.write_bytes(data)
            os.replace(partial, path)  # a reader never meets half a picture
        return image

    def put_image(self, picture: PILImage) -> Image:
        """Encode a Pillow image as PNG and store it."""
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        return self.put(buffer.getvalue())

    def get(self, image: Image) -> bytes:
        """The encoded bytes. Raises `ConfigError` when this store does not hold them."""
        data = self.find(image.sha256)
        if data is None:
            where = self.root or "memory"
            raise ConfigError(f"image {image.sha256[:12]} is not in the blob store ({where})")
        return data

    def find(self, sha256: str) -> bytes | None:
        """The encoded bytes of a hash; None where this store does not hold them."""
        if self.root is None:
            return self._memory.get(sha256)
        for suffix in _SUFFIX.values():
            path = self.root / (sha256 + suffix)
            if path.exists():
                return path.read_bytes()
        return None

    def discard(self, sha256: str) -> None:
        """Forget the bytes of a hash, where they are held."""
        if self.root is None:
            self._memory.pop(sha256, None)
            return
        for suffix in _SUFFIX.values():
            (self.root / (sha256 + suffix)).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget everything; a folder goes too, and comes back with the next picture."""
        self._memory.clear()
        if self.root is not None:
            shutil.rmtree(self.root, ignore_errors=True)

    def __contains__(self, image: Image) -> bool:
        return image.sha256 in self._memory if self.root is None else self._path(image).exists()

    def open(self, image: Image) -> PILImage:
        """The decoded picture."""
        import PIL.Image

        picture = PIL.Image.open(io.BytesIO(self.get(image)))
        picture.load()
        return picture

    def _path(self, image: Image) -> Path:
        assert self.root is not None
        return self.root / (image.sha256 + _SUFFIX[image.media_type])
