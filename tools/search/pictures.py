"""A collection of pictures on this machine, searched by words (their titles) or by a picture.

Without an encoder, a picture's signature is a 64-bit difference hash (Krawetz 2013, "dHash") and a 16 x 16 thumbnail
in colour. Candidates are those whose hashes differ in the fewest bits; they are ranked by the mean difference of the
thumbnails. That finds the same picture resized, recompressed or lightly cropped, and pictures of nearly the same
colours in the same places; it knows nothing of what a picture shows. An encoder (`tools.search.encoders`) finds the
picture turned, cut in half or in another light as well, and others of like things.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from tools.content import BlobStore, Image
from tools.errors import ConfigError
from tools.record import record
from tools.search.documents import spaced, telling_words
from tools.search.encoders import PictureEncoder, Vectors, picture_encoder, require_encoder
from tools.search.hit import Hit, Kind, Query, SearchFailed
from tools.tool import in_thread

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

VERSION = 2
SUFFIX = ".pictures"
_APPLICATION = 0x74776970
"""SQLite's application id of a picture index of ours ("twip")."""
SIDE = 16
CANDIDATES = 200
_SCHEMA = """
CREATE TABLE pictures (n INTEGER PRIMARY KEY, id TEXT UNIQUE, title TEXT, url TEXT, info TEXT, sha256 TEXT,
                       hash BLOB, thumbnail BLOB, vector BLOB, data BLOB);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT);
CREATE VIRTUAL TABLE words USING fts5(title, content='pictures', content_rowid='n', tokenize='porter unicode61');
"""


@record
class Picture:
    """What is indexed."""

    id: str
    title: str
    data: bytes
    """Encoded, in any format Pillow reads."""
    url: str = ""
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])


@record
class Signature:
    """What a picture looks like, roughly."""

    hash: int
    """64 bits: whether each of 8 x 8 grey cells is brighter than the one on its right."""
    thumbnail: bytes
    """16 x 16 pixels, red, green, blue."""


def on_white(picture: PILImage) -> PILImage:
    """The picture in red, green and blue; transparent parts become white."""
    import PIL.Image

    if picture.mode in ("RGBA", "LA", "P", "PA"):
        rgba = picture.convert("RGBA")
        picture = PIL.Image.alpha_composite(PIL.Image.new("RGBA", rgba.size, "white"), rgba)
    return picture.convert("RGB")


def signature_of(picture: PILImage) -> Signature:
    """The signature of a picture."""
    import PIL.Image

    plain = on_white(picture)
    grey = plain.convert("L").resize((9, 8), PIL.Image.Resampling.BOX).tobytes()
    bits = "".join("1" if grey[9 * y + x] > grey[9 * y + x + 1] else "0" for y in range(8) for x in range(8))
    return Signature(hash=int(bits, 2), thumbnail=plain.resize((SIDE, SIDE), PIL.Image.Resampling.BOX).tobytes())


def difference(a: Signature, b: Signature) -> float:
    """Mean absolute difference of two thumbnails, 0 (the same) to 1 (black against white)."""
    return sum(abs(x - y) for x, y in zip(a.thumbnail, b.thumbnail, strict=True)) / (255 * len(a.thumbnail))


