"""ddgs: metasearch without a key. Live, therefore never the same twice; record what you train or measure on."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, final

from tools.errors import ConfigError
from tools.search.extract import printable
from tools.search.hit import Hit, Kind, Query, SearchFailed
from tools.tool import in_thread

BACKENDS = "duckduckgo,brave,mojeek"
"""Named, as `auto` shuffles engines and puts an encyclopedia written by a model among the first."""

REGION = "us-en"


@final
class DdgsProvider:
    """Text, news and pictures by words. At most one request every `pause_s` seconds, whoever asks."""

    kinds: frozenset[Kind] = frozenset({"text", "news", "images"})

    def __init__(self, backends: str = BACKENDS, *, region: str = REGION, pause_s: float = 1.0, tries: int = 3) -> None:
        if importlib.util.find_spec("ddgs") is None:
            raise ConfigError("live search needs the package ddgs", hint="pip install 'toolweave[search]'")
        self.name = ddgs_name(backends, region)
        self._backends, self._region = backends, region
        self._pause_s, self._tries = pause_s, tries
        self._next = 0.0

    async def search(self, query: Query) -> tuple[Hit, ...]:
        """See `Provider.search`."""
        for attempt in range(self._tries):
            await self._wait()
            try:
                rows: Sequence[dict[str, Any]] = await in_thread(self._call(query))
                return tuple(_hit(row, query.kind) for row in rows)[: query.k]
            except SearchFailed as error:
                if error.failure != "rate_limited" or attempt + 1 == self._tries:
                    raise
                self._next = time.monotonic() + self._pause_s * 4 ** (attempt + 1)
        raise AssertionError("a loop of at least one try returns or raises")

    async def _wait(self) -> None:
        now = time.monotonic()
        mine = max(now, self._next)
        self._next = mine + self._pause_s
        await asyncio.sleep(mine - now)

    def _call(self, query: Query) -> Callable[[], Sequence[dict[str, Any]]]:
        def run() -> Sequence[dict[str, Any]]:
            from ddgs import DDGS  # pyright: ignore[reportUnknownVariableType]
            from ddgs.exceptions import DDGSException

            client = DDGS(timeout=10)
            ask = {"text": client.text, "news": client.news, "images": client.images}[query.kind]
            backend = {} if query.kind == "images" else {"backend": self._backends}
            try:
                return ask(query.text, region=self._region, max_results=query.k, **backend)
            except DDGSException as error:
                return _nothing_or_raise(error)

        return run


def ddgs_name(backends: str = BACKENDS, region: str = REGION) -> str:
    """What recorded replies know it by."""
    return f"ddgs:{backends}:{region}"


def _nothing_or_raise(error: Exception) -> list[dict[str, Any]]:
    """ddgs raises one type for everything, so its words decide; that nothing was found is an answer."""
    text = str(error).lower()
    if "no results" in text:
        return []
    if re.search(r"rate ?limit|\b(?:202|429)\b", text):
        raise SearchFailed("rate_limited", "the search engines ask for a pause") from error
    raise SearchFailed("unavailable", "the search engines cannot be reached") from error


def _hit(row: dict[str, Any], kind: Kind) -> Hit:
    try:
        return Hit(
            title=printable(str(row["title"])),
            url=str(row["href" if kind == "text" else "url"]),
            snippet=printable(str(row.get("body", ""))),
            date=str(row.get("date", "")),
            source=str(row.get("source", "")),
            image=str(row.get("image", "")) if kind == "images" else "",
        )
    except KeyError as error:
        raise SearchFailed("bad_reply", "the search engines answered in a form that is not known") from error
