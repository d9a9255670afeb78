"""A model from random weights learns a task of two pictures in SFT and in GRPO, and only where it is shown its own.

Cold start holds episodes of which two in five open another box than the first picture says, and say what is in that
one. So SFT teaches what colours look like, and to open the right box as often as the episodes do, 60 %; only the reward
says that it should always. Accuracy is of samples at temperature 1 on fresh tasks; guessing is right once in four.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from measured import accuracy_of

from agent import Limits, SamplingParams, ScriptedSampler, rollout
from agent.models import model_folder
from envs import Taskset, Trajectory
from envs.find import find_taskset
from envs.log import TrajectoryLog
from tools import Image
from training.batch import Row, collate
from training.grpo import grpo
from training.recipe import GRPO, SFT, Recipe, StageRun
from training.sft import sft

pytestmark = pytest.mark.slow

WORLD = str(Path(__file__).with_name("two_pictures.py")) + ":two_pictures"
LIMITS = Limits(max_turns=3, call_timeout_s=30.0)
PARAMS = SamplingParams(max_tokens=32)
STEPS, RL_STEPS = 110, 30
CARELESS = 0.4


def world(**arguments: Any) -> Taskset:
    return find_taskset(WORLD, arguments)


def stage_run(stage: Any, folder: Path, start: str) -> StageRun:
    folder.mkdir(parents=True)
    recipe = Recipe(name="sees", model=start, taskset=WORLD, stages=(stage,))
    return StageRun(recipe=recipe, folder=folder, start=start, dialect="hermes", seed=0)


def cold_start(path: Path, swapped: bool = False) -> Path:
    """The log of the gold episodes; `swapped` gives each the pictures of the next one."""
    taskset = world(n=400, seed=1, careless=CARELESS)

    async def play() -> list[Trajectory]:
        return [
            await rollout(taskset.env(task), ScriptedSampler(), limits=LIMITS, rubric=taskset.rubric)
            for task in taskset.tasks
        ]

    episodes = asyncio.run(play())
    if swapped:
        pictures = [[p for m in t.messages for p in m.content if isinstance(p, Image)] for t in episodes]
        for index, episode in enumerate(episodes):
            others = iter(pictures[(index + 1) % len(pictures)])
            for at, step in enumerate(episode.steps):
                shown = tuple(
                    replace(m, content=tuple(next(others) if isinstance(p, Image) else p for p in m.content))
                    for m in step.observation
                )
                episode.steps[at] = replace(step, observation=shown)
    with TrajectoryLog(path, taskset.blobs) as log:
        log.append(*episodes)
    return path


def taught(root: Path, swapped: bool = False) -> Path:
    log = cold_start(root / "cold.jsonl", swapped)
    stage = SFT(
        data=str(log), steps=STEPS, batch_size=16, lr=3e-3, warmup=10, checkpoint_every=1000, trl={"bf16": False}
    )
    sft(stage, stage_run(stage, root / "sft", model_folder("tiny_vlm:0")), log)
    return root / "sft" / "model"


def reinforced(start: Path, folder: Path) -> Path:
    taskset = world(n=400, seed=7)
    stage = GRPO(
        steps=RL_STEPS,
        tasks_per_step=8,
        group_size=8,
        lr=6e-4,
        params=PARAMS,
        limits=LIMITS,
        trl={"bf16": False, "lr_scheduler_type": "linear"},
    )

    def given(recipe: Recipe, stage: GRPO) -> Taskset:
        return taskset

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.grpo.stage_taskset", given)
        grpo(stage, stage_run(stage, folder, str(start)))
    return folder / "model"


def accuracy(model: Path, out: Path) -> float:
    return accuracy_of(model, world(n=200, seed=99), out, params=PARAMS, limits=LIMITS)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The model after SFT, and its accuracy."""
    root = tmp_path_factory.mktemp("sees")
    model = taught(root)
    return model, accuracy(model, root / "accuracy")


def test_two_pictures_are_learnt_by_sft_and_then_by_reward(started: tuple[Path, float], tmp_path: Path) -> None:
    model, before = started
    assert 0.45 < before < 0.7, before
    after = accuracy(reinforced(model, tmp_path / "grpo"), tmp_path / "after")
    assert after > 0.8 and after > before + 0.2, (before, after)


def test_pictures_of_other_samples_teach_nothing_in_sft(tmp_path: Path) -> None:
    after = accuracy(taught(tmp_path, swapped=True), tmp_path / "after")
    assert after < 0.37, after


def test_pictures_of_other_samples_teach_nothing_in_grpo(
    started: tuple[Path, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same episodes, rewards and tokens; each row with the pictures of another group's."""

    def swapped(rows: list[Row], **settings: Any) -> Any:
        far = [rows[(index + len(rows) // 2) % len(rows)].pictures for index in range(len(rows))]
        others = [
            replace(row, pictures=pictures) if len(pictures) == len(row.pictures) else row
            for row, pictures in zip(rows, far, strict=True)
        ]
        return collate(others, **settings)

    monkeypatch.setattr("training.grpo_trainer.collate", swapped)
    model, before = started
    after = accuracy(reinforced(model, tmp_path / "grpo"), tmp_path / "after")
    assert after < before, (before, after)
