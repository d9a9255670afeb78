"""Messages as the JSON of the OpenAI chat API, natively or through a dialect for servers that know no tools."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

from agent.dialect import Dialect
from agent.dialects.hermes import signature
from envs.message import Message
from tools.content import BlobStore, Content, Image, Text
from tools.errors import ConfigError
from tools.record import record
from tools.tool import Tool, ToolCall

JSON: TypeAlias = dict[str, Any]


@record
class Conversation:
    """What goes into one request."""

    messages: list[JSON]
    tools: tuple[JSON, ...] = ()
    open_turn: bool = False
    """True when the last message is an assistant turn that the model is to go on with: results stand inside it."""


def native(
    messages: Sequence[Message],
    tools: Sequence[Tool],
    blobs: BlobStore | None = None,
    reasoning_field: str | None = None,
) -> Conversation:
    """Calls, results and signatures in the API's own fields.

    `reasoning_field` names the field in which earlier thinking goes back; None leaves it out. A tool message holds text
    only in this API, so a picture that a tool returned follows its turn as a user message.
    """
    out: list[JSON] = []
    pictures: list[Content] = []
    for message in messages:
        if message.role != "tool" and pictures:
            out.append({"role": "user", "content": _content(pictures, blobs)})
            pictures = []
        if message.role == "tool":
            shown = [part for part in message.content if isinstance(part, Image)]
            if shown:
                pictures += [Text(text=f"From the tool call {message.tool_call_id}:"), *shown]
            text = message.text or ("The picture follows." if shown else "")
            out.append({"role": "tool", "tool_call_id": message.tool_call_id, "content": text})
        elif message.role == "assistant":
            out.append(_assistant(message, reasoning_field))
        else:
            out.append({"role": message.role, "content": _content(message.content, blobs)})
    if pictures:
        out.append({"role": "user", "content": _content(pictures, blobs)})
    return Conversation(messages=out, tools=tuple(signature(tool) for tool in tools))


def through_dialect(
    messages: Sequence[Message], tools: Sequence[Tool], dialect: Dialect, blobs: BlobStore | None = None
) -> Conversation:
    """Calls and results as text, tools described in the system turn: all a server needs is chat."""
    out: list[JSON] = []
    results: list[Message] = []
    calls: tuple[ToolCall, ...] = ()
    open_turn = False

    def flush() -> bool:
        """Put the pending results in; whether they left the assistant turn open."""
        if not results:
            return False
        injection = dialect.format(calls, results)
        pictures = [part for result in results for part in result.content if isinstance(part, Image)]
        results.clear()
        inside = injection.continues_turn and bool(out) and out[-1]["role"] == "assistant"
        if inside:
            out[-1]["content"] += injection.text
        else:
            parts: list[Content] = [Text(text=injection.text.strip("\n")), *pictures]
            out.append({"role": injection.role, "content": _content(parts, blobs)})
        if inside and pictures:
            out.append({"role": "user", "content": _content(pictures, blobs)})
        return inside and not pictures

    for message in _with_instructions(messages, dialect.instructions(tools)):
        if message.role == "tool":
            results.append(message)
            continue
        open_turn = flush()
        if message.role != "assistant":
            out.append({"role": message.role, "content": _content(message.content, blobs)})
            continue
        text = dialect.write(message)
        if open_turn:
            out[-1]["content"] += text
        else:
            out.append({"role": "assistant", "content": text})
        calls = message.tool_calls
    open_turn = flush()
    return Conversation(messages=out, open_turn=open_turn)


def read_call(call_id: str, name: str, arguments: str) -> ToolCall:
    """One call of a reply. Its argument text is kept as written; what is no JSON object is malformed, and says why.

    >>> read_call("c1", "zoom", '{"box": [0, 0, 9, 9]}').arguments
    {'box': [0, 0, 9, 9]}
    >>> read_call("c1", "zoom", '{"box": [0, 0').error
    "The arguments of zoom are not valid JSON (Expecting ',' delimiter: line 1 column 14 (char 13))."
    """
    try:
        value: Any = (
            json.loads(arguments) if arguments.strip() else {}
        )  # no arguments: several servers send an empty string
    except (ValueError, RecursionError) as error:
        return ToolCall(
            id=call_id, name=name, raw=arguments, error=f"The arguments of {name} are not valid JSON ({error})."
        )
    if not isinstance(value, dict):
        problem = f"The arguments of {name} must be a JSON object, not {type(value).__name__}."
        return ToolCall(id=call_id, name=name, raw=arguments, error=problem)
    return ToolCall(id=call_id, name=name, raw=arguments, arguments=value)  # pyright: ignore[reportUnknownArgumentType]


def _assistant(message: Message, reasoning_field: str | None) -> JSON:
    out: JSON = {"role": "assistant", "content": message.text}
    if message.reasoning is not None and reasoning_field is not None:
        out[reasoning_field] = message.reasoning
    if message.tool_calls:
        out["content"] = message.text or None
        out["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": _name(call), "arguments": _arguments(call)}}
            for call in message.tool_calls
        ]
    return out


def _name(call: ToolCall) -> str:
    """A name the API accepts: it refuses a whole conversation over a bad one."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", call.name)[:64] or "unreadable"


def _arguments(call: ToolCall) -> str:
    """The argument text as written, where it is JSON; servers parse it, and fail the whole request where it is not."""
    if call.arguments is None:
        return json.dumps({"malformed": call.raw}, ensure_ascii=False)
    written = _object(call.raw)
    return call.raw if written == dict(call.arguments) else json.dumps(dict(call.arguments), ensure_ascii=False)


def _object(raw: str) -> object:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _content(content: Sequence[Content], blobs: BlobStore | None) -> str | list[JSON]:
    if all(isinstance(part, Text) for part in content):
        return "".join(part.text for part in content if isinstance(part, Text))
    return [_part(part, blobs) for part in content]


def _part(part: Content, blobs: BlobStore | None) -> JSON:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if blobs is None:
        raise ConfigError(
            f"the conversation holds the image {part.sha256[:12]}, and the sampler has no BlobStore to read it from",
            hint="pass blobs= to ChatSampler",
        )
    data = base64.b64encode(blobs.get(part)).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:{part.media_type};base64,{data}"}}


def _with_instructions(messages: Sequence[Message], instructions: str) -> list[Message]:
    if not instructions:
        return list(messages)
    if messages and messages[0].role == "system":
        first = messages[0]
        joined = (*first.content, Text(text=f"\n\n{instructions}"))
        return [Message(role="system", content=joined), *messages[1:]]
    return [Message(role="system", content=(Text(text=instructions),)), *messages]
