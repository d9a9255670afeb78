"""Named actions with a fenced JSON list, as ViLaSR (arXiv 2506.09965) writes them.

<think>I mark the cup.</think> Action: Object Mapper
```json
[{"index": 1, "bbox_2d": [10, 20, 30, 40], "label": "cup"}]
```
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from typing import Any, cast, final

from agent.dialect import Injection, Thought, a_turn_of_results
from agent.dialects.reasoning import thinking_end
from envs.message import Message, assistant
from tools.errors import ConfigError
from tools.record import record
from tools.tool import Tool, ToolCall


@record
class Action:
    """How one tool is named in text."""

    tool: str
    shown: str
    argument: str
    """The tool's one argument, a list of JSON objects."""


VILASR = (
    Action(tool="object_mapper", shown="Object Mapper", argument="items"),
    Action(tool="path_tracer", shown="Path Tracer", argument="items"),
)
_THOUGHT = re.compile(r"<think>(.*?)</think> ?", re.DOTALL)
_OPEN = re.compile(r"<think>(?!.*</think>)", re.DOTALL)
_BLOCK = re.compile(r"```json\n(.*?)\n?```(?=\s|$)", re.DOTALL)
_ANSWER = "Action: Answer\n"


@final
class FencedActions:
    """`Action: NAME` and a fenced JSON list of objects; results are a user turn; `Action: Answer` ends.

    >>> said = FencedActions().parse('Action: Path Tracer\\n```json\\n[{"index": 1}]\\n```', ())
    >>> said.tool_calls[0].arguments
    {'items': [{'index': 1}]}
    """

    name: str = "vilasr"
    stop: tuple[str, ...] = ()
    tags: tuple[str, ...] = ("<think>", "</think>", "<answer>", "</answer>")
    thought = Thought(opening="<think>", closing="</think> ", unclosed=_OPEN)

    def __init__(self, actions: Sequence[Action] = VILASR) -> None:
        self.actions = tuple(actions)
        shown = "|".join(re.escape(action.shown) for action in self.actions)
        self._header = re.compile(rf"^Action: ({shown})[ ]*$", re.MULTILINE)

    def instructions(self, tools: Sequence[Tool]) -> str:
        lines: list[str] = []
        for tool in tools:
            action = self._action_of(tool.name)
            schema = tool.parameters.get("properties", {}).get(action.argument, {})
            lines.append(f"{action.shown}: {tool.description}\nIts list: {json.dumps(schema, ensure_ascii=False)}")
        if not lines:
            return ""
        how = (
            "Each reply is your reasoning in <think></think>, then one action: a line `Action: NAME` and a fenced json "
            "list, or `Action: Answer` and the answer in <answer></answer>. The actions are:"
        )
        return "\n\n".join([how, *lines])

    def write(self, action: Message) -> str:
        said = action.text
        if not action.tool_calls and said.startswith("<answer>"):
            said = f"{_ANSWER}{said}"
        blocks = [self._write_call(call) for call in action.tool_calls]
        body = "\n".join(([said] if said else []) + blocks)
        return body if action.reasoning is None else f"<think>{action.reasoning}</think> {body}"

    def parse(self, text: str, tools: Sequence[Tool]) -> Message:
        thought = _THOUGHT.match(text)
        reasoning, rest = (thought.group(1), text[thought.end() :]) if thought else (None, text)
        behind = thinking_end(rest)
        heads = [] if behind is None else list(self._header.finditer(rest, behind))
        if not heads:
            said = rest.removeprefix(_ANSWER) if rest.startswith(f"{_ANSWER}<answer>") else rest
            return assistant(said, reasoning=reasoning)
        ends = [head.start() for head in heads[1:]] + [len(rest)]
        calls = [
            self._read(head, rest[head.start() : end], rest[head.end() : end], f"call_{index}")
            for index, (head, end) in enumerate(zip(heads, ends, strict=True))
        ]
        return assistant(rest[: heads[0].start()].removesuffix("\n"), reasoning=reasoning, tool_calls=calls)

    def format(self, calls: Sequence[ToolCall], results: Sequence[Message]) -> Injection:
        return a_turn_of_results(results)

    def _write_call(self, call: ToolCall) -> str:
        if call.arguments is None:
            return call.raw
        action = self._action_of(call.name)
        items = call.arguments.get(action.argument)
        if set(call.arguments) != {action.argument} or not _is_list_of_objects(items):
            raise ConfigError(
                f"the {self.name} dialect cannot write this call of {call.name}: it carries one list of objects, "
                f"{action.argument!r}; seen: {sorted(call.arguments)}"
            )
        return f"Action: {action.shown}\n```json\n{json.dumps(items, ensure_ascii=False)}\n```"

    def _read(self, head: re.Match[str], raw: str, body: str, call_id: str) -> ToolCall:
        action = next(action for action in self.actions if action.shown == head.group(1))
        items: list[Any] = []
        blocks: list[str] = _BLOCK.findall(body)
        problem = None if blocks else f"Action: {action.shown} needs a fenced json list."
        for block in blocks:
            try:
                value = _literal(block)
            except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
                problem = f"The list of {action.shown} is not valid JSON ({error})."
                break
            if not _is_list_of_objects(value):
                problem = f"{action.shown} takes a list of JSON objects."
                break
            items += value
        raw = raw.rstrip("\n")
        if problem is not None:
            return ToolCall(id=call_id, name=action.tool, raw=raw, error=problem)
        return ToolCall(id=call_id, name=action.tool, raw=raw, arguments={action.argument: items})

    def _action_of(self, tool: str) -> Action:
        for action in self.actions:
            if action.tool == tool:
                return action
        known = ", ".join(action.tool for action in self.actions)
        raise ConfigError(
            f"the {self.name} dialect has no action for the tool {tool!r} (it has: {known})",
            hint="use --dialect hermes",
        )


def _literal(block: str) -> Any:
    """JSON, or else a Python literal: ViLaSR's own reader takes those."""
    try:
        return json.loads(block)
    except json.JSONDecodeError as error:
        if len(block) > 20_000:
            raise
        try:
            return ast.literal_eval(block.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            raise error from None


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in cast(list[Any], value))
