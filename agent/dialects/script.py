"""Drawing scripts between BEGIN and END, as ChartSketcher (arXiv 2505.19076) writes them.

The bar ends here.
BEGIN
create_line top 0.1 0.4 0.9 0.4 red
END
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import final

from agent.dialect import Injection, a_turn_of_results, refuse_other_tools
from agent.dialects.reasoning import THOUGHT, split_reasoning, thinking_end, with_reasoning
from envs.message import Message, assistant
from tools.errors import ConfigError
from tools.tool import Tool, ToolCall

_SCRIPT = re.compile(r"^BEGIN\n(?:(.*?)\n)?^END$", re.MULTILINE | re.DOTALL)
_BEGIN = re.compile(r"^BEGIN$", re.MULTILINE)
_END = re.compile(r"^END$", re.MULTILINE)


@final
class SketchScript:
    """One script an action, for the tool `sketch`; a reply without one is the answer. Results are a user turn.

    >>> SketchScript().parse("So:\\nBEGIN\\ndelete top\\nEND", ()).tool_calls[0].arguments
    {'script': 'delete top'}
    """

    name: str = "chartsketcher"
    stop: tuple[str, ...] = ()
    tags: tuple[str, ...] = ("<think>", "</think>")
    thought = THOUGHT

    def __init__(self, tool: str = "sketch", argument: str = "script") -> None:
        self.tool = tool
        self.argument = argument

    def instructions(self, tools: Sequence[Tool]) -> str:
        for tool in tools:
            refuse_other_tools(self.name, self.tool, tool.name)
        return "\n\n".join(
            f"{tool.description}\nTo use it, write a line BEGIN, one command on each line, and a line END. "
            "A reply without such a script is your answer."
            for tool in tools
        )

    def write(self, action: Message) -> str:
        if not action.tool_calls:
            return with_reasoning(action.reasoning, action.text)
        call, *more = action.tool_calls
        if more:
            raise ConfigError(f"the {self.name} dialect carries one script an action, and this one has {len(more) + 1}")
        script = self._script(call)
        return with_reasoning(action.reasoning, f"{action.text}\n{script}" if action.text else script)

    def parse(self, text: str, tools: Sequence[Tool]) -> Message:
        reasoning, rest = split_reasoning(text)
        thought = thinking_end(rest)
        if thought is None:
            return assistant(rest, reasoning=reasoning)
        found = _SCRIPT.search(rest, thought)
        if found is not None:
            call = ToolCall(
                id="call_0", name=self.tool, raw=found.group(), arguments={self.argument: found.group(1) or ""}
            )
        else:
            found = _BEGIN.search(rest, thought)
            if found is None:
                return assistant(rest, reasoning=reasoning)
            problem = "The script was not closed with a line END."
            call = ToolCall(id="call_0", name=self.tool, raw=rest[found.start() :], error=problem)
        return assistant(rest[: found.start()].removesuffix("\n"), reasoning=reasoning, tool_calls=(call,))

    def format(self, calls: Sequence[ToolCall], results: Sequence[Message]) -> Injection:
        return a_turn_of_results(results)

    def _script(self, call: ToolCall) -> str:
        if call.arguments is None:
            return call.raw
        script = call.arguments.get(self.argument)
        refuse_other_tools(self.name, self.tool, call.name)
        if set(call.arguments) != {self.argument} or not isinstance(script, str):
            raise ConfigError(
                f"the {self.name} dialect cannot write this call of {call.name}: it carries one text, {self.argument!r}"
            )
        if _END.search(script):
            raise ConfigError(f"the {self.name} dialect cannot write a script with a line END in it")
        return f"BEGIN\n{script}\nEND" if script else "BEGIN\nEND"
