"""A collection kept by tantivy: ranks all documents that hold any of the words, many times as fast as the default.

It needs the package tantivy, which the extra `search` brings.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, final

from tools.errors import ConfigError
from tools.search.documents import Document, spaced, telling_words
from tools.search.extract import printable
from tools.search.hit import Hit, SearchFailed

VERSION = 2
SUFFIX = ".tantivy"
_FACTS = "toolweave.json"
_BATCH = 5000
_HEAP = 128_000_000


def build_tantivy(
    documents: Iterable[Document], path: Path, *, source: str, on_progress: Callable[[int], None] | None = None
) -> int:
    """Index `documents` into the folder `path`, which appears whole or not at all; returns how many there are.

    Raises `ConfigError` for two documents with one id. A build that was stopped begins anew: it takes seconds.
    """
    tantivy = _tantivy()
    partial = path.with_name(path.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    schema = tantivy.SchemaBuilder()
    schema.add_text_field("id", stored=True, tokenizer_name="raw")
    for name in ("title", "text"):
        schema.add_text_field(name, stored=True, tokenizer_name="en_stem")
    schema.add_bytes_field("original", stored=True)
    schema.add_text_field("rest", stored=True, tokenizer_name="raw", index_option="basic")
    writer = tantivy.Index(schema.build(), path=str(partial)).writer(_HEAP, 1)
    seen: set[str] = set()
    for number, document in enumerate(documents, start=1):
        if document.id in seen:
            raise ConfigError(f"two documents have the id {document.id!r}", hint="an id names one document")
        seen.add(document.id)
        writer.add_document(tantivy.Document(**_fields_of(document)))
        if number % _BATCH == 0 and on_progress is not None:
            on_progress(number)
    if not seen:
        raise ConfigError(f"{source} holds no documents")
    writer.commit()
    writer.wait_merging_threads()
    (partial / _FACTS).write_text(json.dumps({"version": VERSION, "documents": len(seen), "source": source}))
    shutil.rmtree(path, ignore_errors=True)
    os.replace(partial, path)
    return len(seen)


@final
class TantivyIndex:
    """An index folder. Raises `ConfigError` where it is not a whole one."""

    quick = True

    def __init__(self, path: Path | str) -> None:
        tantivy = _tantivy()
        self.path = Path(path)
        try:
            facts = json.loads((self.path / _FACTS).read_text())
            self._index: Any = tantivy.Index.open(str(self.path))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.path} is not a search index: {error}", hint="build it first") from error
        if facts["version"] != VERSION:
            raise ConfigError(
                f"{self.path} is an index of version {facts['version']}; this program reads version {VERSION}",
                hint="build it again: python -m tools.search index",
            )
        self._searcher: Any = self._index.searcher()
        if self._searcher.num_docs != facts["documents"]:
            raise ConfigError(
                f"{self.path} is damaged: {self._searcher.num_docs} documents of {facts['documents']}",
                hint="build it again",
            )
        self._fields, self._boosts = ["title", "text"], {"title": 2.0}
        self._name = self.path.stem

    def __len__(self) -> int:
        return int(self._searcher.num_docs)

    def search(self, text: str, k: int) -> list[Hit]:
        """See `SearchIndex.search`."""
        query = self._index.parse_query(" ".join(telling_words(text)), self._fields, self._boosts)
        try:
            found = self._searcher.search(query, k, count=False).hits
            return [self._hit(self._searcher.doc(address), score) for score, address in found]
        except ValueError as error:
            raise SearchFailed("unavailable", f"the index {self.path.name} cannot be read: {error}") from error

    def get(self, id: str) -> Document | None:
        """See `SearchIndex.get`."""
        tantivy = _tantivy()
        query = tantivy.Query.term_query(self._index.schema, "id", id)
        hits = self._searcher.search(query, 1, count=False).hits
        return self._document(self._searcher.doc(hits[0][1])) if hits else None

    def check(self) -> None:
        """See `SearchIndex.check`."""
        read = sum(1 for _ in self)
        if read != len(self):
            raise ConfigError(f"{self.path} is damaged: {read} documents of {len(self)}", hint="build it again")

    def __iter__(self) -> Iterator[Document]:
        tantivy = _tantivy()
        for start in range(0, len(self), _BATCH):
            found = self._searcher.search(tantivy.Query.all_query(), _BATCH, count=False, offset=start).hits
            for _, address in found:
                yield self._document(self._searcher.doc(address))

    def _hit(self, stored: Any, score: float) -> Hit:
        one = stored.get_first
        id = one("id")
        url, info = _rest(one("rest"))
        title, text = _shown(stored)
        return Hit(
            title=title,
            url=url or f"doc:{id}",
            snippet=text,
            source=self._name,
            score=score,
            info={**info, "id": id},
        )

    def _document(self, stored: Any) -> Document:
        one = stored.get_first
        url, info = _rest(one("rest"))
        title, text = _shown(stored)
        return Document(id=one("id"), title=title, text=text, url=url, info=info)


def _fields_of(document: Document) -> dict[str, Any]:
    """What is indexed and kept of a document; title and text are kept beside it where they are indexed otherwise."""
    original = printable(document.title), printable(document.text)
    title, text = map(spaced, original)
    rest = json.dumps([document.url, dict(document.info)])
    kept = {} if (title, text) == original else {"original": json.dumps(original).encode()}
    return {"id": document.id, "title": title, "text": text, "rest": rest, **kept}


def _shown(stored: Any) -> tuple[str, str]:
    """Title and text of a document."""
    original = stored.get_first("original")
    if original is None:
        return stored.get_first("title"), stored.get_first("text")
    title, text = json.loads(bytes(original))
    return title, text


@lru_cache(10_000)
def _rest(stored: str) -> tuple[str, Mapping[str, Any]]:
    """Address and more of a document; many of a collection have the same."""
    url, info = json.loads(stored)
    return url, info


def _tantivy() -> Any:
    try:
        import tantivy  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
    except ImportError as error:
        raise ConfigError("this index needs the package tantivy", hint="pip install tantivy") from error
    return tantivy
