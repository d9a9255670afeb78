"""The local index: whole or not there, goes on where it was stopped, and finds what a plain count of words finds."""

from __future__ import annotations

import itertools
import re
import sqlite3
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.errors import ConfigError
from tools.search.documents import Document
from tools.search.find import build_index, open_index
from tools.search.hit import SearchFailed
from tools.search.local import LocalIndex, build

RIVERS = [
    Document(
        id="elbe", title="Elbe", text="A river from the Giant Mountains to the North Sea.", url="https://e.example/"
    ),
    Document(id="oder", title="Oder", text="A river that ends in the Baltic Sea.", info={"km": 866}),
    Document(id="elba", title="Elba", text="An island in the Mediterranean Sea."),
    Document(id="sea", title="Sea", text="Salt water."),
]


def index_of(documents: list[Document], folder: Path) -> LocalIndex:
    build(documents, folder / "index.db", source="test")
    return LocalIndex(folder / "index.db")


def test_words_in_the_title_count_more_and_all_words_before_some(tmp_path: Path) -> None:
    index = index_of(RIVERS, tmp_path)
    assert index.search("sea", 4)[0].info["id"] == "sea"
    assert index.search("river to the Baltic Sea", 2)[0].info["id"] == "oder"
    best = index.search("rivers of the north", 4)
    assert best[0].info["id"] == "elbe" and best[0].url == "https://e.example/"
    (oder,) = [hit for hit in best if hit.info["id"] == "oder"]
    assert (oder.url, oder.info["km"]) == ("doc:oder", 866)
    assert index.search("volcano", 3) == []


def test_documents_can_be_opened_and_gone_through(tmp_path: Path) -> None:
    index = index_of(RIVERS, tmp_path)
    assert index.get("elbe") == RIVERS[0] and index.get("rhine") is None
    assert list(index) == RIVERS and len(index) == 4
    index.check()


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_any_query_is_words_and_never_operators(text: str) -> None:
    index = SHARED[0]
    if not re.search(r"[^\W_]", text):
        with pytest.raises(SearchFailed, match="no words"):
            index.search(text, 3)
        return
    assert len(index.search(text, 3)) <= 3


@pytest.mark.parametrize(
    "query",
    ['"sea', "sea*", "sea AND", "NOT sea", "title:sea", "sea NEAR(x, 5)", "(sea", "sea'); DROP TABLE words;--"],
)
def test_operators_of_the_index_are_plain_words(query: str) -> None:
    assert SHARED[0].search(query, 4)[0].info["id"] == "sea"


def test_a_query_finds_what_is_spelt_with_the_same_letters_however_they_are_put_together(tmp_path: Path) -> None:
    index = index_of([Document(id="m", title="Müller", text="A miller.", info={"id": "another"})], tmp_path)
    for query in ("Müller", unicodedata.normalize("NFD", "Müller"), "_müller_", "__ müller"):
        assert [hit.info["id"] for hit in index.search(query, 3)] == ["m"], query
    with pytest.raises(SearchFailed, match="no words"):
        index.search("__ _", 3)


@pytest.mark.parametrize("suffix", [".index", ".tantivy"])
def test_scripts_without_spaces_are_searched_by_pairs_of_characters(suffix: str, tmp_path: Path) -> None:
    if suffix == ".tantivy":
        pytest.importorskip("tantivy", reason="needs the extra `search`")
    cities = {
        "tokyo": ("東京", "東京都は日本の首都です。"),
        "kyoto": ("京都", "千年のあいだ都であった。"),
        "beijing": ("北京", "北京是中华人民共和国的首都。"),
        "phone": ("手机", "一部iPhone手机。"),
        "elbe": ("Elbe", "A river."),
    }
    documents = [Document(id=id, title=title, text=text) for id, (title, text) in cities.items()]
    build_index(documents, tmp_path / f"cities{suffix}", source="test")
    index = open_index(tmp_path / f"cities{suffix}")

    def found(query: str) -> list[str]:
        return [hit.info["id"] for hit in index.search(query, 3)]

    assert found("日本の首都")[0] == "tokyo" and found("中华人民共和国")[0] == "beijing"
    assert found("京都とは何か")[0] == "kyoto", "by its title; 東京都 holds those two characters as well"
    assert found("都") and set(found("都")) == {"tokyo", "kyoto", "beijing"}
    assert found("iphone 手机") == ["phone"] and found("iPhone") == ["phone"] and found("River") == ["elbe"]
    assert found("大阪") == []
    assert index.get("tokyo") == documents[0] and index.search("東京", 1)[0].snippet == "東京都は日本の首都です。"
    index.check()


SHARED: list[LocalIndex] = []


