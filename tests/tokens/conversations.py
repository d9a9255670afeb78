"""Conversations that both we and a published chat template can express, and their form for `apply_chat_template`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.dialects.hermes import signature
from agent.families.proof import told_to
from agent.renderer import Renderer
from envs import Message, answer_to, assistant, system, user
from tools import Text, Tool, ToolCall, ToolResult, tool


@tool
def look_up(word: str, deep: bool = False, limit: int | None = None) -> str:
    """Look a word up: "quotes", ümlaute and all.

    Args:
        word: What to look for.
        deep: Search everywhere.
    """
    return word


@tool
def now() -> str:
    """Say what time it is."""
    return "noon"


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(id="abcdef123", name=name, raw="", arguments=arguments)


def told(asked: ToolCall, text: str) -> Message:
    return answer_to(asked, ToolResult(content=(Text(text=text),)))


FIRST = call("look_up", word='é "q" <b>\n', deep=True, limit=None)
SECOND = call("now")
PLAIN: list[list[Message]] = [
    [user("hi")],
    [system("Be brief."), user("hi")],
    [system("Be brief."), user("hi"), assistant("Hello.\n\nYou?"), user("naïve 你好 🙂  12345 bye")],
    [user("a"), assistant("b"), user("c"), assistant("d"), user("x = 1\n\n\n  y")],
]
WITH_TOOLS: list[list[Message]] = [
    [user("go")],
    [system("Be brief."), user("go")],
    [user("go"), assistant(tool_calls=[FIRST]), told(FIRST, 'é "True"\n2')],
    [system("S."), user("go"), assistant(tool_calls=[SECOND]), told(SECOND, "noon"), assistant("Noon."), user("And?")],
]


def rows(messages: Sequence[Message]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for message in messages:
        row: dict[str, Any] = {"role": message.role, "content": message.text}
        if message.tool_calls:
            row["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": dict(c.arguments or {})}}
                for c in message.tool_calls
            ]
        if message.role == "tool":
            row["tool_call_id"] = message.tool_call_id
        out.append(row)
    return out


def theirs(tokenizer: Any, renderer: Renderer, messages: Sequence[Message], tools: Sequence[Tool]) -> list[int]:
    return tokenizer.apply_chat_template(
        rows(messages),
        tools=[signature(t) for t in tools] or None,
        add_generation_prompt=True,
        return_dict=False,
        **told_to(renderer.family, tokenizer),
    )
