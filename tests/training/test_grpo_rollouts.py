"""The episodes of a step: kept order, nothing played twice, and nothing left open when the run is interrupted."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.rollout import Limits
from agent.sampler import SamplingParams
from envs import ToolEnv, derive_seed
from envs.log import read_log
from training.rollouts import Planned, StepRollouts


def rollouts(taskset: Any, sampler: Any, log: Path) -> StepRollouts:
    return StepRollouts(
        taskset, sampler, params=SamplingParams(), limits=Limits(max_turns=3), log=log, seed=1, concurrency=8
    )


def attempts(taskset: Any, samples: int = 3) -> list[Planned]:
    return [Planned(task=task, sample=k) for task in taskset.tasks[:2] for k in range(samples)]


def test_episodes_come_back_in_the_order_asked_for(toys: Any, tokenizer: Any, tmp_path: Path) -> None:
    class Slow(toys.SaysSo):
        async def sample(self, so_far: Any, *args: Any) -> Any:
            await asyncio.sleep(0.05 * (2 - so_far.sample))
            return await super().sample(so_far, *args)

    taskset = toys.taskset()
    step = rollouts(taskset, Slow(tokenizer, toys.call_then_answer), tmp_path / "log.jsonl")
    found = step.run(4, attempts(taskset))
    step.close()
    assert [(t.task.id, t.sample) for t in found] == [(one.task.id, one.sample) for one in attempts(taskset)]
    assert [t.seed for t in found] == [derive_seed(1, 4, one.task.id, one.sample) for one in attempts(taskset)]
    assert [t.sample for t in read_log(tmp_path / "log.jsonl")] != [t.sample for t in found], "logged as they end"


def test_only_what_the_log_lacks_is_played(toys: Any, tokenizer: Any, tmp_path: Path) -> None:
    taskset, log = toys.taskset(), tmp_path / "log.jsonl"
    first = rollouts(taskset, toys.SaysSo(tokenizer, lambda _: "Answer: 1"), log)
    first.run(0, attempts(taskset, samples=2))
    first.close()
    sampler = toys.SaysSo(tokenizer, lambda _: "Answer: 2")
    second = rollouts(taskset, sampler, log)
    found = second.run(0, attempts(taskset, samples=3))
    second.close()
    assert [t.answer for t in found] == ["Answer: 1", "Answer: 1", "Answer: 2"] * 2
    assert sampler.sampled == 2
    assert len(list(read_log(log))) == 6


def test_errors_and_episodes_of_another_seed_are_played_again(toys: Any, tokenizer: Any, tmp_path: Path) -> None:
    def down_for_the_second(so_far: Any) -> str:
        if so_far.sample == 1:
            raise RuntimeError("down")
        return "Answer: 1"

    taskset, log = toys.taskset(), tmp_path / "log.jsonl"
    first = rollouts(taskset, toys.SaysSo(tokenizer, down_for_the_second), log)
    first.run(0, attempts(taskset, samples=2))
    first.close()
    again = toys.SaysSo(tokenizer, lambda _: "Answer: 2")
    second = rollouts(taskset, again, log)
    assert [t.answer for t in second.run(0, attempts(taskset, samples=2))] == ["Answer: 1", "Answer: 2"] * 2
    second.close()
    other = toys.SaysSo(tokenizer, lambda _: "Answer: 3")
    third = StepRollouts(taskset, other, params=SamplingParams(), limits=Limits(), log=log, seed=2, concurrency=8)
    third.run(0, attempts(taskset, samples=2))
    third.close()
    assert other.sampled == 4


def test_an_interrupted_step_closes_its_environments(toys: Any, tokenizer: Any, tmp_path: Path) -> None:
    closed: list[str] = []
    waiting = threading.Semaphore(0)

    class Kernel:
        async def close(self) -> None:
            await asyncio.sleep(0.05)  # giving back takes a moment
            closed.append("kernel")

    class Engine:
        own_thread, policy_version = False, 0

        def serve(self, until: Future[Any]) -> None:
            assert all(waiting.acquire(timeout=60) for _ in range(6)), "not all episodes asked for a first token"
            raise KeyboardInterrupt

        def close(self) -> None: ...

    class Waiting(toys.SaysSo):
        engine = Engine()

        async def sample(self, so_far: Any, *args: Any) -> Any:
            waiting.release()
            await asyncio.sleep(3600)

    taskset = replace(toys.taskset(), env=lambda task: ToolEnv(task=task, resources=(Kernel(),)))
    step = rollouts(taskset, Waiting(tokenizer, toys.call_then_answer), tmp_path / "log.jsonl")
    with pytest.raises(KeyboardInterrupt):
        step.run(0, attempts(taskset))
    step.close()
    assert closed == ["kernel"] * 6
