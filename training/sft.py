"""Supervised fine-tuning on recorded episodes, with TRL's `SFTTrainer` on rows of ids that are ready to train.

What differs from handing TRL the messages:
- rows come from the record (or are rendered once, for episodes without ids) with labels exactly on what the policy
  wrote; a fork is a row of its own; no text is rendered again and no mask is searched for;
- every row of every step is laid out before training, by seed, so that a resumed run reads the same ones;
- on a CPU the LM head runs on the trained positions only; elsewhere TRL's fused kernel does the same.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportMissingTypeArgument=false

from __future__ import annotations

import dataclasses
import json
import logging
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, TrainerCallback
from trl.data_utils import pack_dataset
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from agent.adapters import without_peft_warnings
from agent.dialects import dialect_named
from agent.local import bf16_is_fast
from agent.model_cache import no_progress_bars, save_tokenizer
from agent.models import load_model, save_dialect
from agent.renderer import Renderer
from agent.vision import Vision, copy_eyes, vision_of
from envs.log import blobs_beside, read_log
from envs.scenes.drawn import passing_store
from envs.seed import derive_seed
from envs.trajectory import PlacedImage, TokenSequence, Trajectory
from tools.errors import ConfigError, nearest
from tools.record import record
from training.audit import problem_with_images
from training.budget import GoodEnough, TokenBudget, count_tokens
from training.files import MODEL, append_metrics, publish, rewind_metrics
from training.fresh import TASK, fresh_rows, row_processes
from training.inputs import gold_tasks
from training.launch import world
from training.lora import ADAPTER, merged
from training.messages import holds_messages, read_messages
from training.pixels import lora_of, prepare, show_pictures, sight_of
from training.progress import Progress
from training.recipe import SFT, StageRun
from training.resume import checkpoint_for, without_tied

logger = logging.getLogger(__name__)

IGNORED = -100
"""The label of a token that carries no loss."""


@record
class Row:
    """One training row: ids, and as labels the same ids where the policy wrote them, else -100."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    pictures: tuple[PlacedImage, ...] = ()
    """Those among its ids, in order."""


def sft(stage: SFT, run: StageRun, data: Path | None) -> dict[str, Any]:
    """Train on the episodes of the log `data`, or without one on gold that is played as it trains; from the last whole
    checkpoint on. Leaves `run.folder/model`.
    """
    model, tokenizer = load_model(run.start)
    blobs = passing_store() if data is None else blobs_beside(data)
    vision = vision_of(run.start, tokenizer, blobs)
    renderer = Renderer(tokenizer, dialect_named(run.dialect), vision=vision)
    prepare(model, vision, stage)
    if data is None:
        facts: dict[str, Any] = {}
        dataset = fresh_rows(gold_tasks(run.recipe, stage), stage.steps * stage.batch_size, renderer, blobs)
    else:
        dataset, facts = logged_rows(stage, run, renderer, data)
    with without_peft_warnings():
        trainer = RowTrainer(
            model=model,
            args=config(stage, run.folder, run.seed),
            train_dataset=dataset,
            processing_class=tokenizer,
            peft_config=lora_of(stage, vision),
            vision=vision,
        )
    checkpoint = checkpoint_for(run.folder, model)
    before = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    rewind_metrics(run.folder, before)
    trainer.remove_callback(PrinterCallback)  # the metrics go to a file, and the bar says the rest
    with Progress(stage.name, stage.steps, done=before, unit="steps") as progress, no_progress_bars():
        if stage.max_tokens is not None:
            trainer.add_callback(TokenBudget(stage.max_tokens, progress))
        if trainer.accelerator.is_main_process:
            trainer.add_callback(Reporter(run.folder, progress))
        if stage.until_accuracy is not None:
            trainer.add_callback(GoodEnough(stage.until_accuracy))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    leave_model(trainer, tokenizer, run)
    return facts if data is not None else {"rows": trainer.state.global_step * stage.batch_size}


