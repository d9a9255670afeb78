"""GRPO through the front door: episodes with real tools, honest stops, logs before anything can fail, resume."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from agent.dialects import dialect_named
from agent.local import TransformersEngine
from agent.renderer import Renderer
from agent.rollout import Limits
from agent.sampler import SamplingParams, ScriptedSampler
from agent.token_sampler import TokenSampler
from envs import RewardError, Stop, Trajectory, derive_seed
from envs.log import read_log
from tools import tool
from tools.errors import ConfigError
from training.files import last_checkpoint


def logged(out: Path) -> list[Trajectory]:
    return list(read_log(out / "trajectories.jsonl"))


def last_metrics(trainer: Any) -> dict[str, float]:
    return [row for row in trainer.state.log_history if "reward" in row][-1]


async def share_of_even_ids(env: Any, trajectory: Trajectory) -> float:
    ids = [token for step in trajectory.steps if step.tokens for token in step.tokens.completion]
    return sum(token % 2 == 0 for token in ids) / len(ids)


def real_policy(tokenizer: Any, served_on: set[int] | None = None) -> Any:
    """A sampler on the trained model itself, without a thread of its own."""

    def make(model: Any) -> TokenSampler:
        engine = TransformersEngine(model, tokenizer, own_thread=False)
        run = engine._run

        def noting(batch: Any) -> None:
            if served_on is not None:
                served_on.add(threading.get_ident())
            run(batch)

        engine._run = noting  # pyright: ignore[reportAttributeAccessIssue]
        return TokenSampler(Renderer(tokenizer, dialect_named("hermes")), engine)

    return make


def test_a_model_learns_what_is_rewarded(
    trainer_for: Any, toy_model: Any, toys: Any, tokenizer: Any, tmp_path: Path
) -> None:
    served_on: set[int] = set()
    trainer = trainer_for(
        model=toy_model(initializer_range=0.02),
        taskset=toys.taskset(reward=share_of_even_ids),
        make_sampler=real_policy(tokenizer, served_on),
        steps=18,
        group_size=8,
        micro_batch_size=None,
        lr=3e-2,
        checkpoint_every=100,
        params=SamplingParams(max_tokens=6),
        limits=Limits(max_turns=1),
    )
    trainer.train()
    rewards = [row["reward"] for row in trainer.state.log_history if "reward" in row]
    assert sum(rewards[:3]) / 3 < 0.6
    assert sum(rewards[-3:]) / 3 > 0.9
    assert served_on == {threading.get_ident()}, "forward passes belong on the trainer's thread"
    assert last_metrics(trainer)["sampling/logp_gap_max"] < 1e-3, "sampler and trainer compute one policy"
    assert Counter(t.info["policy_version"] for t in logged(tmp_path)) == dict.fromkeys(range(18), 16)


def test_rewards_that_say_nothing_teach_nothing(trainer_for: Any, toys: Any, tokenizer: Any) -> None:
    async def constant(env: Any, trajectory: Trajectory) -> float:
        return 0.3

    trainer = trainer_for(
        taskset=toys.taskset(reward=constant),
        make_sampler=real_policy(tokenizer),
        params=SamplingParams(max_tokens=4),
        limits=Limits(max_turns=1),
    )
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    assert last_metrics(trainer)["frac_reward_zero_std"] == 1
    assert all(torch.equal(before[name], p) for name, p in trainer.model.named_parameters())


def test_tools_run_and_metrics_say_what_happened(trainer_for: Any, toys: Any, tmp_path: Path) -> None:
    def say(so_far: Trajectory) -> str:
        if so_far.sample == 3:
            return toys.call_text(1, so_far.sample)  # never stops calling
        if so_far.sample == 2 and not so_far.steps:
            return '<tool_call>\n{"name": "subtract", "arguments": {}}\n</tool_call>'
        return toys.call_then_answer(so_far)

    trainer = trainer_for(say, steps=1, limits=Limits(max_turns=4))
    trainer.train()
    found = last_metrics(trainer)
    assert found["episodes/calls"] == pytest.approx((1 + 1 + 1 + 4) / 4)
    assert found["tools/error_rate"] == pytest.approx(1 / 7)
    assert found["stop/max_turns"] == found["completions/clipped_ratio"] == 0.25
    assert found["stop/done"] == 0.75
    assert found["reward"] == found["rewards/reward/mean"] == 0.5
    assert found["reward_std"] == pytest.approx(3**-0.5)
    episodes = logged(tmp_path)
    assert {(t.info["step"], t.info["policy_version"]) for t in episodes} == {(0, 0)}
    assert Counter((t.task.id, t.sample) for t in episodes).most_common(1)[0][1] == 1
    assert all(t.seed == derive_seed(3, 0, t.task.id, t.sample) for t in episodes)
    assert "the sum of 0 and 1 is 1" in next(t for t in episodes if t.sample == 0).messages[2].text


def prepared(trainer: Any) -> Any:
    """The batch of step 0."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))


