"""Llama 3.x: `<|start_header_id|>role<|end_header_id|>\\n\\ntext<|eot_id|>`; a call is a bare JSON object."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import final

from agent.dialects.hermes import call_json, checked_call, signature
from agent.dialects.reasoning import THOUGHT, split_reasoning, thinking_end, with_reasoning
from agent.families.family import Frame, Framed, joined
from agent.parts import Part, Parts, Turn, control, markup, pictures_of, quoted, text_of
from envs.message import Message, assistant
from tools.tool import Tool, ToolCall

BOS = "<|begin_of_text|>"
OPEN, CLOSE = "<|start_header_id|>", "<|end_header_id|>"
END, END_OF_MESSAGE = "<|eot_id|>", "<|eom_id|>"
PREAMBLE = "Cutting Knowledge Date: December 2023\nToday Date: {date}\n\n"

_INSTRUCTIONS = """Given the following functions, please respond with a JSON for a function call \
with its proper arguments that best answers the given prompt.

Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.\
Do not use variables.

"""


def llama(preamble: bool = True, date: str = "26 Jul 2024", bos: str = BOS) -> Framed:
    """The family. 3.1 and later open with a dated system turn; `date` is what it says, by default the one of the
    published template, so that a run is the same on any day."""

    def lead(system: Parts | None, instructions: str, native: bool) -> tuple[Parts, Parts]:
        tools = native and bool(instructions)
        said = system if tools else joined(system, instructions)
        if preamble:
            first = "Environment: ipython\n" if tools else ""
            said = (markup(f"{first}{PREAMBLE.format(date=date)}"), *(said or ()))
        turn = () if said is None else (*_header("system"), *said, control(END))
        return (control(bos), *turn), (markup(instructions),) if tools else ()

    return Framed(
        Frame(
            name="llama3",
            ends=(END, END_OF_MESSAGE),
            header=_header,
            footer=lambda role: (control(END),),
            lead=lead,
            controls=(bos, OPEN, CLOSE, END),
            native=LlamaCalls(),
            options={"date_string": date},
            trims=True,
        )
    )


@final
class LlamaCalls:
    """`{"name": ..., "parameters": {...}}` on a line of its own; the result is an `ipython` turn of JSON text.

    The published template writes one call an action and nothing beside it; text before calls, and several of them, each
    on its line, are ours. Read are also the forms that the models fall into: `<|python_tag|>` before a call,
    `"type": "function"` in it, and calls on one line with semicolons between.
    """

    name: str = "native"
    controls: tuple[str, ...] = ()
    thought = THOUGHT

    def instructions(self, tools: Sequence[Tool]) -> str:
        if not tools:
            return ""
        shown = [json.dumps(signature(tool), ensure_ascii=False, indent=4) for tool in tools]
        return _INSTRUCTIONS + "".join(f"{tool}\n\n" for tool in shown)

    def written(self, action: Message) -> Parts:
        calls = [call.raw if call.arguments is None else call_json(call, "parameters") for call in action.tool_calls]
        return (markup(with_reasoning(action.reasoning, "\n".join([action.text, *calls] if action.text else calls))),)

    def ends(self, action: Message) -> str | None:
        return None

    def ends_in_history(self, action: Message) -> str | None:
        return None

    def read(self, parts: Parts, tools: Sequence[Tool]) -> Message:
        reasoning, rest = split_reasoning(text_of(parts))
        thought = thinking_end(rest)
        starts = [] if thought is None else [found.start() for found in _CALL.finditer(rest, thought)]
        if not starts:
            return assistant(rest, reasoning=reasoning)
        calls: list[ToolCall] = []
        at = starts[0]
        while at is not None:
            call, end = _read_call(rest, at, f"call_{len(calls)}")
            calls.append(call)
            beside = _BESIDE.match(rest, end)
            at = beside.end() if beside else next((start for start in starts if start >= end), None)
        return assistant(rest[: starts[0]].removesuffix("\n"), reasoning=reasoning, tool_calls=calls)

    def turns(self, calls: Sequence[ToolCall], results: Sequence[Message]) -> tuple[Turn, ...]:
        return tuple(
            Turn(role="ipython", parts=(*_json_text(result.text), *pictures_of(result)), source="tool")
            for result in results
        )


_OBJECT = r'\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:'
_CALL = re.compile(rf"^(?:<\|python_tag\|>)?{_OBJECT}", re.MULTILINE)
_BESIDE = re.compile(rf"\s*;\s*(?={_OBJECT})")
"""What stands between two calls on one line."""


def _read_call(text: str, start: int, call_id: str) -> tuple[ToolCall, int]:
    try:
        value, end = json.JSONDecoder().raw_decode(text, text.index("{", start))
    except (ValueError, RecursionError) as error:
        return ToolCall(id=call_id, name="", raw=text[start:], error=f"The call is not valid JSON ({error})."), len(
            text
        )
    return checked_call(value, text[start:end], call_id, arguments="parameters"), end


def _json_text(text: str) -> tuple[Part, ...]:
    return (quoted(json.dumps(text, ensure_ascii=False)),)


def _header(role: str) -> Parts:
    return control(OPEN), markup(role), control(CLOSE), markup("\n\n")
