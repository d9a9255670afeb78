"""Signs that a policy games its tools instead of using them: numbers for every step, no part of any reward.

tools/repeated     calls that repeat an earlier call of their episode, arguments and all
tools/empty        calls without anything in their arguments, or whose result says nothing
tools/echoed       calls whose result already stands in their arguments, as `print(42)` does
tools/copied       episodes whose answer is a tool's text over again: all of it, or a run of words
tools/none         episodes that had tools and called none
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast, final

from envs.trajectory import CallRecord, Trajectory
from tools.content import Text
from tools.tool import ToolCall

logger = logging.getLogger(__name__)

RUN_OF_WORDS = 8
"""So many words in a row are copied, not met by chance."""

SETTLING = 5
"""Steps whose mean number of calls later ones are compared with."""

FEW = 0.1
"""Below this share of them, calls have all but stopped."""


def monitors(episodes: Sequence[Trajectory]) -> dict[str, tuple[float, float]]:
    """The numbers above as (sum, count), so that they add up over processes."""
    found: dict[str, list[bool]] = {f"tools/{name}": [] for name in ("repeated", "empty", "echoed", "copied", "none")}
    for episode in episodes:
        calls = episode.calls
        found["tools/repeated"] += repeated(calls)
        found["tools/empty"] += [is_empty(call) for call in calls]
        found["tools/echoed"] += [is_echo(call) for call in calls]
        if calls:
            found["tools/copied"].append(is_copied(episode))
        if episode.tools:
            found["tools/none"].append(not calls)
    return {name: (float(sum(values)), float(len(values))) for name, values in found.items()}


def repeated(calls: Sequence[CallRecord]) -> list[bool]:
    """For each call, whether an earlier one had the same name and arguments."""
    seen: set[str] = set()
    found: list[bool] = []
    for done in calls:
        key = asked(done.call)
        found.append(key in seen)
        seen.add(key)
    return found


def asked(call: ToolCall) -> str:
    """What a call asks for: the same text for the same tool and arguments, in whatever order they were written."""
    if call.arguments is None:
        return call.raw
    return json.dumps([call.name, call.arguments], sort_keys=True, default=repr)


def is_empty(done: CallRecord) -> bool:
    """True when a call that went well asked for nothing, though the tool takes arguments, or brought nothing back."""
    arguments = done.call.arguments or {}
    asked = not arguments or any(text.strip() for text in _texts(arguments))
    said = bool(done.result.text.strip()) or any(not isinstance(part, Text) for part in done.result.content)
    return done.outcome == "ok" and not (asked and said)


def is_echo(done: CallRecord) -> bool:
    """True when the whole result was in the arguments already: the tool was told what to say."""
    text = done.result.text.strip()
    if not text or done.outcome != "ok":
        return False
    whole = re.compile(rf"(?<![\w.]){re.escape(text)}(?![\w.])")  # 4 is not in 47
    return any(whole.search(given) for given in _texts(done.call.arguments or {}))


def is_copied(episode: Trajectory) -> bool:
    """True when the answer is the text of a tool's result, or holds a run of its words.

    Not always a fault: where reading is the task, the answer is in the text. What tells is a share that climbs.
    """
    answer = episode.answer.split()
    runs = {tuple(answer[at : at + RUN_OF_WORDS]) for at in range(len(answer) - RUN_OF_WORDS + 1)}
    for done in episode.calls:
        words = done.result.text.split()
        if words and words == answer:
            return True
        if any(tuple(words[at : at + RUN_OF_WORDS]) in runs for at in range(len(words) - RUN_OF_WORDS + 1)):
            return True
    return False


@final
class CallWatch:
    """Says once, in words, when a policy that called its tools has all but stopped."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._said = False

    def see(self, calls_per_episode: float) -> bool:
        """Note a step; True, and a warning, at the first one at which calls have all but stopped."""
        if len(self._first) < SETTLING:
            self._first.append(calls_per_episode)
            return False
        usual = sum(self._first) / len(self._first)
        if self._said or calls_per_episode >= FEW * usual:
            return False
        self._said = True
        logger.warning(
            "calls fell from %.2f to %.2f per episode: the policy is giving its tools up", usual, calls_per_episode
        )
        return True


def _texts(value: Any) -> list[str]:
    """Every text in arguments; numbers as they are written."""
    if isinstance(value, Mapping):
        return [text for item in cast("Mapping[Any, Any]", value).values() for text in _texts(item)]
    if isinstance(value, list | tuple):
        return [text for item in cast("Sequence[Any]", value) for text in _texts(item)]
    return [str(cast("object", value))]
