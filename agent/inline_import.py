"""Published inline-tag data as episodes: an assistant text split where a tool spoke, with every span reported."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from agent.dialects.inline import InlineTags, Tag
from envs.message import Message, answer_to, assistant
from envs.task import Task
from envs.trajectory import CallRecord, Step, Stop, Trajectory
from tools.content import Text
from tools.errors import ConfigError
from tools.record import record
from tools.tool import Tool, ToolResult


@record
class TextSpan:
    """Characters [start, end) of the text, and who wrote them."""

    start: int
    end: int
    source: Literal["model", "tool"]


@record
class Imported:
    """What became of a text."""

    trajectory: Trajectory
    """Without ids: `Renderer.teach` renders it once."""
    spans: tuple[TextSpan, ...]
    """Cover the text, in order, without gaps."""


def split_inline(text: str, dialect: InlineTags) -> tuple[TextSpan, ...]:
    """Who wrote which part of the text: the model up to a call's closing tag, then the tool to the end of its block.

    >>> text = "So <code>1</code><interpreter>1</interpreter> it is 1."
    >>> [text[span.start : span.end] for span in split_inline(text, InlineTags())]
    ['So <code>1</code>', '<interpreter>1</interpreter>', ' it is 1.']

    Raises `ConfigError` for a result that no call asked for: nobody could say who wrote it.
    """
    calls = re.compile("|".join(f"</{re.escape(tag.call)}>" for tag in dialect.rules))
    spans: list[TextSpan] = []
    at = start = 0
    while (closing := calls.search(text, at)) is not None:
        at = closing.end()
        block = _result(dialect.rules).match(text, at)
        if block is None:
            continue  # a call that was never run stays the model's
        spans += [
            TextSpan(start=start, end=closing.end(), source="model"),
            TextSpan(start=closing.end(), end=block.end(), source="tool"),
        ]
        at = start = block.end()
    if start < len(text):
        spans.append(TextSpan(start=start, end=len(text), source="model"))
    for span in spans:
        stray = re.search(_opening(dialect.rules), text[span.start : span.end]) if span.source == "model" else None
        if stray:
            raise ConfigError(f"a {stray.group()} at character {span.start + stray.start()} follows no call")
    return tuple(spans)


def import_inline(
    prompt: Sequence[Message], text: str, tools: Sequence[Tool], dialect: InlineTags, task_id: str = "imported"
) -> Imported:
    """An episode from a prompt and the assistant's text, in which calls and results stand inline.

    A result's text is what stands between its tags, less one newline at each end. Raises `ConfigError` where the text
    cannot be read as that dialect's.
    """
    spans = split_inline(text, dialect)
    steps: list[Step] = []
    new = tuple(prompt)
    for index, span in enumerate(spans):
        if span.source == "tool":
            continue
        said = text[span.start : span.end]
        action = _action(said.removeprefix("\n") if steps else said, tools, dialect)
        calls = tuple(replace(call, id=f"call_{len(steps)}_{i}") for i, call in enumerate(action.tool_calls))
        action = replace(action, tool_calls=calls)
        told = spans[index + 1] if index + 1 < len(spans) else None
        result = ToolResult(content=(Text(text=_body(text[told.start : told.end])),)) if told and calls else None
        if told and result is None:
            raise ConfigError(f"the call before character {told.start} cannot be read as the {dialect.name} dialect's")
        made = (CallRecord(call=calls[0], result=result, outcome="ok", seconds=0.0),) if result else ()
        steps.append(Step(observation=new, action=action, calls=made))
        new = (answer_to(calls[0], result),) if result else ()
    task = Task(id=task_id, prompt=tuple(prompt))
    trajectory = Trajectory(task=task, tools=tuple(tools), steps=steps, final=new, stop=Stop.DONE)
    return Imported(trajectory=trajectory, spans=spans)


def _action(said: str, tools: Sequence[Tool], dialect: InlineTags) -> Message:
    """What the model says up to the call that was run. A call that was never run is part of its words."""
    closings = list(re.finditer("|".join(f"</({re.escape(tag.call)})>" for tag in dialect.rules), said))
    if not closings or (len(closings) == 1 and not said[closings[0].end() :].strip()):
        return dialect.parse(said, tools)
    last = closings[-1]
    opening = said.rfind(f"<{last[last.lastindex or 0]}>", 0, last.start())
    if opening < 0 or said[last.end() :].strip():
        return assistant(said)
    return replace(dialect.parse(said[opening:], tools), content=assistant(said[:opening].removesuffix("\n")).content)


def _names(rules: Sequence[Tag]) -> str:
    return "|".join(dict.fromkeys(re.escape(tag.result) for tag in rules if tag.result))


def _result(rules: Sequence[Tag]) -> re.Pattern[str]:
    return re.compile(rf"\s*<({_names(rules)})>.*?</\1>(?:\n(?=\S)|\n$)?", re.DOTALL)


def _opening(rules: Sequence[Tag]) -> str:
    return rf"<(?:{_names(rules)})>"


def _body(block: str) -> str:
    inner = block[block.index(">") + 1 : block.rindex("</")]
    return inner.removeprefix("\n").removesuffix("\n")
