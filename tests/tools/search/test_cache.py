"""Recorded replies: asked once, the same for everybody, and in replay never a live call."""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.errors import ConfigError
from tools.search.cache import MODES, Recorded, ReplyCache
from tools.search.hit import Hit, Kind, Query, SearchFailed


class Counting:
    """A provider whose every answer is another one."""

    name = "counting"
    kinds: frozenset[Kind] = frozenset({"text"})

    def __init__(self, failure: SearchFailed | None = None, nothing: bool = False) -> None:
        self.calls = 0
        self.failure, self.nothing = failure, nothing

    async def search(self, query: Query) -> tuple[Hit, ...]:
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        if self.nothing:
            return ()
        return (Hit(title=f"{query.text} {self.calls}", url="doc:1", score=0.5, info={"id": "1"}),)


def ask(provider: Any, text: str = "elbe", k: int = 5) -> tuple[Hit, ...]:
    return asyncio.run(provider.search(Query(text=text, k=k)))


def test_a_recorded_reply_is_given_again_and_replay_asks_nobody(tmp_path: Path) -> None:
    inner = Counting()
    recording = Recorded(inner, ReplyCache(tmp_path / "cache.db", "record"))
    first = ask(recording)
    assert ask(recording, " elbe\n") == first and inner.calls == 1
    assert ask(recording, k=3) != first and inner.calls == 2, "other parameters are another question"
    replaying = Recorded(inner, ReplyCache(tmp_path / "cache.db", "replay"))
    assert ask(replaying) == first and inner.calls == 2
    with pytest.raises(SearchFailed, match="'oder' was recorded") as caught:
        ask(replaying, "oder")
    assert caught.value.failure == "not_recorded" and inner.calls == 2
    assert (recording.answered, recording.asked, replaying.answered) == (1, 2, 1)


def test_live_writes_nothing_down(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path / "cache.db", "live")
    inner = Counting()
    assert ask(Recorded(inner, cache)) != ask(Recorded(inner, cache))
    assert len(cache) == 0


def test_nothing_found_and_lasting_failures_are_recorded_passing_ones_are_not(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path / "cache.db", "record")
    empty = Counting(nothing=True)
    assert ask(Recorded(empty, cache), "a") == ask(Recorded(empty, cache), "a") == () and empty.calls == 1
    for failure, calls in (("bad_reply", 1), ("refused", 1), ("rate_limited", 2), ("unavailable", 2)):
        broken = Counting(SearchFailed(failure, f"it is {failure}"))  # pyright: ignore[reportArgumentType]
        for _ in range(2):
            with pytest.raises(SearchFailed, match=failure) as caught:
                ask(Recorded(broken, cache), failure)
            assert caught.value.failure == failure
        assert broken.calls == calls


def write(path: Path, start: Any, name: str, told: Any) -> None:
    cache = ReplyCache(path, "record")
    start.wait()
    for key in range(200):
        kept = cache.put(str(key), {"n": key}, {"by": name})
        told.put((key, kept["by"]))
    cache.close()


def test_writers_at_the_same_time_all_get_the_reply_that_came_first(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, told = context.Event(), context.Queue()
    path = tmp_path / "cache.db"
    writers = [context.Process(target=write, args=(path, start, name, told)) for name in ("a", "b", "c")]
    for writer in writers:
        writer.start()
    start.set()
    heard = [told.get(timeout=120) for _ in range(600)]
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    cache = ReplyCache(path, "replay")
    assert len(cache) == 200
    by_key = {int(line.key): line.reply["by"] for line in cache}
    assert all(by_key[key] == name for key, name in heard)


def test_a_file_that_another_program_writes_holds_up_its_own_search_alone(tmp_path: Path) -> None:
    recording = Recorded(Counting(), ReplyCache(tmp_path / "cache.db", "record"))
    other = sqlite3.connect(tmp_path / "cache.db", isolation_level=None)

    async def run() -> tuple[Hit, ...]:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.ensure_future(recording.search(Query(text="elbe")))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        other.execute("COMMIT")
        return await waiting

    assert asyncio.run(asyncio.wait_for(run(), 30))[0].title == "elbe 1"
    other.close()


def test_a_file_that_fails_while_it_is_used_is_a_failure_of_the_search(tmp_path: Path) -> None:
    recording = Recorded(Counting(), ReplyCache(tmp_path / "cache.db", "record"))
    other = sqlite3.connect(tmp_path / "cache.db")
    other.execute("DROP TABLE replies")
    other.close()
    with pytest.raises(SearchFailed, match=r"the file of replies cache\.db failed: no such table") as caught:
        ask(recording)
    assert caught.value.failure == "unavailable"
    with pytest.raises(ConfigError, match=r"cache\.db failed"):
        next(iter(recording.cache))


@given(text=st.text(max_size=80), title=st.text(max_size=80), score=st.none() | st.floats(allow_nan=False))
def test_any_text_comes_back_as_it_was(
    text: str, title: str, score: float | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    class Fixed(Counting):
        async def search(self, query: Query) -> tuple[Hit, ...]:
            return (Hit(title=title, score=score),)

    try:
        text.encode()
        title.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate is no text that a provider could have sent
    cache = ReplyCache(tmp_path_factory.mktemp("any") / "cache.db", "record")
    assert ask(Recorded(Fixed(), cache), text) == ask(Recorded(Counting(), cache), text)
    cache.close()


def test_what_is_no_cache_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello " * 400)
    with pytest.raises(ConfigError, match="is not a cache of replies"):
        ReplyCache(tmp_path / "text", "replay")
    with pytest.raises(ConfigError, match="no recorded replies"):
        ReplyCache(tmp_path / "missing", "replay")
    with pytest.raises(ConfigError, match="no cache mode 'rerun'"):
        ReplyCache(tmp_path / "c.db", "rerun")  # pyright: ignore[reportArgumentType]
    newer = sqlite3.connect(tmp_path / "newer.db")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(ConfigError, match="version 99"):
        ReplyCache(tmp_path / "newer.db", "record")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE t (x)")
    other.close()
    before = (tmp_path / "other.db").read_bytes()
    for mode in MODES:
        with pytest.raises(ConfigError, match="is not a cache of replies: it holds t"):
            ReplyCache(tmp_path / "other.db", mode)
    assert (tmp_path / "other.db").read_bytes() == before, "a file named by mistake is left as it was"
