"""GRPO's settings as TRL's config, and every reason not to start, each said in one sentence before anything runs."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from trl.trainer.grpo_config import GRPOConfig

from agent.local import bf16_is_fast
from envs.seed import derive_seed
from envs.task import Taskset
from tools.errors import ConfigError, nearest
from training.batch import AVERAGING
from training.grading import seam_of
from training.launch import world
from training.lora import lora_config
from training.recipe import GRPO
from training.rollouts import Serving
from training.sharing import check_tools

OURS: Mapping[str, str] = {
    "num_generations": "group_size",
    "generation_batch_size": "tasks_per_step and group_size",
    "max_steps": "steps",
    "temperature": "params.temperature",
    "top_p": "params.top_p",
    "top_k": "params.top_k",
    "scale_rewards": "advantages",
    "mask_truncated_completions": "stops",
    "reward_weights": "the rubric's weights",
    "multi_objective_aggregation": "the rubric's combine",
    "shuffle_dataset": "seed",
    "seed": "seed",
}
"""TRL options that a field of ours decides; two answers to one question are refused."""

UNSUPPORTED: Mapping[str, str] = {
    "use_vllm": "episodes are sampled by rollout(), not by TRL",
    "use_transformers_continuous_batching": "episodes are sampled by rollout(), not by TRL",
    "log_completions": "every episode is in trajectories.jsonl",
    "max_tool_calling_iterations": "limits.max_turns does this",
}

_CHECKPOINTING = (
    "activation_checkpointing"  # the older name warns where there is a newer one
    if "activation_checkpointing" in GRPOConfig.__dataclass_fields__
    else "gradient_checkpointing"
)


def config_for(settings: GRPO, *, out: Path, seed: int) -> GRPOConfig:
    """TRL's config for these settings. Raises `ConfigError` for options that do not exist or do not add up."""
    trl = {_CHECKPOINTING if name == "gradient_checkpointing" else name: value for name, value in settings.trl.items()}
    accelerator = torch.cuda.is_available() and not trl.get("use_cpu", False)
    per_device, accumulation = check_options(settings)
    options: dict[str, Any] = {
        "output_dir": str(out),
        "max_steps": settings.steps,
        "num_generations": settings.group_size,
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": settings.lr,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": settings.warmup,
        "temperature": settings.params.temperature,
        "max_completion_length": settings.limits.max_tokens or settings.params.max_tokens,
        "shuffle_dataset": False,
        "seed": seed % 2**32,
        "save_strategy": "steps",
        "save_steps": settings.checkpoint_every,
        "save_total_limit": 2,
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not accelerator,
        "bf16": uses_bf16(settings),
        _CHECKPOINTING: accelerator,
        "dataloader_pin_memory": accelerator,
        **trl,
    }
    try:
        args = GRPOConfig(**options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"TRL refuses the options of {settings.name}: {error}") from error
    _check_loss(args.loss_type, args.importance_sampling_level)
    if args.eval_strategy != "no":
        raise ConfigError("TRL's own evaluation is not used here", hint="evaluate on held-out tasks with `evals run`")
    return args


def check_options(settings: GRPO) -> tuple[int, int]:
    """(rows per device and pass, passes per optimiser step). Starts nothing, so that it can be asked at any time.

    Raises `ConfigError` for options that TRL or PEFT does not know or that are ours, for episodes that do not divide,
    and for what cannot go together.
    """
    _check_names(settings, settings.trl)
    _check_loss(settings.trl.get("loss_type", "dapo"), settings.trl.get("importance_sampling_level", "token"))
    lora_config(settings.lora, settings.name)
    if settings.lora is not None and settings.server is not None:
        raise ConfigError(
            f"{settings.name} trains adapters and samples from a server, which would have to merge them every step",
            hint="drop lora, or drop server",
        )
    per_device, accumulation = _split(settings, world())
    _check_sums(settings, per_device, accumulation, world())
    return per_device, accumulation


def _check_names(settings: GRPO, trl: Mapping[str, Any]) -> None:
    known = {field.name for field in dataclasses.fields(GRPOConfig) if field.init} | {"gradient_checkpointing"}
    for name in trl:
        if name not in known:
            raise ConfigError(f"{settings.name}.trl has {name!r}, which GRPOConfig does not know", nearest(name, known))
        if name in OURS:
            raise ConfigError(f"{settings.name}.trl sets {name}, which {OURS[name]} decides", hint=f"set {OURS[name]}")
        if name in UNSUPPORTED and trl[name]:
            raise ConfigError(f"{settings.name}.trl sets {name}, which cannot work here: {UNSUPPORTED[name]}")


_ROWS = ("micro_batch_size", "trl.per_device_train_batch_size")
_PASSES = ("trl.steps_per_generation", "trl.gradient_accumulation_steps")


def _split(settings: GRPO, processes: int) -> tuple[int, int]:
    """(rows per device and pass, passes per optimiser step): by the first of `_ROWS` and `_PASSES` that is set."""
    episodes = settings.tasks_per_step * settings.group_size
    if episodes % processes:
        raise ConfigError(
            f"{settings.tasks_per_step} tasks x {settings.group_size} attempts do not divide over {processes} processes"
        )
    share = episodes // processes
    if share % settings.group_size:
        raise ConfigError(
            f"{share} episodes per process would split groups of {settings.group_size}, and rewards and advantages "
            "look at whole groups",
            hint=f"make tasks_per_step a multiple of {processes}",
        )
    for name in (*_ROWS, *_PASSES):
        given = settings.trl.get(name.removeprefix("trl.")) if name.startswith("trl.") else settings.micro_batch_size
        if given is None:
            continue
        if given < 1 or share % given:
            raise ConfigError(
                f"{settings.name}.{name} is {given}; it must divide a process's {share} episodes per step"
            )
        per_device = given if name in _ROWS else share // given
        return per_device, share // per_device
    return share, 1


