"""GRPO teaches a tiny model to use its tool, and for the right reason: by the rewards, and by what the policy wrote.

Cold start leaves a policy with two habits: in a quarter of its episodes it hands Python the whole sum, in the others
only the first number, so that the answer is wrong. Only the reward says which is better. Everything is real: the model,
trained from its random weights, the interpreter, the trainer. Accuracy is of samples at temperature 1 on held-out sums.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from measured import accuracy_of
from safetensors.torch import load_file

from agent import Limits, SamplingParams, ScriptedSampler, rollout
from envs import Rubric, Taskset, Trajectory, assistant
from envs.find import find_taskset
from envs.log import TrajectoryLog
from tools.errors import ConfigError
from training.batch import Row
from training.grpo import grpo
from training.recipe import GRPO, SFT, Recipe, StageRun
from training.sft import sft

pytestmark = pytest.mark.slow

COLD, IN_ALL = 500, 900
"""Tasks of the cold start; the rest are GRPO's."""
LIMITS = Limits(max_turns=3, call_timeout_s=30.0)
PARAMS = SamplingParams(max_tokens=32)
DIALECT = "hermes"
CONSTANT = {"bf16": False, "lr_scheduler_type": "constant_with_warmup"}
FALLING = {"bf16": False, "lr_scheduler_type": "linear"}


def sums(split: str = "train", n: int = IN_ALL) -> Taskset:
    """The first `n` additions of the toy taskset: `47+12=?`."""
    taskset = find_taskset("toy_arithmetic", {"split": split, "n": 5 * n})
    return replace(taskset, tasks=[task for task in taskset.tasks if "+" in task.prompt[-1].text][:n])


def stage_run(stage: Any, folder: Path, start: str) -> StageRun:
    folder.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(name="learns", model="tiny", taskset="toy_arithmetic", stages=(stage,))
    return StageRun(recipe=recipe, folder=folder, start=start, dialect=DIALECT, seed=0)


def cold_start_log(path: Path) -> Path:
    """Episodes that are really played: a quarter as gold says, the others with `print(first number)`."""
    taskset = sums()
    log = TrajectoryLog(path)

    async def play() -> None:
        for index, task in enumerate(taskset.tasks[:COLD]):
            first = task.prompt[-1].text[:2]
            call = replace(task.gold[0].tool_calls[0], arguments={"code": f"print({first})"})
            careless = [assistant(tool_calls=[call]), assistant(f"Answer: {first}")]
            player = ScriptedSampler() if index % 4 == 0 else ScriptedSampler(careless)
            log.append(await rollout(taskset.env(task), player, limits=LIMITS, rubric=taskset.rubric))

    asyncio.run(play())
    log.close()
    return path


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the cold-started model."""
    root = tmp_path_factory.mktemp("learns")
    log = cold_start_log(root / "collect.jsonl")
    stage = SFT(data=str(log), steps=320, batch_size=32, lr=1.2e-3, warmup=10, checkpoint_every=1000, trl=CONSTANT)
    run = stage_run(stage, root / "sft", "tiny")
    sft(stage, run, log)
    return run.folder / "model"


def accuracy(model: Path, out: Path) -> float:
    return accuracy_of(model, sums("test", 100), out, params=PARAMS, limits=LIMITS, dialect=DIALECT)


def trained(started: Path, folder: Path, rubric: Rubric | None = None, **settings: Any) -> Path:
    """The model after GRPO on the sums, scored by `rubric` or else by their own."""
    taskset = sums()
    taskset = replace(taskset, tasks=taskset.tasks[COLD:], rubric=rubric or taskset.rubric)
    common: dict[str, Any] = {"tasks_per_step": 8, "group_size": 8, "lr": 4e-4, "params": PARAMS, "limits": LIMITS}
    stage = GRPO(**{"steps": 50, "trl": FALLING, **common, **settings})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.grpo.stage_taskset", lambda recipe, stage: taskset)
        grpo(stage, stage_run(stage, folder, str(started)))
    return folder / "model"


def test_rewards_teach_the_tool(started: Path, tmp_path: Path) -> None:
    before = accuracy(started, tmp_path / "before")
    after = accuracy(trained(started, tmp_path / "grpo"), tmp_path / "after")
    assert before < 0.4 and after > 0.9, (before, after)


def test_advantages_of_zero_move_nothing(started: Path, tmp_path: Path) -> None:
    """Not a weight, bit for bit: whatever learns, learns by the advantages."""
    (tmp_path / "mine.py").write_text("def nothing(rewards_PG):\n    return rewards_PG.new_zeros(rewards_PG.shape)\n")
    model = trained(started, tmp_path / "grpo", steps=3, advantages=f"{tmp_path / 'mine.py'}:nothing")
    before, after = (load_file(folder / "model.safetensors") for folder in (started, model))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_shuffled_rewards_teach_nothing(started: Path, tmp_path: Path) -> None:
    """The same rewards, dealt out anew within each group."""
    dealer = random.Random(0)

    def deal(group: Sequence[Trajectory]) -> list[float]:
        rewards = [trajectory.scores["correct"] for trajectory in group]
        dealer.shuffle(rewards)
        return rewards

    metrics = {name: (fn, 0.0) for name, (fn, _) in sums().rubric.rewards.items()}
    rubric = Rubric(rewards=metrics, group={"shuffled": (deal, 1.0)})
    assert accuracy(trained(started, tmp_path / "grpo", rubric), tmp_path / "after") < 0.4


def test_an_inverted_mask_is_caught_and_would_teach_nothing(
    started: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss on all that the policy did not write, in place of what it did."""
    from training import grpo_trainer

    rows_of = grpo_trainer.rows_of

    def inverted(*args: Any, **kwargs: Any) -> list[Row]:
        rows: list[Row] = []
        for row in rows_of(*args, **kwargs):
            whole = (*row.prompt[1:], *row.completion)
            mask = (*(1 for _ in row.prompt[1:]), *(1 - on for on in row.mask))
            rows.append(replace(row, prompt=row.prompt[:1], completion=whole, mask=mask, logprobs=(0.0,) * len(whole)))
        return rows

    def no_audit(*_: Any) -> str | None:
        return None

    monkeypatch.setattr(grpo_trainer, "rows_of", inverted)
    with pytest.raises(ConfigError, match=r"64 of them: its rows train on other tokens than were sampled"):
        trained(started, tmp_path / "caught")
    monkeypatch.setattr(grpo_trainer, "problem_with_rows", no_audit)
    monkeypatch.setattr(grpo_trainer, "problem_with_batch", no_audit)
    assert accuracy(trained(started, tmp_path / "grpo"), tmp_path / "after") < 0.4