def build_pictures(
    pictures: Iterable[Picture],
    path: Path,
    *,
    encoder: PictureEncoder | None = None,
    on_progress: Callable[[int], None] | None = None,
    on_unreadable: Callable[[str], None] | None = None,
) -> int:
    """Index `pictures` into the file `path`, which appears whole or not at all; returns how many there are.

    Raises `ConfigError` for two with one id, and for one that cannot be read, unless `on_unreadable` is told of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.unlink(missing_ok=True)
    count = 0
    with closing(sqlite3.connect(partial)) as db:
        db.executescript(_SCHEMA)
        db.execute(f"PRAGMA application_id = {_APPLICATION}")
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("INSERT INTO facts VALUES ('encoder', ?)", (encoder.name if encoder else "",))
        for number, picture in enumerate(pictures, start=1):
            try:
                row = _row(picture, encoder)
            except ConfigError as error:
                if on_unreadable is None:
                    raise
                on_unreadable(str(error))
                continue
            count += 1
            _add(db, (count, *row))
            if on_progress is not None:
                on_progress(number)
        db.commit()
    if not count:
        partial.unlink()
        raise ConfigError("there are no pictures to index")
    os.replace(partial, path)
    return count


def _row(picture: Picture, encoder: PictureEncoder | None) -> tuple[Any, ...]:
    shown = on_white(_opened(picture.data, picture.id))
    signature = signature_of(shown)
    return (
        picture.id,
        picture.title,
        picture.url,
        json.dumps(dict(picture.info)),
        hashlib.sha256(picture.data).hexdigest(),
        signature.hash.to_bytes(8, "big"),
        signature.thumbnail,
        encoder.encode(shown).astype("float16").tobytes() if encoder else None,
        picture.data,
    )


def _add(db: sqlite3.Connection, row: tuple[Any, ...]) -> None:
    number, id, title, *_ = row
    try:
        db.execute("INSERT INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    except sqlite3.IntegrityError as error:
        raise ConfigError(f"two pictures have the id {id!r}", hint="an id names one picture") from error
    db.execute("INSERT INTO words(rowid, title) VALUES (?, ?)", (number, spaced(title)))


@final
class PictureIndex:
    """An index of pictures. Raises `ConfigError` where the file is not one."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ConfigError(
                f"there is no picture index at {self.path}", hint="build it: python -m tools.search pictures, or world"
            )
        self._db = sqlite3.connect(
            f"{self.path.resolve().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )
        try:
            whose = self._db.execute("PRAGMA application_id").fetchone()[0]
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            facts = dict(self._db.execute("SELECT name, value FROM facts")) if whose == _APPLICATION else {}
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"{self.path} is not a picture index: {error}") from error
        if whose != _APPLICATION or version != VERSION:
            raise ConfigError(f"{self.path} is not a picture index that this program reads", hint="build it again")
        self.encoder = facts["encoder"]
        """What its vectors were made with; empty where pictures are compared by hash and thumbnail."""
        if self.encoder:
            require_encoder(self.encoder)

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM pictures").fetchone()[0])

    def by_words(self, text: str, k: int) -> list[Hit]:
        """The `k` pictures whose titles hold most of the words."""
        words = " OR ".join(f'"{word}"' for word in telling_words(text))
        sql = (
            "SELECT p.n, -bm25(words) FROM words JOIN pictures p ON p.n = words.rowid WHERE words MATCH ?"
            " ORDER BY bm25(words), p.n LIMIT ?"
        )
        return [self._hit(n, score) for n, score in self._db.execute(sql, (words, k)).fetchall()]

    def by_image(self, data: bytes, k: int) -> list[Hit]:
        """The `k` pictures that look most like the one in `data`; the score is 1 for the same thumbnail or vector."""
        shown = on_white(_opened(data, "the picture"))
        if self.encoder:
            return self._nearest(shown, k)
        asked = signature_of(shown)
        near = sorted(self._signatures, key=lambda n: (self._signatures[n].hash ^ asked.hash).bit_count())
        ranked = sorted((difference(asked, self._signatures[n]), n) for n in near[: max(CANDIDATES, k)])
        return [self._hit(n, 1.0 - far) for far, n in ranked[:k]]

    def data(self, id: str) -> bytes:
        """The encoded picture of that id. Raises `KeyError` where there is none."""
        row = self._db.execute("SELECT data FROM pictures WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise KeyError(id)
        return bytes(row[0])

    def check(self) -> None:
        """Read the whole index. Raises `ConfigError` where it is damaged."""
        try:
            found = self._db.execute("PRAGMA integrity_check").fetchone()[0]
        except sqlite3.DatabaseError as error:
            found = str(error)
        if found != "ok":
            raise ConfigError(f"{self.path} is damaged: {str(found).splitlines()[0]}", hint="build it again")

    def picture(self, id: str) -> PILImage:
        """The picture of that id, decoded. Raises `KeyError` where there is none."""
        return _opened(self.data(id), id)

    def ids(self) -> list[str]:
        """The ids of all pictures, in the order they were added."""
        return [row[0] for row in self._db.execute("SELECT id FROM pictures ORDER BY n")]

    def _nearest(self, shown: PILImage, k: int) -> list[Hit]:
        import numpy as np

        cosines = self._vectors @ picture_encoder(self.encoder).encode(shown)
        best = np.lexsort((np.arange(len(cosines)), -cosines))[:k]
        return [self._hit(place + 1, score) for place, score in zip(best.tolist(), cosines[best].tolist(), strict=True)]

    @cached_property
    def _vectors(self) -> Vectors:
        import numpy as np

        rows = self._db.execute("SELECT vector FROM pictures ORDER BY n").fetchall()
        flat = np.frombuffer(b"".join(row[0] for row in rows), dtype=np.float16)
        return flat.reshape(len(rows), -1).astype(np.float32)

    @cached_property
    def _signatures(self) -> dict[int, Signature]:
        rows = self._db.execute("SELECT n, hash, thumbnail FROM pictures").fetchall()
        return {n: Signature(hash=int.from_bytes(bits, "big"), thumbnail=thumbnail) for n, bits, thumbnail in rows}

    def _hit(self, n: int, score: float) -> Hit:
        row = self._db.execute("SELECT id, title, url, info, sha256 FROM pictures WHERE n = ?", (n,)).fetchone()
        id, title, url, info, sha256 = row
        return Hit(
            title=title,
            url=url or f"picture:{id}",
            source=self.path.stem,
            score=score,
            image=sha256,
            info={**json.loads(info), "id": id},
        )


@final
class PictureProvider:
    """An index of pictures as a source of hits; `blobs` holds the pictures that are asked with."""

    kinds: frozenset[Kind] = frozenset({"images", "by_image"})

    def __init__(self, index: PictureIndex, blobs: BlobStore, name: str = "") -> None:
        self.index, self.blobs = index, blobs
        self.name = name or f"pictures:{index.path.stem}"
        self._asked: dict[str, Image] = {}

    def ask_with(self, image: Image) -> str:
        """Make `image` known; returns what a query names it by."""
        self._asked[image.sha256] = image
        return image.sha256

    def thumbnail(self, hit: Hit) -> bytes | None:
        """The picture of a hit, encoded."""
        return self.index.data(hit.info["id"])

    async def search(self, query: Query) -> tuple[Hit, ...]:
        """See `Provider.search`."""
        if query.kind == "images":
            found = await in_thread(lambda: self.index.by_words(query.text, query.k))
        else:
            image = self._asked.get(query.image)
            if image is None:
                raise SearchFailed("refused", "there is no such picture")
            data = self.blobs.get(image)
            found = await in_thread(lambda: self.index.by_image(data, query.k))
        return tuple(found)


def _opened(data: bytes, name: str) -> PILImage:
    import PIL.Image

    try:
        picture = PIL.Image.open(io.BytesIO(data))
        picture.load()
    except PIL.UnidentifiedImageError as error:
        raise ConfigError(f"{name} cannot be read as a picture: it has no format that is known") from error
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise ConfigError(f"{name} cannot be read as a picture: {error}") from error
    return picture
