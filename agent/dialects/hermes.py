"""Hermes JSON calls, which Qwen2.5 and many others were trained on: `<tool_call>{"name": ..., ...}</tool_call>`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast, final

from agent.dialect import Injection
from agent.dialects.reasoning import THOUGHT, split_reasoning, thinking_end, with_reasoning
from agent.parts import Part, markup, spoken
from envs.message import Message, assistant
from tools.tool import Tool, ToolCall

OPEN, CLOSE = "<tool_call>", "</tool_call>"

_FIRST, _FURTHER = markup("<tool_response>\n"), markup("\n<tool_response>\n")
_END = markup("\n</tool_response>")
_INSTRUCTIONS = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


@final
class Hermes:
    """Calls as JSON in tags; results as a user turn of `<tool_response>` blocks, as the published Qwen2.5 template.

    `correction` is what the model reads of a malformed call, with `{problem}` where it says what was wrong: DeepEyes
    (arXiv 2505.14362) answers "Error: ...", GeoVista (arXiv 2511.15705) "Tool call error: ...".

    >>> call = ToolCall(id="", name="add", raw="", arguments={"a": 1})
    >>> print(Hermes().write(assistant("Adding.", tool_calls=[call])))
    Adding.
    <tool_call>
    {"name": "add", "arguments": {"a": 1}}
    </tool_call>
    """

    stop: tuple[str, ...] = ()
    tags: tuple[str, ...] = (OPEN, CLOSE, "<tool_response>", "</tool_response>", "<think>", "</think>")
    thought = THOUGHT

    def __init__(self, name: str = "hermes", correction: str = "{problem}") -> None:
        self.name = name
        self.correction = correction

    def instructions(self, tools: Sequence[Tool]) -> str:
        if not tools:
            return ""
        return _INSTRUCTIONS.format(tools="\n".join(json.dumps(signature(tool), ensure_ascii=False) for tool in tools))

    def write(self, action: Message) -> str:
        blocks = [_write_call(call) for call in action.tool_calls]
        return with_reasoning(action.reasoning, "\n".join(([action.text] if action.text else []) + blocks))

    def parse(self, text: str, tools: Sequence[Tool]) -> Message:
        reasoning, rest = split_reasoning(text)
        thought = thinking_end(rest)
        start = -1 if thought is None else rest.find(OPEN, thought)
        if start < 0:
            return assistant(rest, reasoning=reasoning)
        calls: list[ToolCall] = []
        said = rest[:start].removesuffix("\n")
        while start >= 0:
            call, end = self._read_call(rest, start, f"call_{len(calls)}")
            calls.append(call)
            start = rest.find(OPEN, end)
        return assistant(said, reasoning=reasoning, tool_calls=calls)

    def format(self, calls: Sequence[ToolCall], results: Sequence[Message]) -> Injection:
        parts: list[Part] = []
        for index, result in enumerate(results):
            parts += [_FURTHER if index else _FIRST, *spoken(result, quote=True), _END]
        return Injection(parts=tuple(parts), continues_turn=False)

    def _read_call(self, text: str, start: int, call_id: str) -> tuple[ToolCall, int]:
        """The call that opens at `start`, and where it ends.

        The JSON is read first: a string in it may hold the closing tag.
        """
        body = start + len(OPEN)
        body += len(text[body:]) - len(text[body:].lstrip())
        try:
            value, stop = json.JSONDecoder().raw_decode(text, body)
            close = text.find(CLOSE, stop)
            if close >= 0 and not text[stop:close].strip():
                end = close + len(CLOSE)
                return checked_call(value, text[start:end], call_id, self.correction), end
            problem = f"The call has text after its JSON object, or no closing {CLOSE}."
        except (ValueError, RecursionError) as error:
            problem = f"The call is not valid JSON ({error})."
        close = text.find(CLOSE, body)
        end = len(text) if close < 0 else close + len(CLOSE)
        said = self.correction.replace("{problem}", problem)
        return ToolCall(id=call_id, name="", raw=text[start:end], error=said), end


def signature(tool: Tool) -> dict[str, Any]:
    """A tool as the function signature that chat templates and OpenAI-compatible servers take."""
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def call_json(call: ToolCall, arguments: str = "arguments") -> str:
    """A well-formed call as one line of JSON.

    >>> call_json(ToolCall(id="", name="add", raw="", arguments={"a": True}))
    '{"name": "add", "arguments": {"a": true}}'
    """
    return json.dumps({"name": call.name, arguments: dict(call.arguments or {})}, ensure_ascii=False)


def checked_call(
    value: Any, raw: str, call_id: str, correction: str = "{problem}", arguments: str = "arguments"
) -> ToolCall:
    """A call from what its JSON said, malformed where that is not a name and an object of arguments."""
    fields = cast(dict[str, Any], value) if isinstance(value, dict) else {}
    name, given = fields.get("name"), fields.get(arguments)
    if not isinstance(name, str) or not isinstance(given, dict):
        problem = f'The call must be a JSON object with a "name" string and an "{arguments}" object.'
        said = correction.replace("{problem}", problem)
        return ToolCall(id=call_id, name=name if isinstance(name, str) else "", raw=raw, error=said)
    return ToolCall(id=call_id, name=name, raw=raw, arguments=cast(dict[str, Any], given))


def _write_call(call: ToolCall) -> str:
    if call.arguments is None:
        return call.raw  # malformed: as it was written
    return f"{OPEN}\n{call_json(call)}\n{CLOSE}"
