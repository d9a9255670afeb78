"""What a run's pages say of its episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from envs import Trajectory
from training.pages import _first_and_last  # pyright: ignore[reportPrivateUsage]


def test_a_task_of_two_steps_has_the_advantage_of_each(trainer_for: Any, toys: Any, tmp_path: Path) -> None:
    """Sample 0 is worth 3 attempts' mean more than they at first, and less than they at the second step."""

    async def first_then_others(env: Any, trajectory: Trajectory) -> float:
        return float((trajectory.sample == 0) == (len(seen) <= 8))

    seen: list[str] = []

    def say(so_far: Trajectory) -> str:
        seen.append(so_far.task.id)
        return "Answer: 1"

    taskset = toys.taskset(n=2, reward=first_then_others)
    trainer_for(say, taskset=taskset, steps=2, advantages="dr_grpo").train()
    shown = [episode for _, episode in _first_and_last(tmp_path / "trajectories.jsonl", 16)]
    worth = {(t.info["step"], t.sample): t.info["advantage"] for t in shown}
    assert (worth[0, 0], worth[0, 1], worth[1, 0], worth[1, 1]) == (0.75, -0.25, -0.75, 0.25)
