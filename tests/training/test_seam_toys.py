"""What later recipes need goes through the seam as it is: one toy of each, in a user's file, through the trainer.

Gates, step schedules, reference baselines, forced tokens, auxiliary rollouts that are scored and not trained, mixed
samplers, stage schedules; and advantages per token, refilled groups, shared tools.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from agent.models import load_model
from agent.sampler import SamplingParams
from envs import Trajectory
from envs.log import read_log
from tools.errors import ConfigError
from training.recipe import GRPO, Recipe
from training.run import run

TOYS = """
import torch
from agent.sampler import SamplingParams
from training.seam import Attempt, over_turns

# A gate: no reward at all for an episode that called nothing.
def gate(group):
    return [r if episode.calls else 0.0 for r, episode in zip(group.rewards, group.episodes)]

# A step schedule: a bonus per call that fades out over the run.
def fading(group, moment, bonus):
    return [r + bonus * (1 - moment.progress) * len(e.calls) for r, e in zip(group.rewards, group.episodes)]

# A reference baseline: what another policy got at this task, instead of the group's mean (AdaptThink, 2505.13417).
def against_reference(rewards_PG, groups):
    baseline_P1 = torch.tensor([[group.task.info["reference"]] for group in groups])
    return (rewards_PG - baseline_P1).nan_to_num(nan=0.0)

# Advantages that know how an attempt was played: auxiliary ones are the baseline, and get none.
def against_bare(rewards_PG, groups):
    found = torch.zeros_like(rewards_PG)
    for row, group in enumerate(groups):
        bare = [r for r, a in zip(group.rewards, group.attempts) if a.name == "bare"]
        for place, attempt in enumerate(group.attempts):
            if attempt.trained:
                found[row, place] = group.rewards[place] - sum(bare) / len(bare)
    return found

# Credit per token: the first turn is worth 1, the last one -1.
def by_turn(rewards_PG, groups):
    most = max(e.sampled_tokens for group in groups for e in group.episodes)
    found = torch.zeros(*rewards_PG.shape, most)
    for p, group in enumerate(groups):
        for g, episode in enumerate(group.episodes):
            values = over_turns(episode, [1.0] * (len(episode.steps) - 1) + [-1.0])
            found[p, g, : len(values)] = torch.tensor(values)
    return found

# The same number at every token of an episode.
def spread_out(rewards_PG, groups):
    most = max(e.sampled_tokens for group in groups for e in group.episodes)
    centred = rewards_PG - rewards_PG.mean(dim=1, keepdim=True)
    return centred.unsqueeze(2).expand(-1, -1, most)

# Mixed samplers: the last attempt is a teacher's, longer and scored like the others.
TEACHER = None
def with_teacher(group_size, moment, params):
    teacher = Attempt(name="teacher", sampler=TEACHER, params=SamplingParams(**params))
    return [*[Attempt()] * (group_size - 1), teacher]

# Filter and sampler settings by the step: temperature rises.
def warming(group_size, moment):
    return [Attempt(params=SamplingParams(temperature=1.0 + moment.step, max_tokens=24))] * group_size

def only_even_tasks(group):
    return None if int(group.task.id[1:]) % 2 == 0 else "odd"
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "mine" / "toys.py"
    path.parent.mkdir()
    path.write_text(TOYS)
    return str(path)


def prepared(trainer: Any, step: int = 0) -> Any:
    """The batch of one step."""
    trainer.model.train()
    trainer.state.global_step = step
    trainer.current_gradient_accumulation_steps = 1
    return trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))


def outcomes(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "advantages.jsonl").read_text().splitlines()]


