"""A recipe: one frozen record that says everything a run does. Its JSON is what runs, and what resumes.

A recipe file (`training/recipes/NAME.py`) holds one function, named like the file, that returns a `Recipe`. Stages run
in order; a stage names an earlier one as the weights it starts from (`start`, `model`) or as its data (`data`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from agent.rollout import Limits
from agent.sampler import SamplingParams
from tools.errors import ConfigError, nearest
from tools.record import record

BASE = "base"
"""The recipe's model before any stage has changed it: what `start` and `model` name by default."""

GOLD = "gold"
"""What `Collect.source` and `SFT.data` call each task's gold messages."""

KEEP = ("correct", "finished", "all")
"""Filters of `Collect`: full marks on the headline reward; ended by itself; all that did not end in ERROR."""


@record
class Collect:
    """Roll out episodes and keep the good ones, for cold-start data or rejection sampling."""

    kind: Literal["collect"] = "collect"
    name: str = "collect"
    source: str = "gold"
    """`gold` plays each task's gold messages with the real tools; else a trained stage, `base`, or a model spec."""
    n: int | None = 200
    """Tasks, from the first; None for all."""
    skip: int = 0
    """Tasks passed over first, so that two stages need not share any."""
    samples: int = 1
    """Attempts per task."""
    keep: str = "correct"
    """One of `KEEP`."""
    filters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    """What else an episode must be to be kept, in order: name -> its arguments (`training.selection`)."""
    max_tokens: int | None = None
    """No new episode begins once so many tokens were sampled, over all runs of the stage; what runs is finished."""
    max_cost: float | None = None
    """The same for money, by `prices`."""
    prices: tuple[float, float] = (0.0, 0.0)
    """Per million prompt tokens and per million sampled tokens."""
    base_url: str | None = None
    """The OpenAI-compatible server on which `source` is a model's name."""
    tools: bool = True
    """False hides the tools, for a control."""
    taskset_args: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Laid over the recipe's."""
    params: SamplingParams = field(default_factory=SamplingParams)
    limits: Limits = field(default_factory=Limits)
    concurrency: int = 16

    def __post_init__(self) -> None:
        if self.keep not in KEEP:
            raise ConfigError(f"{self.name}.keep is {self.keep!r}", hint=nearest(self.keep, KEEP))
        _at_least(self, 1, "samples", "concurrency")
        _at_least(self, 0, "skip")
        if self.max_cost is not None and not any(self.prices):
            raise ConfigError(
                f"{self.name}.max_cost is {self.max_cost}, and no prices are given", hint="prices=[in, out]"
            )


