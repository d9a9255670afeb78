"""A local OpenAI-compatible chat server, scripted by a test: over real HTTP, and as strict as the real ones."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass(kw_only=True)
class Say:
    """One scripted reply."""

    text: str = ""
    reasoning: str = ""
    calls: Sequence[tuple[str, str]] = ()
    """(name, argument text) each; the argument text is sent as it is, valid or not."""
    call_ids: Sequence[str] | None = None
    """None: unique ones."""
    finish: str | None = None
    """None: `tool_calls` or `stop`, as fits."""
    stop_reason: str | None = None
    usage: Mapping[str, int] | None = field(default_factory=lambda: {"prompt_tokens": 11, "completion_tokens": 7})
    status: int = 200
    error: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    """Before the reply begins."""
    piece_wait_s: float = 0.0
    """Before each streamed piece."""
    piece: int = 4
    """Characters a streamed piece holds."""
    cut_after: int | None = None
    """Close the connection after this many streamed pieces, or bytes of a whole reply."""
    endless: bytes | None = None
    """Streamed again and again after the pieces, until the client has gone."""
    prompt_ids: Sequence[int] | None = None
    ids: Sequence[int] = ()
    logprobs: Sequence[float] = ()
    body: str | None = None
    """Send this text as HTML instead."""


class ChatServer:
    """`with ChatServer(Say(text="Hello.")) as server:` serves on `server.url` and keeps `server.requests`.

    Replies are played in order; asked for more, the server answers with the last one when `repeat`, else with HTTP 500.
    With an `api_key` it refuses every other one.
    """

    def __init__(
        self, *script: Say, repeat: bool = False, api_key: str | None = None, model: str = "tiny", port: int = 0
    ) -> None:
        self.script = list(script)
        self.repeat = repeat
        self.api_key = api_key
        self.model = model
        self.requests: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.headers: list[Mapping[str, str]] = []
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._played = 0
        outer = self

        class Handler(_Handler):
            server_state = outer

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> ChatServer:
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def next_reply(self, request: dict[str, Any], headers: Mapping[str, str]) -> Say:
        with self._lock:
            self.requests.append(request)
            self.times.append(time.monotonic())
            self.headers.append(headers)
            at = self._played
            self._played += 1
        if at < len(self.script):
            return self.script[at]
        if self.repeat and self.script:
            return self.script[-1]
        return Say(status=500, error={"message": "the script has run out"}, headers={"x-should-retry": "false"})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: ChatServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        try:
            self._answer()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _answer(self) -> None:
        state = self.server_state
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            return self._error(404, {"message": f"no route {self.path}"})
        if state.api_key is not None and self.headers.get("Authorization") != f"Bearer {state.api_key}":
            given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            return self._error(401, {"message": f"Incorrect API key provided: {given}", "code": "invalid_api_key"})
        if request.get("model") != state.model:
            return self._error(404, {"message": f"The model `{request.get('model')}` does not exist.", "code": 404})
        problem = problem_with(request)
        if problem:
            return self._error(400, {"message": problem, "type": "invalid_request_error"})
        say = state.next_reply(request, dict(self.headers))
        if say.wait_s and state.stopping.wait(say.wait_s):
            self.close_connection = True  # a server that ends hangs up on who waits
            return None
        if say.body is not None:
            return self._send(200, say.body.encode(), "text/html")
        if say.status != 200:
            return self._error(say.status, say.error or {"message": "it failed"}, say.headers)
        if request.get("stream"):
            return self._stream(request, say)
        said = json.dumps(whole(request, say)).encode()
        if say.cut_after is not None:
            self.close_connection = True
            return self._send(200, said[: say.cut_after], headers={"Content-Length": str(len(said))})
        return self._send(200, said)

    def _error(self, status: int, error: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        self._send(status, json.dumps({"error": error}).encode(), headers=headers)

    def _send(
        self, status: int, body: bytes, kind: str = "application/json", headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, request: dict[str, Any], say: Say) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for sent, chunk in enumerate(chunks(request, say)):
            if say.cut_after is not None and sent >= say.cut_after:
                self.close_connection = True
                return
            if say.piece_wait_s and self.server_state.stopping.wait(say.piece_wait_s):
                return
            self._chunk(f"data: {json.dumps(chunk)}\n\n".encode())
        while say.endless is not None and not self.server_state.stopping.is_set():
            self._chunk(say.endless)
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


def problem_with(request: Mapping[str, Any]) -> str | None:
    """What a strict server would refuse, in its words; None when the request is in order."""
    asked: list[str] = []
    for index, message in enumerate(request.get("messages") or ()):
        role = message.get("role")
        if role not in ("system", "user", "assistant", "tool"):
            return f"messages[{index}]: unknown role {role!r}"
        if role != "tool" and asked:
            return f"tool_call_ids {asked} did not have response messages"
        if role == "tool":
            if message.get("tool_call_id") not in asked:
                return f"messages[{index}]: tool_call_id {message.get('tool_call_id')!r} answers no call before it"
            asked.remove(message["tool_call_id"])
        if role in ("tool", "system") and not isinstance(message.get("content"), str):
            return f"messages[{index}]: the content of a {role} message must be a string"
        if role == "user" and not message.get("content"):
            return f"messages[{index}]: empty user message"
        for call in message.get("tool_calls") or ():
            asked.append(call["id"])
            try:
                json.loads(call["function"]["arguments"])  # as vLLM does before it renders the template
            except (TypeError, json.JSONDecodeError) as error:
                return f"messages[{index}]: arguments of a call are not JSON: {error}"
            if not call["function"]["name"]:
                return f"messages[{index}]: a call has no name"
    if not request.get("messages"):
        return "messages: at least one is needed"
    if request.get("seed") is not None and not 0 <= request["seed"] < 2**32:
        return "seed: not an unsigned 32-bit integer"
    for tool in request.get("tools") or ():
        if tool["type"] != "function" or tool["function"]["parameters"]["type"] != "object":
            return "tools: not function schemas"
    return None


def whole(request: Mapping[str, Any], say: Say) -> dict[str, Any]:
    """A chat.completion object."""
    message: dict[str, Any] = {"role": "assistant", "content": say.text or None}
    if say.reasoning:
        message["reasoning_content"] = say.reasoning
    if say.calls:
        message["tool_calls"] = [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for call_id, (name, arguments) in zip(_call_ids(request, say), say.calls, strict=True)
        ]
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": _finish(say)}
    if say.stop_reason:
        choice["stop_reason"] = say.stop_reason
    reply = {**_head(request, "chat.completion"), "choices": [choice]}
    if say.usage is not None:
        reply["usage"] = {**say.usage, "total_tokens": sum(say.usage.values())}
    if request.get("return_token_ids"):
        reply["prompt_token_ids"], choice["token_ids"] = say.prompt_ids, list(say.ids)
    if request.get("logprobs"):
        choice["logprobs"] = _logprobs(say.logprobs)
    return reply


def chunks(request: Mapping[str, Any], say: Say) -> Iterator[dict[str, Any]]:
    """The chat.completion.chunk objects of a stream: role, pieces, call deltas, finish, and usage where asked for."""
    head = _head(request, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]}

    with_ids = bool(request.get("return_token_ids"))
    first = chunk({"role": "assistant", "content": ""})
    yield {**first, "prompt_token_ids": say.prompt_ids} if with_ids else first
    for piece in _pieces(say.reasoning, say.piece):
        yield chunk({"reasoning_content": piece})
    for piece in _pieces(say.text, say.piece):
        yield chunk({"content": piece})
    for index, (call_id, (name, arguments)) in enumerate(zip(_call_ids(request, say), say.calls, strict=True)):
        start = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
        yield chunk({"tool_calls": [start]})
        for piece in _pieces(arguments, say.piece):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    for position, token in enumerate(say.ids if with_ids else ()):  # ids may arrive apart from text
        yield chunk({}, token_ids=[token], logprobs=_logprobs(say.logprobs[position : position + 1]))
    yield chunk({}, _finish(say), **({"stop_reason": say.stop_reason} if say.stop_reason else {}))
    if say.usage is not None and (request.get("stream_options") or {}).get("include_usage"):
        yield {**head, "choices": [], "usage": {**say.usage, "total_tokens": sum(say.usage.values())}}


def _head(request: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1_700_000_000, "model": request["model"]}


def _call_ids(request: Mapping[str, Any], say: Say) -> list[str]:
    if say.call_ids is not None:
        return list(say.call_ids)
    return [f"call_{len(request['messages'])}_{index}" for index in range(len(say.calls))]


def _finish(say: Say) -> str:
    return say.finish or ("tool_calls" if say.calls else "stop")


def _pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def _logprobs(values: Sequence[float]) -> dict[str, Any]:
    return {"content": [{"token": "t", "logprob": value, "bytes": None, "top_logprobs": []} for value in values]}
