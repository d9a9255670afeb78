"""One finished episode in numbers: what counting, listing and comparing go by, without the episode itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeAlias

from envs.task import Task
from envs.trajectory import Stop, Trajectory
from tools.record import record

Key: TypeAlias = tuple[str, int]
"""(task id, repeat): what resume and comparison go by."""

SHOWN = 200
"""Characters of an answer and of a target that stand in a list."""

EXTRACTED = "extracted"
"""Where in `Trajectory.info` a reward may leave the answer that it read out of the text; None where it found none."""

CATEGORY = "category"
"""Where in `Task.info` a task says which part of its taskset it counts in."""

NAME = 64
"""Characters of a tool's name: a model may write any."""

_WHOLE = frozenset(str(stop) for stop in Stop if not stop.truncated)

FAILED = ("tool_error", "malformed", "timeout")
"""Outcomes of a call that the model sees as an error."""


@record
class Sample:
    """One finished episode, in numbers."""

    id: str
    repeat: int
    stop: str
    scored: bool
    """False for an error, or an episode that a broken reward left without a score."""
    scores: Mapping[str, float]
    turns: int
    calls: int
    """Calls the model made, malformed ones among them."""
    call_errors: int
    """Calls that came back as an error to the model: malformed, failed or out of time."""
    tools: Mapping[str, int]
    """Calls of each tool."""
    tokens: int
    """Tokens sampled, as recorded or as counted by the server."""
    prompt_tokens: int
    """Tokens the policy was given, summed over its turns."""
    judge_tokens: int
    """Tokens a judge was given and sampled."""
    cost: float | None
    """US dollars, the judge's and those of earlier tries among them; None where no prices were given."""
    seconds: float
    model_seconds: float
    tool_seconds: float
    retries: int
    """Requests that were sent again."""
    answer: str
    """The beginning of the last thing the model said."""
    extracted: str | None
    """The answer that the scorer read in it; None where it found none or does not say."""
    answered: bool
    """False where the model's last words are empty, or the scorer found no answer in them."""
    target: str
    category: str | None
    """The part of the taskset that its task counts in; None where the task names none."""
    unjudged: bool = False
    """It has no score because the judge failed: another try judges it and need not play it again."""
    error: str | None = None
    """The last line of the traceback."""

    @property
    def key(self) -> Key:
        """What resume and comparison go by."""
        return self.id, self.repeat

    @property
    def truncated(self) -> bool:
        """True when a limit cut the episode."""
        return self.stop not in _WHOLE

    @property
    def voted(self) -> str | None:
        """The answer as maj@k counts it."""
        if not self.answered:
            return None
        return " ".join((self.extracted if self.extracted is not None else self.answer).lower().split())


def sample_of(trajectory: Trajectory) -> Sample:
    """The numbers of one episode."""
    stop = trajectory.stop or Stop.ERROR
    calls = trajectory.calls
    lines = (trajectory.error or "").strip().splitlines()
    judge: Mapping[str, Any] = trajectory.info.get("judge") or {}
    extracted = trajectory.info.get(EXTRACTED)
    return Sample(
        id=trajectory.task.id,
        repeat=trajectory.sample,
        stop=str(stop),
        scored=stop is not Stop.ERROR and trajectory.reward is not None,
        scores=dict(trajectory.scores),
        turns=len(trajectory.steps),
        calls=len(calls),
        call_errors=sum(call.outcome in FAILED for call in calls),
        tools=dict(Counter(call.call.name[:NAME] for call in calls)),
        tokens=trajectory.sampled_tokens,
        prompt_tokens=prompt_tokens(trajectory),
        judge_tokens=int(judge.get("prompt_tokens", 0)) + int(judge.get("tokens", 0)),
        cost=trajectory.info.get("cost"),
        seconds=trajectory.seconds,
        model_seconds=sum(step.seconds.get("model", 0.0) for step in trajectory.steps),
        tool_seconds=sum(step.seconds.get("tools", 0.0) for step in trajectory.steps),
        retries=sum(step.usage.get("retries", 0) for step in trajectory.steps),
        answer=trajectory.answer[:SHOWN],
        extracted=None if extracted is None else str(extracted)[:SHOWN],
        answered=extracted is not None if EXTRACTED in trajectory.info else bool(trajectory.answer.strip()),
        target=target_of(trajectory)[:SHOWN],
        category=category_of(trajectory.task),
        unjudged="error" in judge,
        error=(judge.get("error") or (lines[-1] if lines else None)),
    )


def category_of(task: Task) -> str | None:
    """The category that `task` names, as text; None for none, or an empty one."""
    named = task.info.get(CATEGORY)
    return None if named is None or named == "" else str(named).encode("utf-8", "replace").decode()[:SHOWN]


def prompt_tokens(trajectory: Trajectory) -> int:
    """Tokens that the policy was given, summed over its turns: what an API bills as input."""
    return sum(prompt_counts(trajectory))


def prompt_counts(trajectory: Trajectory) -> list[int]:
    """Tokens that the policy was given at each of its turns: by the recorded ids, or else by the server's count."""
    counts: list[int] = []
    context = 0
    for step in trajectory.steps:
        if step.tokens is None:
            counts.append(step.usage.get("prompt", 0))
            continue
        counts.append(len(step.tokens.added) + (context if step.tokens.extends else 0))
        context = counts[-1] + len(step.tokens.completion)
    return counts


def target_of(trajectory: Trajectory) -> str:
    """The right answer as text."""
    answer = trajectory.task.answer
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False, default=str)


def name_of_key(id: str, repeat: int) -> str:
    """`ID`, or `ID#REPEAT` for any but the first attempt."""
    return f"{id}#{repeat}" if repeat else id
