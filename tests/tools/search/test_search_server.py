"""`python -m tools.search`: built, served and asked as a user does it."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tools.search.__main__ import main
from tools.search.apis import HttpProvider
from tools.search.cache import Recorded, ReplyCache
from tools.search.hit import Query, SearchFailed
from tools.search.local import LocalIndex, LocalProvider

pytest.importorskip("uvicorn", reason="serving needs the extra `search`")
pytest.importorskip("starlette", reason="serving needs the extra `search`")

ROWS = [
    {"id": "elbe", "title": "Elbe", "text": "A river to the North Sea."},
    {"id": "oder", "title": "Oder", "text": "A river to the Baltic Sea."},
    {"id": "elba", "title": "Elba", "text": "An island."},
]


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.search", *map(str, words)], capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def index_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("server")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    done = command("index", folder / "rows.jsonl", folder / "rows.index")
    assert done.returncode == 0 and "3 documents" in done.stdout, done.stderr
    return folder / "rows.index"


@pytest.fixture(scope="module")
def url(index_file: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "tools.search", "serve", str(index_file), "--port", str(port)])
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while True:
        try:
            assert httpx2.get(f"{address}/health", timeout=5).json() == {"index": "rows.index", "documents": 3}
            break
        except httpx2.HTTPError:
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
    yield address
    server.terminate()
    server.wait(30)


def test_both_reply_shapes_of_search_r1(url: str) -> None:
    asked: dict[str, Any] = {"queries": ["Baltic river", "island"], "topk": 1}
    bare = httpx2.post(f"{url}/retrieve", json=asked).json()["result"]
    scored = httpx2.post(f"{url}/retrieve", json={**asked, "return_scores": True}).json()["result"]
    assert bare == [
        [{"id": "oder", "contents": '"Oder"\nA river to the Baltic Sea.'}],
        [{"id": "elba", "contents": '"Elba"\nAn island.'}],
    ]
    assert [[hit["document"] for hit in hits] for hits in scored] == bare
    assert all(hit["score"] > 0 for hits in scored for hit in hits)


def test_the_searches_of_a_whole_step_of_search_r1_are_one_request(url: str) -> None:
    asked = {"queries": ["Baltic river", "?!"] * 1280, "topk": 1, "return_scores": True}
    reply = httpx2.post(f"{url}/retrieve", json=asked, timeout=60).json()
    found = reply["result"]
    assert (
        len(found) == 2560 and all(hits[0]["document"]["id"] == "oder" for hits in found[::2]) and not any(found[1::2])
    )
    assert reply["refused"] == {str(place): "the query holds no words" for place in range(1, 2560, 2)}
    nothing = httpx2.post(f"{url}/retrieve", json={"queries": ["volcano"]}).json()
    assert nothing == {"result": [[]]}, "nothing found is another thing"


@pytest.mark.parametrize("path", ["", "/", "/retrieve", "/retrieve/"])  # Search-R1's `search_url` has the path
def test_our_client_reads_our_server_as_it_reads_the_file(path: str, url: str, index_file: Path) -> None:
    async def both() -> tuple[Any, Any]:
        remote, local = HttpProvider("retriever", url + path), LocalProvider(LocalIndex(index_file))
        query = Query(text="river", k=2)
        found = await remote.search(query), await local.search(query)
        for provider in (remote, local):
            with pytest.raises(SearchFailed, match="the query holds no words") as caught:
                await provider.search(Query(text="?!"))
            assert caught.value.failure == "refused"
        await remote.close()
        return found

    remote, local = asyncio.run(both())
    assert [(h.title, h.url, h.snippet) for h in remote] == [(h.title, h.url, h.snippet) for h in local]
    assert [h.score for h in remote] == pytest.approx([h.score for h in local])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"query": "x"}',
        b'{"queries": "x"}',
        b'{"queries": [1]}',
        b'{"queries": ["x"], "topk": -1}',
        b'{"queries": ["x"], "topk": "many"}',
        b'{"queries": ["x"], "topk": 1000000}',
        json.dumps({"queries": ["x"] * 10_000}).encode(),
        b'{"queries": ["' + b"x" * 17_000_000 + b'"]}',
    ],
)
def test_a_wrong_request_is_answered_with_what_is_wrong(url: str, body: bytes) -> None:
    reply = httpx2.post(f"{url}/retrieve", content=body)
    assert reply.status_code == 422 and reply.json()["error"]
    assert httpx2.get(f"{url}/health").status_code == 200


def test_folders_and_parquet_and_foreign_columns_are_indexed(tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    (pages / "deep").mkdir(parents=True)
    (pages / "a.html").write_text("<html><title>Elbe</title><body><p>The Elbe is a river.</p></body></html>")
    (pages / "deep" / "b.txt").write_text("The Oder is a river.")
    (pages / "ignored.bin").write_bytes(b"\x00")
    assert command("index", pages, tmp_path / "pages.index").returncode == 0
    assert sorted(document.id for document in LocalIndex(tmp_path / "pages.index")) == ["a.html", "deep/b.txt"]
    said = command("query", tmp_path / "pages.index", "Elbe river", "-k", "1").stdout
    assert "1. Elbe" in said and "doc:a.html" in said

    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table({"_id": ["1"], "passage": ["The Elbe."], "title": ["Elbe"]})
    parquet.write_table(table, tmp_path / "rows.parquet")
    wrong = command("index", tmp_path / "rows.parquet", tmp_path / "p.index")
    assert wrong.returncode == 1 and "_id, passage, title" in wrong.stderr and "--text" in wrong.stderr
    right = command("index", tmp_path / "rows.parquet", tmp_path / "p.index", "--text", "passage", "--id", "_id")
    assert right.returncode == 0, right.stderr
    assert LocalIndex(tmp_path / "p.index").get("1") is not None


def test_mistakes_are_said_in_a_sentence(tmp_path: Path, index_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "x"}\nnot json\n')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "x"}\n{"text": "\xff"}\n')
    (tmp_path / "half.jsonl").write_text('{"text": "x"}\n{"id": "\\ud800", "text": "x"}\n')
    (tmp_path / "bad.parquet").write_bytes(b"PAR?")
    (tmp_path / "folder").mkdir()
    for words, told in (
        (("index", tmp_path / "no.jsonl", tmp_path / "o"), "there is nothing at"),
        (("index", tmp_path / "bad.jsonl", tmp_path / "o"), "line 2"),
        (("index", tmp_path / "empty.jsonl", tmp_path / "o"), "holds no documents"),
        (("index", tmp_path / "latin.jsonl", tmp_path / "o"), "line 2: 'utf-8' codec"),
        (("index", tmp_path / "half.jsonl", tmp_path / "o"), "line 2: 'utf-8' codec"),
        (("index", tmp_path / "bad.parquet", tmp_path / "o"), "is not a parquet file"),
        (("index", tmp_path / "folder", tmp_path / "o"), "folder holds no documents"),
        (("index", tmp_path / "bad.jsonl", tmp_path / "folder"), "is a folder, and an index is a file"),
        (("pictures", tmp_path / "folder", tmp_path / "o"), "ends in .pictures"),
        (("pictures", tmp_path / "folder", tmp_path / "o.pictures"), "no pictures"),
        (("query", index_file), "nothing to search for"),
        (("query", index_file, "?!"), "holds no words"),
        (("query", index_file, "x", "--by", "meaning"), "has no vectors"),
        (("query", index_file, "x", "--image", tmp_path / "o"), "is no index of pictures"),
        (("query", tmp_path / "o", "x"), "no search index"),
        (("check", tmp_path / "bad.jsonl"), "is not a search index"),
        (("cache", tmp_path / "none"), "no recorded replies"),
    ):
        assert main([str(word) for word in words]) == 1, words
        said = capsys.readouterr().err
        assert told in said, (words, said)
    assert command("check", index_file).stdout.endswith("is sound: 3 documents\n")


def test_a_cache_can_be_looked_into(tmp_path: Path, index_file: Path) -> None:
    provider = Recorded(LocalProvider(LocalIndex(index_file)), ReplyCache(tmp_path / "cache.db"))
    for text in ("river", "volcano"):
        asyncio.run(provider.search(Query(text=text)))
    listed = command("cache", tmp_path / "cache.db").stdout
    assert "2 hits" in listed and "0 hits" in listed and '"river"' in listed
    (line,) = command("cache", tmp_path / "cache.db", "--grep", "RIVER", "--json").stdout.splitlines()
    assert [hit["title"] for hit in json.loads(line)["reply"]["hits"]] == ["Elbe", "Oder"]