def _check_sums(settings: GRPO, per_device: int, accumulation: int, processes: int) -> None:
    """Refuse what TRL would make another number of episodes of, or take steps of that end within a sampling."""
    trl, episodes = settings.trl, settings.tasks_per_step * settings.group_size
    accumulation = trl.get("gradient_accumulation_steps") or accumulation
    chunks = trl.get("steps_per_generation") or accumulation  # TRL's default
    sampled = (trl.get("per_device_train_batch_size") or per_device) * processes * chunks
    if sampled != episodes:
        raise ConfigError(
            f"{settings.tasks_per_step} tasks x {settings.group_size} attempts make {episodes} episodes, but TRL's "
            f"per_device_train_batch_size x processes x steps_per_generation is {sampled}",
            hint="set micro_batch_size and leave the rest to it",
        )
    window = chunks * (trl.get("num_iterations") or 1)
    if window > accumulation:
        if window % accumulation:
            raise ConfigError(
                f"one sampling serves {window} passes, and gradient_accumulation_steps, which is {accumulation}, does "
                "not divide them"
            )
        updates, every = window // accumulation, trl.get("save_steps", settings.checkpoint_every)
        if trl.get("save_strategy", "steps") != "no" and int(every) % updates:
            raise ConfigError(
                f"{settings.name}.checkpoint_every is {every}; one sampling serves {updates} steps, and a run can only "
                "continue from between samplings",
                hint=f"make it a multiple of {updates}",
            )
    elif accumulation % window:
        raise ConfigError(
            f"gradient_accumulation_steps is {accumulation}, not a multiple of the {window} passes that one sampling "
            "serves"
        )


def _check_loss(loss_type: object, level: object) -> None:
    if loss_type not in AVERAGING:
        raise ConfigError(
            f"loss_type {loss_type!r} weighs whole sequences, of which a forked episode has several",
            hint=f"use one of {', '.join(AVERAGING)}",
        )
    if level != "token":
        raise ConfigError(
            f"importance_sampling_level {level!r} weighs whole sequences, of which a forked episode has several",
            hint="use 'token'",
        )


def uses_bf16(settings: GRPO) -> bool:
    """True when passes run under bfloat16 autocast. The weights stay float32: Adam's small steps vanish in bfloat16."""
    if "bf16" in settings.trl:
        return bool(settings.trl["bf16"])
    return not settings.trl.get("fp16", False) and bf16_is_fast()


def micro_batches(args: GRPOConfig) -> int:
    """Into how many forward and backward passes the rows of one sampling are split."""
    return args.steps_per_generation or 1  # TRL fills it in


def passes_per_sampling(args: GRPOConfig) -> int:
    """How many forward and backward passes one sampling serves; more than an optimiser step takes is off-policy."""
    return micro_batches(args) * args.num_iterations


def samplings(args: GRPOConfig) -> int:
    """How many times a run samples a batch of episodes."""
    return -(-args.max_steps * args.gradient_accumulation_steps // passes_per_sampling(args))


def check_run(settings: GRPO, taskset: Taskset) -> None:
    """Refuse what cannot be trained: unknown names, greedy sampling, too few tasks, tasks that share an id."""
    seam_of(settings)
    check_tools(taskset, f"{settings.name}.tool_concurrency", tuple(settings.tool_concurrency))
    check_tools(taskset, f"{settings.name}.share_results", settings.share_results)
    if settings.params.temperature == 0:
        raise ConfigError("at temperature 0 all episodes of a group are the same: there is nothing to compare")
    if len(taskset.tasks) < settings.tasks_per_step:
        raise ConfigError(
            f"taskset {taskset.name} has {len(taskset.tasks)} tasks, and a step takes {settings.tasks_per_step} of them"
        )
    unanswered = [task.id for task in taskset.tasks if task.answer is None]
    if 0 < len(unanswered) < len(taskset.tasks):
        raise ConfigError(
            f"task {unanswered[0]} of {taskset.name} has no answer, and others have; {len(unanswered)} are without"
        )
    ids = [task.id for task in taskset.tasks]
    if len(set(ids)) < len(ids):
        twice = next(task_id for index, task_id in enumerate(ids) if task_id in ids[:index])
        raise ConfigError(f"two tasks of {taskset.name} have the id {twice!r}; ids must be unique")


def refuse_unservable(engine: object) -> None:
    """Refuse an engine in this process whose forward passes would need every other process to join in."""
    if isinstance(engine, Serving) and _shards_weights():
        raise ConfigError(
            "weights are sharded over processes (FSDP or DeepSpeed), and episodes differ in length: sampling in this "
            "process would wait for ever on the others",
            hint="sample from a vLLM server: server=http://host:8000",
        )


def _shards_weights() -> bool:
    state = PartialState()
    return state.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


def task_order(tasks: int, *, per_step: int, steps: int, seed: int) -> list[int]:
    """Which task comes when, for the whole run: a new shuffle per pass over the tasks, never a task twice in a step.

    Tasks that would not fill the last step of a pass sit that pass out. One list for the run, because a shuffle that
    depends on how often a loader was started changes when a run is resumed.
    """
    order: list[int] = []
    epoch = 0
    while len(order) < steps * per_step:
        shuffled = sorted(range(tasks), key=lambda index, epoch=epoch: derive_seed(seed, "order", epoch, index))
        order += shuffled[: tasks // per_step * per_step]
        epoch += 1
    return order[: steps * per_step]