@record
class SFT:
    """Supervised fine-tuning on recorded episodes; only what the policy wrote carries loss."""

    kind: Literal["sft"] = "sft"
    name: str = "sft"
    data: str = "collect"
    """A collect stage, or the path of a trajectory log, or of JSON lines of chat messages (`training.messages`); or
    `gold`, the taskset's gold, a new task for every row, played as it trains."""
    taskset_args: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Laid over the recipe's, where `data` is `gold`."""
    start: str = BASE
    """Whose weights to start from: `base`, or an earlier stage."""
    steps: int = 10
    """Optimiser steps."""
    batch_size: int = 8
    """Rows per step."""
    max_tokens: int | None = None
    """The stage ends, before its last step, once it has trained on so many tokens, prompts and pictures among them. A
    learning rate that falls to zero is there then."""
    until_accuracy: float | None = None
    """The stage ends, before its last step, once this share of the tokens was predicted right, in the mean of the last
    20 steps: what a curriculum goes on by."""
    micro_batch_size: int | None = None
    """Rows per forward pass; smaller needs less memory. None: the whole batch at once."""
    lr: float = 3e-4
    warmup: int = 5
    """Steps over which the learning rate rises from 0; then it falls in a straight line to 0."""
    max_length: int | None = 2048
    """Rows of more tokens are left out, and counted; None keeps all."""
    packing: bool = False
    """Several rows in one of `max_length`, none seeing another; `batch_size` then counts packed rows."""
    checkpoint_every: int = 50
    """Steps between checkpoints; a killed run continues from the last one."""
    trl: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Passed to TRL's `SFTConfig` as it is; wins over everything above."""
    lora: Mapping[str, Any] | None = None
    """Fields of PEFT's `LoraConfig`, `{}` for `training.lora.DEFAULTS`; None trains all weights."""
    freeze_vision: bool = False
    """Of a model that sees: train its language model alone; what makes features of pixels stays as it is."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "steps", "batch_size", "checkpoint_every", "max_tokens")
        if self.until_accuracy is not None and not 0 < self.until_accuracy <= 1:
            raise ConfigError(f"{self.name}.until_accuracy is {self.until_accuracy}; it must be above 0 and at most 1")
        if self.packing and self.max_length is None:
            raise ConfigError(f"{self.name}.packing needs a max_length to pack to")
        if self.data == GOLD and self.packing:
            raise ConfigError(f"{self.name}.packing is set, and rows that are made as it trains are not packed")
        if self.taskset_args and self.data != GOLD:
            raise ConfigError(f"{self.name}.taskset_args are given, and {self.data!r} is no taskset", hint="data=gold")
        _at_least(self, 0, "warmup")
        _positive(self, "lr")
        micro = self.micro_batch_size
        if micro is not None and (micro < 1 or self.batch_size % micro):
            raise ConfigError(f"{self.name}.micro_batch_size is {micro}; it must divide batch_size ({self.batch_size})")


@record
class HeldOut:
    """Measuring the policy on held-out tasks while GRPO goes on: see `training.held_out`."""

    every: int = 0
    """Steps between measurements, the first before any step; 0 measures nothing."""
    n: int = 64
    """Tasks, from the first."""
    taskset_args: Mapping[str, Any] = field(default_factory=lambda: {"split": "val"})
    """Laid over the recipe's; tasks that are also trained on would measure memory."""
    params: SamplingParams | None = None
    """None samples as in training."""
    keep_best: bool = True
    """The stage leaves the weights of the best step, not of the last."""


@record
class GRPO:
    """Multi-turn reinforcement learning on the recipe's taskset."""

    kind: Literal["grpo"] = "grpo"
    name: str = "grpo"
    start: str = BASE
    """Whose weights to start from: `base`, or an earlier stage."""
    steps: int = 20
    """Optimiser steps; each has fresh episodes."""
    max_tokens: int | None = None
    """The stage ends, before its last step, once it has trained on so many tokens, prompts and pictures among them."""
    tasks_per_step: int = 4
    group_size: int = 8
    """Attempts per task and step; advantages compare them."""
    lr: float = 1e-5
    warmup: int = 0
    """Steps over which the learning rate rises from 0; then it stays."""
    micro_batch_size: int | None = None
    """Rows per forward and backward pass; smaller needs less memory. None: all rows of a step at once."""
    skip: int = 0
    """Tasks passed over first, so that two stages need not share any."""
    taskset_args: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Laid over the recipe's."""
    params: SamplingParams = field(default_factory=SamplingParams)
    limits: Limits = field(default_factory=Limits)
    stops: Mapping[str, str] = field(default_factory=dict[str, str])
    """Stop reason (or `limits`, all that cut) -> train, mask, penalise or drop: see `training.stops`."""
    stop_penalty: float = 0.5
    """Taken off the reward of an episode whose stop is penalised."""
    partial: str = "train"
    """A group that lost an attempt: `train` on what is there, or `drop` it."""
    plan: str = "policy"
    """How each attempt of a group is played: `training.plans`, or `path/file.py:function`, as the next four."""
    plan_args: Mapping[str, Any] = field(default_factory=dict[str, Any])
    shape: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    """What becomes of rewards, in order: name -> its arguments (`training.shaping`)."""
    filters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    """Which groups are dropped: name -> its arguments (`training.filters`)."""
    refill: int = 0
    """How many times a step may sample other tasks in the places of dropped groups."""
    advantages: str = "grpo"
    """What each episode or token is worth (`training.advantages`)."""
    advantages_args: Mapping[str, Any] = field(default_factory=dict[str, Any])
    correction: str = "none"
    """For a sampler whose log-probs differ from the trainer's: a mode of `training.correction`."""
    correction_cap: float = 3.0
    """The largest importance ratio that counts in full."""
    tool_concurrency: Mapping[str, int] = field(default_factory=dict[str, int])
    """Tool -> how many of its calls run at once, over all episodes; one that waits has not begun its deadline."""
    lora: Mapping[str, Any] | None = None
    """Fields of PEFT's `LoraConfig`, `{}` for `training.lora.DEFAULTS`; None trains all weights."""
    freeze_vision: bool = False
    """Of a model that sees: train its language model alone; what makes features of pixels stays as it is."""
    held_out: HeldOut = field(default_factory=HeldOut)
    server: str | None = None
    """vLLM servers that sample the episodes, `http://host:8000`, several with commas; None samples in this process."""
    share_results: tuple[str, ...] = ()
    """Tools whose results the attempts at a task share: same arguments, same result. For pure, slow tools."""
    checkpoint_every: int = 10
    """Steps between checkpoints; a killed run continues from the last one."""
    concurrency: int = 64
    trl: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Passed to TRL's `GRPOConfig` as it is; wins over everything above."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "steps", "tasks_per_step", "checkpoint_every", "concurrency", "max_tokens")
        _at_least(self, 0, "warmup", "skip")
        _at_least(self, 2, "group_size")
        _positive(self, "lr")


