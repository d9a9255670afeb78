"""Search services over HTTP: one table of how each is asked and how its reply reads.

Shapes are from the services' public documentation. Keys come from the environment and are never logged; a service of
your own (SearXNG, a Search-R1 retriever) is named by its address.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, final

import httpx2

from tools.errors import ConfigError, nearest
from tools.record import record
from tools.search.documents import unquoted
from tools.search.extract import printable
from tools.search.hit import Hit, Kind, Query, SearchFailed

JSON = Mapping[str, Any]


@record
class Call:
    """An HTTP request, without the service's address."""

    path: str
    params: Mapping[str, str | int] | None = None
    """Of the address; a request with a `body` is a POST."""
    body: JSON | None = None


@record
class Api:
    """A service: how it is asked, and how its reply reads."""

    kinds: frozenset[Kind]
    ask: Callable[[Query], Call]
    read: Callable[[Any, Query], Sequence[Hit]]
    """Raises `KeyError`, `TypeError` or the like where a reply has another shape."""
    url: str = ""
    """Its public address; empty for services that users run themselves."""
    key: str = ""
    """Environment variable of its key; empty where it takes none."""
    header: str = "Authorization"
    """Where the key goes; in `Authorization` it is a bearer token."""


def _searxng_ask(query: Query) -> Call:
    category = {"text": "general", "news": "news", "images": "images"}[query.kind]
    return Call(path="/search", params={"q": query.text, "format": "json", "categories": category})


def _searxng_read(reply: Any, query: Query) -> Sequence[Hit]:
    hits = [
        _hit(r, "title", "url", "content", date="publishedDate", image="img_src", score="score", source="engine")
        for r in reply["results"]
    ]
    if not hits and reply.get("unresponsive_engines"):
        raise SearchFailed("unavailable", f"no engine of SearXNG answered: {reply['unresponsive_engines']!r:.200}")
    return hits


def _serper_ask(query: Query) -> Call:
    path = {"text": "/search", "news": "/news", "images": "/images"}[query.kind]
    return Call(path=path, body={"q": query.text, "num": query.k})


def _serper_read(reply: Any, query: Query) -> Sequence[Hit]:
    rows = reply[{"text": "organic", "news": "news", "images": "images"}[query.kind]]
    return [_hit(r, "title", "link", "snippet", date="date", image="imageUrl") for r in rows]


def _tavily_ask(query: Query) -> Call:
    topic = "news" if query.kind == "news" else "general"
    return Call(path="/search", body={"query": query.text, "max_results": query.k, "topic": topic})


def _tavily_read(reply: Any, query: Query) -> Sequence[Hit]:
    return [_hit(r, "title", "url", "content", date="published_date", score="score") for r in reply["results"]]


def _brave_ask(query: Query) -> Call:
    path = {"text": "/web/search", "news": "/news/search", "images": "/images/search"}[query.kind]
    return Call(path=f"/res/v1{path}", params={"q": query.text, "count": min(query.k, 20)})


def _brave_read(reply: Any, query: Query) -> Sequence[Hit]:
    if query.kind == "text":  # a reply without `web` is Brave's way to say that nothing was found
        rows = reply["web"]["results"] if "web" in reply else _nothing(reply, "query")
    else:
        rows = reply["results"]
    return [_hit(r, "title", "url", "description", date="age") for r in rows]


def _exa_ask(query: Query) -> Call:
    return Call(path="/search", body={"query": query.text, "numResults": query.k, "contents": {"text": True}})


def _exa_read(reply: Any, query: Query) -> Sequence[Hit]:
    return [_hit(r, "title", "url", "text", date="publishedDate", score="score") for r in reply["results"]]


def _retriever_ask(query: Query) -> Call:
    return Call(path="/retrieve", body={"queries": [query.text], "topk": query.k, "return_scores": True})


def _retriever_read(reply: Any, query: Query) -> Sequence[Hit]:
    """Search-R1's two shapes: `{"document": ..., "score": ...}`, or the bare document; ours says what it refused."""
    (rows,) = reply["result"]
    if reply.get("refused"):
        raise SearchFailed("refused", str(reply["refused"]["0"]))
    return [_document(row.get("document", row), row.get("score"), rank) for rank, row in enumerate(rows)]


def _document(document: JSON, score: Any, rank: int) -> Hit:
    title, _, text = str(document["contents"]).partition("\n")
    known = str(document.get("id", rank))
    return Hit(
        title=unquoted(printable(title)),
        url=f"doc:{known}",
        snippet=printable(text),
        score=None if score is None else float(score),
        info={"id": known},
    )


APIS: Mapping[str, Api] = {
    "searxng": Api(kinds=frozenset({"text", "news", "images"}), ask=_searxng_ask, read=_searxng_read),
    "retriever": Api(kinds=frozenset({"text"}), ask=_retriever_ask, read=_retriever_read),
    "serper": Api(
        kinds=frozenset({"text", "news", "images"}),
        ask=_serper_ask,
        read=_serper_read,
        url="https://google.serper.dev",
        key="SERPER_API_KEY",
        header="X-API-KEY",
    ),
    "tavily": Api(
        kinds=frozenset({"text", "news"}),
        ask=_tavily_ask,
        read=_tavily_read,
        url="https://api.tavily.com",
        key="TAVILY_API_KEY",
    ),
    "brave": Api(
        kinds=frozenset({"text", "news", "images"}),
        ask=_brave_ask,
        read=_brave_read,
        url="https://api.search.brave.com",
        key="BRAVE_API_KEY",
        header="X-Subscription-Token",
    ),
    "exa": Api(
        kinds=frozenset({"text"}),
        ask=_exa_ask,
        read=_exa_read,
        url="https://api.exa.ai",
        key="EXA_API_KEY",
        header="x-api-key",
    ),
}


