"""What GRPO refuses to start with, each in one sentence; and the order in which it takes its tasks."""

from __future__ import annotations

import inspect
import shutil
from contextlib import nullcontext as does_not_raise
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from hypothesis import given
from hypothesis import strategies as st
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from agent.adapters import without_peft_warnings
from agent.sampler import SamplingParams
from tools.errors import ConfigError
from training.find import find_recipe
from training.grpo_config import (
    check_options,
    config_for,
    micro_batches,
    refuse_unservable,
    samplings,
    task_order,
)
from training.lora import lora_config
from training.recipe import GRPO
from training.resume import check_checkpoint


def settings(**fields: Any) -> GRPO:
    trl = {"bf16": False, **fields.pop("trl", {})}
    return GRPO(**{"steps": 4, "tasks_per_step": 2, "group_size": 4, **fields}, trl=trl)


def test_fields_become_trls_options(tmp_path: Path) -> None:
    args = config_for(settings(micro_batch_size=2, lr=0.5, warmup=3), out=tmp_path, seed=7)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (2, 4)
    assert (args.num_generations, args.generation_batch_size, micro_batches(args)) == (4, 8, 4)
    assert (args.learning_rate, args.warmup_steps, args.seed, args.max_steps) == (0.5, 3, 7, 4)
    assert not args.shuffle_dataset and not args.activation_checkpointing
    assert samplings(args) == 4


def test_without_a_micro_batch_all_rows_of_a_step_go_at_once(tmp_path: Path) -> None:
    args = config_for(settings(), out=tmp_path, seed=0)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (8, 1)


def test_episodes_used_twice_are_sampled_half_as_often(tmp_path: Path) -> None:
    args = config_for(settings(trl={"num_iterations": 2}), out=tmp_path, seed=0)
    assert samplings(args) == 2


@pytest.mark.parametrize(("preset", "updates"), [("retool", 8), ("tool_star", 8), ("search_r1", 1)])
def test_the_paper_presets_can_start(
    preset: str, updates: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the eight processes they are written for, and whole in one, where TRL's own config can be made."""
    recipe = find_recipe(preset)
    counted = "processes" in inspect.signature(recipe).parameters
    stages = {n: recipe(preset="paper", **({"processes": n} if counted else {})).stage("grpo") for n in (1, 8)}
    args = config_for(stages[1], out=tmp_path, seed=0)
    assert args.generation_batch_size == stages[1].tasks_per_step * stages[1].group_size
    assert samplings(args) * updates == stages[1].steps
    monkeypatch.setenv("WORLD_SIZE", "8")
    check_options(stages[8])


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"micro_batch_size": 3}, "grpo.micro_batch_size is 3; it must divide a process's 8 episodes per step"),
        ({"trl": {"gradient_accumulation_steps": 3}}, "grpo.trl.gradient_accumulation_steps is 3; it must divide"),
        ({"trl": {"per_device_train_batch_size": 3}}, "grpo.trl.per_device_train_batch_size is 3; it must divide"),
        ({"trl": {"los_type": "dapo"}}, "'los_type', which GRPOConfig does not know"),
        ({"trl": {"num_generations": 8}}, "sets num_generations, which group_size decides"),
        ({"trl": {"scale_rewards": "none"}}, "which advantages decides"),
        ({"trl": {"mask_truncated_completions": True}}, "which stops decides"),
        ({"trl": {"use_vllm": True}}, "use_vllm, which cannot work here: episodes are sampled by rollout"),
        ({"trl": {"loss_type": "luspo"}}, "loss_type 'luspo' weighs whole sequences"),
        ({"trl": {"loss_type": "vespo"}}, "loss_type 'vespo' weighs whole sequences"),
        ({"trl": {"importance_sampling_level": "sequence"}}, "'sequence' weighs whole sequences"),
        ({"trl": {"eval_strategy": "steps", "eval_steps": 1}}, "TRL"),
        ({"trl": {"lr_scheduler_type": "zigzag"}}, "TRL refuses the options of grpo"),
        ({"trl": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}}, "make 8 episodes"),
        ({"trl": {"num_iterations": 2}, "checkpoint_every": 3}, "can only continue from between samplings"),
    ],
)
def test_what_does_not_exist_or_add_up_is_said_in_one_sentence(
    fields: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        config_for(settings(**fields), out=tmp_path, seed=0)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_option_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config_for(settings(trl={"los_type": "dapo"}), out=tmp_path, seed=0)
    assert "loss_type" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"advantages": "gpro"}, "no advantages named 'gpro'"),
        ({"stops": {"limits": "skip"}}, "stops.limits is 'skip'"),
        ({"params": SamplingParams(temperature=0)}, "at temperature 0 all episodes of a group are the same"),
        ({"tasks_per_step": 9}, "has 8 tasks, and a step takes 9 of them"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_start(trainer_for: Any, fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        trainer_for(**fields)
    assert sentence in str(caught.value)


def test_two_tasks_of_one_id_are_refused(trainer_for: Any, toys: Any) -> None:
    taskset = toys.taskset()
    with pytest.raises(ConfigError, match="two tasks of toy have the id 't1'"):
        trainer_for(taskset=replace(taskset, tasks=(*taskset.tasks, taskset.tasks[1])))


def test_a_group_is_never_split_between_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match="2 episodes per process would split groups of 4"):
        config_for(settings(), out=tmp_path, seed=0)
    with pytest.raises(ConfigError, match="3 tasks x 3 attempts do not divide over 4 processes"):
        config_for(settings(tasks_per_step=3, group_size=3), out=tmp_path, seed=0)


@pytest.mark.parametrize("kind", [DistributedType.FSDP, DistributedType.DEEPSPEED])
def test_sampling_in_the_process_is_refused_where_weights_are_sharded(
    kind: DistributedType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InProcess:
        own_thread = False
        policy_version = 0

        def serve(self, until: Any) -> None: ...

        def close(self) -> None: ...

    state = PartialState()
    monkeypatch.setattr(state, "distributed_type", kind)
    with pytest.raises(ConfigError, match="weights are sharded over processes"):
        refuse_unservable(InProcess())
    refuse_unservable(None)  # a server elsewhere


def test_the_order_of_tasks_depends_on_the_seed_alone() -> None:
    assert task_order(5, per_step=2, steps=6, seed=1) == task_order(5, per_step=2, steps=6, seed=1)
    assert task_order(50, per_step=2, steps=6, seed=1) != task_order(50, per_step=2, steps=6, seed=2)
    assert task_order(5, per_step=2, steps=6, seed=1)[:8] == task_order(5, per_step=2, steps=4, seed=1)


@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 12), st.integers(0, 5))
def test_no_task_comes_twice_in_a_step_and_none_is_favoured(tasks: int, per_step: int, steps: int, seed: int) -> None:
    if tasks < per_step:
        return
    order = task_order(tasks, per_step=per_step, steps=steps, seed=seed)
    assert len(order) == steps * per_step
    for start in range(0, len(order), per_step):
        assert len(set(order[start : start + per_step])) == per_step
    whole_pass = tasks // per_step * per_step
    for start in range(0, len(order), whole_pass):
        part = order[start : start + whole_pass]
        assert len(set(part)) == len(part)


