"""What a run is given, looked at before its first stage: a slip in the last stage must not cost the hours before it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.dialects import dialect_named
from agent.models import KEPT, WITHOUT_MODEL, check_model
from envs.find import find_taskset, hide_tools
from envs.log import read_log
from envs.task import Taskset
from tools.errors import ConfigError, nearest
from training.collect import stage_taskset
from training.gold import GoldTasks
from training.messages import holds_messages, read_messages
from training.recipe import BASE, GOLD, GRPO, SFT, Collect, Evaluate, Recipe, Stage, is_path
from training.selection import filters_of
from training.trackers import check_trackers


def check_inputs(recipe: Recipe, stages: Sequence[Stage]) -> None:
    """Raise `ConfigError` when a log, a taskset, a dialect, a model or an option that `stages` name cannot be used.

    Each taskset is built once for each set of arguments; no model is made, fetched or loaded, and torch is
    imported only when all else is well.
    """
    if recipe.dialect is not None:
        dialect_named(recipe.dialect)
    if recipe.keep_as is not None and recipe.keep_as not in KEPT:
        raise ConfigError(f"no model is kept under the name {recipe.keep_as!r}", hint=nearest(recipe.keep_as, KEPT))
    for stage in stages:
        if isinstance(stage, SFT) and is_path(stage.data):
            _check_log(Path(stage.data))
        if isinstance(stage, Collect | Evaluate) and stage.n is not None and stage.n < 1:
            raise ConfigError(f"{stage.name}.n is {stage.n}; it must be at least 1, or none for all tasks")
    built: dict[str, Taskset] = {}

    def taskset_for(arguments: Mapping[str, Any]) -> Taskset:
        key = json.dumps(arguments, sort_keys=True, default=str)
        if key not in built:
            built[key] = find_taskset(recipe.taskset, arguments)
        return built[key]

    trained: dict[str, Taskset] = {}
    for stage in stages:
        if isinstance(stage, Evaluate):
            measured_taskset(recipe, stage, taskset_for(recipe.arguments(stage)))
        elif isinstance(stage, SFT):
            if stage.data == GOLD:
                check_gold(recipe, stage, taskset_for(recipe.arguments(stage)))
        else:
            trained[stage.name] = stage_taskset(recipe, stage, taskset_for(recipe.arguments(stage)))
        if isinstance(stage, GRPO) and stage.held_out.every:
            held_out_taskset(recipe, stage, taskset_for(held_out_arguments(recipe, stage)))
    for stage in stages:
        if isinstance(stage, Collect):
            filters_of(stage)
    for spec in dict.fromkeys(spec for stage in stages if (spec := _model_of(recipe, stage)) is not None):
        check_model(spec)
    for stage in stages:  # last, as these need transformers, and torch
        if isinstance(stage, SFT | GRPO):
            check_trackers(stage.trl.get("report_to"), stage.name)
        if isinstance(stage, GRPO):
            from training.grpo_config import check_options, check_run

            check_run(stage, trained[stage.name])
            check_options(stage)


def measured_taskset(recipe: Recipe, stage: Evaluate, found: Taskset | None = None) -> Taskset:
    """The tasks of a measurement: the recipe's with the stage's arguments, the tools hidden for a control."""
    taskset = found or find_taskset(recipe.taskset, recipe.arguments(stage))
    if stage.n is not None and stage.n > len(taskset.tasks):
        raise ConfigError(f"{stage.name} asks for {stage.n} tasks, and {taskset.name} has {len(taskset.tasks)}")
    return taskset if stage.tools else hide_tools(taskset)


def gold_tasks(recipe: Recipe, stage: SFT) -> GoldTasks:
    """The tasks of a stage that learns from gold: one for each row of each step."""
    return GoldTasks(recipe.taskset, recipe.arguments(stage))


def check_gold(recipe: Recipe, stage: SFT, found: Taskset) -> None:
    """Raise `ConfigError` where a taskset has fewer tasks than the stage has rows, and takes no seed to have others."""
    rows = stage.steps * stage.batch_size
    if len(found.tasks) >= rows:
        return
    try:
        gold_tasks(recipe, stage).taskset(1)
    except ConfigError as error:
        raise ConfigError(
            f"{stage.name} trains on {rows} rows, and {found.name} has {len(found.tasks)} tasks and no seed for others",
            hint=f"{stage.name}.taskset_args={{n: {rows}}}, or fewer steps",
        ) from error


def held_out_arguments(recipe: Recipe, stage: GRPO) -> dict[str, Any]:
    """Of the taskset that a stage is measured on while it trains."""
    return {**recipe.arguments(stage), **stage.held_out.taskset_args}


def held_out_taskset(recipe: Recipe, stage: GRPO, found: Taskset | None = None) -> Taskset:
    """The tasks that a stage is measured on while it trains; `found` where they have been built already."""
    taskset = found or find_taskset(recipe.taskset, held_out_arguments(recipe, stage))
    if stage.held_out.n > len(taskset.tasks):
        raise ConfigError(
            f"{stage.name}.held_out.n is {stage.held_out.n}, and {taskset.name} has {len(taskset.tasks)} such tasks"
        )
    return taskset


def _check_log(path: Path) -> None:
    if path.is_dir():
        inside = [found for pattern in ("*.jsonl", "*/kept.jsonl", "*/*/kept.jsonl") for found in path.glob(pattern)]
        raise ConfigError(
            f"{path} is a folder, not a log of episodes",
            hint=f"did you mean {inside[0]}?" if inside else "give the .jsonl file itself",
        )
    if next(read_messages(path) if path.is_file() and holds_messages(path) else read_log(path), None) is None:
        raise ConfigError(f"{path} holds no episodes")


def weights_of(stage: Stage) -> str:
    """What names the weights that a stage is run with: `base`, an earlier stage, a model spec, `gold`."""
    return stage.source if isinstance(stage, Collect) else stage.model if isinstance(stage, Evaluate) else stage.start


def _model_of(recipe: Recipe, stage: Stage) -> str | None:
    """The model spec from which a stage starts; None where an earlier stage makes it, or none is needed."""
    name = weights_of(stage)
    if name == BASE:
        return recipe.model
    if isinstance(stage, Collect) and stage.base_url is not None:
        return None
    known = name in WITHOUT_MODEL or name.startswith("openai:") or any(name == other.name for other in recipe.stages)
    return None if known else name