def logged_rows(stage: SFT, run: StageRun, renderer: Renderer, data: Path) -> tuple[Dataset, dict[str, Any]]:
    """Every row of every step from the log `data`, in order; and what there is to say of them."""
    rows, too_long = rows_of(episodes_of(data, renderer), renderer, stage.max_length)
    if not rows:
        raise ConfigError(f"{data} holds no row to train on ({too_long} were longer than {stage.max_length} tokens)")
    if stage.packing and any(row.pictures for row in rows):
        raise ConfigError(f"{stage.name}.packing is set, and rows with pictures are not packed", hint="packing=false")
    dataset = packed(rows, stage.max_length) if stage.packing else dataset_of(rows)
    order = layout([len(ids) for ids in dataset["input_ids"]], stage.steps, stage.batch_size, run.seed)
    return dataset.select(order), {
        "rows": len(rows),
        "rows_too_long": too_long,
        "trained_tokens": trained_tokens(rows),
    }


def episodes_of(data: Path, renderer: Renderer) -> list[Trajectory]:
    """The episodes of a trajectory log, or of chat messages. Raises `ConfigError` where there are none."""
    if not data.is_file():
        raise ConfigError(f"there is no data {data}")
    if not holds_messages(data):
        return list(read_log(data))
    return list(read_messages(data, renderer.dialect))


def rows_of(
    trajectories: Sequence[Trajectory], renderer: Renderer, max_length: int | None = None
) -> tuple[list[Row], int]:
    """Rows of the episodes, in order, and how many were left out as longer than `max_length` tokens.

    Recorded ids are used as they are; an episode without ids is rendered once, by `renderer.teach`. A row whose
    pictures cannot be seen, or do not stand as they should, is left out with a warning that says why.
    """
    sight = sight_of(renderer)
    rows: list[Row] = []
    for trajectory in trajectories:
        for sequence in renderer.teach(trajectory):
            problem = problem_with_images(sequence, sight)
            if problem is None:
                rows.append(row_of(sequence))
            else:
                logger.warning("a row of task %s is left out: %s", trajectory.task.id, problem)
    rows = [row for row in rows if any(label != IGNORED for label in row.labels[1:])]
    short = [row for row in rows if max_length is None or len(row.input_ids) <= max_length]
    return short, len(rows) - len(short)


def row_of(sequence: TokenSequence) -> Row:
    """One sequence as a row.

    ids  P0 A0 E1 A1    mask 0 1 0 1    ->    labels -100 A0 -100 A1
    """
    labels = [
        token if trained else IGNORED for token, trained in zip(sequence.token_ids, sequence.loss_mask, strict=True)
    ]
    return Row(input_ids=sequence.token_ids, labels=tuple(labels), pictures=sequence.images)


def trained_tokens(rows: Sequence[Row]) -> int:
    """Tokens that carry loss. The first token of a row never does: nothing predicts it."""
    return sum(label != IGNORED for row in rows for label in row.labels[1:])


def layout(lengths: Sequence[int], steps: int, batch_size: int, seed: int) -> list[int]:
    """Row indices for `steps` batches, one after the other; a fixed function of its arguments.

    Rows are drawn in shuffled passes over the data, each row once per pass. A batch is sorted by length, so that its
    micro-batches need little padding; batches themselves stay random, as rows of like length are of a like kind, and
    steps on one kind at a time learn worse.

    >>> layout([5, 9, 5, 9], steps=1, batch_size=4, seed=0)[2:]
    [1, 3]
    """
    rng = random.Random(derive_seed(seed, "layout"))
    drawn: list[int] = []
    while len(drawn) < steps * batch_size:
        drawn += rng.sample(range(len(lengths)), len(lengths))
    order: list[int] = []
    for start in range(0, steps * batch_size, batch_size):
        order += sorted(drawn[start : start + batch_size], key=lambda index: (lengths[index], index))
    return order


def dataset_of(rows: Sequence[Row]) -> Dataset:
    """The rows as TRL reads them, and as JSON which pictures they hold, where any does."""
    columns: dict[str, list[Any]] = {
        "input_ids": [list(row.input_ids) for row in rows],
        "labels": [list(row.labels) for row in rows],
    }
    if any(row.pictures for row in rows):
        columns["pictures"] = [json.dumps([dataclasses.asdict(image) for image in row.pictures]) for row in rows]
    return Dataset.from_dict(columns)


