"""Search services over HTTP: servers on loopback answer in each one's documented form, well and badly."""

from __future__ import annotations

import asyncio
import gc
import http.server
import json
import threading
from typing import Any

import pytest

from tools.errors import ConfigError
from tools.search.apis import APIS, HttpProvider
from tools.search.hit import Hit, Query, SearchFailed

GOOD: dict[str, Any] = {
    "searxng": {
        "query": "elbe",
        "results": [
            {"url": "https://a.example/", "title": "Elbe", "content": "A river.", "engine": "x", "score": 2.5},
            {"url": "https://b.example/", "title": "Elba", "content": "An island.", "publishedDate": "2024-01-02"},
        ],
        "unresponsive_engines": [],
    },
    "serper": {
        "organic": [
            {"title": "Elbe", "link": "https://a.example/", "snippet": "A river.", "position": 1},
            {"title": "Elba", "link": "https://b.example/", "snippet": "An island.", "date": "2024-01-02"},
        ]
    },
    "tavily": {
        "results": [
            {"title": "Elbe", "url": "https://a.example/", "content": "A river.", "score": 0.9},
            {"title": "Elba", "url": "https://b.example/", "content": "An island.", "score": 0.5},
        ]
    },
    "brave": {
        "query": {"original": "elbe"},
        "web": {
            "results": [
                {"title": "Elbe", "url": "https://a.example/", "description": "A river.", "age": "2 days ago"},
                {"title": "Elba", "url": "https://b.example/", "description": "An island."},
            ]
        },
    },
    "exa": {
        "results": [
            {"id": "1", "title": "Elbe", "url": "https://a.example/", "text": "A river.", "score": 0.9},
            {"id": "2", "title": None, "url": "https://b.example/", "text": "An island.", "publishedDate": "2024"},
        ]
    },
    "retriever": {
        "result": [
            [
                {"document": {"id": "7", "contents": '"Elbe"\nA river.'}, "score": 3.5},
                {"document": {"id": "9", "contents": '"Elba"\nAn island.'}, "score": 1.5},
            ]
        ]
    },
}
EMPTY: dict[str, Any] = {
    "searxng": {"results": [], "unresponsive_engines": []},
    "serper": {"organic": []},
    "tavily": {"results": []},
    "brave": {"query": {"original": "elbe"}},
    "exa": {"results": []},
    "retriever": {"result": [[]]},
}
ALL = sorted(APIS)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ask a service that a local server plays."""
    for api in APIS.values():
        if api.key:
            monkeypatch.setenv(api.key, "sk-secret")

    def ask(service: str, server: Any, query: Query | None = None, **settings: Any) -> tuple[Hit, ...]:
        async def run() -> tuple[Hit, ...]:
            provider = HttpProvider(service, server.url, pause_s=0.01, **settings)
            try:
                return await provider.search(query or Query(text="elbe", k=2))
            finally:
                await provider.close()

        return asyncio.run(run())

    return ask


def test_every_service_has_a_good_and_an_empty_reply_here() -> None:
    assert set(GOOD) == set(EMPTY) == set(APIS)


@pytest.mark.parametrize("service", ALL)
def test_a_good_reply_becomes_hits(service: str, site: Any, answers: Any, asked: Any) -> None:
    server = site(default=answers(json.dumps(GOOD[service]), content_type="application/json"))
    first, second = asked(service, server)
    assert (first.title, first.snippet) == ("Elbe", "A river.")
    assert second.snippet == "An island."
    assert (first.url, second.url) == (
        ("doc:7", "doc:9") if service == "retriever" else ("https://a.example/", "https://b.example/")
    )
    api = APIS[service]
    if api.key:
        sent = server.headers[0][api.header.lower()]
        assert sent in ("sk-secret", "Bearer sk-secret")
        assert "sk-secret" not in server.seen[0]


@pytest.mark.parametrize("service", ALL)
def test_no_more_hits_than_asked_for(service: str, site: Any, answers: Any, asked: Any) -> None:
    server = site(default=answers(json.dumps(GOOD[service])))
    assert len(asked(service, server, Query(text="elbe", k=1))) == 1


@pytest.mark.parametrize("service", ALL)
def test_nothing_found_is_an_answer(service: str, site: Any, answers: Any, asked: Any) -> None:
    assert asked(service, site(default=answers(json.dumps(EMPTY[service])))) == ()


@pytest.mark.parametrize("service", ALL)
@pytest.mark.parametrize(
    "body", ["", "{", "[]", "null", '{"hello": 1}', '{"results": 5, "organic": 5, "result": 5}', "<html>"]
)
def test_another_form_is_a_failure_and_never_nothing_found(
    service: str, body: str, site: Any, answers: Any, asked: Any
) -> None:
    with pytest.raises(SearchFailed) as caught:
        asked(service, site(default=answers(body)))
    assert caught.value.failure == "bad_reply" and "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("service", ALL)
def test_a_truncated_reply_is_tried_again_and_then_a_failure(service: str, site: Any, asked: Any) -> None:
    def cut(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"results": [')

    server = site(default=cut)
    with pytest.raises(SearchFailed) as caught:
        asked(service, server, tries=2)
    assert caught.value.failure == "unavailable" and len(server.seen) == 2


@pytest.mark.parametrize("service", ALL)
@pytest.mark.parametrize(("status", "kind"), [(429, "rate_limited"), (500, "unavailable"), (503, "unavailable")])
def test_a_busy_service_is_asked_again(
    service: str, status: int, kind: str, site: Any, answers: Any, asked: Any
) -> None:
    left, lock = [2], threading.Lock()

    def busy_twice(handler: Any) -> None:
        with lock:
            left[0] -= 1
            busy = left[0] >= 0
        answers("busy", status)(handler) if busy else answers(json.dumps(GOOD[service]))(handler)

    server = site(default=busy_twice)
    assert len(asked(service, server)) == 2 and len(server.seen) == 3
    with pytest.raises(SearchFailed) as caught:
        asked(service, site(default=answers("busy", status)), tries=2)
    assert caught.value.failure == kind


@pytest.mark.parametrize("service", ALL)
def test_a_service_that_is_silent_is_given_up(service: str, site: Any, asked: Any) -> None:
    over = threading.Event()
    server = site(default=lambda handler: over.wait(60))
    with pytest.raises(SearchFailed) as caught:
        asked(service, server, tries=1, timeout_s=0.2)
    over.set()
    assert caught.value.failure == "unavailable" and "cannot be reached" in str(caught.value)


def test_how_long_a_service_asks_to_be_left_alone_is_told(site: Any, answers: Any, asked: Any) -> None:
    with pytest.raises(SearchFailed) as caught:
        asked("serper", site(default=answers("busy", 429, retry_after="7")), tries=1)
    assert caught.value.retry_after_s == 7.0


def test_a_refusal_is_not_asked_again(site: Any, answers: Any, asked: Any) -> None:
    server = site(default=answers("bad key", 403))
    with pytest.raises(SearchFailed) as caught:
        asked("serper", server)
    assert caught.value.failure == "refused" and len(server.seen) == 1


def test_searxng_whose_engines_all_fail_did_not_find_nothing(site: Any, answers: Any, asked: Any) -> None:
    server = site(default=answers(json.dumps({"results": [], "unresponsive_engines": [["google", "CAPTCHA"]]})))
    with pytest.raises(SearchFailed, match="CAPTCHA"):
        asked("searxng", server)


def test_a_missing_key_an_unknown_service_and_a_missing_address_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERPER_API_KEY", raising=False)
    with pytest.raises(ConfigError) as caught:
        HttpProvider("serper")
    assert "SERPER_API_KEY" in (caught.value.hint or "")
    with pytest.raises(ConfigError) as caught:
        HttpProvider("serpper")
    assert "serper" in (caught.value.hint or "")
    with pytest.raises(ConfigError, match="needs its address"):
        HttpProvider("searxng")
    for address in ("127.0.0.1:8000", "somewhere", "ftp://a.example", "http://[::1", "http://"):
        with pytest.raises(ConfigError, match="is no address"):
            HttpProvider("retriever", address)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a loop leaves its connections open
def test_a_service_is_asked_from_one_event_loop_after_the_other() -> None:
    class Kept(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None: ...

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            body = json.dumps(GOOD["retriever"]).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Kept) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        provider = HttpProvider("retriever", f"http://127.0.0.1:{server.server_port}")
        for _ in range(3):
            assert len(asyncio.run(provider.search(Query(text="elbe", k=2)))) == 2
        server.shutdown()
    del provider
    gc.collect()  # the warnings about what the loops left open belong to this test
