"""Image searches that others recorded and published: JSON, a record a question, answered by the question's id.

DeepEyesV2's file (`honglyhly/DeepEyesV2_Search_Cache`, out of MMSearch-R1's searches) maps the id of a question to
`{"tool_returned_web_title": [...], "cached_images_path": [...]}`: the titles of the pages that show the picture, and
where their thumbnails lie. A pickle is never opened: reading one runs what its author wrote.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, final

from tools.errors import ConfigError
from tools.search.hit import Hit, Kind, Query, SearchFailed

TITLES, PICTURES = "tool_returned_web_title", "cached_images_path"
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")


@final
class PublishedSearches:
    """The searches of one file. Raises `ConfigError` where it is a pickle, or not of this form."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._records = _read(self.path)

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, id: str) -> bool:
        return id in self._records

    def of(self, id: str) -> PublishedAnswer:
        """What was found for the picture of the question `id`, as a provider for its episode."""
        return PublishedAnswer(self, id)

    def hits(self, id: str) -> tuple[Hit, ...] | None:
        """The pages found for a question, best first; None where it was not searched. A page without a thumbnail on
        this disk has none in its hit.
        """
        record = self._records.get(id)
        if record is None:
            return None
        pairs = zip(record[TITLES], record[PICTURES], strict=True)
        return tuple(
            Hit(
                title=str(title or ""),
                url=f"published:{id}/{rank}",
                source=self.path.stem,
                image=self._picture(where),
                info={"id": f"{id}/{rank}"},
            )
            for rank, (title, where) in enumerate(pairs)
        )

    def _picture(self, where: str | None) -> str:
        """A thumbnail's path, which lies below the file's folder; empty where there is none."""
        root = self.path.parent.resolve()
        found = (root / where).resolve() if where else root
        return str(found) if found.is_file() and found.is_relative_to(root) else ""


@final
class PublishedAnswer:
    """A provider that answers every search by a picture with what was published for one question."""

    kinds: frozenset[Kind] = frozenset({"by_image"})

    def __init__(self, searches: PublishedSearches, id: str) -> None:
        self._searches, self._id = searches, id
        self.name = f"published:{searches.path.stem}:{id}"

    def thumbnail(self, hit: Hit) -> bytes | None:
        """The picture of a hit, encoded; None where it was not kept."""
        return Path(hit.image).read_bytes() if hit.image else None

    async def search(self, query: Query) -> tuple[Hit, ...]:
        """See `Provider.search`."""
        hits = self._searches.hits(self._id)
        if hits is None:
            raise SearchFailed("not_recorded", f"no image search was published for the question {self._id}")
        return hits[: query.k]


def _read(path: Path) -> Mapping[str, Mapping[str, Any]]:
    if path.suffix.lower() in _PICKLES:
        raise ConfigError(f"{path} is a pickle, and reading one runs code of its author's", hint="publish it as JSON")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if data[:1] == b"\x80" or data[:4] == b"PK\x03\x04":
        raise ConfigError(f"{path} is a pickle, and reading one runs code of its author's", hint="publish it as JSON")
    try:
        records: Any = json.loads(data)
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(records, dict) or not records:
        raise ConfigError(f"{path} holds no searches: it must map ids of questions to what was found")
    for id, record in cast("dict[str, Any]", records).items():
        columns = [cast("Any", record).get(name) for name in (TITLES, PICTURES)] if isinstance(record, dict) else []
        if not all(isinstance(column, list) for column in columns) or len({*map(len, columns)}) != 1:
            raise ConfigError(f"{path}, {id!r}: not a record with lists {TITLES} and {PICTURES} of one length")
    return cast("Mapping[str, Mapping[str, Any]]", records)