def rows_of_group(batch: Any, values: list[float]) -> list[float]:
    """The advantages of the first group's rows, as they should be in every group."""
    found = batch["advantages"].tolist()
    assert found == pytest.approx(values * (len(found) // len(values)))
    return found


def calls_if_even(toys: Any) -> Any:
    """Samples 0 and 2 call the tool, 1 and 3 answer at once."""

    def say(so_far: Trajectory) -> str:
        if so_far.sample % 2 == 0 and not so_far.steps and so_far.tools:
            return toys.call_text(1, so_far.sample)
        return "Answer: 1"

    return say


async def always_one(env: Any, trajectory: Trajectory) -> float:
    return 1.0


def test_a_gate(trainer_for: Any, toys: Any, mine: str) -> None:
    """Rewards 1, 1, 1, 1 become 1, 0, 1, 0."""
    settings = {"shape": {f"{mine}:gate": {}}, "advantages": "dr_grpo"}
    trainer = trainer_for(calls_if_even(toys), taskset=toys.taskset(reward=always_one), **settings)
    rows_of_group(prepared(trainer), [0.5, -0.5, 0.5, -0.5])


def test_a_step_schedule(trainer_for: Any, toys: Any, mine: str, tmp_path: Path) -> None:
    """Over three steps the bonus of a call is 1, 1/2, 0."""
    settings = {"shape": {f"{mine}:fading": {"bonus": 1.0}}, "advantages": "dr_grpo", "steps": 3}
    trainer = trainer_for(calls_if_even(toys), taskset=toys.taskset(reward=always_one), **settings)
    trainer.train()
    found: dict[int, set[float]] = {}
    for line in outcomes(tmp_path):
        found.setdefault(line["step"], set()).add(line["advantage"])
    assert found == {0: {0.5, -0.5}, 1: {0.25, -0.25}, 2: {0.0}}


def test_a_reference_baseline(trainer_for: Any, toys: Any, mine: str) -> None:
    from dataclasses import replace

    taskset = toys.taskset(reward=always_one)
    taskset = replace(taskset, tasks=tuple(replace(task, info={"reference": 0.75}) for task in taskset.tasks))
    trainer = trainer_for(lambda _: "Answer: 1", taskset=taskset, advantages=f"{mine}:against_reference")
    rows_of_group(prepared(trainer), [0.25] * 4)


def test_auxiliary_rollouts_are_scored_and_not_trained(trainer_for: Any, toys: Any, mine: str, tmp_path: Path) -> None:
    """Two more attempts without tools are the baseline: 0 by the gate, so that callers get 1 and the others 0."""
    trainer = trainer_for(
        calls_if_even(toys),
        taskset=toys.taskset(reward=always_one),
        plan="with_bare",
        plan_args={"bare": 2},
        shape={f"{mine}:gate": {}},
        advantages=f"{mine}:against_bare",
    )
    batch = prepared(trainer)
    assert sorted(batch["advantages"].tolist()) == [1.0] * 4, "what has no advantage costs no forward pass"
    played = list(read_log(tmp_path / "trajectories.jsonl"))
    assert [t.info["attempt"] for t in played].count("bare") == 4
    assert all(not t.tools for t in played if t.info["attempt"] == "bare")
    assert [line["trained"] for line in outcomes(tmp_path)] == [True] * 4 + [False] * 2 + [True] * 4 + [False] * 2
    assert trainer._metrics["train"]["reward_untrained"] == [1.0]


def test_a_mixed_sampler(trainer_for: Any, toys: Any, tokenizer: Any, mine: str, tmp_path: Path) -> None:
    from envs.find import module_of_file

    teacher = toys.SaysSo(tokenizer, lambda _: "Answer: the teacher knows")
    module_of_file(mine).TEACHER = teacher
    args = {"params": {"max_tokens": 99}}
    trainer = trainer_for(lambda _: "Answer: 1", plan=f"{mine}:with_teacher", plan_args=args)
    batch = prepared(trainer)
    assert teacher.sampled == 2
    assert batch["tool_mask"].any(dim=1).sum() == 8
    by_name = {t.info["attempt"]: t.answer for t in read_log(tmp_path / "trajectories.jsonl")}
    assert by_name == {"policy": "Answer: 1", "teacher": "Answer: the teacher knows"}


def test_settings_of_the_sampler_by_the_step(trainer_for: Any, toys: Any, tokenizer: Any, mine: str) -> None:
    seen: set[float] = set()

    class Watching(toys.SaysSo):
        async def sample(self, so_far: Any, new: Any, params: Any, on_text: Any = None) -> Any:
            seen.add(params.temperature)
            return await super().sample(so_far, new, params, on_text)

    trainer = trainer_for(
        make_sampler=lambda _: Watching(tokenizer, lambda _: "Answer: 1"), plan=f"{mine}:warming", steps=3
    )
    prepared(trainer, 2)
    assert seen == {3.0}


def test_forced_tokens_carry_no_loss_and_the_rest_does(trainer_for: Any, toys: Any) -> None:
    """The first two tokens of samples 0 and 1 were put into the policy's mouth."""

    def say(so_far: Trajectory) -> Any:
        return ("Answer: 1 1", {"forced": 2}) if so_far.sample < 2 else "Answer: 1 1"

    trainer = trainer_for(say, taskset=toys.taskset(reward=by_sample), advantages="dr_grpo")
    batch = prepared(trainer)
    trained = batch["tool_mask"].sum(dim=1)
    whole = trained.max()
    assert sorted(trained.tolist()) == [int(whole) - 2] * 4 + [int(whole)] * 4
    assert batch["num_items_in_batch"] == trained.sum()


async def by_sample(env: Any, trajectory: Trajectory) -> float:
    return float(trajectory.sample)


WORLD = """
from envs import Rubric, Task, Taskset, ToolEnv, user


def world() -> Taskset:
    async def even(env, trajectory):
        ids = [token for step in trajectory.steps for token in step.tokens.completion]
        return sum(token % 2 == 0 for token in ids) / len(ids)

    tasks = [Task(id=f"t{i}", prompt=(user(f"{i} + 1?"),)) for i in range(4)]
    rubric = Rubric(rewards={"even": (even, 1.0)})
    return Taskset(name="world", tasks=tasks, env=lambda task: ToolEnv(task=task), rubric=rubric)
"""


def test_a_stage_schedule_is_stages(tmp_path: Path) -> None:
    """Lengths grow and groups shrink, as Vision-R1's (4K, 16), (8K, 8), (16K, 4); each stage goes on from the last."""
    (tmp_path / "world.py").write_text(WORLD)
    schedule = [(3, 4), (6, 2)]
    stages = tuple(
        GRPO(
            name=f"grpo{index}",
            start=f"grpo{index - 1}" if index else "base",
            steps=1,
            tasks_per_step=1,
            group_size=group,
            lr=1e-2,
            params=SamplingParams(max_tokens=length),
            stops={"max_tokens": "mask"} if index else {},
            trl={"bf16": False},
        )
        for index, (length, group) in enumerate(schedule)
    )
    recipe = Recipe(name="ptst", model="tiny", taskset=f"{tmp_path / 'world.py'}:world", stages=stages, threads=1)
    out = run(recipe, tmp_path / "run")
    played = [list(read_log(out / stage.name / "trajectories.jsonl")) for stage in stages]
    assert [(max(t.sampled_tokens for t in episodes), len(episodes)) for episodes in played] == schedule
    (episode, *_) = played[1]
    (row,) = episode.sequences()
    for model, same in (("tiny", False), (str(out / "grpo0" / "model"), True)):
        with torch.no_grad():
            logits = load_model(model)[0](torch.tensor([row.token_ids])).logits[0].log_softmax(dim=-1)
        logprobs = [float(logits[at - 1, row.token_ids[at]]) for at, on in enumerate(row.loss_mask) if on]
        said = [logprob for logprob, on in zip(row.logprobs, row.loss_mask, strict=True) if on]
        assert (logprobs == pytest.approx(said, abs=1e-3)) is same, model
    with pytest.raises(ConfigError, match=r"grpo1.start is 'grpo2', which no earlier stage trains"):
        Recipe(name="ptst", stages=(stages[0], GRPO(name="grpo1", start="grpo2")))


def test_advantages_per_token_lie_where_they_were_sampled(trainer_for: Any, toys: Any, mine: str) -> None:
    trainer = trainer_for(calls_if_even(toys), advantages=f"{mine}:by_turn")
    batch = prepared(trainer)
    advantages, mask = batch["advantages"], batch["tool_mask"].bool()
    assert advantages.shape == mask.shape
    assert (advantages[mask].abs() == 1).all() and not advantages[~mask].any()
    for row, on in zip(advantages, mask, strict=True):
        values = row[on].tolist()
        turns = values.count(1.0)
        assert values == [1.0] * turns + [-1.0] * (len(values) - turns)
        if turns:  # the tool's answer stands between the two turns
            between = slice(int((row == 1).nonzero().max()) + 1, int((row == -1).nonzero().min()))
            assert between.start < between.stop and not on[between].any()


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo", "bnpo", "cispo", "sapo"])
def test_one_number_at_every_token_is_the_same_as_one_number(
    trainer_for: Any, toy_model: Any, toys: Any, mine: str, loss_type: str, tmp_path: Path
) -> None:
    gradients: list[dict[str, torch.Tensor]] = []
    for folder, advantages in (("a", "dr_grpo"), ("b", f"{mine}:spread_out")):
        settings = {"advantages": advantages, "trl": {"loss_type": loss_type}, "micro_batch_size": 8}
        trainer = trainer_for(model=toy_model(), out=tmp_path / folder, **settings)
        batch = prepared(trainer)
        trainer.model.zero_grad()
        trainer._compute_loss(trainer.model, batch).backward()
        gradients.append({name: p.grad for name, p in trainer.model.named_parameters()})
    assert max(gradient.abs().max() for gradient in gradients[0].values()) > 1e-3
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name


def test_dropped_groups_are_made_up_for_with_other_tasks(trainer_for: Any, mine: str, tmp_path: Path) -> None:
    """Odd tasks are dropped; other tasks take their places until two groups are there."""
    trainer = trainer_for(lambda _: "Answer: 1", filters={f"{mine}:only_even_tasks": {}}, refill=8)
    batch = prepared(trainer)
    assert batch["tool_mask"].any(dim=1).sum() == 8
    lines = outcomes(tmp_path)
    trained = {line["task"] for line in lines if line["trained"]}
    assert len(trained) == 2 and all(int(task[1:]) % 2 == 0 for task in trained)
    assert {line["dropped"] for line in lines if int(line["task"][1:]) % 2} <= {"odd"}
    assert len({(line["task"], line["sample"]) for line in lines}) == len(lines), "no task twice in a step"
    again = trainer_for(
        lambda _: "Answer: 1", filters={f"{mine}:only_even_tasks": {}}, refill=8, out=tmp_path / "again"
    )
    prepared(again)
    assert [line["task"] for line in outcomes(tmp_path / "again")] == [line["task"] for line in lines]


def test_a_step_whose_groups_are_all_dropped_moves_nothing_and_says_so(
    trainer_for: Any, toys: Any, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = trainer_for(
        lambda _: "Answer: 1", taskset=toys.taskset(reward=always_one), filters={"no_spread": {}}, refill=1, steps=1
    )
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    assert all(torch.equal(before[name], p) for name, p in trainer.model.named_parameters())
    assert "every group of step 0 was dropped: no spread" in caplog.text
    assert next(row for row in trainer.state.log_history if "groups/dropped" in row)["groups/dropped"] == 1.0
