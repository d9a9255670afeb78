"""A collection of documents on this machine, searched by words: SQLite's FTS5, so that nothing needs installing.

Ranking is BM25 (Robertson and Zaragoza 2009) over stemmed words, the title counting twice. All the words of a query are
looked for together first, which takes a fraction of a millisecond; only where fewer than k documents have them all are
those that have some added.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, final

from tools.errors import ConfigError
from tools.search.documents import Document, SearchIndex, spaced, telling_words
from tools.search.encoders import TextEncoder, Vectors
from tools.search.extract import printable
from tools.search.hit import Hit, Kind, Page, Query, SearchFailed

VERSION = 1
_APPLICATION = 0x74776978
"""SQLite's application id of an index of ours ("twix")."""
_BATCH = 5000
_ENCODED = 256
"""Documents that are encoded between two commits: what a stopped build loses."""
_SCHEMA = """
CREATE TABLE documents (n INTEGER PRIMARY KEY, id TEXT UNIQUE, title TEXT, text TEXT, url TEXT, info TEXT);
CREATE VIRTUAL TABLE words USING fts5(title, text, content='documents', content_rowid='n', tokenize='porter unicode61');
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT);
"""
_FIND = """
SELECT d.id, d.title, d.text, d.url, d.info, -bm25(words, 2.0, 1.0) FROM words JOIN documents d ON d.n = words.rowid
WHERE words MATCH ? ORDER BY bm25(words, 2.0, 1.0), d.n LIMIT ?
"""


