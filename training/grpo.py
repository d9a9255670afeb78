"""Multi-turn GRPO on TRL: our episodes and advantages; TRL's losses, optimiser, sharding, checkpoints and trackers.

`grpo` is a recipe's stage; `make_trainer` is the same without a recipe. The algorithm is in `training.grpo_trainer`.
"""

# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.sampler import Sampler
from envs.task import Taskset
from training.collect import stage_taskset
from training.files import rewind_metrics
from training.inputs import held_out_taskset
from training.progress import Progress
from training.recipe import GRPO, StageRun

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from agent.vision import Vision
    from training.grpo_trainer import ToolGRPOTrainer
    from training.held_out import HeldOutScores


def grpo(stage: GRPO, run: StageRun) -> dict[str, Any]:
    """Train on the recipe's taskset, from the last whole checkpoint on; leaves `run.folder/model`.

    Returns the last step's metrics. Raises `ConfigError` for what cannot be trained, or if all episodes of a step fail.
    """
    import torch

    from agent.dialects import dialect_named
    from agent.local import TransformersEngine
    from agent.model_cache import no_progress_bars
    from agent.models import load_model
    from agent.renderer import Renderer
    from agent.token_sampler import TokenSampler
    from agent.vllm import VLLMEngine
    from training.grpo_config import uses_bf16
    from training.pixels import eyes_of, lora_of
    from training.resume import checkpoint_for
    from training.sft import leave_model

    taskset = stage_taskset(run.recipe, stage)
    model, tokenizer = load_model(run.start)
    vision = eyes_of(run, taskset, tokenizer)
    renderer = Renderer(tokenizer, dialect_named(run.dialect), vision=vision)
    checkpoint = checkpoint_for(run.folder, model)
    before = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    rewind_metrics(run.folder, before)

    def make_sampler(trained: Any) -> Sampler:
        if stage.server is not None:
            return TokenSampler(renderer, VLLMEngine(stage.server, tokenizer, vision=vision))
        engine = TransformersEngine(
            trained,
            tokenizer,
            max_batch=min(stage.concurrency, stage.tasks_per_step * stage.group_size),
            own_thread=False,
            autocast=torch.bfloat16 if uses_bf16(stage) else None,
            vision=vision,
        )
        return TokenSampler(renderer, engine)

    with Progress(stage.name, stage.steps, done=before, unit="steps") as progress, no_progress_bars():
        trainer = make_trainer(
            stage,
            model=model,
            tokenizer=tokenizer,
            taskset=taskset,
            make_sampler=make_sampler,
            out=run.folder,
            seed=run.seed,
            peft_config=lora_of(stage, vision),
            vision=vision,
        )
        held_out, restored = _train(stage, run, trainer, tokenizer, progress, checkpoint)
    leave_model(trainer, tokenizer, run)
    if held_out and trainer.accelerator.is_main_process:
        held_out.forget_weights()
    rows = [row for row in trainer.state.log_history if "reward" in row]
    found: dict[str, Any] = dict(rows[-1]) if rows else {}
    return {**found, "held_out": {"best": held_out.best, "restored": restored}} if held_out else found


def _train(
    stage: GRPO, run: StageRun, trainer: ToolGRPOTrainer, tokenizer: Any, progress: Progress, checkpoint: Path | None
) -> tuple[HeldOutScores | None, int | None]:
    """Run the steps with all that listens to them; the held-out scores, and the step whose weights were put back."""
    from training.budget import TokenBudget
    from training.held_out import HeldOutScores
    from training.live import LiveTable
    from training.served import ServedWeights
    from training.sft import Reporter

    held_out: HeldOutScores | None = None
    try:
        if stage.server is not None:
            trainer.add_callback(ServedWeights(stage, trainer, tokenizer, run.dialect, run.folder))
        if stage.held_out.every:
            tasks = held_out_taskset(run.recipe, stage)
            held_out = HeldOutScores(stage.held_out, tasks, trainer, run.folder, progress.done)
            trainer.add_callback(held_out)
        if stage.max_tokens is not None:
            trainer.add_callback(TokenBudget(stage.max_tokens, progress))
        if trainer.accelerator.is_main_process:
            trainer.add_callback(Reporter(run.folder, progress, shows=("reward", "episodes/calls")))
            trainer.add_callback(LiveTable(progress.say))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        return held_out, held_out.restore_best() if held_out else None
    finally:
        if held_out:
            held_out.close()
        trainer.close()


def make_trainer(
    settings: GRPO,
    *,
    model: Any,
    tokenizer: Any,
    taskset: Taskset,
    make_sampler: Callable[[Any], Sampler],
    out: Path,
    seed: int,
    callbacks: Sequence[TrainerCallback] = (),
    peft_config: Any = None,
    vision: Vision | None = None,
) -> ToolGRPOTrainer:
    """A trainer ready for `.train(resume_from_checkpoint=...)`; afterwards `.close()` it.

    `make_sampler` gets the model as it is trained, an adapter already in it, and returns the policy's sampler: normally
    `TokenSampler(renderer, TransformersEngine(model, tokenizer, own_thread=False))`, whose forward passes then run on
    the thread that calls `train`; `vision` is the one that its renderer and engine have. `out` receives
    `trajectories.jsonl`, `advantages.jsonl` and checkpoint folders.

    Raises `ConfigError` for whatever could not be trained.
    """
    from datasets import Dataset

    from agent.adapters import without_peft_warnings
    from training.grpo_config import check_run, config_for, samplings, task_order
    from training.grpo_trainer import ToolGRPOTrainer
    from training.pixels import prepare

    check_run(settings, taskset)
    prepare(model, vision, settings)
    args = config_for(settings, out=out, seed=seed)
    order = task_order(len(taskset.tasks), per_step=settings.tasks_per_step, steps=samplings(args), seed=seed)
    with without_peft_warnings():
        return ToolGRPOTrainer(
            settings,
            taskset=taskset,
            make_sampler=make_sampler,
            out=out,
            run_seed=seed,
            vision=vision,
            model=model,
            args=args,
            train_dataset=Dataset.from_dict({"task": order}),
            processing_class=tokenizer,
            callbacks=list(callbacks),
            peft_config=peft_config,
        )
