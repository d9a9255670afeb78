"""gpt-oss: the harmony format. Thinking, calls and answers are messages on channels; a tool answers by its name."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import date
from typing import Any, final

from agent.dialect import Thought
from agent.families.family import Frame, Framed
from agent.families.typescript import namespace
from agent.parts import Part, Parts, Turn, control, markup, pictures_of, quoted, text_of
from envs.message import Message, assistant
from tools.errors import ConfigError
from tools.tool import Tool, ToolCall

START, CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
END, CALL, RETURN, CONSTRAIN = "<|end|>", "<|call|>", "<|return|>", "<|constrain|>"
_THOUGHT = Thought(
    opening=f"{CHANNEL}analysis{MESSAGE}",
    closing=f"{END}{START}assistant",
    unclosed=re.compile(
        r"(?:.*<\|end\|><\|start\|>assistant)?<\|channel\|>analysis<\|message\|>(?!.*<\|end\|>)", re.DOTALL
    ),
)
_RECIPIENT = re.compile(r"to=functions\.([^\s<]+)")


def harmony(today: str | None = None, effort: str = "medium") -> Framed:
    """The family. `today` is the date its system turn gives (YYYY-MM-DD), by default the day this is called;
    `effort` is low, medium or high.

    An action ends with `<|call|>` or `<|return|>`. Where an earlier answer was sampled, its `<|return|>` stays; the
    published template, which sees texts only, writes `<|end|>` there, and so does a prompt made of messages.
    """
    day = today or date.today().isoformat()

    def lead(system: Parts | None, instructions: str, native: bool) -> tuple[Parts, Parts]:
        calls = "\nCalls to these tools must go to the commentary channel: 'functions'." if instructions else ""
        about = (
            f"You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n"
            f"Current date: {day}\n\nReasoning: {effort}\n\n"
            f"# Valid channels: analysis, commentary, final. Channel must be included for every message.{calls}"
        )
        says = any(part.text or part.image for part in system or ())
        said = (markup("# Instructions\n\n"), *(system or ()), markup("\n\n")) if says else ()
        developer = (*_message("developer"), *said, markup(instructions), control(END))
        first = (*_message("system"), markup(about), control(END))
        return (*first, *(developer if said or instructions else ())), ()

    return Framed(
        Frame(
            name="gpt-oss",
            ends=(RETURN, CALL),
            header=_header,
            footer=lambda role: (control(END),),
            lead=lead,
            controls=(START, CHANNEL, MESSAGE, END),
            native=HarmonyCalls(),
            history="strip",
            native_only=True,
            options={"reasoning_effort": effort},
            today=day,
        )
    )


def _header(role: str) -> Parts:
    if role == "assistant":
        return control(START), markup("assistant")
    if role.startswith("functions."):
        to = f"{role} to=assistant"
        return control(START), markup(to), control(CHANNEL), markup("commentary"), control(MESSAGE)
    return _message("developer" if role == "system" else role)


def _message(role: str) -> Parts:
    return control(START), markup(role), control(MESSAGE)


@final
class HarmonyCalls:
    """Thinking on `analysis`, one call an action on `commentary`, the answer on `final`.

    Text beside a call is a `commentary` message of its own before it, which the format calls a preamble.
    """

    name: str = "native"
    controls: tuple[str, ...] = (START, CHANNEL, MESSAGE, END, CALL, RETURN, CONSTRAIN)
    thought = _THOUGHT

    def instructions(self, tools: Sequence[Tool]) -> str:
        return f"# Tools\n\n{namespace('functions', tools)}" if tools else ""

    def written(self, action: Message) -> Parts:
        parts: list[Part] = []
        if action.reasoning is not None:
            parts += _sent("analysis", action.reasoning)
        if not action.tool_calls:
            parts += _next(parts)
            return (*parts, control(CHANNEL), markup("final"), control(MESSAGE), markup(action.text))
        call, *more = action.tool_calls
        if more:
            raise ConfigError(f"gpt-oss makes one call an action, and this one has {len(more) + 1}")
        if action.text:
            parts += [*_next(parts), *_sent("commentary", action.text)]
        parts += _next(parts)
        if call.arguments is None:
            return (*parts, *_again(call.raw))
        arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
        to = markup(f" to=functions.{call.name}")
        return (*parts, to, control(CHANNEL), markup("commentary json"), control(MESSAGE), markup(arguments))

    def ends(self, action: Message) -> str | None:
        return CALL if action.tool_calls else RETURN

    def ends_in_history(self, action: Message) -> str | None:
        return CALL if action.tool_calls else END

    def read(self, parts: Parts, tools: Sequence[Tool]) -> Message:
        thoughts: list[str] = []
        said: list[str] = []
        calls: list[ToolCall] = []
        for head, body, whole in _messages(parts):
            recipient = _RECIPIENT.search(head)
            channel = head.partition(CHANNEL)[2].strip()
            if recipient:
                calls.append(_read_call(recipient.group(1), body, whole, f"call_{len(calls)}"))
            elif channel.startswith("analysis"):
                thoughts.append(body)
            elif body or channel:
                said.append(body)
            else:
                said.append(head)
        reasoning = "\n".join(thoughts) if thoughts else None
        return assistant("\n".join(said), reasoning=reasoning, tool_calls=calls)

    def turns(self, calls: Sequence[ToolCall], results: Sequence[Message]) -> tuple[Turn, ...]:
        turns: list[Turn] = []
        for index, result in enumerate(results):
            name = calls[index].name if index < len(calls) else ""
            shown = json.dumps(result.text, ensure_ascii=False)
            turns.append(Turn(role=f"functions.{name}", parts=(quoted(shown), *pictures_of(result)), source="tool"))
        return tuple(turns)


def _sent(channel: str, text: str) -> Parts:
    return control(CHANNEL), markup(channel), control(MESSAGE), markup(text), control(END)


def _next(before: Sequence[Part]) -> Parts:
    """The header of a further message within the same action."""
    return (control(START), markup("assistant")) if before else ()


def _messages(parts: Parts) -> list[tuple[str, str, str]]:
    """Header, body and whole of each message; a header runs to its `<|message|>`, a body to its `<|end|>`.

    As in OpenAI's own parser, what is begun within a body is part of it: a call in thinking that was never ended, say.
    """
    found: list[tuple[str, str, str]] = []
    head: list[Part] = []
    body: list[Part] | None = None

    def close() -> None:
        if head or body is not None:
            whole = (*head, *((control(MESSAGE), *body) if body is not None else ()))
            found.append((text_of(head), text_of(body or ()), text_of(whole)))

    opened = False
    for part in parts:
        if part == control(END) or (part == control(START) and body is None):
            close()
            head, body = [], None
            opened = part == control(START)
            continue
        if part == control(MESSAGE) and body is None:
            body = []
        elif body is None:
            named = markup(part.text.removeprefix("assistant")) if opened and part.kind == "markup" else part
            head += [named] if named.text else []
        else:
            body.append(part)
        opened = False
    close()
    return found


def _read_call(name: str, body: str, raw: str, call_id: str) -> ToolCall:
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        return ToolCall(id=call_id, name=name, raw=raw, error=f"The call is not valid JSON ({error}).")
    if not isinstance(value, dict):
        return ToolCall(id=call_id, name=name, raw=raw, error="The arguments must be a JSON object.")
    return ToolCall(id=call_id, name=name, raw=raw, arguments=value)  # pyright: ignore[reportUnknownArgumentType]


def _again(raw: str) -> Parts:
    """A malformed call as it was written, its control tokens restored."""
    names = (START, CHANNEL, MESSAGE, CONSTRAIN)
    pieces = re.split("(" + "|".join(re.escape(name) for name in names) + ")", raw)
    return tuple(control(piece) if piece in names else markup(piece) for piece in pieces if piece)
