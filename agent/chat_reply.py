"""A chat reply while it comes in, whole or in chunks, extensions of the API (token ids, reasoning) included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

PIECE = 256
"""What a chunk weighs, whatever is in it."""


@dataclass(slots=True)
class CallParts:
    """One call: its argument text comes in pieces."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class ChatReply:
    """What a server has said so far."""

    text: list[str] = field(default_factory=list[str])
    reasoning: list[str] = field(default_factory=list[str])
    reasoning_field: str | None = None
    calls: list[CallParts] = field(default_factory=list[CallParts])
    by_index: dict[int, CallParts] = field(default_factory=dict[int, CallParts])
    finish: str | None = None
    stop_reason: object = None
    usage: dict[str, int] = field(default_factory=dict[str, int])
    prompt_ids: list[int] = field(default_factory=list[int])
    ids: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])
    size: int = 0
    """Characters that came in, and `PIECE` for each chunk."""

    def take_whole(self, completion: ChatCompletion) -> None:
        """Read a reply that came in one piece."""
        choice = completion.choices[0]
        self._take_fields(completion, choice, choice.message)
        for call in choice.message.tool_calls or ():
            if call.type == "function":
                self.calls.append(CallParts(call.id, call.function.name, [call.function.arguments or ""]))

    def take_chunk(self, chunk: ChatCompletionChunk) -> str:
        """Add a chunk; returns the text in it."""
        self.size += PIECE
        if not chunk.choices:  # the last one: usage alone
            self._take_usage(chunk)
            return ""
        choice = chunk.choices[0]
        self._take_fields(chunk, choice, choice.delta)
        for delta in choice.delta.tool_calls or ():
            call = self.by_index.get(delta.index)
            if call is None or (delta.id and call.id and delta.id != call.id):  # some servers number every call 0
                call = self.by_index[delta.index] = CallParts()
                self.calls.append(call)
            call.id = delta.id or call.id
            if delta.function is not None:
                call.name = delta.function.name or call.name
                call.arguments.append(delta.function.arguments or "")
                self.size += len(call.arguments[-1])
        return choice.delta.content or ""

    def _take_fields(self, outer: Any, choice: Any, message: Any) -> None:
        """What a whole reply and a chunk have in common; extensions of the API stand in `model_extra`."""
        self._take_usage(outer)
        if message.content:
            self.text.append(message.content)
            self.size += len(message.content)
        more: Mapping[str, Any] = message.model_extra or {}
        for name in ("reasoning_content", "reasoning"):
            if more.get(name):
                self.reasoning.append(more[name])
                self.size += len(more[name])
                self.reasoning_field = name
                break
        self.finish = choice.finish_reason or self.finish
        beside: Mapping[str, Any] = choice.model_extra or {}
        self.stop_reason = beside.get("stop_reason") or self.stop_reason
        around: Mapping[str, Any] = outer.model_extra or {}
        self.prompt_ids = around.get("prompt_token_ids") or self.prompt_ids
        self.ids += beside.get("token_ids") or ()
        if choice.logprobs is not None:
            self.logprobs += [entry.logprob for entry in choice.logprobs.content or ()]

    def _take_usage(self, outer: Any) -> None:
        if outer.usage is not None:
            self.usage = {"prompt": outer.usage.prompt_tokens, "completion": outer.usage.completion_tokens}


def whole_text(parts: Sequence[str]) -> str:
    """The parts joined. A surrogate pair that the server cut in two is whole again; half of one becomes U+FFFD.

    >>> whole_text(["\\ud83d", "\\ude00 \\ud83d"])
    '😀 \ufffd'
    """
    return "".join(parts).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
