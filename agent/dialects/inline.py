"""Inline tags, as ReTool and its kin write them: the call stops the turn, the result continues it.

... so I compute it.
<code>
```python
print(37 * 48)
```
</code>
<interpreter>
1776
</interpreter>
That makes 1776.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import final

from agent.dialect import Injection
from agent.dialects.hermes import call_json, checked_call, signature
from agent.dialects.reasoning import THOUGHT, split_reasoning, thinking_end, with_reasoning
from agent.parts import Part, markup, spoken
from envs.message import Message, assistant
from tools.errors import ConfigError
from tools.record import record
from tools.tool import Tool, ToolCall


@record
class Tag:
    """How one tool is written: `<call>argument</call>`, answered by `<result>...</result>`."""

    tool: str | None
    """None: any tool, and the body is JSON with its name and arguments."""
    call: str
    result: str
    argument: str = ""
    """The one argument that the body is."""
    fence: str = ""
    """The language of a fence around the argument; empty for none."""
    literal: str | None = None
    """A body that stands for a call without arguments."""
    pad: str = "\n"
    """What stands between the tags and the body."""
    before: str | None = None
    """What is put before a result; by default its opening tag on a line of its own."""
    after: str | None = None

    @property
    def around(self) -> tuple[str, str]:
        """What stands before and after a result."""
        before = f"\n<{self.result}>\n" if self.before is None else self.before
        return before, f"\n</{self.result}>\n" if self.after is None else self.after


PYTHON = Tag(tool="python", call="code", result="interpreter", argument="code", fence="python")
"""ReTool (arXiv 2504.11536): `<code>` with a fenced script, `<interpreter>` with its output."""


@final
class InlineTags:
    """One call an action; generation stops at the closing tag.

    `correction` is what the model reads of a malformed call in place of our own sentence. With `answer`, an action that
    holds neither a call nor that tag is malformed too (Search-R1 and MMSearch-R1 correct it instead of ending there).
    With `thinks`, a call in thinking that is still open is malformed: it has ended the action, and the model is told to
    end its thinking first. In ReTool's form, which has no thinking tags, a call may stand anywhere.

    >>> text = "Let me see.\\n<code>\\n```python\\nprint(2)\\n```\\n</code>"
    >>> InlineTags().parse(text, ()).tool_calls[0].arguments
    {'code': 'print(2)'}
    """

    thought = THOUGHT

    def __init__(
        self,
        tags: Sequence[Tag] = (PYTHON,),
        *,
        name: str = "inline",
        in_turn: bool = True,
        correction: str | None = None,
        answer: str | None = None,
        thinks: bool = False,
    ) -> None:
        self.name = name
        self.rules = tuple(tags)
        self.in_turn = in_turn
        self.correction = correction
        self.answer = answer
        self.thinks = thinks
        names = tuple(dict.fromkeys(tag.call for tag in self.rules))
        self.stop = tuple(f"</{name}>" for name in names)
        marks = (*names, *(tag.result for tag in self.rules), "think")
        self.tags = tuple(dict.fromkeys(f"<{slash}{mark}>" for mark in marks if mark for slash in ("", "/")))
        self._opening = re.compile("|".join(rf"<({re.escape(name)})>" for name in names))

    def instructions(self, tools: Sequence[Tool]) -> str:
        return "\n\n".join(_instruction(tool, self._tags_of(tool.name), self.in_turn) for tool in tools)

    def write(self, action: Message) -> str:
        if not action.tool_calls:
            return with_reasoning(action.reasoning, action.text)
        call, *more = action.tool_calls
        if more:
            raise ConfigError(f"the {self.name} dialect carries one call an action, and this one has {len(more) + 1}")
        written = self._write_call(call)
        return with_reasoning(
            action.reasoning, f"{action.text}\n{written}" if action.text and written else action.text or written
        )

    def parse(self, text: str, tools: Sequence[Tool]) -> Message:
        reasoning, rest = split_reasoning(text)
        thought = thinking_end(rest) if self.thinks else 0
        found = self._opening.search(rest, thought or 0)
        if found is None:
            lost = self.answer is not None and bool(tools) and f"<{self.answer}>" not in rest
            problem = self.correction or f"There was neither a call nor an <{self.answer}>."
            missing = ToolCall(id="call_0", name="", raw="", error=problem)
            return assistant(rest, reasoning=reasoning, tool_calls=(missing,) if lost else ())
        tag = found.group()[1:-1]
        said, raw = rest[: found.start()].removesuffix("\n"), rest[found.start() :]
        body, closed, _ = rest[found.end() :].partition(f"</{tag}>")
        if closed and thought is not None:
            call = self._read(tag, body, raw)
        else:
            problem = f"The call was not closed with </{tag}>."
            if thought is None:
                problem = "The thinking was still open: a call comes after </think>."
            problem = self.correction or problem
            name = next(rule.tool for rule in self.rules if rule.call == tag) or ""
            call = ToolCall(id="call_0", name=name, raw=raw, error=problem)
        return assistant(said, reasoning=reasoning, tool_calls=(call,))

    def format(self, calls: Sequence[ToolCall], results: Sequence[Message]) -> Injection:
        parts: list[Part] = []
        for call, answer in zip(calls, results, strict=False):
            if call.error is not None and self.correction is not None:
                parts.append(markup(f"\n{self.correction}\n"))
                continue
            before, after = self._rule_of(call).around
            parts += [markup(before), *spoken(answer, quote=True), markup(after)]
        return Injection(parts=tuple(parts), continues_turn=self.in_turn)

    def _read(self, tag: str, body: str, raw: str) -> ToolCall:
        rules = [rule for rule in self.rules if rule.call == tag]
        for rule in rules:
            if rule.literal is not None and rule.tool is not None and body.strip() == rule.literal:
                return ToolCall(id="call_0", name=rule.tool, raw=raw, arguments={})
        rule = next((rule for rule in rules if rule.literal is None), rules[0])
        if rule.literal is not None:
            problem = self.correction or f"<{tag}> takes {rule.literal} and nothing else."
            return ToolCall(id="call_0", name=rule.tool or "", raw=raw, error=problem)
        if rule.tool is not None:
            return ToolCall(id="call_0", name=rule.tool, raw=raw, arguments={rule.argument: _unfenced(rule, body)})
        try:
            value = json.loads(body)
        except (ValueError, RecursionError) as error:
            problem = self.correction or f"The call is not valid JSON ({error})."
            return ToolCall(id="call_0", name="", raw=raw, error=problem)
        return checked_call(value, raw, "call_0", self.correction or "{problem}")

    def _write_call(self, call: ToolCall) -> str:
        if call.arguments is None:
            return call.raw
        for rule in self._tags_of(call.name):
            body = _body(rule, call)
            if body is not None and f"</{rule.call}>" not in body and not self._means_other(rule, body):
                return f"<{rule.call}>{rule.pad}{body}{rule.pad}</{rule.call}>"
        rule = self._tags_of(call.name)[0]
        raise ConfigError(
            f"the {self.name} dialect cannot write this call of {call.name}: <{rule.call}> carries one text, "
            f"{rule.argument!r}, without the closing tag in it; seen: {sorted(call.arguments)}"
        )

    def _means_other(self, rule: Tag, body: str) -> bool:
        """Whether the tag's body would be read as a call without arguments."""
        others = {other.literal for other in self.rules if other.call == rule.call and other is not rule}
        return body.strip() in others

    def _rule_of(self, call: ToolCall) -> Tag:
        """The tag a result answers: by what was written, and by the tool's name where nothing was."""
        found = self._opening.match(call.raw)
        rules = [rule for rule in self.rules if found and rule.call == found.group()[1:-1]] or list(self.rules)
        return next((rule for rule in rules if rule.tool in (call.name, None)), rules[0])

    def _tags_of(self, tool: str) -> list[Tag]:
        rules = [rule for rule in self.rules if rule.tool == tool] or [r for r in self.rules if r.tool is None]
        if not rules:
            known = ", ".join(dict.fromkeys(rule.tool or "" for rule in self.rules))
            raise ConfigError(
                f"the {self.name} dialect has no tag for the tool {tool!r} (it has: {known})",
                hint="use --dialect hermes",
            )
        return rules


