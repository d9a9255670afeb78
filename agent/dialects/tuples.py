"""A fixed tuple of tags in every turn, as Conan (arXiv 2510.20470) writes them.

<score>00:00:05-00:00:10: 4</score><think>the cup is gone</think><clip>00:00:10-00:00:20</clip><answer></answer>
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast, final

from agent.dialect import Injection, Thought, a_turn_of_results, refuse_other_tools
from envs.message import Message, assistant
from tools.errors import ConfigError
from tools.tool import Tool, ToolCall

_TURN = re.compile(
    r"(?:<score>(?P<score>.*?)</score>)?\s*(?:<think>(?P<think>.*?)</think>)?\s*"
    r"(?:<clip>(?P<clip>.*?)</clip>)?\s*(?:<answer>(?P<answer>.*?)</answer>)?\s*",
    re.DOTALL,
)
_OPEN = re.compile(r"(?:<score>.*?</score>)?\s*<think>(?!.*</think>)", re.DOTALL)
_CLIP = re.compile(r"\d{1,2}:\d{2}:\d{2}-\d{1,2}:\d{2}:\d{2}")


@final
class TagTuple:
    """Scores, thinking, and either clips to look at or an answer. Clips are the call; results are a user turn.

    In a message the thinking is `reasoning`, and the text holds the score and answer tags.

    >>> said = TagTuple().parse("<think>look</think><clip>00:00:01-00:00:09</clip><answer></answer>", ())
    >>> said.tool_calls[0].arguments
    {'clips': ['00:00:01-00:00:09']}
    """

    name: str = "conan"
    stop: tuple[str, ...] = ()
    tags: tuple[str, ...] = tuple(
        f"<{slash}{tag}>" for tag in ("score", "think", "clip", "answer") for slash in ("", "/")
    )
    thought = Thought(opening="<think>", closing="</think>", unclosed=_OPEN)

    def __init__(self, tool: str = "clips", argument: str = "clips") -> None:
        self.tool = tool
        self.argument = argument

    def instructions(self, tools: Sequence[Tool]) -> str:
        for tool in tools:
            refuse_other_tools(self.name, self.tool, tool.name)
        how = (
            "Write each turn as <score></score><think></think><clip></clip><answer></answer>: a score of 1 to 5 for "
            "each clip or frame seen, your reasoning, then either clips to look at (HH:MM:SS-HH:MM:SS, separated by "
            "commas) or the answer; leave the other one empty."
        )
        return "\n\n".join(f"{tool.description}\n{how}" for tool in tools)

    def write(self, action: Message) -> str:
        if any(call.arguments is None for call in action.tool_calls):
            return action.tool_calls[0].raw
        shown = _TURN.fullmatch(action.text)
        tags = [] if shown is None else [tag for tag in ("think", "clip") if shown.group(tag) is not None]
        if shown is None or tags or (action.tool_calls and shown.group("answer")):
            if action.reasoning is None and not action.tool_calls:
                return action.text
            raise ConfigError(
                f"the {self.name} dialect cannot write this: text holds a <score> and, without a call, an <answer>"
            )
        score = "" if shown.group("score") is None else f"<score>{shown.group('score')}</score>"
        thought = "" if action.reasoning is None else f"<think>{action.reasoning}</think>"
        if action.tool_calls:
            return f"{score}{thought}<clip>{self._clips(action.tool_calls)}</clip><answer></answer>"
        answer = "" if shown.group("answer") is None else f"<clip></clip><answer>{shown.group('answer')}</answer>"
        return f"{score}{thought}{answer}"

    def parse(self, text: str, tools: Sequence[Tool]) -> Message:
        found = _TURN.fullmatch(text)
        if found is None or (found.group("clip") is None and found.group("answer") is None):
            if found is not None and (found.group("think") is not None or found.group("score") is not None):
                return self._parts(found)
            return assistant(text)
        clip, answer = (found.group("clip") or "").strip(), (found.group("answer") or "").strip()
        if bool(clip) == bool(answer):
            return self._malformed(text, "Fill exactly one of <clip> and <answer>.")
        if answer:
            return self._parts(found)
        clips = [piece.strip() for piece in clip.split(",")]
        if not all(_CLIP.fullmatch(piece) for piece in clips):
            return self._malformed(text, "Write clips as HH:MM:SS-HH:MM:SS, separated by commas.")
        call = ToolCall(id="call_0", name=self.tool, raw=text, arguments={self.argument: clips})
        return assistant(_score(found), reasoning=found.group("think"), tool_calls=(call,))

    def format(self, calls: Sequence[ToolCall], results: Sequence[Message]) -> Injection:
        return a_turn_of_results(results)

    def _parts(self, found: re.Match[str]) -> Message:
        answer = found.group("answer")
        shown = "" if answer is None else f"<answer>{answer}</answer>"
        return assistant(f"{_score(found)}{shown}", reasoning=found.group("think"))

    def _malformed(self, text: str, problem: str) -> Message:
        return assistant(tool_calls=(ToolCall(id="call_0", name=self.tool, raw=text, error=problem),))

    def _clips(self, calls: Sequence[ToolCall]) -> str:
        call, *more = calls
        clips = (call.arguments or {}).get(self.argument)
        good = isinstance(clips, list) and clips and all(isinstance(c, str) and _CLIP.fullmatch(c) for c in clips)  # pyright: ignore[reportUnknownVariableType]
        refuse_other_tools(self.name, self.tool, call.name)
        if more or not good or set(call.arguments or {}) != {self.argument}:
            raise ConfigError(
                f"the {self.name} dialect cannot write this call: it carries one list of HH:MM:SS-HH:MM:SS, "
                f"{self.argument!r}"
            )
        return ", ".join(cast(list[str], clips))


def _score(found: re.Match[str]) -> str:
    return "" if found.group("score") is None else f"<score>{found.group('score')}</score>"
