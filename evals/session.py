"""One evaluation under way: what is still to play, each episode on disk before it is counted, and the count."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass, field
from typing import Any

from agent.episodes import Job, episodes
from agent.rollout import Limits
from agent.sampler import Sampler, SamplingParams
from envs.log import TrajectoryLog
from envs.rubric import Rubric
from envs.task import Taskset
from envs.trajectory import Trajectory
from evals.adaptive import Gate, InfrastructureError, patience_of
from evals.cost import Prices, cost_of
from evals.index import Entry, IndexWriter, latest_entries, read_episodes, read_index
from evals.judge import JUDGED, Judge, judge_cost, judged_rubric, judging
from evals.progress import progress_bar
from evals.result import EvalResult, result_of, summary, write_atomic, write_json
from evals.run_folder import RunFolder, refuse_other_tasks, tally_seconds
from evals.sample import Key, Sample
from tools.record import record

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EIO)
"""Errors of a disk that takes no more."""


@record
class StopAt:
    """Limits of a whole run: past them nothing new is played, what runs is dropped, and what is there is counted."""

    cost: float | None = None
    """US dollars, over all sessions."""
    seconds: float | None = None
    """Wall time of this session."""


@dataclass
class Run:
    """An evaluation under way."""

    folder: RunFolder
    taskset: Taskset
    identity: dict[str, Any]
    plan: list[Job]
    """All that was asked for."""
    repeats: int
    done: dict[Key, Sample]
    """Every episode that is in the log; the last of each."""
    measures: Sequence[str] | None = None
    prices: Prices | None = None
    stop_at: StopAt = field(default_factory=StopAt)
    judge: Judge | None = None
    stopped: str | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def rubric(self) -> Rubric:
        """The names of the scores, the headline first."""
        return judged_rubric(self.taskset.rubric) if self.judge else self.taskset.rubric

    @property
    def todo(self) -> list[Job]:
        """What is missing, or ended without a score; not what only a judge has to look at again."""
        found = ((job, self.done.get(key_of(job))) for job in self.plan)
        return [job for job, sample in found if not sample or not (sample.scored or (self.judge and sample.unjudged))]

    def unjudged(self) -> list[Entry]:
        """What was played and has no verdict yet, or was scored again without the judge."""
        wanted = {key_of(job) for job in self.plan} if self.judge else set[Key]()
        entries = latest_entries(read_index(self.folder, ours=True)) if wanted else {}
        return [entry for key, entry in entries.items() if key in wanted and _lacks_verdict(entry.sample)]

    def through(
        self, sampler: Sampler, params: SamplingParams, limits: Limits, concurrency: int, progress: bool
    ) -> EvalResult:
        """Play what is missing and count. What had finished is counted too when the run is broken off."""
        try:
            self.play(sampler, params, limits, concurrency, progress)
        except (KeyboardInterrupt, InfrastructureError):
            with suppress(OSError):  # the full disk that ended the run
                self.reread()
                self.settle()
            raise
        return self.settle()

    def play(self, sampler: Sampler, params: SamplingParams, limits: Limits, concurrency: int, progress: bool) -> None:
        """Play what is missing. Raises `InfrastructureError` when the log cannot be written."""
        try:
            with TrajectoryLog(self.folder.samples, self.taskset.blobs) as log:
                self.reread()  # opening may have completed a last line
                todo, unjudged = self.todo, self.unjudged()
                playing = episodes(self.taskset, todo, sampler, params, limits, concurrency=concurrency)
                if self.judge is not None:
                    self.judge.open(self.folder.root / "judge.jsonl")
                    before = read_episodes(self.folder, unjudged)
                    playing = judging(playing, before, self.judge, self.taskset.rubric.headline, concurrency)
                patience = patience_of(sampler)
                if patience is not None:
                    patience.known = any(sample.scored for sample in self.done.values())
                gate = patience.gate if patience else None
                with progress_bar(self.taskset.name, len(todo) + len(unjudged), shown=progress) as advance:
                    asyncio.run(self.keep(playing, log, advance, gate))
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise InfrastructureError(
                f"{self.folder.root} cannot be written: {error.strerror}",
                hint="what has finished is kept; make room, then the same command goes on",
            ) from error

    async def keep(
        self, playing: AsyncIterator[Trajectory], log: TrajectoryLog, advance: Callable[[str], None], gate: Gate | None
    ) -> None:
        """Log episodes as they finish, each on disk before it is counted, until a limit of the run is met."""
        metric = self.rubric.headline
        scores = [sample.scores[metric] for sample in self.done.values() if sample.scored and metric in sample.scores]
        total, count = sum(scores), len(scores)
        spent = sum(sample.cost or 0.0 for sample in self.done.values())
        deadline = asyncio.timeout(self.stop_at.seconds)
        try:
            with closing(IndexWriter(self.folder)) as index:
                async with deadline, aclosing(playing):  # pyright: ignore[reportArgumentType, reportUnknownVariableType]
                    if self.too_dear(spent):
                        return
                    async for trajectory in playing:
                        if self.prices is not None:
                            spent += self.charge(trajectory, self.prices)
                        await asyncio.to_thread(log.append, trajectory)  # a slow disk must not hold up the others
                        sample = index.add(trajectory)
                        self.done[sample.key] = sample
                        if sample.scored:
                            total, count = total + sample.scores[metric], count + 1
                        advance(_state(f"{metric} {total / count:.2f}" if count else "no score yet", gate))
                        if self.too_dear(spent):
                            return
        except TimeoutError:
            if not deadline.expired():
                raise
            self.stopped = "max_time"
            self.reread()

    def charge(self, trajectory: Trajectory, prices: Prices) -> float:
        """Note what the sample has cost, with its earlier tries; returns the US dollars that are new."""
        earlier = self.done.get((trajectory.task.id, trajectory.sample))
        before = earlier.cost if earlier else None
        paid = earlier is not None and before is not None and _lacks_verdict(earlier)  # it is not played again
        new = judge_cost(trajectory) + (0.0 if paid else cost_of(trajectory, prices))
        trajectory.info["cost"] = new + (before or 0.0)
        return new

    def too_dear(self, spent: float) -> bool:
        """The run has cost what it may."""
        if self.stop_at.cost is not None and spent >= self.stop_at.cost:
            self.stopped = "max_cost"
        return self.stopped is not None

    def reread(self) -> None:
        """Count what the log holds: an episode may have reached it as its count was cut short."""
        self.done = read_samples(self.folder, self.taskset)

    def settle(self) -> EvalResult:
        """Count what is done, and write it down."""
        result = result_of(
            [self.done[key_of(job)] for job in self.plan if key_of(job) in self.done],
            taskset=self.taskset.name,
            rubric=self.rubric,
            n=len(self.taskset.tasks),
            repeats=self.repeats,
            seconds=tally_seconds(self.folder, time.monotonic() - self.started),
            out=self.folder.root,
            measures=self.measures,
            stopped=self.stopped,
        )
        write_json(self.folder.results, result.to_json())
        write_atomic(self.folder.summary, summary(result, self.identity))
        return result


def _lacks_verdict(sample: Sample) -> bool:
    return sample.unjudged or (sample.scored and JUDGED not in sample.scores)


def _state(score: str, gate: Gate | None) -> str:
    """The score so far, and how far the server is being spared."""
    return score if gate is None or gate.limit >= gate.most else f"{score}, {int(gate.limit)} requests at once"


def read_samples(folder: RunFolder, taskset: Taskset) -> dict[Key, Sample]:
    """The logged episodes in numbers, the last of each key. Raises `ConfigError` when they are of other tasks."""
    entries = latest_entries(read_index(folder, ours=True))
    refuse_other_tasks(folder, {id: entry.task for (id, _), entry in entries.items()}, taskset.tasks)
    return {key: entry.sample for key, entry in entries.items()}


def key_of(job: Job) -> Key:
    """The key of the sample that `job` makes."""
    return job.task.id, job.sample
