"""Public chat data as episodes: JSON lines of messages, with tools, as TRL, OpenAI and most data sets write them.

    {"messages": [{"role": "user", "content": "..."},
                  {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {...}}}]},
                  {"role": "tool", "content": "..."}, {"role": "assistant", "content": "..."}],
     "tools": [{"type": "function", "function": {"name": "f", "description": "...", "parameters": {...}}}]}

`prompt` and `completion` in the place of `messages` are joined (ShareGPT's `conversations` is `messages`); `tools`,
and the arguments of a call, may be JSON in a string. Loss goes to what the assistant wrote. Where the dialect has
inline tags, data that keeps results inside the assistant's text (ReTool's) is split at them, so that they carry none.

Pictures are in a column `images`, as `envs.row_pictures` reads them, each at its `<image>` in a text or its part of
type `image`, in order; or in parts of type `image_url`, as data. They are scaled to `ImageBudget()` and kept in `blobs`
beside the file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from agent.chat_format import read_call
from agent.dialect import Dialect, TokenDialect, misread
from agent.dialects.inline import InlineTags
from agent.inline_import import import_inline
from envs.codec import LoggedFn
from envs.log import blobs_beside
from envs.message import Message, Role, answer_to
from envs.row_pictures import MARK, images_of, placed
from envs.rows import Row
from envs.task import Task
from envs.trajectory import CallRecord, Step, Stop, Trajectory
from tools.content import Content, Image, Text
from tools.errors import ConfigError
from tools.image import Gallery, ImageBudget
from tools.record import record
from tools.tool import Tool, ToolCall, ToolResult

ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
    "function": "tool",
    "ipython": "tool",
}

logger = logging.getLogger(__name__)

_SAID = {"messages", "conversations", "prompt"}


def holds_messages(path: Path) -> bool:
    """True when the first line is a row of messages, and not an episode of a log."""
    with path.open(encoding="utf-8") as file:
        line = next((line for line in file if line.strip()), "")
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return False
    return isinstance(row, dict) and "schema_version" not in row and bool(_SAID & row.keys())


def read_messages(path: Path, dialect: Dialect | TokenDialect | None = None) -> Iterator[Trajectory]:
    """The rows as finished episodes, their actions without ids.

    `dialect` is what they will be rendered in. With inline tags, assistant texts that hold results are split there. A
    row is left out, with one warning for all, where the model would learn to write what is read as something else: a
    text with a call in it that the data do not say is one. Raises `ConfigError`, naming the line, for what cannot be
    learned from.
    """
    inline = dialect if isinstance(dialect, InlineTags) else None
    left_out: list[str] = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ConfigError(f"{where}: this is no JSON ({error.msg})") from error
            if not isinstance(row, dict):
                raise ConfigError(f"{where}: a row must be a JSON object with messages")
            pictures = _pictures(Row(cast("dict[str, Any]", row), where, path.parent), path)
            episode = _episode(cast("dict[str, Any]", row), f"{path.stem}-{number}", where, inline, pictures)
            problem = None if dialect is None else _problem(episode, dialect, where)
            if problem is None:
                yield episode
            else:
                left_out.append(f"line {number}, {problem}")
    if left_out:
        logger.warning(
            "%s: %d rows are left out, as an action in them would not be read as what it is (%s)",
            *(path, len(left_out), left_out[0]),
        )


def _problem(episode: Trajectory, dialect: Dialect | TokenDialect, where: str) -> str | None:
    """Which action would be read otherwise than the row has it, and as what."""
    for number, step in enumerate(episode.steps, start=1):
        try:
            problem = misread(dialect, step.action, episode.tools)
        except ConfigError as error:
            raise ConfigError(f"{where}, action {number}: {error}", hint=error.hint) from error
        if problem is not None:
            return f"action {number}: {problem}"
    return None


def _pictures(row: Row, path: Path) -> Pictures:
    """Those of a row, as they are shown, one after the other."""
    gallery = Gallery(blobs_beside(path), ImageBudget())
    listed = images_of(row, "images", store=gallery.blobs) if row.has("images") else ()
    return Pictures(left=iter([_entered(gallery, picture, row.where) for picture in listed]), gallery=gallery, row=row)


def _entered(gallery: Gallery, picture: Image, where: str) -> Image:
    try:
        return gallery.shown(gallery.add(picture))
    except ValueError as error:
        raise ConfigError(f"{where}: a picture cannot be used: {error}") from error


@record
class Pictures:
    """The pictures of a row, taken in order by the places that ask for one."""

    left: Iterator[Image]
    gallery: Gallery
    row: Row

    def next(self, place: str) -> Image:
        """The next one. Raises `ConfigError` where there is none."""
        found = next(self.left, None)
        if found is None:
            raise ConfigError(f"{place}: it shows more pictures than the row has")
        return found

    def from_url(self, url: str, place: str) -> Image:
        """One that is written out; a link is not fetched."""
        held = Row({"image_url": url}, place, self.row.folder)
        return _entered(self.gallery, images_of(held, "image_url", store=self.gallery.blobs)[0], place)


def _episode(
    row: Mapping[str, Any], name: str, where: str, inline: InlineTags | None, pictures: Pictures
) -> Trajectory:
    said = [item for key in ("messages", "conversations", "prompt", "completion") for item in _list(row, key, where)]
    if isinstance(row.get("system"), str) and row["system"]:  # ShareGPT's
        said.insert(0, {"role": "system", "content": row["system"]})
    tools = _tools(row.get("tools"), where)
    messages = [_message(item, index, where, pictures) for index, item in enumerate(said)]
    if next(pictures.left, None) is not None:
        raise ConfigError(f"{where}: it has more pictures than its messages show", hint=f"each stands at its {MARK}")
    if inline is not None:
        places = [(message, f"{where}, message {index}") for index, message in enumerate(messages, start=1)]
        messages = [part for message, place in places for part in _split(message, inline, tools, place)]
    steps: list[Step] = []
    new: list[Message] = []
    waiting: list[ToolCall] = []
    for message in messages:
        if message.role != "assistant":
            if message.role == "tool":
                message = _answered(message, waiting, steps, where)
            new.append(message)
            continue
        if not new:
            problem = "begins with the assistant" if not steps else "has two assistant messages in a row"
            raise ConfigError(f"{where}: it {problem}; every action answers something")
        steps.append(Step(observation=tuple(new), action=message))
        new, waiting = [], list(message.tool_calls)
    if not steps:
        raise ConfigError(f"{where}: no assistant message to learn from")
    task = Task(id=name, prompt=steps[0].observation)
    return Trajectory(task=task, tools=tools, steps=steps, final=tuple(new), stop=Stop.DONE)


def _answered(message: Message, waiting: list[ToolCall], steps: list[Step], where: str) -> Message:
    """Tie a tool message to the call it answers: by id, else in order; and note it as executed."""
    call = next((call for call in waiting if call.id == message.tool_call_id), waiting[0] if waiting else None)
    if call is None:
        raise ConfigError(f"{where}: a tool's result answers no call")
    waiting.remove(call)
    result = ToolResult(content=message.content)
    outcome = "malformed" if call.error else "ok"
    done = CallRecord(call=call, result=result, outcome=outcome, seconds=0.0)
    steps[-1] = replace(steps[-1], calls=(*steps[-1].calls, done))
    return answer_to(call, result)


def _message(item: Any, index: int, where: str, pictures: Pictures) -> Message:
    place = f"{where}, message {index + 1}"
    if not isinstance(item, Mapping):
        raise ConfigError(f"{place}: a message must be a JSON object")
    given = cast("Mapping[str, Any]", item)
    role = ROLES.get(str(given.get("role", given.get("from", ""))))
    if role is None:
        raise ConfigError(f"{place}: its role is {given.get('role')!r}", hint=f"use one of {', '.join(ROLES)}")
    calls = tuple(_call(call, f"{index}_{k}", place) for k, call in enumerate(given.get("tool_calls") or ()))
    return Message(
        role=role,
        content=_content(given.get("content", given.get("value")), role, place, pictures),
        reasoning=given.get("reasoning_content") or given.get("reasoning") or given.get("thinking"),
        tool_calls=calls,
        tool_call_id=given.get("tool_call_id"),
    )


def _content(content: Any, role: Role, place: str, pictures: Pictures) -> tuple[Content, ...]:
    """A text or a list of parts, each picture at its place. What the assistant writes holds none, whatever it says."""
    if content is None or isinstance(content, str):
        return _marked(content or "", role, place, pictures)
    found: list[Content] = []
    for item in cast("list[Any]", content) if isinstance(content, list) else [content]:
        part: Mapping[str, Any] = cast("Mapping[str, Any]", item) if isinstance(item, Mapping) else {}
        kind = part.get("type")
        if kind == "text":
            found += _marked(str(part["text"]), role, place, pictures)
        elif kind == "image":
            found.append(pictures.next(place))
        elif kind == "image_url":
            given: Any = part.get("image_url")
            url = cast("Mapping[str, Any]", given).get("url") if isinstance(given, Mapping) else given
            found.append(pictures.from_url(str(url), place))
        else:
            raise ConfigError(f"{place}: a part of its content is of type {kind!r}", hint="text, image or image_url")
    return tuple(found)


def _marked(text: str, role: Role, place: str, pictures: Pictures) -> tuple[Content, ...]:
    if role == "assistant" or MARK not in text or not pictures.row.has("images"):
        return (Text(text=text),) if text else ()
    return placed(text, [pictures.next(place) for _ in range(text.count(MARK))], place)


def _call(item: Any, fallback: str, place: str) -> ToolCall:
    given: Mapping[str, Any] = cast("Mapping[str, Any]", item) if isinstance(item, Mapping) else {}
    function = cast("Mapping[str, Any]", given.get("function") or given)
    name, arguments = function.get("name"), function.get("arguments", {})
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{place}: a call without a name: {item!r}"[:300])
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return read_call(str(given.get("id") or f"call_{fallback}"), name, written)


def _tools(value: Any, where: str) -> tuple[Tool, ...]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{where}: tools are a string that is no JSON ({error.msg})") from error
    tools: list[Tool] = []
    for item in value or ():
        whole: Mapping[str, Any] = cast("Mapping[str, Any]", item) if isinstance(item, Mapping) else {}
        function: Any = whole.get("function", whole)
        given: Mapping[str, Any] = cast("Mapping[str, Any]", function) if isinstance(function, Mapping) else {}
        if not isinstance(given.get("name"), str):
            raise ConfigError(f"{where}: a tool without a name: {item!r}"[:300])
        schema: Any = given.get("parameters") or {"type": "object", "properties": {}}
        about = given.get("description") or ""
        tools.append(Tool(name=given["name"], description=about, parameters=schema, fn=LoggedFn(name=given["name"])))
    return tuple(tools)


def _list(row: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value: Any = row.get(key) or []
    if not isinstance(value, list):
        raise ConfigError(f"{where}: {key} must be a list of messages", hint="plain text has no turns to learn from")
    return cast("list[Any]", value)


def _split(message: Message, inline: InlineTags, tools: Sequence[Tool], place: str) -> list[Message]:
    """An assistant text with results in it as the actions and results it is made of; anything else as it is."""
    inside = any(rule.result and f"<{rule.result}>" in message.text for rule in inline.rules)
    if message.role != "assistant" or message.tool_calls or not inside:
        return [message]
    try:
        said = import_inline((), message.text, tools, inline).trajectory.messages
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error
    number = place.rpartition(" ")[2]  # a call's id is unique in its episode, not in its text alone
    return [
        replace(
            part,
            tool_calls=tuple(replace(call, id=f"{call.id}_{number}") for call in part.tool_calls),
            tool_call_id=f"{part.tool_call_id}_{number}" if part.tool_call_id else None,
        )
        for part in said
    ]