@record
class Evaluate:
    """Measure a stage's model; each is one row of `report.json`."""

    kind: Literal["evaluate"] = "evaluate"
    name: str = "eval"
    model: str = BASE
    """Whose weights to measure: `base`, or a stage. It is the row's `stage` in the report."""
    tools: bool = True
    """False hides the tools."""
    n: int | None = 200
    """Tasks, from the first; None for all."""
    repeats: int = 1
    """Attempts per task."""
    taskset_args: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Laid over the recipe's, for instance `{"split": "test"}`."""
    params: SamplingParams = field(default_factory=lambda: SamplingParams(temperature=0.0))
    limits: Limits = field(default_factory=Limits)
    concurrency: int = 32

    def __post_init__(self) -> None:
        _at_least(self, 1, "repeats", "concurrency")


Stage: TypeAlias = Collect | SFT | GRPO | Evaluate


@record
class Recipe:
    """A whole run.

    >>> recipe = Recipe(name="sketch", stages=(Collect(n=10), SFT(start="base", steps=2), Evaluate(model="sft", n=10)))
    >>> recipe.stage("sft").steps
    2
    """

    name: str
    model: str = "smollm2"
    """A model spec, see `agent.models.model_folder`."""
    taskset: str = "arithmetic"
    """A known taskset, or `path/file.py:function`."""
    taskset_args: Mapping[str, Any] = field(default_factory=dict[str, Any])
    dialect: str | None = None
    """How tool calls are written; None takes what the model folder says, else `hermes`."""
    stages: tuple[Stage, ...] = ()
    seed: int = 0
    threads: int | None = None
    """Torch threads; None leaves it to torch and OMP_NUM_THREADS."""
    dtype: str | None = None
    """How the weights of a model that only plays are held (`bfloat16`, `auto`); None is float32."""
    device: str | None = None
    """Where such a model runs (`cuda:1`); None is the CPU."""
    keep_as: str | None = None
    """A name under which the model of the last stage that trains is kept in the user's cache, for `--model`."""
    memory_gb: float = 0.0
    """Gigabytes that must be free when the run begins."""

    @property
    def local(self) -> dict[str, Any]:
        """How a model that only plays runs in this process, as `sampler_for` takes it."""
        return {"threads": self.threads, "dtype": self.dtype, "device": self.device}

    def __post_init__(self) -> None:
        seen: dict[str, Stage] = {}
        for stage in self.stages:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", stage.name) or stage.name == BASE:
                raise ConfigError(f"stage name {stage.name!r} cannot be a folder; use letters, digits, - and _")
            if stage.name in seen:
                raise ConfigError(f"two stages of recipe {self.name} are named {stage.name!r}")
            _check_references(stage, seen)
            seen[stage.name] = stage
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is {self.threads}; it must be 1 or more")
        if self.keep_as is not None and not any(map(trains, self.stages)):
            raise ConfigError(f"recipe {self.name} has nothing to keep as {self.keep_as}: no stage of it trains")

    def stage(self, name: str) -> Any:
        """The stage of that name. Raises `ConfigError` with the nearest ones."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise ConfigError(
            f"recipe {self.name} has no stage {name!r}", hint=nearest(name, [stage.name for stage in self.stages])
        )

    def arguments(self, stage: Stage) -> dict[str, Any]:
        """The taskset's arguments in that stage."""
        return {**self.taskset_args, **stage.taskset_args}


