"""The tools a model searches with: what it is shown, and that a failure never looks like nothing found."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tools.search.cache import Recorded, ReplyCache
from tools.search.ddg import DdgsProvider
from tools.search.documents import Document
from tools.search.hit import Hit, Kind, Page, Query, SearchFailed
from tools.search.local import LocalIndex, LocalProvider, build
from tools.search.tool import SearchLimits, SearchTools, WebPages, search_r1_style
from tools.tool import ToolResult

HITS = (
    Hit(title="Elbe", url="https://e.example/", snippet="A river " * 200, date="2024-01-02"),
    Hit(title="", url="doc:oder", snippet="Another."),
)


class Source:
    """A provider that gives or raises what it was made with."""

    name = "source"
    kinds: frozenset[Kind] = frozenset({"text", "news", "images"})

    def __init__(self, *given: Hit, fails: SearchFailed | None = None) -> None:
        self.given, self.fails = given, fails
        self.asked: list[Query] = []

    async def search(self, query: Query) -> tuple[Hit, ...]:
        self.asked.append(query)
        if self.fails is not None:
            raise self.fails
        return self.given[: query.k]


def call(tools: SearchTools, name: str, **arguments: Any) -> ToolResult:
    (tool,) = (tool for tool in tools.tools if tool.name == name)
    return asyncio.run(tool.fn(**arguments))


def test_hits_are_numbered_and_cut_at_a_word() -> None:
    shown = call(SearchTools(Source(*HITS), limits=SearchLimits(snippet_chars=30)), "search", query=" the  Elbe ")
    assert shown.text == (
        "1. Elbe\n   https://e.example/  2024-01-02\n   A river A river A river A ...\n"
        "2. (no title)\n   doc:oder\n   Another."
    )
    assert shown.data == {"query": "the Elbe", "hits": ["https://e.example/", "doc:oder"]} and not shown.is_error


def test_each_kind_of_search_asks_for_its_kind_and_there_are_no_tools_without_a_source() -> None:
    source = Source(*HITS)
    tools = SearchTools(source)
    for name in ("search", "news", "image_search"):
        call(tools, name, query="x", k=2)
    assert [(query.kind, query.k) for query in source.asked] == [("text", 2), ("news", 2), ("images", 2)]
    assert [tool.name for tool in tools.tools] == ["search", "news", "image_search"], "and no page can be opened"


def test_nothing_found_is_no_error_and_a_failure_is_one_that_is_counted() -> None:
    nothing = call(SearchTools(Source()), "search", query="x")
    assert nothing.text == "Nothing was found for 'x'." and not nothing.is_error and nothing.data["hits"] == []
    for failure in ("rate_limited", "unavailable", "bad_reply", "refused", "not_recorded"):
        fails = SearchFailed(failure, f"it is {failure}")  # pyright: ignore[reportArgumentType]
        shown = call(SearchTools(Source(fails=fails)), "search", query="x")
        assert shown.is_error and shown.text == f"It is {failure}." and shown.data == {"failure": failure}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"query": ""}, "The query is empty"),
        ({"query": " \n\t "}, "The query is empty"),
        ({"query": "x" * 501}, "501 characters long; at most 500"),
        ({"query": "x", "k": 0}, "k is 0; it must be 1 to 20"),
        ({"query": "x", "k": 1000}, "k is 1000; it must be 1 to 20"),
    ],
)
def test_a_wrong_query_is_told_and_not_asked(arguments: Any, told: str) -> None:
    source = Source(*HITS)
    shown = call(SearchTools(source), "search", **arguments)
    assert told in shown.text and shown.is_error and source.asked == []


def test_half_a_character_in_a_query_is_left_out_and_the_rest_asked(tmp_path: Path) -> None:
    source = Source(*HITS)
    shown = call(SearchTools(Recorded(source, ReplyCache(tmp_path / "c.db"))), "search", query="el\ud800be\x00 \x1b")
    assert not shown.is_error and [query.text for query in source.asked] == ["elbe"]


def test_search_r1_has_its_own_form() -> None:
    shown = call(SearchTools(Source(*HITS[:1]), style=search_r1_style), "search", query="x")
    assert shown.text.startswith("Doc 1(Title: Elbe) A river") and shown.text.endswith("...\n")


TEXT = "\n".join(f"Line {n} of a long page." for n in range(500)) + "\nThe Elbe is 1,094 km long.\n"


@pytest.fixture
def pages(tmp_path: Path) -> SearchTools:
    """Documents of a local index, opened as pages."""
    documents = [Document(id="long", title="Rivers", text=TEXT), Document(id="short", title="", text="Brief.")]
    build(documents, tmp_path / "i.index", source="test")
    local = LocalProvider(LocalIndex(tmp_path / "i.index"))
    return SearchTools(local, WebPages(None, known=local.page), limits=SearchLimits(page_chars=1000))


def test_a_long_page_is_read_part_by_part_and_nothing_is_lost(pages: SearchTools) -> None:
    first = call(pages, "open_page", url="doc:long")
    parts = first.data["parts"]
    assert first.text.startswith(f"Rivers\ndoc:long (part 1 of {parts})\n[Text from outside")
    read = [call(pages, "open_page", url="doc:long", part=n).text.split("]\n", 1)[1] for n in range(1, parts + 1)]
    assert "".join(read) == TEXT.strip()
    beyond = call(pages, "open_page", url="doc:long", part=parts + 1)
    assert beyond.is_error and f"has {parts} parts; there is no part {parts + 1}" in beyond.text


def test_words_are_found_within_a_page(pages: SearchTools) -> None:
    found = call(pages, "open_page", url="doc:long", find="the elbe IS")
    assert "The Elbe is 1,094 km long." in found.text and len(found.text) < 1500
    assert "the words 'volcano' are not on this page" in call(pages, "open_page", url="doc:long", find="volcano").text


@pytest.mark.parametrize("url", ["doc:none", "https://site.example/", "file:///etc/passwd"])
def test_without_the_network_only_what_is_known_is_opened(pages: SearchTools, url: str) -> None:
    shown = call(pages, "open_page", url=url)
    assert shown.is_error and shown.data == {"failure": "refused"} and "may not use the network" in shown.text


def test_a_page_is_recorded_and_replayed(site: Any, answers: Any, fetcher_for: Any, tmp_path: Path) -> None:
    here = site(index=answers("<html><title>Elbe</title><body><p>The Elbe is a river.</p></body></html>"))
    url = f"http://site.example:{here.port}/"
    with fetcher_for(here) as (fetcher, _):
        recording = WebPages(fetcher, ReplyCache(tmp_path / "pages.db", "record"))

        async def twice() -> list[Page]:
            return [await recording.page(url), await recording.page(url)]

        first, second = asyncio.run(twice())
    assert first == second and first.title == "Elbe" and len(here.seen) == 1
    replaying = WebPages(None, ReplyCache(tmp_path / "pages.db", "replay"))
    assert asyncio.run(replaying.page(url)) == first
    with pytest.raises(SearchFailed) as caught:
        asyncio.run(replaying.page(url + "other"))
    assert caught.value.failure == "not_recorded" and len(here.seen) == 1


@pytest.mark.parametrize("path", ["", "nowhere", "\ud800"])
def test_a_page_that_was_refused_is_refused_in_replay_too(
    path: str, site: Any, answers: Any, fetcher_for: Any, tmp_path: Path
) -> None:
    here = site(index=answers("no", 403))
    arguments = {"url": f"http://site.example:{here.port}/{path}"}
    file = tmp_path / "pages.db"
    with fetcher_for(here) as (fetcher, _):
        live = call(SearchTools(Source(), WebPages(fetcher, ReplyCache(file, "record"))), "open_page", **arguments)
    asked = len(here.seen)
    again = call(SearchTools(Source(), WebPages(None, ReplyCache(file, "replay"))), "open_page", **arguments)
    assert again == live and live.data == {"failure": "refused"} and len(here.seen) == asked
    again.text.encode()
    assert again.text.startswith("http://site.example")


def test_a_page_that_takes_long_to_read_holds_nobody_up(
    site: Any, answers: Any, fetcher_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.search.tool.READING_S", 0.2)
    here = site(index=answers("<!--" * 20_000))
    with fetcher_for(here) as (fetcher, _):
        pages = WebPages(fetcher)
        with pytest.raises(SearchFailed, match="could not be read") as caught:
            asyncio.run(pages.page(f"http://site.example:{here.port}/"))
    assert caught.value.failure == "unavailable"


class Engines:
    """Stands for the library ddgs at the boundary to the network: its own call and error forms, no traffic."""

    said: list[Any]

    def __init__(self, timeout: int = 5) -> None: ...

    def text(self, query: str, **settings: Any) -> Any:
        said = Engines.said.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    news = images = text


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("No results found.", None),
        ("202 Ratelimit", "rate_limited"),
        ("HTTP 429", "rate_limited"),
        ("error sending request", "unavailable"),
        ("no certificate since 2024, port 4290", "unavailable"),
    ],
)
def test_what_ddgs_raises_is_told_apart_by_its_words(
    said: str, kind: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ddgs = pytest.importorskip("ddgs", reason="needs the extra `search`")
    errors = pytest.importorskip("ddgs.exceptions")
    monkeypatch.setattr(ddgs, "DDGS", Engines)
    Engines.said = [errors.DDGSException(said)] * 2
    provider = DdgsProvider(pause_s=0.0, tries=2)
    if kind is None:
        assert asyncio.run(provider.search(Query(text="x"))) == ()
        return
    with pytest.raises(SearchFailed) as caught:
        asyncio.run(provider.search(Query(text="x")))
    assert caught.value.failure == kind
    assert len(Engines.said) == (0 if kind == "rate_limited" else 1), "only a pause is worth a second try"


def test_what_ddgs_finds_becomes_hits_and_another_form_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    ddgs = pytest.importorskip("ddgs", reason="needs the extra `search`")
    monkeypatch.setattr(ddgs, "DDGS", Engines)
    provider = DdgsProvider(pause_s=0.0)
    Engines.said = [[{"title": "Elbe\x1b[2J", "href": "https://e.example/", "body": "A river."}], [{"name": "Elbe"}]]
    (hit,) = asyncio.run(provider.search(Query(text="x")))
    assert (hit.title, hit.url, hit.snippet) == ("Elbe[2J", "https://e.example/", "A river.")
    with pytest.raises(SearchFailed) as caught:
        asyncio.run(provider.search(Query(text="x")))
    assert caught.value.failure == "bad_reply"