def test_errors_and_bad_records_are_left_out_of_means_and_loss(
    trainer_for: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def say(so_far: Trajectory) -> Any:
        if so_far.sample == 0:
            raise RuntimeError("the engine fell over")
        if so_far.sample == 1:
            return "Answer: 1", {"completion": (5, 10**6), "logprobs": (-0.5, -0.5)}
        return "Answer: 1 1"

    async def two_or_six(env: Any, trajectory: Trajectory) -> float:
        return {2: 2.0, 3: 6.0}.get(trajectory.sample, 100.0)

    trainer = trainer_for(say, steps=1, advantages="dr_grpo", taskset=_taskset(two_or_six))
    with caplog.at_level(logging.WARNING):
        batch = prepared(trainer)
    assert batch["advantages"].tolist() == [-2.0, 2.0, -2.0, 2.0]
    assert batch["tool_mask"].sum() == batch["num_items_in_batch"]
    assert "sample 1 is left out: row 0: token 1000000 at" in caplog.text
    lines = [json.loads(line) for line in (tmp_path / "advantages.jsonl").read_text().splitlines()]
    assert [line["trained"] for line in lines] == [False, False, True, True] * 2
    assert lines[0]["left_out"] == "RuntimeError: the engine fell over"
    assert [t.stop for t in logged(tmp_path) if t.sample == 0] == [Stop.ERROR] * 2


def _taskset(reward: Any, **rubric: Any) -> Any:
    from envs import Rubric, Task, Taskset, ToolEnv, user

    tasks = tuple(Task(id=f"t{i}", prompt=(user("Go."),)) for i in range(4))
    return Taskset(
        name="toy",
        tasks=tasks,
        env=lambda task: ToolEnv(task=task),
        rubric=Rubric(rewards={"reward": (reward, 1.0)}, **rubric),
    )


def test_a_group_with_one_scored_episode_gets_no_advantage(trainer_for: Any) -> None:
    def say(so_far: Trajectory) -> str:
        if so_far.sample:
            raise RuntimeError("down")
        return "Answer: 1"

    trainer = trainer_for(say, steps=1)
    before = weights(trainer)
    trainer.train()
    assert last_metrics(trainer)["episodes/errors"] == 0.75
    assert all(torch.equal(before[name], found) for name, found in weights(trainer).items())


def test_a_step_in_which_everything_failed_stops_the_run_in_one_sentence(trainer_for: Any, tmp_path: Path) -> None:
    def say(so_far: Trajectory) -> str:
        raise RuntimeError("the kernel pool is gone")

    trainer = trainer_for(say)
    with pytest.raises(ConfigError, match=r"all 8 episodes of step 0 ended in an error.*the kernel pool is gone"):
        trainer.train()
    assert len(logged(tmp_path)) == 8


@pytest.mark.parametrize(("policy", "rows"), [("train", 8), ("mask", 6)])
def test_a_cut_episode_is_trained_or_masked_and_counts_in_its_group_either_way(
    trainer_for: Any, toys: Any, policy: str, rows: int
) -> None:
    def say(so_far: Trajectory) -> str:
        return toys.call_text(1, 1) if so_far.sample == 0 else "Answer: 1"

    batch = prepared(trainer_for(say, stops={"limits": policy}, advantages="dr_grpo", limits=Limits(max_turns=2)))
    assert batch["tool_mask"].any(dim=1).sum() == rows
    # Rewards of a group are 1, 0, 0, 1 with the cut episode's among them.
    assert sorted(set(batch["advantages"].tolist())) == ([-0.5, 0.5])


def test_an_episode_that_says_nothing_does_not_crash_the_step(trainer_for: Any) -> None:
    trainer = trainer_for(lambda so_far: "" if so_far.sample == 1 else "Answer: 1", steps=1)
    trainer.train()
    assert last_metrics(trainer)["episodes/trained"] == 0.75


def test_a_group_reward_sees_its_group_and_settles_the_reward(trainer_for: Any, tmp_path: Path) -> None:
    async def length(env: Any, trajectory: Trajectory) -> float:
        return float(trajectory.sampled_tokens)

    def shortest(group: Any) -> list[float]:
        least = min(t.sampled_tokens for t in group)
        return [float(t.sampled_tokens == least) for t in group]

    taskset = _taskset(length, group={"shortest": (shortest, 1.0)}, combine=lambda scores, _: scores["shortest"])
    trainer = trainer_for(lambda t: "1 " * (1 + t.sample), steps=1, taskset=taskset)
    trainer.train()
    assert last_metrics(trainer)["reward"] == last_metrics(trainer)["rewards/shortest/mean"] == 0.25


def test_what_was_sampled_is_logged_before_a_reward_can_fail(trainer_for: Any, tmp_path: Path) -> None:
    async def fine(env: Any, trajectory: Trajectory) -> float:
        return 1.0

    def broken(group: Any) -> list[float]:
        raise KeyError("judge")

    trainer = trainer_for(lambda t: "1", taskset=_taskset(fine, group={"judge": (broken, 1.0)}))
    with pytest.raises(RewardError, match="group reward judge failed: KeyError"):
        trainer.train()
    assert len(logged(tmp_path)) == 8


def test_a_reward_that_is_no_number_stops_the_run_and_loses_nothing(trainer_for: Any, tmp_path: Path) -> None:
    async def sometimes(env: Any, trajectory: Trajectory) -> float:
        await asyncio.sleep(0.05 * (trajectory.sample == 2))
        return float("nan") if trajectory.sample == 2 else 1.0

    trainer = trainer_for(lambda t: "1", taskset=_taskset(sometimes))
    with pytest.raises(RewardError, match="returned nan on task"):
        trainer.train()
    assert len(logged(tmp_path)) == 8


def test_a_hung_tool_is_cut_while_the_engine_computes(trainer_for: Any, toys: Any, tokenizer: Any) -> None:
    from dataclasses import replace

    from envs import ToolEnv

    @tool
    async def add(a: int, b: int) -> str:
        """Never returns."""
        await asyncio.sleep(3600)
        return ""

    taskset = replace(toys.taskset(), env=lambda task: ToolEnv(task=task, tools=(add,)))
    trainer = trainer_for(
        toys.call_then_answer, steps=1, taskset=taskset, limits=Limits(max_turns=3, call_timeout_s=0.3)
    )
    trainer.train()
    assert last_metrics(trainer)["tools/error_rate"] == 1
    assert last_metrics(trainer)["stop/done"] == 1


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


class Killed(BaseException):
    """Stands for a kill: nothing of ours handles it."""


def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    trainer_for: Any, toy_model: Any, toys: Any, tokenizer: Any, tmp_path: Path
) -> None:
    common: dict[str, Any] = {
        "steps": 5,
        "checkpoint_every": 2,
        "taskset": toys.taskset(reward=share_of_even_ids),
        "params": SamplingParams(max_tokens=4),
        "limits": Limits(max_turns=1),
    }
    whole = trainer_for(model=toy_model(), out=tmp_path / "whole", make_sampler=real_policy(tokenizer), **common)
    whole.train()

    sampled: list[str] = []

    def counting(kill_after: int | None) -> Any:
        def make(model: Any) -> Any:
            inner = real_policy(tokenizer)(model)

            class Counting:
                engine = inner.engine

                async def sample(self, so_far: Any, *args: Any) -> Any:
                    if kill_after is not None and len(sampled) >= kill_after:
                        raise Killed
                    step = await inner.sample(so_far, *args)
                    sampled.append(so_far.task.id)
                    return step

            return Counting()

        return make

    # Dies in step 3, after the checkpoint of step 2 and with some of its 8 episodes played.
    killed = trainer_for(
        model=toy_model(), out=tmp_path / "killed", make_sampler=counting(8 * 3 + 3), **common, concurrency=3
    )
    with pytest.raises(BaseException):  # noqa: B017 - a kill has no type
        killed.train()
    killed.close()
    before = len(logged(tmp_path / "killed"))
    assert 8 * 3 <= before < 8 * 4
    checkpoint = last_checkpoint(tmp_path / "killed")
    assert checkpoint is not None and checkpoint.name == "checkpoint-2"
    again = trainer_for(model=toy_model(seed=9), out=tmp_path / "killed", make_sampler=counting(None), **common)
    played = len(sampled)
    again.train(resume_from_checkpoint=str(checkpoint))

    keys = [(t.info["step"], t.task.id, t.sample) for t in logged(tmp_path / "killed")]
    assert len(keys) == len(set(keys)) == 5 * 8, "nothing lost, nothing played twice"
    assert len(sampled) - played == 5 * 8 - before
    by_key = {(t.info["step"], t.task.id, t.sample): t for t in logged(tmp_path / "whole")}
    for t in logged(tmp_path / "killed"):
        assert t.seed == by_key[t.info["step"], t.task.id, t.sample].seed
    order = [[row["step"], row["task"], row["sample"]] for row in advantage_lines(tmp_path / "whole")]
    assert [[row["step"], row["task"], row["sample"]] for row in advantage_lines(tmp_path / "killed")] == order