def _instruction(tool: Tool, rules: Sequence[Tag], in_turn: bool) -> str:
    ways: list[str] = []
    for rule in rules:
        if rule.tool is None:
            sample = f'{{"name": "{tool.name}", "arguments": <args-json-object>}}'
            about = f"{tool.description}\n{json.dumps(signature(tool), ensure_ascii=False)}"
        else:
            sample = rule.literal or _fenced(rule, f"<{rule.argument}>")
            about = tool.description
        ways.append(f"{about}\nTo use it, write\n<{rule.call}>{rule.pad}{sample}{rule.pad}</{rule.call}>")
    where = f"the result follows in <{rules[0].result}></{rules[0].result}>." if in_turn else "the result follows."
    return "\n".join([*ways, f"and {where}"])


def _body(rule: Tag, call: ToolCall) -> str | None:
    """What stands between the tags, or None where the tag cannot carry the call."""
    arguments = call.arguments or {}
    if rule.tool is None:
        return call_json(call)
    if rule.literal is not None:
        return rule.literal if not arguments else None
    value = arguments.get(rule.argument)
    if set(arguments) != {rule.argument} or not isinstance(value, str):
        return None
    body = _fenced(rule, value)
    return body if _unfenced(rule, f"{rule.pad}{body}{rule.pad}") == value else None


def _fenced(tag: Tag, text: str) -> str:
    return f"```{tag.fence}\n{text}\n```" if tag.fence else text


def _unfenced(tag: Tag, body: str) -> str:
    """The argument between the tags, without one newline at each end and one fence, where they are there."""
    text = body.removeprefix("\n").removesuffix("\n") if tag.pad == "\n" else body
    if tag.fence and text.startswith("```") and text.endswith("\n```") and "\n" in text[:-4]:
        text = text[text.index("\n") + 1 : -4]
    return text
