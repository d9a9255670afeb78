"""Does a taskset score right? Its gold answers must score 1, and answers that are wrong in four ways must score 0."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agent.rollout import rollout
from agent.sampler import ScriptedSampler
from envs.message import Message, assistant
from envs.rubric import RewardError, Rubric
from envs.task import Task, Taskset
from envs.trajectory import Stop, Trajectory
from evals.legible import note_on
from tools.content import Text
from tools.errors import ConfigError
from tools.record import record

_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")
_LISTED = 10
"""Problems named one by one; more are counted."""

Script = tuple[Message, ...]


@record
class Check:
    """What `check` found."""

    summary: str
    problems: tuple[str, ...]
    """One sentence each; empty when all is well."""
    note: str | None = None
    """What an OCR reader makes of pictures with writing, with and without the gold calls."""


def check(taskset: Taskset, *, n: int | None = None, concurrency: int = 8, reading: bool = False) -> Check:
    """Play on the first `n` tasks: gold, nothing at all, gold with its answer spoilt, and another task's gold.

    Gold must score 1 and meet no tool error; the others must score 0. All task ids must be unique. Raises `RewardError`
    when a reward is no number. With `reading`, an OCR reader looks at pictures in which the answer is written.
    """
    problems = _repeated_ids(taskset.tasks)
    taskset = replace(taskset.take(n), rubric=replace(taskset.rubric, group={}))
    if not taskset.tasks or not taskset.rubric.rewards:
        raise ConfigError(f"taskset {taskset.name} has no {'rewards' if taskset.tasks else 'tasks'} to check")
    played, more = asyncio.run(_play_all(taskset, concurrency))
    problems += more
    listed = problems[:_LISTED]
    if len(problems) > _LISTED:
        listed.append(f"... and {len(problems) - _LISTED} more")
    counted = ", ".join(f"{count} {kind}" for kind, count in played.items())
    state = f"{len(problems)} problems" if problems else "all right"
    summary = f"{taskset.name}: {state} ({len(taskset.tasks)} tasks; {counted})"
    return Check(summary=summary, problems=tuple(listed), note=note_on(taskset) if reading else None)


def scripts_for(task: Task, others: Iterable[Task]) -> dict[str, Script]:
    """What is played on `task`: kind -> actions. A kind that cannot be made (no gold, no other answer) is left out."""
    scripts: dict[str, Script] = {"empty answer": (assistant(),)}
    if not task.gold:
        return scripts
    scripts["gold"] = task.gold
    scripts["wrong answer"] = (*task.gold[:-1], spoilt(task.gold[-1], task.answer))
    other = next((o for o in others if o.gold and _differ(o.answer, task.answer) and o.gold != task.gold), None)
    if other is not None:
        scripts["shuffled answer"] = other.gold
    # What gold says cannot be wrong as well: to call nothing, where that is right, or an answer that cannot be spoilt.
    return {kind: script for kind, script in scripts.items() if kind == "gold" or script != task.gold}


def _differ(given: Any, right: Any) -> bool:
    """Whether an answer is another one; of numbers, whether it is more than half off, as near ones may score a part."""
    numbers = isinstance(given, int | float) and isinstance(right, int | float)
    return abs(given - right) > abs(right) / 2 if numbers else given != right


def spoilt(action: Message, answer: Any) -> Message:
    """`action` with another answer: its text, or the arguments of its calls where the answer is submitted by a call.

    >>> spoilt(assistant("So 7 * 6 = 42. Answer: 42"), 42).text
    'So 7 * 6 = 143. Answer: 143'
    """
    target = answer if isinstance(answer, str) else str(answer)

    def text(value: str) -> str:
        if target and target in value:
            return value.replace(target, _other(target))
        return value if not value else _other(value)

    content = tuple(Text(text=text(part.text)) if isinstance(part, Text) else part for part in action.content)
    calls = tuple(
        replace(call, arguments=_mapped(call.arguments, text), raw=text(call.raw)) for call in action.tool_calls
    )
    return replace(action, content=content, tool_calls=calls)


def _other(text: str) -> str:
    """Another value of the same kind: a number n becomes 3n + 17, never n for a whole n; other text a made-up word.

    >>> _other("42"), _other("Paris"), _other("-1.5")
    ('143', 'xyzzy', '12.5')
    """

    def number(match: re.Match[str]) -> str:
        digits = match.group().replace(",", "")
        return str(3 * int(digits) + 17) if "." not in digits else f"{3 * float(digits) + 17:g}"

    return _NUMBER.sub(number, text) if _NUMBER.search(text) else "xyzzy"


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """`value` with every text in it, and every number as text, changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 3 * value + 17
    if isinstance(value, Mapping):
        return {key: _mapped(item, change) for key, item in value.items()}  # pyright: ignore
    if isinstance(value, list | tuple):
        return [_mapped(item, change) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value


async def _play_all(taskset: Taskset, concurrency: int) -> tuple[dict[str, int], list[str]]:
    """Every script on every task: how many of each kind were played, and what was wrong, in task order."""
    free = asyncio.Semaphore(concurrency)
    metric = taskset.rubric.headline
    rewards = Rubric(rewards={metric: taskset.rubric.rewards[metric]})

    async def one(task: Task, kind: str, script: Script) -> str | None:
        async with free:
            trajectory = await rollout(taskset.env(task), ScriptedSampler(script), rubric=rewards)
        return problem_of(trajectory, kind, metric)

    tasks = taskset.tasks
    plan = [
        (task, kind, script)
        for index, task in enumerate(tasks)
        for kind, script in scripts_for(task, _after(tasks, index)).items()
    ]
    problems = [
        f"task {task.id} has no gold messages: nothing shows it can be solved" for task in tasks if not task.gold
    ]
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(one(*job)) for job in plan]
    except* RewardError as broken:
        raise broken.exceptions[0] from None
    found = [done.result() for done in running]
    played: dict[str, int] = {}
    for _, kind, _ in plan:
        played[kind] = played.get(kind, 0) + 1
    return played, [*problems, *(problem for problem in found if problem)]


def _after(tasks: Sequence[Task], index: int) -> Iterable[Task]:
    """The other tasks, from the next one round to the one before."""
    return (tasks[(index + step) % len(tasks)] for step in range(1, len(tasks)))


def problem_of(trajectory: Trajectory, kind: str, metric: str) -> str | None:
    """What is wrong with how `kind` of answer was scored, or None."""
    row = trajectory.task.info.get("row")
    where = f"task {trajectory.task.id}{f' ({row})' if row else ''}: the {kind}"
    if trajectory.stop is Stop.ERROR:
        last = (trajectory.error or "").strip().splitlines()[-1:]
        return f"{where} ended in an error: {''.join(last)}"
    score = trajectory.scores[metric]
    if kind != "gold":
        return None if score == 0 else f"{where} scores {metric} {score:g}, not 0: {trajectory.answer[:80]!r}"
    if score != 1:
        return (
            f"{where} scores {metric} {score:g}, not 1: {trajectory.answer[:80]!r}, target {trajectory.task.answer!r}"
        )
    failed = next((call for call in trajectory.calls if call.outcome != "ok"), None)
    return None if failed is None else f"{where} meets a tool error: {failed.result.text[:120]!r}"


def _repeated_ids(tasks: Sequence[Task]) -> list[str]:
    seen: set[str] = set()
    repeated: list[str] = []
    for task in tasks:
        if task.id in seen:
            repeated.append(f"the id {task.id!r} is given to more than one task")
        seen.add(task.id)
    return repeated
