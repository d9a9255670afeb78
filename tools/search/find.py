"""From what a user writes after `search=` to a provider: `local`, a file, a service, or a service at an address."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path

from tools.errors import ConfigError, nearest
from tools.record import record
from tools.search.apis import APIS, HttpProvider, service_name
from tools.search.cache import Mode, Recorded, ReplyCache, Unasked
from tools.search.ddg import DdgsProvider, ddgs_name
from tools.search.documents import Document, SearchIndex
from tools.search.encoders import TextEncoder
from tools.search.hit import Kind, Provider
from tools.search.local import LocalIndex, LocalProvider, build
from tools.search.meaning import By, MeaningIndex
from tools.search.tantivy_index import SUFFIX as TANTIVY
from tools.search.tantivy_index import TantivyIndex, build_tantivy
from tools.search.world import PARTS, world_folder, world_index


def provider_for(spec: str, replies: str | None = None, mode: Mode = "record") -> Provider:
    """The provider that `spec` names, behind the cache file `replies` where one is named.

    `local:PART` is a part of the offline world, `PATH.index` or `PATH.tantivy` an index of the user's own (`words=PATH`
    and `meaning=PATH` leave the other ranking out), `ddgs` the live web, `retriever=URL`, `searxng=URL`, `serper`, ...
    a service. In `replay` nothing is opened and no key is needed. Raises `ConfigError` where it cannot be had.
    """
    source = _source(spec)
    if replies is None:
        return source.open()
    inner = Unasked(source.name, source.kinds) if mode == "replay" else source.open()
    return Recorded(inner, _cache(replies, mode))


def open_index(path: Path, by: By | None = None) -> SearchIndex:
    """The index at `path`: one of tantivy's where its name says so, else the default's.

    `by` says what ranks; by default all that the index has. Raises `ConfigError` where it has not what is asked for.
    """
    if path.suffix == TANTIVY:
        if by in ("meaning", "both"):
            raise ConfigError(f"{path} has no vectors", hint="an index with vectors is one FILE.index")
        return TantivyIndex(path)
    index = LocalIndex(path)
    if by is None:
        by = "both" if index.encoder else "words"
    return index if by == "words" else MeaningIndex(index, by)


def build_index(
    documents: Iterable[Document],
    path: Path,
    *,
    source: str,
    encoder: TextEncoder | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Index `documents` at `path`, by the library its name asks for; returns how many there are."""
    if path.suffix != TANTIVY:
        return build(documents, path, source=source, encoder=encoder, on_progress=on_progress)
    if encoder is not None:
        raise ConfigError("a tantivy index keeps no vectors", hint=f"name it {path.with_suffix('.index').name}")
    return build_tantivy(documents, path, source=source, on_progress=on_progress)


@record
class _Source:
    """What a spec names: known by name before it is opened."""

    name: str
    """As recorded replies know it."""
    kinds: frozenset[Kind]
    open: Callable[[], Provider]


def _source(spec: str) -> _Source:
    name, _, rest = spec.partition("=")
    if name.startswith("local:"):
        part = _part(name.removeprefix("local:"))
        return _Source(name=name, kinds=LocalProvider.kinds, open=partial(_world, world_folder(), part))
    by: By | None = name if name in ("words", "meaning", "both") and rest else None
    path = Path(rest if by else name)
    if by or path.suffix in (".index", TANTIVY) or path.is_file():
        name = f"local:{path.stem}" + (f":{by}" if by else "")
        return _Source(name=name, kinds=LocalProvider.kinds, open=partial(_index, path.absolute(), by, name))
    if name == "ddgs":
        return _Source(name=ddgs_name(), kinds=DdgsProvider.kinds, open=_ddgs)
    if name in APIS:
        return _Source(name=service_name(name, rest), kinds=APIS[name].kinds, open=partial(_service, name, rest))
    known = [*(f"local:{part}" for part in PARTS), "ddgs", *APIS]
    raise ConfigError(f"there is no search provider {spec!r}", hint=f"{nearest(name, known)}; or a file.index")


# One provider a process for each source: its threads, its connections and its pace are shared by all episodes.


@cache
def _world(folder: Path, part: str) -> Provider:
    return LocalProvider(world_index(part, folder), f"local:{part}")


@cache
def _index(path: Path, by: By | None, name: str) -> Provider:
    return LocalProvider(open_index(path, by), name)


@cache
def _ddgs() -> Provider:
    return DdgsProvider()


@cache
def _service(name: str, url: str) -> Provider:
    return HttpProvider(name, url or None)


@cache
def _cache(path: str, mode: Mode) -> ReplyCache:
    return ReplyCache(path, mode)


def _part(name: str) -> str:
    if name not in PARTS:
        raise ConfigError(f"the offline world has no part {name!r}", hint=nearest(name, PARTS))
    return name