def test_a_resumed_run_ends_with_the_very_same_weights(
    trainer_for: Any, toy_model: Any, toys: Any, tokenizer: Any, tmp_path: Path
) -> None:
    common: dict[str, Any] = {
        "steps": 4,
        "checkpoint_every": 2,
        "taskset": toys.taskset(reward=share_of_even_ids),
        "params": SamplingParams(max_tokens=4),
        "limits": Limits(max_turns=1),
        "make_sampler": real_policy(tokenizer),
    }
    whole = trainer_for(model=toy_model(), out=tmp_path / "whole", **common)
    whole.train()
    # All of step 2 and 3 is in the log already: the resumed run takes it from there, and samples nothing.
    again = trainer_for(model=toy_model(seed=9), out=tmp_path / "whole", **common)
    whole.close()
    lines = len(logged(tmp_path / "whole"))
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert len(logged(tmp_path / "whole")) == lines == 4 * 8
    expected, found = weights(whole), weights(again)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def advantage_lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "advantages.jsonl").read_text().splitlines()]


def test_a_sampler_without_token_ids_is_refused(trainer_for: Any) -> None:
    from dataclasses import replace

    from envs import assistant

    taskset = _taskset(share_of_nothing)
    tasks = tuple(replace(task, gold=(assistant("Answer: 1"),)) for task in taskset.tasks)
    trainer = trainer_for(make_sampler=lambda _: ScriptedSampler(), taskset=replace(taskset, tasks=tasks))
    with pytest.raises(ConfigError, match="records no token ids"):
        trainer.train()


async def share_of_nothing(env: Any, trajectory: Trajectory) -> float:
    return 0.0


def test_a_second_pass_over_the_same_episodes_remembers_who_sampled_them(
    trainer_for: Any, toys: Any, tokenizer: Any, tmp_path: Path
) -> None:
    trainer = trainer_for(
        taskset=toys.taskset(reward=share_of_even_ids),
        make_sampler=real_policy(tokenizer),
        steps=4,
        micro_batch_size=8,
        checkpoint_every=2,
        params=SamplingParams(max_tokens=4),
        limits=Limits(max_turns=1),
        trl={"num_iterations": 2},
    )
    trainer.train()
    steps = Counter(t.info["step"] for t in logged(tmp_path))
    assert steps == {0: 8, 2: 8}
    assert last_metrics(trainer)["sampling/logp_gap_max"] < 1e-4, "compared as of sampling, not after an update"
