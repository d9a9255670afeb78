"""Rollouts to training data: play tasks with gold messages or a model, log every episode, keep the good ones.

trajectories.jsonl   every episode, as it finished; the last line of a (task, sample) counts
kept.jsonl           those that pass the filter, in task order: what SFT reads
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from agent.episodes import Job, episodes, jobs
from agent.sampler import Sampler
from envs.find import find_taskset, hide_tools
from envs.log import TrajectoryLog, read_log
from envs.task import Taskset
from envs.trajectory import Stop, Trajectory
from tools.errors import ConfigError
from training.files import publish_file
from training.progress import Progress
from training.recipe import GRPO, Collect, Recipe, StageRun
from training.selection import Spent, filters_of, reasons_to_drop, spent_on

Key: TypeAlias = tuple[str, int]

LOG = "trajectories.jsonl"
KEPT = "kept.jsonl"


def collect(stage: Collect, run: StageRun, sampler: Sampler | None = None) -> dict[str, Any]:
    """Run what the stage asks for and has not run yet; returns counts: episodes, kept, and dropped by reason.

    `sampler` plays the episodes; by default the one that `run.start` names. Raises `ConfigError` when nothing is kept.
    """
    taskset = stage_taskset(run.recipe, stage)
    filters_of(stage)
    plan = jobs(taskset.tasks, stage.samples, run.seed, salt="collect")
    done = {key_of(t): t for t in read_log(run.folder / LOG)} if (run.folder / LOG).exists() else {}
    todo = [job for job in plan if not (found := done.get((job.task.id, job.sample))) or found.reward is None]
    if todo and not _is_spent(stage, _spent(done.values())):
        chosen = sampler or _sampler(stage, run)
        try:
            asyncio.run(_play(stage, run.folder, taskset, todo, chosen, done, len(plan)))
        finally:
            close_sampler(chosen)
    finished = [done[key] for job in plan if (key := (job.task.id, job.sample)) in done]
    found = _keep(stage, run.folder, taskset, finished)
    if stage.max_tokens is not None or stage.max_cost is not None:
        spent = _spent(done.values())
        found |= {"not_played": len(plan) - len(finished), "tokens": spent.sampled, "cost": spent.cost(stage.prices)}
    return found


def stage_taskset(recipe: Recipe, stage: Collect | GRPO, found: Taskset | None = None) -> Taskset:
    """The tasks of a stage: the recipe's with the stage's arguments, without the first `skip`, cut to `n`.

    `found` is the recipe's taskset with the stage's arguments, where it has been built already.
    """
    taskset = found or find_taskset(recipe.taskset, recipe.arguments(stage))
    if stage.skip >= len(taskset.tasks):
        raise ConfigError(f"{stage.name}.skip is {stage.skip}, and {taskset.name} has {len(taskset.tasks)} tasks")
    taskset = replace(taskset, tasks=taskset.tasks[stage.skip :])
    if isinstance(stage, GRPO):
        return taskset
    if stage.n is not None and stage.n > len(taskset.tasks):
        left = len(taskset.tasks)
        raise ConfigError(
            f"{stage.name} asks for {stage.n} tasks after {stage.skip}; {taskset.name} has {left} left",
            hint=f"set its n to {left}, or to none for all",
        )
    return (taskset if stage.tools else hide_tools(taskset)).take(stage.n)


def reason_to_drop(keep: str, headline: str, trajectory: Trajectory) -> str | None:
    """Why the filter named `keep` drops an episode; None when it is kept. Errors are always dropped.

    >>> from envs import Task
    >>> wrong = Trajectory(task=Task(id="t", prompt=()), stop=Stop.DONE, scores={"correct": 0.0}, reward=0.0)
    >>> reason_to_drop("correct", "correct", wrong), reason_to_drop("finished", "correct", wrong)
    ('correct below 1', None)
    """
    if trajectory.stop is None or trajectory.stop is Stop.ERROR or trajectory.reward is None:
        return "error"
    if keep == "all":
        return None
    if trajectory.stop.truncated:
        return str(trajectory.stop)
    if keep == "correct" and trajectory.scores.get(headline, 0.0) < 1.0:
        return f"{headline} below 1"
    return None


def key_of(trajectory: Trajectory) -> Key:
    """What resume goes by."""
    return trajectory.task.id, trajectory.sample


async def _play(
    stage: Collect,
    folder: Path,
    taskset: Taskset,
    todo: Sequence[Job],
    sampler: Sampler,
    done: dict[Key, Trajectory],
    total: int,
) -> None:
    """Run the episodes; each is on disk before it is counted."""
    log = TrajectoryLog(folder / LOG, taskset.blobs)
    kept = 0
    spent = _spent(done.values())
    within = itertools.takewhile(lambda _: not _is_spent(stage, spent), todo)
    stream = episodes(taskset, within, sampler, stage.params, stage.limits, concurrency=stage.concurrency)
    try:
        with Progress(stage.name, total, done=total - len(todo), unit="episodes") as progress:
            async with aclosing(stream):  # pyright: ignore[reportArgumentType, reportUnknownVariableType]
                async for trajectory in stream:
                    log.append(trajectory)
                    done[key_of(trajectory)] = trajectory
                    spent += spent_on(trajectory)
                    kept += reason_to_drop(stage.keep, taskset.rubric.headline, trajectory) is None
                    progress.advance(kept=kept)
    finally:
        log.close()


def _keep(stage: Collect, folder: Path, taskset: Taskset, finished: Sequence[Trajectory]) -> dict[str, Any]:
    dropped: Counter[str] = Counter()
    kept: list[Trajectory] = []
    headline = taskset.rubric.headline
    reasons: list[str | None] = [reason_to_drop(stage.keep, headline, trajectory) for trajectory in finished]
    for trajectory, reason in zip(finished, reasons_to_drop(stage, finished, reasons, headline), strict=True):
        if reason is None:
            kept.append(trajectory)
        else:
            dropped[reason] += 1
    if not kept:
        why = ", ".join(f"{count} x {reason}" for reason, count in dropped.items())
        raise ConfigError(
            f"{stage.name} kept none of {len(finished)} episodes: {why}",
            hint=_first_error(finished) or f"look at {folder / LOG}, or set keep=all",
        )
    publish_file(folder / KEPT, lambda path: _write(path, kept))
    return {"episodes": len(finished), "kept": len(kept), "dropped": dict(dropped)}


def _spent(finished: Iterable[Trajectory]) -> Spent:
    return sum((spent_on(trajectory) for trajectory in finished), start=Spent())


def _is_spent(stage: Collect, spent: Spent) -> bool:
    over_tokens = stage.max_tokens is not None and spent.sampled >= stage.max_tokens
    return over_tokens or (stage.max_cost is not None and spent.cost(stage.prices) >= stage.max_cost)


def _write(path: Path, trajectories: Sequence[Trajectory]) -> None:
    log = TrajectoryLog(path)
    for trajectory in trajectories:
        log.append(trajectory)
    log.close()


def _first_error(finished: Sequence[Trajectory]) -> str | None:
    for trajectory in finished:
        if trajectory.error:
            return f"the first error: {trajectory.error.strip().splitlines()[-1]}"
    return None


def _sampler(stage: Collect, run: StageRun) -> Sampler:
    from agent.models import sampler_for

    if stage.base_url is not None:  # a server parses calls itself
        return sampler_for(run.start, base_url=stage.base_url)
    return sampler_for(run.start, dialect=run.dialect, **run.recipe.local)


def close_sampler(sampler: Sampler) -> None:
    """Stop the engine behind a sampler, where it has one, so that its weights can be freed."""
    engine = getattr(sampler, "engine", None)
    if engine is not None:
        engine.close()