def test_a_task_without_an_answer_among_others_that_have_one_is_refused(trainer_for: Any, toys: Any) -> None:
    taskset = toys.taskset()
    tasks = tuple(replace(task, answer=None if index == 3 else 7) for index, task in enumerate(taskset.tasks))
    with pytest.raises(ConfigError, match="task t3 of toy has no answer, and others have; 1 are without"):
        trainer_for(taskset=replace(taskset, tasks=tasks))


def test_a_checkpoint_of_another_model_is_refused(toy_model: Any, tmp_path: Path) -> None:
    model = toy_model()
    model.config.save_pretrained(tmp_path / "same")
    toy_model(hidden_size=64).config.save_pretrained(tmp_path / "other")
    check_checkpoint(tmp_path / "same", model)
    check_checkpoint(tmp_path / "an adapter's, without a config", model)
    with pytest.raises(ConfigError, match=r"is of another model: its hidden_size is 64, this one's is 32"):
        check_checkpoint(tmp_path / "other", model)


def test_the_sizes_of_a_model_that_sees_are_those_of_its_parts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"text_config": {"hidden_size": 8}, "vision_config": {"hidden_size": 4}}')
    for eyes, refused in (
        (4, does_not_raise()),
        (5, pytest.raises(ConfigError, match=r"vision_config.hidden_size is 4")),
    ):
        parts = {"text_config": {"hidden_size": 8}, "vision_config": {"hidden_size": eyes}}
        with refused:
            check_checkpoint(tmp_path, SimpleNamespace(config=SimpleNamespace(to_dict=lambda parts=parts: parts)))


def test_adapters_of_another_base_are_refused(toy_model: Any, tmp_path: Path) -> None:
    def saved(name: str, **sizes: Any) -> Any:
        toy_model(**sizes).save_pretrained(tmp_path / name)
        return AutoModelForCausalLM.from_pretrained(tmp_path / name)

    def refused(model: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            check_checkpoint(checkpoint, model)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    torch.manual_seed(0)
    base, checkpoint = saved("base"), tmp_path / "checkpoint-4"
    with without_peft_warnings():
        settings = {"r": 2, "target_modules": ["q_proj", "down_proj"], "modules_to_save": ["lm_head"]}
        get_peft_model(saved("base"), lora_config(settings, "grpo")).save_pretrained(checkpoint)
    check_checkpoint(checkpoint, base)
    shutil.copytree(tmp_path / "base", tmp_path / "copied")
    check_checkpoint(checkpoint, AutoModelForCausalLM.from_pretrained(tmp_path / "copied"))
    with torch.no_grad():
        base.model.norm.weight += 1
    base.save_pretrained(tmp_path / "trained since")
    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "trained since")
    assert refused(trained).endswith("trained since, whose weights are others")
    assert "_features of model.layers.0." in refused(saved("wider", hidden_size=64))
    assert "it has no model.layers.1." in refused(saved("shallower", num_hidden_layers=1))


@pytest.mark.parametrize("setting", ["tool_concurrency", "share_results"])
def test_a_tool_that_no_task_has_is_refused(trainer_for: Any, setting: str) -> None:
    with pytest.raises(ConfigError, match=f"grpo.{setting} names 'serch', and toy has no such tool"):
        trainer_for(**{setting: {"serch": 2} if setting == "tool_concurrency" else ("serch",)})