@pytest.fixture(autouse=True, scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> None:
    SHARED[:] = [index_of(RIVERS, tmp_path_factory.mktemp("shared"))]


def test_a_stopped_build_leaves_no_index_and_goes_on_where_it_was(tmp_path: Path) -> None:
    documents = [Document(id=str(n), title=f"title {n}", text=f"word{n % 7} and more") for n in range(12_000)]
    path = tmp_path / "index.db"
    read: list[str] = []

    def stops(at: int | None) -> Iterator[Document]:
        for document in itertools.islice(documents, at):
            read.append(document.id)
            yield document
        if at is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(stops(11_000), path, source="docs")
    assert not path.exists()
    with pytest.raises(ConfigError) as caught:
        LocalIndex(path)
    assert "goes on" in (caught.value.hint or "")
    seen: list[int] = []
    assert build(stops(None), path, source="docs", on_progress=seen.append) == 12_000
    assert seen == [12_000], "the first 10,000 were kept"
    index = LocalIndex(path)
    assert [document.id for document in index] == [document.id for document in documents]
    assert len(index.search("word3", 10_000)) == len([n for n in range(12_000) if n % 7 == 3])


def test_a_build_of_another_source_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "index.db"

    def stops() -> Iterator[Document]:
        yield from (Document(id=f"old {n}", title="old", text="old") for n in range(5000))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(stops(), path, source="one")
    assert build(RIVERS, path, source="two") == 4
    assert [document.id for document in LocalIndex(path)] == [document.id for document in RIVERS]


def test_building_again_replaces_the_index_at_once(tmp_path: Path) -> None:
    index = index_of(RIVERS, tmp_path)
    build(RIVERS[:1], tmp_path / "index.db", source="other")
    assert index.search("island", 1), "one that is open goes on reading what it opened"
    assert LocalIndex(tmp_path / "index.db").search("island", 1) == []


def test_two_documents_with_one_id_and_none_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two documents have the id 'elbe'"):
        build([*RIVERS, RIVERS[0]], tmp_path / "a.db", source="x")
    with pytest.raises(ConfigError, match="holds no documents"):
        build([], tmp_path / "b.db", source="nothing.jsonl")
    assert not (tmp_path / "a.db").exists() and not (tmp_path / "b.db").exists()


def test_what_is_no_index_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello " * 2000)
    with pytest.raises(ConfigError, match="is not a search index"):
        LocalIndex(tmp_path / "text")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(ConfigError, match="is not a search index"):
        LocalIndex(tmp_path / "other.db")
    index_of(RIVERS, tmp_path)
    newer = sqlite3.connect(tmp_path / "index.db")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(ConfigError, match="version 99"):
        LocalIndex(tmp_path / "index.db")


def test_a_damaged_index_is_said_to_be_damaged(tmp_path: Path) -> None:
    documents = [Document(id=str(n), title=f"t{n}", text="x" * 500) for n in range(2000)]
    index_of(documents, tmp_path)
    path = tmp_path / "index.db"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40_000] = b"\xff" * 40_000
    path.write_bytes(bytes(data))
    with pytest.raises(ConfigError, match=r"damaged|not a search index"):
        LocalIndex(path).check()
    path.write_bytes(bytes(data[: len(data) // 2]))
    with pytest.raises(ConfigError, match=r"damaged|not a search index"):
        LocalIndex(path).check()


def test_tantivy_keeps_the_same_documents_and_finds_the_same(tmp_path: Path) -> None:
    pytest.importorskip("tantivy", reason="needs the extra `search`")
    plain = index_of(RIVERS, tmp_path)
    build_index(RIVERS, tmp_path / "rivers.tantivy", source="test")
    quick = open_index(tmp_path / "rivers.tantivy")
    assert sorted(quick, key=lambda d: d.id) == sorted(RIVERS, key=lambda d: d.id) and len(quick) == 4
    assert quick.get("elbe") == RIVERS[0] and quick.get("rhine") is None
    quick.check()
    for query in ("sea", "river to the Baltic Sea", "island", "volcano", 'title:"sea" AND -river*', "mountains north"):
        ours, theirs = plain.search(query, 4), quick.search(query, 4)
        told = [sorted((h.title, h.url, h.snippet, sorted(h.info)) for h in hits) for hits in (ours, theirs)]
        assert told[0] == told[1]
    with pytest.raises(SearchFailed, match="no words"):
        quick.search("?!", 3)
    with pytest.raises(ConfigError, match="two documents have the id 'elbe'"):
        build_index([*RIVERS, RIVERS[0]], tmp_path / "twice.tantivy", source="x")
    assert not (tmp_path / "twice.tantivy").exists()
    (tmp_path / "other.tantivy").mkdir()
    with pytest.raises(ConfigError, match="is not a search index"):
        open_index(tmp_path / "other.tantivy")
