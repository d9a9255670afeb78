"""Record and replay: every reply of a provider or a fetch in one SQLite file, keyed by what was asked.

`live` asks and writes nothing down; `record` answers from the file and asks for what it lacks; `replay` answers from
the file alone, and says so where it lacks something. Several processes may write one file: the reply that came first
stays, and whoever came second is given that one, so that equal questions have equal answers.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, final

from tools.errors import ConfigError
from tools.record import record
from tools.search.hit import Failure, Hit, Kind, Page, Provider, Query, SearchFailed
from tools.tool import in_thread

Mode: TypeAlias = Literal["live", "record", "replay"]
MODES: tuple[Mode, ...] = ("live", "record", "replay")
VERSION = 1
_KEPT_FAILURES = frozenset({"refused", "bad_reply"})
"""Failures that asking again would not change; a full queue or a lost connection is asked again."""

_REMEMBERED = 10_000
"""Replies kept in memory, read and ready; the file holds them all."""


@record
class Recording:
    """One line of a cache."""

    key: str
    request: Mapping[str, Any]
    reply: Mapping[str, Any]
    """`{"hits": [...]}`, `{"page": {...}}` or `{"failure": ..., "message": ...}`."""
    at: float
    """Seconds since 1970 when it was recorded."""


@final
class ReplyCache:
    """A file of replies. Raises `ConfigError` where the file is not one, or of a newer version."""

    def __init__(self, path: Path | str, mode: Mode = "record") -> None:
        if mode not in MODES:
            raise ConfigError(f"there is no cache mode {mode!r}", hint=f"known: {', '.join(MODES)}")
        self.path, self.mode = Path(path), mode
        if mode == "replay" and not self.path.exists():
            raise ConfigError(f"there are no recorded replies at {self.path}", hint="record them first: mode=record")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()  # one connection, used from whichever thread a provider runs on
        try:
            self._db = sqlite3.connect(self.path, timeout=60.0, check_same_thread=False, isolation_level=None)
            self._prepare()
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"{self.path} is not a cache of replies: {error}") from error

    def get(self, key: str) -> Mapping[str, Any] | None:
        """The reply recorded under `key`. Raises `SearchFailed` where the file cannot be used; may wait for it."""
        rows = self._rows("SELECT reply FROM replies WHERE key = ?", key)
        return json.loads(rows[0][0]) if rows else None

    def put(self, key: str, request: Mapping[str, Any], reply: Mapping[str, Any]) -> Mapping[str, Any]:
        """Record `reply` unless there is one; returns the one that stays. Raises and waits as `get` does."""
        values = (key, _canonical(request), _canonical(reply), time.time())
        self._rows("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?)", *values)
        kept = self.get(key)
        assert kept is not None
        return kept

    def __iter__(self) -> Iterator[Recording]:
        return self._lines("SELECT key, request, reply, at FROM replies ORDER BY at")

    def of(self, provider: str) -> Iterator[Recording]:
        """The lines of one provider."""
        asked = "json_extract(request, '$.provider') = ?"
        return self._lines(f"SELECT key, request, reply, at FROM replies WHERE {asked} ORDER BY at", provider)

    def _lines(self, sql: str, *values: str) -> Iterator[Recording]:
        try:
            found = self._rows(sql, *values)
        except SearchFailed as error:
            raise ConfigError(str(error)) from error
        for key, request, reply, at in found:
            yield Recording(key=key, request=json.loads(request), reply=json.loads(reply), at=at)

    def __len__(self) -> int:
        return int(self._rows("SELECT count(*) FROM replies")[0][0])

    def _rows(self, sql: str, *values: str | float) -> list[tuple[Any, ...]]:
        try:
            with self._lock, closing(self._db.execute(sql, values)) as rows:
                return rows.fetchall()
        except sqlite3.Error as error:  # locked, damaged, a full disk
            raise SearchFailed("unavailable", f"the file of replies {self.path.name} failed: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _prepare(self) -> None:
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > VERSION:
            raise ConfigError(
                f"{self.path} is a cache of version {version}; this program reads up to {VERSION}",
                hint="update toolweave",
            )
        tables = {str(name) for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if others := sorted(tables - {"replies"}):
            raise ConfigError(
                f"{self.path} is not a cache of replies: it holds {', '.join(others)}", hint="name a file of its own"
            )
        if self.mode == "replay":
            self._db.execute("SELECT key, request, reply, at FROM replies LIMIT 1").fetchone()
            return
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS replies"
            " (key TEXT PRIMARY KEY, request TEXT NOT NULL, reply TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID"
        )
        self._db.execute(f"PRAGMA user_version = {VERSION}")


@final
class Unasked:
    """A provider known by name alone: enough to replay what it said, without its index, its package or its key."""

    def __init__(self, name: str, kinds: frozenset[Kind]) -> None:
        self.name, self.kinds = name, kinds

    async def search(self, query: Query) -> tuple[Hit, ...]:
        """Never asked: raises `SearchFailed`."""
        raise SearchFailed("not_recorded", f"{self.name} is not asked in a run that only replays")


@final
class Recorded:
    """A provider behind a cache."""

    def __init__(self, inner: Provider, cache: ReplyCache) -> None:
        self.inner, self.cache = inner, cache
        self.name = inner.name
        self.kinds: frozenset[Kind] = inner.kinds
        self.answered, self.asked = 0, 0
        """How many searches the file answered, and how many went to the provider."""
        self._read: OrderedDict[Query, tuple[Hit, ...]] = OrderedDict()
        if cache.mode == "replay":  # read once, so that no lookup waits for the disk
            for line in islice(cache.of(self.name), _REMEMBERED):
                if "hits" in line.reply:
                    self._remember(_query(line.request), tuple(Hit(**hit) for hit in line.reply["hits"]))

    async def search(self, query: Query) -> tuple[Hit, ...]:
        """See `Provider.search`. In replay, what is not recorded raises `SearchFailed` and asks nobody."""
        if self.cache.mode == "live":
            self.asked += 1
            return await self.inner.search(query)
        if (known := self._read.get(query)) is not None:  # the attempts of a group ask the same things
            self.answered += 1
            return known
        request = _request(self.name, query)
        key = key_of(request)
        reply = await in_thread(partial(self.cache.get, key))  # the file may be locked, and others go on meanwhile
        if reply is not None:
            self.answered += 1
        elif self.cache.mode == "replay":
            raise SearchFailed("not_recorded", f"no reply to {query.text!r} was recorded, and this run only replays")
        else:
            self.asked += 1
            reply = await in_thread(partial(self.cache.put, key, request, await _reply(self.inner, query)))
        raise_recorded(reply)
        hits = tuple(Hit(**hit) for hit in reply["hits"])
        self._remember(query, hits)
        return hits

    def _remember(self, query: Query, hits: tuple[Hit, ...]) -> None:
        self._read[query] = hits
        if len(self._read) > _REMEMBERED:
            self._read.popitem(last=False)


def _request(provider: str, query: Query) -> dict[str, Any]:
    """What is recorded of a question; white space makes no difference."""
    words = " ".join(query.text.split())
    return {"provider": provider, "text": words, "kind": query.kind, "k": query.k, "image": query.image}


def _query(request: Mapping[str, Any]) -> Query:
    return Query(text=request["text"], kind=request["kind"], k=request["k"], image=request["image"])


def key_of(request: Mapping[str, Any]) -> str:
    """sha256 of the request in canonical JSON."""
    return hashlib.sha256(_canonical(request).encode()).hexdigest()


def page_reply(page: Page) -> dict[str, Any]:
    """A page as a cache holds it."""
    return {"page": asdict(page)}


def failure_reply(error: SearchFailed) -> dict[str, Any]:
    """A lasting failure as a cache holds it. Raises it again where asking once more may help."""
    if error.failure not in _KEPT_FAILURES:
        raise error
    return {"failure": error.failure, "message": str(error)}


def raise_recorded(reply: Mapping[str, Any]) -> None:
    """Raises the failure that was recorded, where one was."""
    if "failure" in reply:
        raise SearchFailed(cast(Failure, reply["failure"]), str(reply["message"]))


async def _reply(provider: Provider, query: Query) -> dict[str, Any]:
    try:
        return {"hits": [asdict(hit) for hit in await provider.search(query)]}
    except SearchFailed as error:
        return failure_reply(error)


def _canonical(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="replace").decode()  # a model may write half a pair of UTF-16
