"""`evaluate()`: play a taskset with a sampler, log every episode, count honestly. Run again, it goes on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.episodes import jobs
from agent.rollout import Limits
from agent.sampler import Sampler, SamplingParams
from envs.task import Taskset
from evals.adaptive import patient
from evals.cost import Prices
from evals.judge import JUDGED, Judge
from evals.report import Decode, write_report
from evals.result import EvalResult
from evals.run_folder import RunFolder, identity_of, refuse_changes, tools_of, write_config
from evals.session import Run, StopAt, read_samples
from tools.errors import ConfigError


def evaluate(
    taskset: Taskset,
    sampler: Sampler,
    *,
    out: Path | str,
    params: SamplingParams | None = None,
    limits: Limits | None = None,
    n: int | None = None,
    repeats: int = 1,
    seed: int = 0,
    concurrency: int = 16,
    progress: bool = True,
    about: Mapping[str, Any] | None = None,
    fresh: bool = False,
    decode: Decode | None = None,
    report_episodes: int = 200,
    measures: Sequence[str] | None = None,
    prices: Prices | None = None,
    stop_at: StopAt | None = None,
    judge: Judge | None = None,
) -> EvalResult:
    """Play the first `n` tasks `repeats` times each, into the run folder `out`.

    A folder that already holds episodes of the same run is continued: only what is missing, ended in an error or was
    left without a score is played. More tasks or more repeats extend the run; fewer count only what is asked for. The
    seed of an episode depends on its task and repeat alone: the order of play, and being killed, change nothing.

    Args:
        params: Greedy sampling by default; its `seed` is not used, `seed` is.
        about: What else decides the outcome and must not change in one folder: model, dialect, taskset arguments.
        decode: Token texts for the page, which shows ids without; `report_episodes` is its size, 0 for no page.
        concurrency: Episodes at once. Against a server also the most requests at once: fewer while it is in trouble.
        measures: Such as `pass@4`; None: those that fit the repeats.
        prices: To count what episodes cost.
        stop_at: Where the whole run ends early, with what it has.
        judge: Gives the headline score, `judged`, beside the taskset's own.

    Raises `InfrastructureError` when the server goes away or the disk is full; the same call goes on later. Raises
    `ConfigError` when the folder holds another run, when ids repeat, or when a reward is no number; what had finished
    is kept, as with Ctrl-C. Rewards over a group of attempts are left out: they only compare.
    """
    params, limits = params or SamplingParams(temperature=0.0), limits or Limits()
    taskset = replace(taskset.take(n), rubric=replace(taskset.rubric, group={}))
    refuse_bad_request(taskset, n, repeats, concurrency)
    about = {**(about or {}), **({"metric": JUDGED, "judge": judge.about} if judge else {})}
    identity = identity_of(taskset, asyncio.run(tools_of(taskset)), params, limits, seed, about)
    with (folder := RunFolder(out)).held():
        if fresh:
            folder.clear()
        refuse_changes(folder, identity)
        plan, done = jobs(taskset.tasks, repeats, seed, salt="eval"), read_samples(folder, taskset)
        run = Run(folder, taskset, identity, plan, repeats, done, measures, prices, stop_at or StopAt(), judge)
        write_config(folder, identity, taskset.tasks, repeats)
        result = run.through(patient(sampler, concurrency), params, limits, concurrency, progress)
        if report_episodes:
            write_report(folder, decode=decode, episodes=report_episodes)
        return result


def refuse_bad_request(taskset: Taskset, n: int | None, repeats: int, concurrency: int) -> None:
    """Raise `ConfigError` for a request that measures nothing, and inside a running event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass  # as it should be
    else:
        raise ConfigError(
            "evaluate() runs an event loop of its own and was called inside one",
            hint="in a notebook: await asyncio.to_thread(evaluate, taskset, sampler, out=...)",
        )
    if n is not None and n < 1:
        raise ConfigError(f"n is {n}; an evaluation needs at least 1 task")
    if repeats < 1:
        raise ConfigError(f"repeats is {repeats}; it must be 1 or more")
    if concurrency < 1:
        raise ConfigError(f"concurrency is {concurrency}; it must be 1 or more")
    if not taskset.rubric.rewards:
        raise ConfigError(f"taskset {taskset.name} has no rewards, so there is nothing to measure")
    repeated = [id for id, count in Counter(task.id for task in taskset.tasks).items() if count > 1]
    if repeated:
        raise ConfigError(f"taskset {taskset.name} has more than one task with id {repeated[0]!r}; ids must be unique")
