"""The episodes of a training step: run together on a loop of their own, written down before anything is made of them.

An episode is known by (step, task, sample). Its seed depends on that and on nothing else, so a killed run that comes
back to a step finds what was already sampled for it in the log, samples the rest, and goes on as if nothing had
happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing, asynccontextmanager
from dataclasses import field
from pathlib import Path
from typing import Any, Protocol, TypeVar, final, runtime_checkable

from agent.episodes import Job, episodes
from agent.rollout import Limits
from agent.sampler import Sampler, SamplingParams
from envs.log import TrajectoryLog, read_log
from envs.seed import derive_seed
from envs.task import Task, Taskset
from envs.trajectory import Stop, Trajectory
from tools.errors import ConfigError
from tools.record import record
from training.seam import Attempt
from training.sharing import with_shared_results

T = TypeVar("T")
Key = tuple[int, str, int]
"""(step, task id, sample)."""


@record
class Planned:
    """One attempt at a task that a step is to play."""

    task: Task
    sample: int
    attempt: Attempt = field(default_factory=Attempt)


@runtime_checkable
class Serving(Protocol):
    """An engine in this process; without a thread of its own, it computes on the thread that calls `serve`."""

    own_thread: bool
    policy_version: int

    def serve(self, until: Future[Any]) -> None: ...

    def close(self) -> None: ...


@final
class BackgroundLoop:
    """An asyncio loop in a daemon thread: tools and deadlines keep running while a trainer's thread computes."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._started: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name=name)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin `work`; the future may be waited for on any thread."""
        return asyncio.run_coroutine_threadsafe(self._noted(work), self._loop)

    def close(self, patience_s: float = 10.0) -> None:
        """Cancel what still runs, so that worlds and connections close and give back what they hold; then stop."""
        if self._loop.is_closed():
            return
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._cancel(), self._loop).result(timeout=patience_s)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _noted(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._started.add(task)
        try:
            return await work
        finally:
            self._started.discard(task)

    async def _cancel(self) -> None:
        started = tuple(self._started)
        for task in started:
            if not task.cancelling():  # cancelled a second time, it would break off the closing that the first began
                task.cancel()
        await asyncio.gather(*started, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_asyncgens()  # as `asyncio.run` does: engines keep connections in them


@final
class StepRollouts:
    """Runs the episodes of one step after another, and keeps their log."""

    def __init__(
        self,
        taskset: Taskset,
        sampler: Sampler,
        *,
        params: SamplingParams,
        limits: Limits,
        log: Path,
        seed: int,
        concurrency: int,
        share_results: Sequence[str] = (),
    ) -> None:
        self.taskset = taskset
        self.share_results = tuple(share_results)
        self.sampler = sampler
        self.engine: object | None = getattr(sampler, "engine", None)
        self.params = params
        self.limits = limits
        self.seed = seed
        self.concurrency = concurrency
        self._path = log
        self._logged: dict[Key, Trajectory] | None = None
        self._log: TrajectoryLog | None = None
        self._loop: BackgroundLoop | None = None

    def run(self, step: int, planned: Sequence[Planned]) -> list[Trajectory]:
        """One scored trajectory for each, in the order given; those already in the log are not run again.

        Each is in the log before this returns or raises. Raises `ConfigError` where the setup or a reward is broken.
        """
        if self._logged is None:
            self._logged = _of_steps_from(step, self._path)
            self._log = TrajectoryLog(self._path, self.taskset.blobs)
        jobs = [self._job(step, one) for one in planned]
        done: dict[Key, Trajectory] = {}
        for job in jobs:
            key = (step, job.task.id, job.sample)
            known = self._logged.pop(key, None)
            if known is not None and known.seed == job.seed and self.is_scored(known):
                done[key] = known
        missing = [job for job in jobs if (step, job.task.id, job.sample) not in done]
        if missing:
            names = {(one.task.id, one.sample): one.attempt.name for one in planned}
            for trajectory in self._wait_for(self._sample(step, missing, names)):
                done[step, trajectory.task.id, trajectory.sample] = trajectory
        return [done[step, job.task.id, job.sample] for job in jobs]

    def _job(self, step: int, planned: Planned) -> Job:
        task, attempt = planned.task, planned.attempt
        return Job(
            task=task,
            sample=planned.sample,
            seed=derive_seed(self.seed, step, task.id, planned.sample),
            sampler=attempt.sampler,
            params=attempt.params,
            limits=attempt.limits,
            env=attempt.env,
        )

    def is_scored(self, trajectory: Trajectory) -> bool:
        """True when its own rewards are there; an episode that ended in an error has none."""
        return trajectory.stop not in (None, Stop.ERROR) and set(self.taskset.rubric.rewards) <= set(trajectory.scores)

    def close(self) -> None:
        """Close the log, the engine and the loop."""
        if self._log is not None:
            self._log.close()
        if isinstance(self.engine, Serving):
            self.engine.close()
        if self._loop is not None:
            self._loop.close()

    async def _sample(self, step: int, jobs: Sequence[Job], names: Mapping[tuple[str, int], str]) -> list[Trajectory]:
        finished: list[Trajectory] = []
        taskset = with_shared_results(self.taskset, self.share_results) if self.share_results else self.taskset
        stream = episodes(taskset, jobs, self.sampler, self.params, self.limits, concurrency=self.concurrency)
        assert self._log is not None
        async with written_behind(self._write) as write, aclosing(stream):  # pyright: ignore[reportArgumentType]
            async for trajectory in stream:
                version = trajectory.steps[0].policy_version if trajectory.steps else step
                name = names[trajectory.task.id, trajectory.sample]
                trajectory.info.update(step=step, policy_version=version, attempt=name)
                write(trajectory)
                finished.append(trajectory)
        return finished

    def _write(self, *trajectories: Trajectory) -> None:
        assert self._log is not None
        try:
            self._log.append(*trajectories)
        except OSError as error:
            raise ConfigError(
                f"{self._path} could not be written: {error.strerror or error}",
                hint="all before it is kept; make room, and the same command goes on",
            ) from error

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop; meanwhile this thread serves the engine, where the engine lives in this process."""
        if self._loop is None:
            self._loop = BackgroundLoop("episodes")
        future = self._loop.start(work)
        try:
            if isinstance(self.engine, Serving) and not self.engine.own_thread:
                self.engine.serve(until=future)
            return future.result()
        finally:
            future.cancel()


@asynccontextmanager
async def written_behind(write: Callable[..., None]) -> AsyncGenerator[Callable[[Trajectory], None]]:
    """Give episodes to `write` in a thread, those that came meanwhile all at once: a slow disk holds up no episode.

    When the block ends, however it ends, all are written. What `write` raises is raised at the next episode, or then.
    """
    waiting: list[Trajectory] = []
    writer: asyncio.Task[None] | None = None

    async def drain() -> None:
        while waiting:
            batch = tuple(waiting)
            waiting.clear()
            await asyncio.to_thread(write, *batch)

    def give(trajectory: Trajectory) -> None:
        nonlocal writer
        if writer is not None and writer.done():
            writer.result()
            writer = None
        waiting.append(trajectory)
        if writer is None:
            writer = asyncio.create_task(drain())

    try:
        yield give
    finally:
        if writer is not None:
            await writer


def _of_steps_from(step: int, path: Path) -> dict[Key, Trajectory]:
    """What the log holds of this step and later ones: sampled by policies that training from here arrives at again."""
    if not path.exists():
        return {}
    found: dict[Key, Trajectory] = {}
    for trajectory in read_log(path):
        at = trajectory.info.get("step")
        if isinstance(at, int) and at >= step:
            found[at, trajectory.task.id, trajectory.sample] = trajectory
    return found
