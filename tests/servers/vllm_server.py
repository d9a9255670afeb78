"""A local server that answers like vLLM's, a real tiny model behind it, and fails when a test tells it to.

`vllm_replies.json` beside it holds what a real vLLM server answered to the same requests; a test holds this one to it.
"""

from __future__ import annotations

import asyncio
import json
import select
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from vllm_format import engine_request, error_body, events, model_card, refuse, whole
from vllm_sights import PATH, as_completion_request, as_generated

from agent.engine import Generated
from agent.local import TransformersEngine
from agent.vision import Vision


@dataclass(kw_only=True)
class Fault:
    """How one request for a completion goes wrong."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """Sent instead of the reply."""
    length: int | None = None
    """Claimed in Content-Length; the connection closes after what there is."""
    cut_after: int | None = None
    """Close the connection after this many events of the stream (or before a whole reply)."""
    endless: bytes | None = None
    """Sent again and again until the client has gone or the server stops; empty: the head, and then nothing."""
    hang: bool = False
    """Answer nothing until the client has gone or the server stops."""
    edit: Callable[[dict[str, Any]], object] | None = None
    """Changes the reply, or each event of the stream."""


class VLLMServer:
    """`with VLLMServer(model, tokenizer) as server:` serves on `server.url`.

    Requests are kept in `requests`; each takes the next of `faults`. `began` is set when a completion is being worked
    on, `aborted` when a client went away before it was done.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str = "tiny",
        root: str = "/models/tiny",
        max_model_len: int = 2048,
        processed: bool = False,
        with_ids: bool = True,
        dev_mode: bool = True,
        api_key: str | None = None,
        vision: Vision | None = None,
        port: int = 0,
    ) -> None:
        self.engine = TransformersEngine(model, tokenizer, vision=vision)
        self.vision = vision
        self.tokenizer = tokenizer
        self.name, self.root, self.max_model_len = name, root, max_model_len
        self.processed, self.with_ids, self.dev_mode = processed, with_ids, dev_mode
        self.api_key = api_key
        self.requests: list[dict[str, Any]] = []
        self.orders: list[tuple[str, Any]] = []
        self.faults: list[Fault] = []
        self.began = threading.Event()
        self.aborted = threading.Event()
        self.stopping = threading.Event()
        self.on_reload: Callable[[str | None], object] = lambda folder: None
        self.unclean_resets = 0
        """How often yet a reset of the prefix cache fails, as it does while blocks are held."""
        self._connections: set[Any] = set()
        outer = self

        class Handler(_Handler):
            state = outer

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> VLLMServer:
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.engine.close()

    def kill(self) -> None:
        """Stop as a killed process does: no more answers, and every connection is cut."""
        if self.stopping.is_set():
            return
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def next_fault(self) -> Fault:
        return self.faults.pop(0) if self.faults else Fault()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: VLLMServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/health":
            return self._send(200, b"")
        if self._stranger():
            return self._json(401, {"error": "Unauthorized"})
        if self.path == "/v1/models":
            return self._json(200, {"object": "list", "data": [model_card(self.state)]})
        return self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        try:
            self._answer()
        except (BrokenPipeError, ConnectionResetError):
            self.state.aborted.set()
            self.close_connection = True

    def _answer(self) -> None:
        state = self.state
        size = int(self.headers["Content-Length"] or 0)
        request: Any = json.loads(self.rfile.read(size)) if size else None
        if state.stopping.is_set():
            self.close_connection = True
            return
        if self._stranger():
            return self._json(401, {"error": "Unauthorized"})
        if self.path in ("/collective_rpc", "/reset_prefix_cache") and state.dev_mode:
            return self._order(request)
        if self.path != "/v1/completions" and (self.path != PATH or state.vision is None):
            return self._json(404, {"detail": "Not Found"})
        state.requests.append(request)
        fault = state.next_fault()
        state.began.set()
        if fault.hang:
            return self._wait_for_the_end(fault)
        if fault.endless is not None:
            return self._endless(fault, bool(request.get("stream")))
        if fault.status != 200 or fault.body is not None:
            body = (
                fault.body if fault.body is not None else error_body("it failed", "InternalServerError", fault.status)
            )
            return self._send(fault.status, body, headers=fault.headers, length=fault.length)
        if self.path == PATH:
            request = as_completion_request(state, request)
        refusal = refuse(state, request)
        if refusal is not None:
            return self._json(refusal[0], {"error": refusal[1]})
        reply = self._sample(request)
        if reply is None:
            return None
        if request.get("stream"):
            return self._stream(request, reply, fault)
        if fault.cut_after is not None:
            self.close_connection = True
            return None
        said = self._worded(whole(state, request, reply))
        if fault.edit:
            fault.edit(said)
        return self._json(200, said)

    def _worded(self, said: dict[str, Any]) -> dict[str, Any]:
        """A completion in the words of the endpoint that was asked."""
        return as_generated(said) if self.path == PATH else said

    def _stranger(self) -> bool:
        key = self.state.api_key
        return key is not None and self.headers.get("Authorization") != f"Bearer {key}"

    def _order(self, request: Any) -> None:
        state = self.state
        state.orders.append((self.path, request))
        if self.path == "/collective_rpc":
            state.on_reload((request.get("kwargs") or {}).get("weights_path"))
            return self._json(200, {"results": [None]})
        state.unclean_resets -= 1
        return self._json(200, {"success": state.unclean_resets < 0})

    def _sample(self, request: Mapping[str, Any]) -> Generated | None:
        """Sample on the engine while watching the connection; None when the client went away."""

        async def main() -> Generated | None:
            task = asyncio.ensure_future(self.state.engine.generate(engine_request(self.state, request)))
            while not task.done():
                await asyncio.wait([task], timeout=0.02)
                if self._client_gone() or self.state.stopping.is_set():
                    task.cancel()
                    await asyncio.wait([task])
                    return None
            return task.result()

        reply = asyncio.run(main())
        if reply is None:
            self.state.aborted.set()
            self.close_connection = True
        return reply

    def _client_gone(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, 2)  # MSG_PEEK: nothing to read means closed

    def _wait_for_the_end(self, fault: Fault) -> None:
        while not self.state.stopping.wait(0.02):
            if self._client_gone():
                self.state.aborted.set()
                break
        self.close_connection = True

    def _endless(self, fault: Fault, stream: bool) -> None:
        self._begin_chunks("text/event-stream" if stream else "application/json")
        if not fault.endless:  # an empty chunk would be the end of the reply
            return self._wait_for_the_end(fault)
        while not self.state.stopping.is_set():
            self._chunk(fault.endless)

    def _stream(self, request: Mapping[str, Any], reply: Generated, fault: Fault) -> None:
        self._begin_chunks("text/event-stream; charset=utf-8")
        for sent, event in enumerate(events(self.state, request, reply)):
            if sent == fault.cut_after:
                self.close_connection = True
                return
            event = self._worded(event)
            if fault.edit:
                fault.edit(event)
            self._chunk(f"data: {json.dumps(event)}\n\n".encode())
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _begin_chunks(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _json(self, status: int, value: Any) -> None:
        self._send(status, json.dumps(value).encode())

    def _send(
        self, status: int, body: bytes, *, headers: Mapping[str, str] | None = None, length: int | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = length is not None or self.close_connection
