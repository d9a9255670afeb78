"""How tool calls are written in text and how their results come back. A dialect knows no tokens and no template."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from agent.parts import Part, Parts, Turn, markup, spoken, text_of
from envs.message import Message
from tools.errors import ConfigError
from tools.record import record
from tools.tool import Tool, ToolCall


@record
class Injection:
    """Tool results as text, and where that text goes."""

    parts: Parts
    """The dialect's own words as markup, a tool's words quoted."""
    continues_turn: bool
    """True: straight after what the model wrote, in the same assistant turn. False: a turn of its own."""
    role: str = "user"
    """The turn's role, where it is a turn of its own."""

    @property
    def text(self) -> str:
        return text_of(self.parts)


@record
class Thought:
    """How an action's thinking is written. A control token stands in these texts by its name."""

    opening: str
    closing: str
    """What closes thinking that is still open."""
    unclosed: re.Pattern[str]
    """Matches, at the head of an action's text, thinking that has begun and has not ended."""


class Dialect(Protocol):
    """One way of writing calls and results.

    Law: `parse(write(m), tools)` gives back `m` (ids aside) for every message `m` whose calls are well-formed and whose
    words hold none of the dialect's marks; `misread` says of any other what it would be read as. Every text is parsed
    without raising, a malformed call kept with `error` set and its `raw` text. What a dialect cannot write, it refuses
    with a `ConfigError`.
    """

    name: str
    stop: tuple[str, ...]
    """Strings that end an action, for results that continue the turn; the action ends with the string."""
    tags: tuple[str, ...]
    """Its markup: in a tool's words these are never tokens of their own."""
    thought: Thought

    def instructions(self, tools: Sequence[Tool]) -> str:
        """What the system turn says of the tools; empty without tools."""
        ...

    def write(self, action: Message) -> str:
        """An assistant message as the model would write it."""
        ...

    def parse(self, text: str, tools: Sequence[Tool]) -> Message:
        """What the model wrote, as a message.

        Calls get the ids `call_0`, `call_1`, ...; the sampler makes them unique.
        """
        ...

    def format(self, calls: Sequence[ToolCall], results: Sequence[Message]) -> Injection:
        """The tool messages that answer `calls`, in their order, as text."""
        ...


@runtime_checkable
class TokenDialect(Protocol):
    """A family's own way, whose calls are marked by special tokens or whose results are turns of a role of their own.

    The same law, on parts: `read(written(m), tools)` gives back `m`.
    """

    name: str
    controls: tuple[str, ...]
    """The special tokens it writes."""
    thought: Thought

    def instructions(self, tools: Sequence[Tool]) -> str:
        """What the prompt says of the tools, in the form and at the place the family has for it."""
        ...

    def written(self, action: Message) -> Parts:
        """An assistant message, without the token that ends it."""
        ...

    def ends(self, action: Message) -> str | None:
        """The token that ends it, where that is not the family's usual one."""
        ...

    def ends_in_history(self, action: Message) -> str | None:
        """The token that ends it in a prompt made of messages."""
        ...

    def read(self, parts: Parts, tools: Sequence[Tool]) -> Message:
        """What the model wrote, without the token that ended it."""
        ...

    def turns(self, calls: Sequence[ToolCall], results: Sequence[Message]) -> tuple[Turn, ...]:
        """The tool messages that answer `calls`, as turns."""
        ...


def misread(dialect: Dialect | TokenDialect, action: Message, tools: Sequence[Tool]) -> str | None:
    """What would become of an action if a model wrote it, where that is not what it says; None where it is.

    Words may hold a dialect's marks: a text that shows how to write a call is read as one. Thinking that stands in the
    text is no matter, as it is written in the same place again. Raises `ConfigError` for what cannot be written.

    >>> from agent.dialects import Hermes; from envs.message import assistant
    >>> misread(Hermes(), assistant("Write <tool_call>."), ())
    'it would be read as a malformed call, and it is an answer'
    """
    if isinstance(dialect, TokenDialect):
        parts = dialect.written(action)
        said = dialect.read(parts, tools)
        if _calls(said) == _calls(action):
            return None if said == action or dialect.written(said) == parts else "its words would be read otherwise"
    else:
        text = dialect.write(action)
        cut = next((stop for stop in dialect.stop if stop in text[: -len(stop)]), None)
        if cut is not None:
            return f"it would end at its first {cut}"
        said = dialect.parse(text, tools)
        if _calls(said) == _calls(action):
            return None if said == action or dialect.write(said) == text else "its words would be read otherwise"
    return f"it would be read as {_named(said)}, and it is {_named(action)}"


def _calls(action: Message) -> list[tuple[str, str]]:
    """What its calls do; for a malformed one, what was written."""
    return [
        ("", call.raw) if call.arguments is None else (call.name, json.dumps(dict(call.arguments), sort_keys=True))
        for call in action.tool_calls
    ]


def _named(action: Message) -> str:
    names = ["a malformed call" if call.arguments is None else f"a call of {call.name}" for call in action.tool_calls]
    return " and ".join(names) or "an answer"


def a_turn_of_results(results: Sequence[Message]) -> Injection:
    """The results as they are, a line between two, in a user turn of their own."""
    parts: list[Part] = []
    for index, result in enumerate(results):
        parts += [markup("\n")] if index else []
        parts += spoken(result, quote=True)
    return Injection(parts=tuple(parts), continues_turn=False)


def refuse_other_tools(dialect: str, its_tool: str, tool: str) -> None:
    """Raise `ConfigError` where a dialect that writes one tool alone is given another."""
    if tool != its_tool:
        raise ConfigError(
            f"the {dialect} dialect writes the tool {its_tool!r} alone, not {tool!r}", hint="use --dialect hermes"
        )
