"""Fetching one page that a model named: every hop judged, every size and wait bounded, nothing remembered.

No cookies, no credentials, no proxy of the environment (a proxy would resolve names for us, past the guard), and TLS
certificates are always checked.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import zlib
from collections.abc import AsyncIterable, Iterable
from typing import Any, final
from urllib.parse import urljoin

import httpcore2
import httpx2

from tools.record import record
from tools.search.guard import NetworkPolicy, PublicInternet, problem_with_url
from tools.search.hit import SearchFailed

REDIRECTS = frozenset({301, 302, 303, 307, 308})
TEXTUAL = ("text/", "application/xhtml+xml", "application/xml", "application/json")
USER_AGENT = "toolweave"


@record
class FetchLimits:
    """What one fetch may cost."""

    seconds: float = 20.0
    """Wall time of all hops together."""
    max_bytes: int = 2_000_000
    """Of the body, after decompression; more ends the fetch with an error, as half a page may mislead."""
    max_redirects: int = 5


@record
class Fetched:
    """A body and what it is."""

    url: str
    """After redirects."""
    media_type: str
    charset: str
    """As the server says; empty when it does not."""
    body: bytes


@final
class Fetcher:
    """Fetches pages; one per run, closed at its end.

    `policy` decides which addresses may be reached; the default is the public internet and nothing else.
    """

    def __init__(
        self,
        policy: NetworkPolicy | None = None,
        limits: FetchLimits | None = None,
        *,
        media_types: tuple[str, ...] = TEXTUAL,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.policy = policy or PublicInternet()
        self.limits = limits or FetchLimits()
        self.media_types = media_types
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls or ssl.create_default_context(),
            max_connections=64,
            max_keepalive_connections=0,  # each fetch resolves and is judged anew
            network_backend=_GuardedBackend(self.policy),
        )

    async def fetch(self, url: str) -> Fetched:
        """The body at `url`. Raises `SearchFailed`: refused, unavailable, rate_limited or bad_reply."""
        try:
            async with asyncio.timeout(self.limits.seconds):
                return await self._follow(url)
        except TimeoutError:
            raise SearchFailed("unavailable", f"{_shown(url)} did not answer in {self.limits.seconds:g} s") from None
        except (httpcore2.NetworkError, httpcore2.TimeoutException, OSError) as error:
            raise SearchFailed("unavailable", f"{_shown(url)} cannot be reached: {_reason(error)}") from error
        except (httpcore2.ProtocolError, httpcore2.UnsupportedProtocol) as error:
            raise SearchFailed("bad_reply", f"{_shown(url)} answered with something that is not HTTP") from error

    async def close(self) -> None:
        """Close what is open."""
        await self._pool.aclose()

    async def _follow(self, url: str) -> Fetched:
        for _ in range(self.limits.max_redirects + 1):
            url = self._fit(url)
            answer = await self._once(url)
            if isinstance(answer, Fetched):
                return answer
            url = answer
        raise SearchFailed("bad_reply", f"{_shown(url)}: more than {self.limits.max_redirects} redirects")

    def _fit(self, url: str) -> str:
        """The address in ASCII, judged as it was written and as it will be asked for: `ⓛocalhost` is `localhost`."""
        problem = problem_with_url(url, self.policy.ports)
        try:
            plain = url if problem is not None else str(httpx2.URL(url))
        except (httpx2.InvalidURL, UnicodeError):
            problem, plain = "the address cannot be read", url
        problem = problem or problem_with_url(plain, self.policy.ports)
        if problem is not None:
            raise SearchFailed("refused", f"{_shown(url)} was not opened: {problem}")
        return plain

    async def _once(self, url: str) -> Fetched | str:
        """The page, or where it says it has moved."""
        headers = [("User-Agent", USER_AGENT), ("Accept", "text/html, text/*;q=0.8"), ("Accept-Encoding", "gzip")]
        async with self._pool.stream("GET", url.split("#")[0], headers=headers) as response:
            found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in REDIRECTS and found.get("location"):
                return urljoin(url, found["location"])
            if response.status == 429:
                wait = found.get("retry-after", "")
                raise SearchFailed(
                    "rate_limited", f"{_shown(url)} asks for a pause", float(wait) if wait.isdigit() else None
                )
            if response.status != 200:
                passing = response.status >= 500 or response.status == 408
                kind = "unavailable" if passing else "refused"
                raise SearchFailed(kind, f"{_shown(url)} answered with status {response.status}")
            media_type, _, rest = found.get("content-type", "").partition(";")
            media_type = media_type.strip().lower()
            if not any(media_type.startswith(known) for known in self.media_types):
                raise SearchFailed("bad_reply", f"{_shown(url)} is {media_type or 'of no stated type'}, not a page")
            body = await self._body(url, response.aiter_stream(), found.get("content-encoding", "identity"))
            charset = rest.partition("charset=")[2].split(";")[0].strip(" \"'")
            return Fetched(url=url, media_type=media_type, charset=charset, body=body)

    async def _body(self, url: str, chunks: AsyncIterable[bytes], encoding: str) -> bytes:
        """The whole body; a compressed one is opened no further than the limit allows."""
        most, kept = self.limits.max_bytes, bytearray()
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise SearchFailed("bad_reply", f"{_shown(url)} is packed as {encoding}, which was not asked for")
        unpack = zlib.decompressobj(wbits=31) if encoding.endswith("gzip") else None
        try:
            async for chunk in chunks:
                if unpack is not None and unpack.eof and chunk:
                    raise SearchFailed("bad_reply", f"{_shown(url)} goes on after the end of its gzip")
                kept += chunk if unpack is None else unpack.decompress(chunk, most + 1 - len(kept))
                if len(kept) > most or (unpack is not None and unpack.unconsumed_tail):
                    raise SearchFailed("refused", f"{_shown(url)} is larger than {most:,} bytes")
        except zlib.error as error:
            raise SearchFailed("bad_reply", f"{_shown(url)} is not the gzip it says it is") from error
        if unpack is not None and (not unpack.eof or unpack.unused_data):
            raise SearchFailed("bad_reply", f"{_shown(url)} is not one whole gzip")
        return bytes(kept)


class _GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to the addresses the policy allows, and to no other."""

    def __init__(self, policy: NetworkPolicy) -> None:
        self._policy = policy
        self._inner: httpcore2.AsyncNetworkBackend = httpcore2.AnyIOBackend()  # pyright: ignore[reportAttributeAccessIssue]

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        host = host.strip("[]")
        addresses = [host] if _is_address(host) else await self._policy.resolve(host, port)
        if not addresses:
            raise httpcore2.ConnectError(f"{host} has no address")
        for address in addresses:  # one private address among public ones is how a name is turned against us
            if not self._policy.allows(address):
                raise SearchFailed("refused", f"{host} was not opened: it is not on the public internet")
        stream = await self._inner.connect_tcp(addresses[0], port, timeout, local_address, socket_options)
        peer = stream.get_extra_info("server_addr")
        if not (peer and self._policy.allows(str(peer[0]))):
            await stream.aclose()
            raise SearchFailed("refused", f"{host} was not opened: it is not on the public internet")
        return stream

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _shown(url: str) -> str:
    """An address short enough for a message, without its query: that may hold a key."""
    bare = url.split("?")[0].split("#")[0]
    return bare if len(bare) <= 120 else bare[:117] + "..."


def _reason(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0][:160]
