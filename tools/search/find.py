"""From what a user writes after `search=` to a provider: `local`, a file, a service, or a service at an address."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from tools.errors import ConfigError, nearest
from tools.search.apis import APIS, HttpProvider
from tools.search.cache import Mode, Recorded, ReplyCache
from tools.search.documents import Document, SearchIndex
from tools.search.hit import Provider
from tools.search.local import LocalIndex, LocalProvider, build
from tools.search.tantivy_index import SUFFIX as TANTIVY
from tools.search.tantivy_index import TantivyIndex, build_tantivy
from tools.search.world import PARTS, world_index


def provider_for(spec: str, replies: str | None = None, mode: Mode = "record") -> Provider:
    """The provider that `spec` names, behind the cache file `replies` where one is named.

    `local:PART` is a part of the offline world, `PATH.index` or `PATH.tantivy` an index of the user's own, `ddgs` the
    live web, `retriever=URL`, `searxng=URL`, `serper`, ... a service. Raises `ConfigError` where it cannot be had.
    """
    provider = _provider(spec)
    return provider if replies is None else Recorded(provider, _cache(replies, mode))


def open_index(path: Path) -> SearchIndex:
    """The index at `path`: one of tantivy's where its name says so, else the default's."""
    return TantivyIndex(path) if path.suffix == TANTIVY else LocalIndex(path)


def build_index(
    documents: Iterable[Document], path: Path, *, source: str, on_progress: Callable[[int], None] | None = None
) -> int:
    """Index `documents` at `path`, by the library its name asks for; returns how many there are."""
    builder = build_tantivy if path.suffix == TANTIVY else build
    return builder(documents, path, source=source, on_progress=on_progress)


def _provider(spec: str) -> Provider:
    name, _, url = spec.partition("=")
    if name.startswith("local:"):
        return _local(world_index(_part(name.removeprefix("local:"))).path)
    if name.endswith((".index", TANTIVY)) or Path(name).is_file():
        return _local(Path(name).resolve())
    if name == "ddgs" or name in APIS:
        return _service(name, url)
    known = [*(f"local:{part}" for part in PARTS), "ddgs", *APIS]
    raise ConfigError(f"there is no search provider {spec!r}", hint=f"{nearest(name, known)}; or a file.index")


@cache
def _local(path: Path) -> Provider:
    """One provider a process for each index: its threads and what they have read are shared by all episodes."""
    return LocalProvider(open_index(path))


@cache
def _service(name: str, url: str) -> Provider:
    """One provider a process for each service: its connections and its pace are shared by all episodes."""
    if name == "ddgs":
        from tools.search.ddg import DdgsProvider

        return DdgsProvider()
    return HttpProvider(name, url or None)


@cache
def _cache(path: str, mode: Mode) -> ReplyCache:
    return ReplyCache(path, mode)


def _part(name: str) -> str:
    if name not in PARTS:
        raise ConfigError(f"the offline world has no part {name!r}", hint=nearest(name, PARTS))
    return name
