"""Many episodes at once: what evals, collection and GRPO drive. No barrier; each episode goes at its own pace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from agent.event import OnEvent
from agent.rollout import Limits, rollout, unfinished
from agent.sampler import Sampler, SamplingParams
from agent.vision import look_in
from envs.env import Env
from envs.seed import derive_seed
from envs.task import Task, Taskset
from envs.trajectory import Trajectory
from tools.errors import ConfigError
from tools.record import record


@record
class Job:
    """One episode to run: the `sample`-th attempt at `task`."""

    task: Task
    sample: int = 0
    seed: int | None = None
    sampler: Sampler | None = None
    """Who plays it, and how; None takes what all are played with."""
    params: SamplingParams | None = None
    limits: Limits | None = None
    env: Callable[[Env], Env] | None = None
    """Wraps the task's world."""


def jobs(tasks: Iterable[Task], samples: int = 1, seed: int = 0, salt: str = "") -> list[Job]:
    """Every task `samples` times, each with a seed that depends on what it is, not on when it runs."""
    return [
        Job(task=task, sample=k, seed=derive_seed(seed, salt, task.id, k)) for task in tasks for k in range(samples)
    ]


async def episodes(
    taskset: Taskset,
    todo: Iterable[Job],
    sampler: Sampler,
    params: SamplingParams | None = None,
    limits: Limits | None = None,
    *,
    concurrency: int = 16,
    on_event: OnEvent | None = None,
) -> AsyncIterator[Trajectory]:
    """Yield scored trajectories as they finish, at most `concurrency` running.

    On a `ConfigError` nothing new starts; what was already running is finished and yielded, since it was paid for, the
    interrupted episode among it (its `reward` is None); then the error is raised. Closing the generator cancels what
    runs.
    """
    import asyncio

    look_in(sampler, taskset.blobs)
    waiting = iter(todo)
    running: set[asyncio.Task[Trajectory]] = set()
    broken: ConfigError | None = None

    def start(job: Job) -> None:
        world = taskset.env(job.task)
        episode = rollout(
            job.env(world) if job.env else world,
            job.sampler or sampler,
            replace(job.params or params or SamplingParams(), seed=job.seed),
            job.limits or limits,
            rubric=taskset.rubric,
            on_event=on_event,
            sample=job.sample,
        )
        running.add(asyncio.create_task(episode))

    with late_results_forgiven():
        try:
            while True:
                while broken is None and len(running) < concurrency and (job := next(waiting, None)) is not None:
                    start(job)
                if not running:
                    break
                finished, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in finished:
                    error = task.exception()
                    if error is None:
                        yield task.result()
                    elif isinstance(error, ConfigError):
                        broken = broken or error
                        if (partial := unfinished(error)) is not None:
                            yield partial
                    else:
                        raise error
            if broken is not None:
                raise broken
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


@contextmanager
def late_results_forgiven() -> Generator[None]:
    """Within it, once this task is cancelled, a result whose taker is gone is no error to be printed.

    Python handles Ctrl-C between any two instructions: also while the loop hands over a thread's result, which it then
    cannot (`InvalidStateError`).
    """
    import asyncio

    loop, mine = asyncio.get_running_loop(), asyncio.current_task()
    before = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        late = isinstance(context.get("exception"), asyncio.InvalidStateError)
        if not (late and mine is not None and mine.cancelling()):
            loop.default_exception_handler(context) if before is None else before(loop, context)

    loop.set_exception_handler(handle)
    try:
        yield
    finally:
        loop.set_exception_handler(before)