def build(
    documents: Iterable[Document],
    path: Path,
    *,
    source: str,
    encoder: TextEncoder | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Index `documents` into the file `path`, which appears whole or not at all; returns how many there are.

    With an `encoder` each is kept as a vector too; `on_progress` is told how many were indexed and encoded together. A
    build that was stopped goes on where it was when it is started again with the same `source` (a text that names the
    input and its state, such as a path, its size and its date), encoder, and documents in the same order. Raises
    `ConfigError` for two documents with one id.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    with closing(_begun(partial, f"{source} {encoder.name}" if encoder else source)) as db:
        done = int(db.execute("SELECT count(*) FROM documents").fetchone()[0])
        rest = islice(documents, done, None)
        while batch := list(islice(rest, _BATCH)):
            _add(db, batch, done)
            done += len(batch)
            if on_progress is not None:
                on_progress(done)
        if not done:
            raise ConfigError(f"{source} holds no documents")
        if encoder is not None:
            _encode(db, encoder, done, on_progress)
        db.execute("INSERT INTO words(words) VALUES ('optimize')")
        db.execute("INSERT OR REPLACE INTO facts VALUES ('documents', ?)", (str(done),))
        db.commit()
    os.replace(partial, path)
    return done


def _begun(partial: Path, source: str) -> sqlite3.Connection:
    """The file a build writes to: what an earlier one of the same source left, or a new one."""
    if partial.exists():
        db = sqlite3.connect(partial)
        try:
            row = db.execute("SELECT value FROM facts WHERE name = 'source'").fetchone()
            if row == (source,):
                return db
        except sqlite3.DatabaseError:
            pass  # stopped before its first commit, or not ours: made anew
        db.close()
        partial.unlink()
    db = sqlite3.connect(partial)
    db.executescript(_SCHEMA)
    db.execute("PRAGMA synchronous = OFF")  # the file counts only after it is complete and renamed
    db.execute(f"PRAGMA application_id = {_APPLICATION}")
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("INSERT INTO facts VALUES ('source', ?)", (source,))
    db.commit()
    return db


def _add(db: sqlite3.Connection, batch: Sequence[Document], before: int) -> None:
    rows = [
        (before + k, doc.id, printable(doc.title), printable(doc.text), doc.url, json.dumps(dict(doc.info)))
        for k, doc in enumerate(batch, start=1)
    ]
    try:
        with db:
            db.executemany("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?)", rows)
            db.executemany(
                "INSERT INTO words(rowid, title, text) VALUES (?, ?, ?)",
                [(r[0], spaced(r[2]), spaced(r[3])) for r in rows],
            )
    except sqlite3.IntegrityError as error:
        taken = {doc.id for doc in batch if db.execute("SELECT 1 FROM documents WHERE id = ?", (doc.id,)).fetchone()}
        seen: set[str] = set()
        twice = next((d.id for d in batch if d.id in taken or d.id in seen or seen.add(d.id)), "?")
        raise ConfigError(
            f"two documents have the id {twice!r}", hint="ids name documents: make them unique"
        ) from error


def _encode(db: sqlite3.Connection, encoder: TextEncoder, done: int, on_progress: Callable[[int], None] | None) -> None:
    """Add the vectors that are not there yet, in 16 bits a number."""
    with db:
        db.execute("CREATE TABLE IF NOT EXISTS vectors (n INTEGER PRIMARY KEY, vector BLOB)")
        db.execute("INSERT OR REPLACE INTO facts VALUES ('encoder', ?)", (encoder.name,))
    (encoded,) = db.execute("SELECT count(*) FROM vectors").fetchone()
    find = "SELECT n, title, text FROM documents WHERE n > ? ORDER BY n LIMIT ?"
    while rows := db.execute(find, (encoded, _ENCODED)).fetchall():
        vectors = encoder.encode([f"{title}\n{text}".strip() for _, title, text in rows]).astype("float16")
        with db:
            values = [(row[0], vector.tobytes()) for row, vector in zip(rows, vectors, strict=True)]
            db.executemany("INSERT INTO vectors VALUES (?, ?)", values)
        encoded += len(rows)
        if on_progress is not None:
            on_progress(done + encoded)


@final
class LocalIndex:
    """An index on disk, read by any number of threads. Raises `ConfigError` where the file is not a whole one."""

    quick = False

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            unfinished = self.path.with_name(self.path.name + ".part").exists()
            hint = "its build was stopped; start it again and it goes on" if unfinished else "build it first"
            raise ConfigError(f"there is no search index at {self.path}", hint=f"{hint}: python -m tools.search index")
        self._threads = threading.local()
        db = self._connection()
        try:
            whose = db.execute("PRAGMA application_id").fetchone()[0]
            version = db.execute("PRAGMA user_version").fetchone()[0]
            facts = dict(db.execute("SELECT name, value FROM facts")) if whose == _APPLICATION else {}
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"{self.path} is not a search index: {error}") from error
        if whose != _APPLICATION:
            raise ConfigError(f"{self.path} is not a search index of toolweave")
        if version != VERSION:
            raise ConfigError(
                f"{self.path} is an index of version {version}; this program reads version {VERSION}",
                hint="build it again: python -m tools.search index",
            )
        self.encoder: str = facts.get("encoder", "")
        """What its vectors were made with; empty where it has none."""
        self._count = int(facts.get("documents", -1))
        last = db.execute("SELECT max(n) FROM documents").fetchone()[0]
        if last != self._count:
            raise ConfigError(f"{self.path} is damaged: {last} documents of {self._count}", hint="build it again")

    def __len__(self) -> int:
        return self._count

    def search(self, text: str, k: int) -> list[Hit]:
        """See `SearchIndex.search`."""
        telling = telling_words(text)
        found = self._matching(" AND ".join(f'"{word}"' for word in telling), k)
        if len(found) < k and len(telling) > 1:
            some = self._matching(" OR ".join(f'"{word}"' for word in telling), k)
            known = {hit.info["id"] for hit in found}
            found += [hit for hit in some if hit.info["id"] not in known][: k - len(found)]
        return found

    def get(self, id: str) -> Document | None:
        """See `SearchIndex.get`."""
        rows = self._rows("SELECT title, text, url, info FROM documents WHERE id = ?", (id,))
        return next((Document(id=id, title=r[0], text=r[1], url=r[2], info=json.loads(r[3])) for r in rows), None)

    def check(self) -> None:
        """See `SearchIndex.check`."""
        try:
            found = self._connection().execute("PRAGMA integrity_check").fetchone()[0]
        except sqlite3.DatabaseError as error:
            found = str(error)
        if found != "ok":
            raise ConfigError(f"{self.path} is damaged: {str(found).splitlines()[0]}", hint="build it again")

    def __iter__(self) -> Iterator[Document]:
        for row in self._connection().execute("SELECT id, title, text, url, info FROM documents ORDER BY n"):
            yield Document(id=row[0], title=row[1], text=row[2], url=row[3], info=json.loads(row[4]))

    def vectors(self) -> Vectors:
        """The vectors of all documents, in their order. Raises `ConfigError` where some are missing."""
        import numpy as np

        rows = self._connection().execute("SELECT vector FROM vectors ORDER BY n").fetchall()
        if len(rows) != self._count or len({len(row[0]) for row in rows}) != 1:
            raise ConfigError(f"{self.path} is damaged: its vectors are not whole", hint="build it again")
        flat = np.frombuffer(b"".join(row[0] for row in rows), dtype=np.float16)
        return flat.reshape(self._count, -1).astype(np.float32)

    def at(self, places: Sequence[int], scores: Sequence[float]) -> list[Hit]:
        """The documents at these places (0 is the first), as hits with these scores."""
        marks = ",".join("?" * len(places))
        sql = f"SELECT n, id, title, text, url, info FROM documents WHERE n IN ({marks})"
        found = {row[0] - 1: row[1:] for row in self._rows(sql, [place + 1 for place in places])}
        return [self._hit(found[place], score) for place, score in zip(places, scores, strict=True)]

    def _matching(self, expression: str, k: int) -> list[Hit]:
        return [self._hit(row[:-1], row[-1]) for row in self._rows(_FIND, (expression, k))]

    def _rows(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        try:
            return self._connection().execute(sql, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise SearchFailed("unavailable", f"the index {self.path.name} cannot be read: {error}") from error

    def _hit(self, row: tuple[str, ...], score: float) -> Hit:
        id, title, text, url, info = row
        return Hit(
            title=title,
            url=url or f"doc:{id}",
            snippet=text,
            source=self.path.stem,
            score=score,
            info={**json.loads(info), "id": id},
        )

    def _connection(self) -> sqlite3.Connection:
        db: sqlite3.Connection | None = getattr(self._threads, "db", None)
        if db is None:
            db = sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
            self._threads.db = db
        return db


@final
class LocalProvider:
    """An index as a source of hits; its documents can be opened as pages."""

    kinds: frozenset[Kind] = frozenset({"text"})

    def __init__(self, index: SearchIndex, name: str = "") -> None:
        self.index = index
        self.name = name or f"local:{index.path.stem}"
        # Threads that stay: each keeps its connection, and with it what SQLite has read of the file.
        self._threads = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="search")

    async def search(self, query: Query) -> tuple[Hit, ...]:
        """See `Provider.search`."""
        if self.index.quick:
            return tuple(self.index.search(query.text, query.k))
        loop = asyncio.get_running_loop()
        return tuple(await loop.run_in_executor(self._threads, self.index.search, query.text, query.k))

    def page(self, url: str) -> Page | None:
        """The document a hit's `doc:ID` names; None for another address."""
        document = self.index.get(url.removeprefix("doc:")) if url.startswith("doc:") else None
        return None if document is None else Page(url=url, title=document.title, text=document.text)