@final
class HttpProvider:
    """A service of `APIS`, asked with patience: 429 and 5xx are tried again, longer apart each time."""

    def __init__(
        self, service: str, url: str | None = None, *, timeout_s: float = 15.0, tries: int = 4, pause_s: float = 0.5
    ) -> None:
        """`url`: another address than the public one, with or without the path that is asked (`/retrieve`).

        Raises `ConfigError` for an unknown service, a missing key, or what is no address.
        """
        if service not in APIS:
            raise ConfigError(f"there is no search service {service!r}", hint=nearest(service, APIS))
        self._api = APIS[service]
        address = url or self._api.url
        if not address:
            raise ConfigError(f"{service} needs its address", hint=f"search={service}=http://127.0.0.1:8000")
        if not _is_web_address(address):
            raise ConfigError(f"{address!r} is no address", hint=f"search={service}=http://127.0.0.1:8000")
        key = os.environ.get(self._api.key, "") if self._api.key else ""
        if self._api.key and not key:
            raise ConfigError(f"{service} needs a key", hint=f"set the environment variable {self._api.key}")
        self.name = service_name(service, url)
        self.kinds = self._api.kinds
        self._address = address.rstrip("/")
        self._tries, self._pause_s = tries, pause_s
        value = f"Bearer {key}" if self._api.header == "Authorization" else key
        self._open = partial(
            httpx2.AsyncClient,
            timeout=timeout_s,
            headers={self._api.header: value} if key else {},
        )
        self._clients: dict[asyncio.AbstractEventLoop, httpx2.AsyncClient] = {}

    async def search(self, query: Query) -> tuple[Hit, ...]:
        """See `Provider.search`."""
        call = self._api.ask(query)
        for attempt in range(self._tries):
            try:
                return tuple(self._read(await self._send(call), query))[: query.k]
            except SearchFailed as error:
                if error.failure not in ("rate_limited", "unavailable") or attempt + 1 == self._tries:
                    raise
                pause = self._pause_s * 2**attempt
                await asyncio.sleep(min(error.retry_after_s or pause, 60.0))
        raise AssertionError("a loop of at least one try returns or raises")

    async def close(self) -> None:
        """Close the connections of the running loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _client(self) -> httpx2.AsyncClient:
        """The running loop's: a connection is of no use in another, and each stage of a training run has its own."""
        for loop in list(self._clients):
            if loop.is_closed():
                self._clients.pop(loop, None)
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients[loop] = self._open()
        return self._clients[loop]

    async def _send(self, call: Call) -> bytes:
        method = "GET" if call.body is None else "POST"
        url = self._address if self._address.endswith(call.path) else self._address + call.path
        try:
            reply = await self._client().request(method, url, params=call.params, json=call.body)
        except httpx2.HTTPError as error:
            raise SearchFailed("unavailable", f"the search service {self.name} cannot be reached") from error
        if reply.status_code == 429:
            wait = reply.headers.get("retry-after", "")
            raise SearchFailed(
                "rate_limited",
                f"the search service {self.name} asks for a pause",
                float(wait) if wait.replace(".", "", 1).isdigit() else None,
            )
        if reply.status_code >= 500:
            raise SearchFailed("unavailable", f"the search service {self.name} failed ({reply.status_code})")
        if reply.status_code != 200:
            raise SearchFailed("refused", f"the search service {self.name} refused ({reply.status_code})")
        return reply.content

    def _read(self, body: bytes, query: Query) -> Sequence[Hit]:
        try:
            return self._api.read(json.loads(body), query)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise SearchFailed(
                "bad_reply", f"the search service {self.name} answered in a form that is not known"
            ) from error


def _is_web_address(address: str) -> bool:
    try:
        url = httpx2.URL(address)
    except httpx2.InvalidURL:
        return False
    return url.scheme in ("http", "https") and bool(url.host)


def service_name(service: str, url: str | None) -> str:
    """What recorded replies know a service by."""
    return f"{service}:{url}" if url else service


def _hit(
    row: JSON, title: str, url: str, text: str, *, date: str = "", image: str = "", score: str = "", source: str = ""
) -> Hit:
    """A hit of a row, by the names of its fields. A row without an address is not a hit: `KeyError`."""
    points = row.get(score) if score else None
    return Hit(
        title=printable(str(row.get(title) or "")),
        url=str(row[url]),
        snippet=printable(str(row.get(text) or "")),
        date=str(row.get(date) or "") if date else "",
        image=str(row.get(image) or "") if image else "",
        source=str(row.get(source) or "") if source else "",
        score=float(points) if isinstance(points, int | float) else None,
    )


def _nothing(reply: JSON, witness: str) -> list[JSON]:
    reply[witness]  # without it this is not the service's reply at all
    return []