@record
class StageRun:
    """What a stage is run with: `collect`, `sft` and `grpo` are functions of (stage settings, StageRun).

    A stage that trains leaves `folder/model`, loadable by transformers. Called again after a kill, it continues.
    """

    recipe: Recipe
    folder: Path
    """The stage's own folder; it exists. Checkpoints, logs and metrics.jsonl live there."""
    start: str
    """Model spec or folder whose weights the stage starts from."""
    dialect: str
    """Resolved: the recipe's, else the model folder's, else `hermes`."""
    seed: int
    """Derived from the recipe's seed and the stage's name."""


def falling(steps: int) -> dict[str, Any]:
    """TRL's options for a rate that stays, and over the last quarter of `steps`, or of the tokens, falls to nothing.

    A small model at a rate that stays leaves off in one bad step now and then, and is less sure of what it knows.

    >>> falling(2000)["lr_scheduler_kwargs"]
    {'num_decay_steps': 500, 'decay_type': 'linear'}
    """
    ending = {"num_decay_steps": steps // 4, "decay_type": "linear"}
    return {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": ending}


def trains(stage: Stage) -> bool:
    """True for a stage that leaves a model behind, in `STAGE/model`."""
    return isinstance(stage, SFT | GRPO)


def _check_references(stage: Stage, earlier: Mapping[str, Stage]) -> None:
    models = [BASE, *(name for name, known in earlier.items() if trains(known))]
    wanted = {"start": stage.start} if isinstance(stage, SFT | GRPO) else {}
    if isinstance(stage, Evaluate):
        wanted = {"model": stage.model}
    for what, name in wanted.items():
        if name not in models:
            message = f"{stage.name}.{what} is {name!r}, which no earlier stage trains"
            raise ConfigError(message, hint=nearest(name, models))
    logs = [name for name, known in earlier.items() if isinstance(known, Collect)]
    if isinstance(stage, SFT) and stage.data not in (GOLD, *logs) and not is_path(stage.data):
        raise ConfigError(
            f"{stage.name}.data is {stage.data!r}: no earlier collect stage, and no path of a .jsonl log",
            hint=nearest(stage.data, logs),
        )


def is_path(data: str) -> bool:
    """True when `SFT.data` names a file, not a stage."""
    return "/" in data or data.endswith(".jsonl")


def plays_tasks(recipe: Recipe) -> bool:
    """False when all that a run does is learn from logs: the recipe's taskset is then not touched."""
    return any(not isinstance(stage, SFT) or stage.data == GOLD for stage in recipe.stages)


def title_of(recipe: Recipe) -> str:
    """What was trained on what.

    >>> title_of(Recipe(name="sft", model="tiny", stages=(SFT(data="runs/a/kept.jsonl"),)))
    'sft: tiny on runs/a/kept.jsonl'
    """
    logs = [stage.data for stage in recipe.stages if isinstance(stage, SFT)]
    return f"{recipe.name}: {recipe.model} on {recipe.taskset if plays_tasks(recipe) else ', '.join(logs)}"


def _at_least(stage: Stage, least: int, *names: str) -> None:
    for name in names:
        value: float | None = getattr(stage, name)
        if value is not None and value < least:
            raise ConfigError(f"{stage.name}.{name} is {value}; it must be at least {least}")


def _positive(stage: Stage, *names: str) -> None:
    for name in names:
        if not 0 < getattr(stage, name) < float("inf"):
            raise ConfigError(f"{stage.name}.{name} is {getattr(stage, name)}; it must be above 0")