def placed(pictures: str) -> tuple[PlacedImage, ...]:
    """The pictures of a row of `dataset_of`."""
    found: list[dict[str, Any]] = json.loads(pictures)
    return tuple(
        PlacedImage(sha256=image["sha256"], shown_size=tuple(image["shown_size"]), position=image["position"])
        for image in found
    )


def packed(rows: Sequence[Row], length: int | None) -> Dataset:
    """The rows packed by TRL into rows of at most `length` tokens, whole ones only (best fit decreasing).

    `seq_lengths` keeps their bounds: each attends to itself alone, and its first token is predicted by nothing.
    """
    assert length is not None, "a recipe that packs has a length"
    return pack_dataset(dataset_of(rows), seq_length=length, strategy="bfd")


def config(stage: SFT, folder: Path, seed: int) -> SFTConfig:
    """TRL's settings for the stage; `stage.trl` wins over ours."""
    if stage.batch_size % world():
        raise ConfigError(
            f"{stage.name}.batch_size is {stage.batch_size}, which {world()} processes cannot share evenly"
        )
    share = stage.batch_size // world()
    micro = min(share, stage.micro_batch_size or share)
    if share % micro:
        raise ConfigError(f"{stage.name}.micro_batch_size is {micro}; it must divide a process's {share} rows per step")
    accelerator = torch.cuda.is_available() and not stage.trl.get("use_cpu", False)
    known = {field.name for field in dataclasses.fields(SFTConfig) if field.init}
    for name in stage.trl:
        if name not in known:
            raise ConfigError(f"{stage.name}.trl has {name!r}, unknown to SFTConfig", hint=nearest(name, known))
    # transformers renamed the option in 5.x and warns about the old name, which TRL still sets.
    recompute = next(name for name in ("activation_checkpointing", "gradient_checkpointing") if name in known)
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": stage.steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": share // micro,
        "learning_rate": stage.lr,
        "warmup_steps": stage.warmup,
        "lr_scheduler_type": "linear",
        "save_strategy": "steps",
        "save_steps": stage.checkpoint_every,
        "save_total_limit": 1,
        "logging_steps": 1,
        "seed": seed % 2**32,
        "bf16": bf16_is_fast(),
        recompute: accelerator,
        "max_length": stage.max_length if stage.packing else None,
        "packing": stage.packing,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not accelerator,
        "dataloader_pin_memory": accelerator,
        **stage.trl,
    }
    settings["dataloader_num_workers"] = row_processes(settings.get("dataloader_num_workers", 0))
    try:
        return SFTConfig(**settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{stage.name}.trl does not fit TRL's SFTConfig: {error}") from error


def leave_model(trainer: Any, tokenizer: Any, run: StageRun) -> None:
    """Leave `run.folder/model`, adapters merged, and remove the checkpoints. Every process calls it, the first writes.

    Adapters are also left by themselves, in `run.folder/adapter`.
    """
    accelerator = trainer.accelerator
    adapted = hasattr(accelerator.unwrap_model(trainer.model), "peft_config")
    # Sharded weights come together where all processes ask for them; adapters under plain data parallelism are whole.
    whole = accelerator.get_state_dict(trainer.model_wrapped) if accelerator.num_processes > 1 and not adapted else None
    if not accelerator.is_main_process:
        return
    model = merged(accelerator.unwrap_model(trainer.model), run.folder / ADAPTER)
    publish(run.folder / MODEL, lambda folder: save_model(model, tokenizer, run.dialect, folder, whole))
    for leftover in run.folder.glob("checkpoint-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def save_model(model: Any, tokenizer: Any, dialect: str, folder: Path, weights: Any = None) -> None:
    """Weights (the model's, or those given), tokenizer with its chat template, and the dialect it was trained in."""
    model.config.use_cache = True
    with no_progress_bars():
        model.save_pretrained(folder, state_dict=weights)
    save_tokenizer(tokenizer, folder)
    copy_eyes(model, folder)
    save_dialect(folder, dialect)


class RowTrainer(SFTTrainer):
    """`SFTTrainer` that keeps the order of its rows, shows the model the rows' pictures and, on a CPU, spends the LM
    head on trained positions only."""

    model: Any

    def __init__(self, *, vision: Vision | None = None, **trl: Any) -> None:
        super().__init__(**trl)
        self.vision = vision
        if vision is not None:
            show_pictures(self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model, vision)
            self.data_collator = with_pictures(self.data_collator)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns = list(dict.fromkeys([*(self._signature_columns or ()), "pictures", TASK]))

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)  # pyright: ignore

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: a checkpoint is for resuming, and the run folder explains itself."""

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        super()._issue_warnings_after_load(without_tied(load_result, self.model))

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if return_outputs or inputs["input_ids"].device.type != "cpu" or not self._has_plain_loss(model):
            found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            count_tokens(self, inputs)
            return found
        places = {key: inputs[key] for key in ("attention_mask", "position_ids") if key in inputs}
        if self.vision is not None and "pictures" in inputs:
            seeing = model.get_base_model() if hasattr(model, "peft_config") else model
            places |= self.vision.inputs(seeing, inputs["pictures"], inputs["input_ids"])
        losses, right = token_losses(model, inputs["input_ids"], inputs["labels"], **places)
        self._metrics["train"]["mean_token_accuracy"].append(right.float().mean().item())
        count_tokens(self, inputs)
        return losses.sum() / (max(1, len(losses)) if num_items_in_batch is None else num_items_in_batch)

    def _has_plain_loss(self, model: Any) -> bool:
        """True for the usual loss on an unwrapped model whose logits are its head's output and nothing more."""
        settings = model.config if model is self.model else None
        scaled = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
        return (
            settings is not None
            and not any(getattr(settings, name, None) for name in scaled)
            and not self.aux_loss_enabled
            and self.label_smoother is None
            and getattr(self.args, "loss_type", "nll") == "nll"
        )


def with_pictures(collate: Callable[[list[Any]], dict[str, Any]]) -> Callable[[list[Any]], dict[str, Any]]:
    """`collate`, with the pictures of each row beside the tensors."""

    def collated(examples: list[Any]) -> dict[str, Any]:
        pictures = [placed(example.get("pictures") or "[]") for example in examples]
        batch = collate([{k: v for k, v in example.items() if k != "pictures"} for example in examples])
        return {**batch, "pictures": pictures} if any(pictures) else batch

    return collated


def token_losses(
    model: Any, ids_BT: torch.Tensor, labels_BT: torch.Tensor, **places: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """-log p of every labelled token given those before it, and whether it was the likeliest; both (labelled,).

    Only labelled positions pass through the LM head: with a vocabulary of 49,000 and a tenth of the tokens trained,
    that saves most of the head's work, and the sum is the same. `places` says what attends to what: `attention_mask`,
    or for packed rows `position_ids`; and what is seen, as `Vision.inputs` gives it.
    """
    model = model.get_base_model() if hasattr(model, "peft_config") else model
    hidden = model.base_model(input_ids=ids_BT, use_cache=False, **places).last_hidden_state
    targets_BT = labels_BT[:, 1:]
    trained_BT = targets_BT != IGNORED
    logits = model.get_output_embeddings()(hidden[:, :-1][trained_BT]).float()
    targets = targets_BT[trained_BT]
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    return losses, logits.argmax(dim=-1) == targets


class Reporter(TrainerCallback):
    """Writes each logged step to metrics.jsonl, and moves the progress bar."""

    def __init__(self, folder: Path, progress: Progress, shows: Sequence[str] = ("loss",)) -> None:
        self.folder = folder
        self.progress = progress
        self.shows = shows
        self._shown: dict[str, float | int | str] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._shown = {name.rpartition("/")[2]: float(logs[name]) for name in self.shows if name in logs}
            append_metrics(self.folder, {"step": state.global_step, **logs})

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.advance(1, **self._shown)
