"""Scoring a run again without sampling: after a scorer was mended, or with a judge. The old scores are kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

from agent.rollout import Limits, rollout
from agent.sampler import ScriptedSampler
from envs.find import find_taskset, hide_tools
from envs.log import TrajectoryLog
from envs.task import Task, Taskset
from envs.trajectory import Stop, Trajectory
from evals.index import IndexWriter, latest_entries, read_episodes, read_index
from evals.judge import Judge, judge_cost, judged_rubric, judging
from evals.result import EvalResult, result_of, summary, write_atomic, write_json
from evals.run_folder import RunFolder
from evals.sample import category_of
from evals.show import metric_of, natural_key
from tools.errors import ConfigError
from tools.record import record


@record
class Rescored:
    """What scoring again came to."""

    result: EvalResult
    scored: int
    changed: tuple[str, ...]
    """Questions of which an attempt has another headline score than before."""
    different: int
    """With `replay`: episodes in which a tool gave another result than it had given."""


def score(folder: RunFolder, *, replay: bool = False, judge: Judge | None = None, concurrency: int = 8) -> Rescored:
    """Score every finished episode of a run with the taskset as it is now.

    The episodes are appended to the log with their new scores, so the last line of each counts as ever; the old scores
    stand in the lines before, and in `info["scores_before"]`. A scorer that looks at the world, not only at what was
    said, finds a fresh one; `replay` plays the recorded actions in it first, tools and all.

    Raises `ConfigError` when the run does not say what it ran, or its tasks are gone.
    """
    identity = (folder.read_config() or {}).get("identity", {})
    taskset = taskset_of(identity)
    metric = taskset.rubric.headline
    entries = [
        entry for entry in latest_entries(read_index(folder, ours=True)).values() if entry.sample.stop != Stop.ERROR
    ]
    before = {entry.sample.key: entry.sample.scores.get(metric_of(folder)) for entry in entries}
    started, found = time.monotonic(), _Found()
    if judge is not None:
        judge.open(folder.root / "judge.jsonl")

    async def run() -> None:
        playing = _scoring(taskset, read_episodes(folder, entries), replay, found)
        if judge is not None:
            playing = judging(playing, (), judge, metric, concurrency)
        with TrajectoryLog(folder.samples) as log, closing(IndexWriter(folder)) as index:
            async for trajectory in playing:
                if judge is not None and judge.prices is not None:
                    trajectory.info["cost"] = trajectory.info.get("cost", 0.0) + judge_cost(trajectory)
                log.append(trajectory)
                index.add(trajectory)

    with folder.held():
        asyncio.run(run())
        result = _count(folder, identity, taskset, judge, time.monotonic() - started)
    after = {entry.sample.key: entry.sample.scores.get(result.metric) for entry in read_index(folder, ours=True)}
    changed = sorted({id for (id, repeat), old in before.items() if after[id, repeat] != old}, key=natural_key)
    return Rescored(result=result, scored=len(entries), changed=tuple(changed), different=found.different)


class _Found:
    """What replaying notices."""

    different = 0


async def _scoring(
    taskset: Taskset, episodes: Iterator[Trajectory], replay: bool, found: _Found
) -> AsyncIterator[Trajectory]:
    tasks = {task.id: task for task in taskset.tasks}
    for trajectory in episodes:
        task = tasks.get(trajectory.task.id)
        if task is None:
            raise ConfigError(f"the taskset has no task {trajectory.task.id!r} any more", hint="give the old arguments")
        was = {**trajectory.scores}
        scored = await _again(taskset, task, trajectory, replay)
        results = [call.result for call in trajectory.calls]
        found.different += replay and [call.result for call in scored.calls] != results
        trajectory.scores, trajectory.reward = scored.scores, scored.reward
        trajectory.info.pop("judge", None)  # a verdict stands with the score it gave
        trajectory.info |= {**scored.info, "scores_before": [*trajectory.info.get("scores_before", []), was]}
        yield trajectory


async def _again(taskset: Taskset, task: Task, trajectory: Trajectory, replay: bool) -> Trajectory:
    """The episode with fresh scores; replayed, or looked at beside a world that has just begun."""
    env = taskset.env(task)
    if replay:
        actions = [step.action for step in trajectory.steps]
        limits = Limits(max_turns=len(actions))
        return await rollout(env, ScriptedSampler(actions), limits=limits, rubric=taskset.rubric)
    copy = Trajectory(
        task=task,
        tools=trajectory.tools,
        steps=trajectory.steps,
        final=trajectory.final,
        stop=trajectory.stop,
        sample=trajectory.sample,
        seed=trajectory.seed,
        info={key: value for key, value in trajectory.info.items() if key != "judge"},
    )
    try:
        await taskset.rubric.score(env, copy)
    finally:
        await env.close()
    return copy


def taskset_of(identity: dict[str, Any]) -> Taskset:
    """The taskset that a run was made with. Raises `ConfigError` when its config does not name it."""
    source = identity.get("source")
    if not source:
        raise ConfigError(
            "the run's config does not say where its taskset comes from",
            hint="runs of `evals run` do; for others call evaluate() again in code",
        )
    taskset = find_taskset(str(source), identity.get("taskset_args") or {})
    taskset = taskset if identity.get("tools") else hide_tools(taskset)
    return replace(taskset, rubric=replace(taskset.rubric, group={}))


def _count(
    folder: RunFolder, identity: dict[str, Any], taskset: Taskset, judge: Judge | None, seconds: float
) -> EvalResult:
    """Results as if the run had been scored like this from the start; the config says that it was not.

    The identity stays, so that the run's own command still continues it.
    """
    categories = {task.id: category_of(task) for task in taskset.tasks}
    entries = latest_entries(read_index(folder, ours=True)).values()
    samples = [
        replace(entry.sample, category=categories.get(entry.sample.id, entry.sample.category)) for entry in entries
    ]
    config, stored = folder.read_config() or {}, folder.read_results()
    rubric = judged_rubric(taskset.rubric) if judge else taskset.rubric
    result = result_of(
        samples,
        taskset=taskset.name,
        rubric=rubric,
        n=int(stored.get("n", len({sample.id for sample in samples}))),
        repeats=int(config.get("repeats", 1)),
        seconds=float(stored.get("seconds") or 0.0),
        out=folder.root,
        measures=list(stored["measures"]) if stored.get("measures") else None,
    )
    scoring = {"seconds": round(seconds, 3), "metric": rubric.headline, "judge": judge.about if judge else None}
    scorings = [*config.get("scorings", []), scoring]
    write_json(folder.config, {**config, "metric": rubric.headline, "scorings": scorings})
    write_json(folder.results, result.to_json())
    write_atomic(folder.summary, summary(result, identity))
    return result
