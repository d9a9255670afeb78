"""Mistral's instruct format from version 7 on: `[SYSTEM_PROMPT]`, `[INST]`, and calls in special tokens."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, final

from agent.dialects.hermes import signature
from agent.dialects.reasoning import THOUGHT, split_reasoning, thinking_end, with_reasoning
from agent.families.family import Frame, Framed, joined, no_place
from agent.parts import Part, Parts, Turn, control, markup, spoken, text_of
from envs.message import Message, assistant
from tools.tool import Tool, ToolCall

BOS, EOS = "<s>", "</s>"
CALLS, ARGS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
RESULTS, CONTENT, RESULTS_END = "[TOOL_RESULTS]", "[TOOL_CONTENT]", "[/TOOL_RESULTS]"
TOOLS, TOOLS_END = "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"


def mistral(version: int = 13, default_system: str | None = None, bos: str = BOS, eos: str = EOS) -> Framed:
    """The family. Calls are version 13's; 11 adds ids of nine characters. Before 11 calls are refused: they are one
    JSON list whose ids the results repeat, and are better written in another dialect.

    Before 13 the published template moves the tools to the last user turn; here they stay where they were first, before
    the first one, as 13 has them.
    """

    def lead(system: Parts | None, instructions: str, native: bool) -> tuple[Parts, Parts]:
        default = None if default_system is None else (markup(default_system),)
        own = default if system is None else system
        said = own if native else joined(own, instructions)
        turn = () if said is None else (control("[SYSTEM_PROMPT]"), *said, control("[/SYSTEM_PROMPT]"))
        tools = (control(TOOLS), markup(instructions), control(TOOLS_END)) if native and instructions else ()
        return (control(bos), *turn, *tools), ()

    return Framed(
        Frame(
            name=f"mistral-v{version}",
            ends=(eos,),
            header=_header,
            footer=lambda role: (control(_FRAMES[role][1]),) if role in _FRAMES else (),
            lead=lead,
            controls=(bos, "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
            native=MistralCalls(ids=version == 11) if version >= 11 else None,
        )
    )


_FRAMES = {"user": ("[INST]", "[/INST]"), "system": ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")}


def _header(role: str) -> Parts:
    if role in _FRAMES:
        return (control(_FRAMES[role][0]),)
    if role in ("assistant", "tool"):
        return ()
    raise no_place("Mistral", role)


@final
class MistralCalls:
    """`[TOOL_CALLS]name[ARGS]{...}`, answered by `[TOOL_RESULTS]...[/TOOL_RESULTS]`; with ids, version 11's."""

    name: str = "native"
    thought = THOUGHT

    def __init__(self, ids: bool = False) -> None:
        self.ids = ids
        more = (CALL_ID, CONTENT) if ids else ()
        self.controls: tuple[str, ...] = (CALLS, ARGS, RESULTS, RESULTS_END, TOOLS, TOOLS_END, *more)

    def instructions(self, tools: Sequence[Tool]) -> str:
        return json.dumps([signature(tool) for tool in tools], ensure_ascii=False) if tools else ""

    def written(self, action: Message) -> Parts:
        said = with_reasoning(action.reasoning, action.text)
        parts: list[Part] = [markup(said)] if said else []
        for call in action.tool_calls:
            parts.append(control(CALLS))
            if call.arguments is None:
                parts += self._malformed(call.raw)
                continue
            parts.append(markup(call.name))
            if self.ids:
                parts += [control(CALL_ID), markup(_id_of(call))]
            parts += [control(ARGS), markup(json.dumps(dict(call.arguments), ensure_ascii=False))]
        return tuple(parts)

    def ends(self, action: Message) -> str | None:
        return None

    def ends_in_history(self, action: Message) -> str | None:
        return None

    def read(self, parts: Parts, tools: Sequence[Tool]) -> Message:
        pieces: list[list[Part]] = [[]]
        for part in parts:
            if part == control(CALLS):
                pieces.append([])
            else:
                pieces[-1].append(part)
        while len(pieces) > 1 and thinking_end(text_of(pieces[0])) is None:  # what looks like a call is thought about
            pieces[0] += [control(CALLS), *pieces.pop(1)]
        reasoning, said = split_reasoning(text_of(pieces[0]))
        calls = [self._read(tuple(piece), f"call_{index}") for index, piece in enumerate(pieces[1:])]
        return assistant(said, reasoning=reasoning, tool_calls=calls)

    def turns(self, calls: Sequence[ToolCall], results: Sequence[Message]) -> tuple[Turn, ...]:
        turns: list[Turn] = []
        for index, result in enumerate(results):
            call = calls[index] if index < len(calls) else None
            head = (markup(_id_of(call)), control(CONTENT)) if self.ids and call else ()
            parts = (control(RESULTS), *head, *spoken(result, quote=True), control(RESULTS_END))
            turns.append(Turn(role="tool", parts=parts, source="tool"))
        return tuple(turns)

    def _read(self, parts: Parts, call_id: str) -> ToolCall:
        raw = text_of((control(CALLS), *parts))
        marks = [index for index, part in enumerate(parts) if part == control(ARGS)]
        name = parts[0].text.strip() if parts and parts[0].kind == "markup" else ""
        if not marks or not name:
            return ToolCall(id=call_id, name=name, raw=raw, error=f"The call must be a name, {ARGS} and a JSON object.")
        try:
            value: Any = json.loads(text_of(parts[marks[0] + 1 :]))
        except (ValueError, RecursionError) as error:
            return ToolCall(id=call_id, name=name, raw=raw, error=f"The call is not valid JSON ({error}).")
        if not isinstance(value, dict):
            return ToolCall(id=call_id, name=name, raw=raw, error="The arguments must be a JSON object.")
        return ToolCall(id=call_id, name=name, raw=raw, arguments=value)  # pyright: ignore[reportUnknownArgumentType]

    def _malformed(self, raw: str) -> Parts:
        """A malformed call as it was written, its control tokens restored."""
        pieces = re.split(rf"({re.escape(ARGS)}|{re.escape(CALL_ID)})", raw.removeprefix(CALLS))
        known = {ARGS, CALL_ID} & set(self.controls)
        return tuple(control(piece) if piece in known else markup(piece) for piece in pieces if piece)


def _id_of(call: ToolCall) -> str:
    """The call's id of nine characters: the one the model wrote, or one made from what it is."""
    found = re.search(rf"{re.escape(CALL_ID)}([a-zA-Z0-9]{{9}}){re.escape(ARGS)}", call.raw)
    if found:
        return found.group(1)
    if re.fullmatch(r"[a-zA-Z0-9]{9}", call.id):
        return call.id
    return hashlib.sha256(call.id.encode()).hexdigest()[:9]
