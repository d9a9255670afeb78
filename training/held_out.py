"""Measuring on held-out tasks while training goes on, and keeping the weights that did best.

Every `held_out.every` steps, and before the first, the policy plays the same held-out tasks, each once. The
score is the rubric's headline, an episode that ended in an error counting 0. `held_out.json` holds all scores.
"""

# pyright: reportPrivateUsage=false, reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from transformers import TrainerCallback

from envs.task import Taskset
from tools.errors import ConfigError
from training.files import append_metrics, read_json, read_metrics, write_json
from training.recipe import HeldOut
from training.rollouts import Planned, StepRollouts

if TYPE_CHECKING:
    from training.grpo_trainer import ToolGRPOTrainer

SCORES = "held_out.json"
LOG = "held_out.jsonl"
METRIC = "held_out/score"


@final
class HeldOutScores(TrainerCallback):
    """Plays, scores, and remembers which step was best; `restore_best` puts its weights back."""

    def __init__(self, settings: HeldOut, taskset: Taskset, trainer: ToolGRPOTrainer, out: Path, begun_at: int) -> None:
        """`begun_at` is the step training starts from; what was measured after it is forgotten, as it comes again."""
        self.settings = settings
        self.trainer = trainer
        self.out = out
        state = trainer.accelerator
        self.main: bool = state.is_main_process
        if settings.keep_best and not _whole_weights(trainer):
            raise ConfigError(
                "held_out.keep_best needs the whole weights in every process, and they are sharded",
                hint="set held_out.keep_best=false; the scores and the checkpoints tell which step was best",
            )
        suffix = "" if self.main else f"-rank{state.process_index}"
        self.tasks = list(taskset.tasks[: settings.n])[state.process_index :: state.num_processes]
        self.headline = taskset.rubric.headline
        rollouts = trainer.rollouts
        self.rollouts = StepRollouts(
            taskset,
            rollouts.sampler,
            params=settings.params or rollouts.params,
            limits=rollouts.limits,
            log=out / LOG.replace(".", f"{suffix}.", 1),
            seed=rollouts.seed,
            concurrency=rollouts.concurrency,
        )
        known: list[dict[str, Any]] = (read_json(out / SCORES) or {}).get("scores", [])
        self.scores = [row for row in known if row["step"] <= begun_at]

    @property
    def best(self) -> dict[str, Any] | None:
        """The row of the best step so far; of equals the first, which trained least."""
        return max(self.scores, key=lambda row: (row["score"], -row["step"]), default=None)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step:  # a checkpoint comes after its step's measurement, so nothing is missing
            return
        if not self.scores:
            self.measure(0)
        if self.main and not read_metrics(self.out):
            append_metrics(self.out, {"step": 0, METRIC: self.scores[-1]["score"]})

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.settings.every == 0 or state.global_step == state.max_steps:
            self.measure(state.global_step)
            self.trainer._metrics["train"][METRIC].append(self.scores[-1]["score"])  # said with the step

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A run now continues from here, so weights of earlier steps that were not the best are never asked for."""
        if self.main and self.settings.keep_best:
            keep = self._weights_of(self.best["step"]) if self.best else None
            for path in self.out.glob("best-*.pt"):
                if path != keep:
                    path.unlink()

    def measure(self, step: int) -> None:
        """Play the held-out tasks with the present weights."""
        plan = [Planned(task=task, sample=0) for task in self.tasks]
        device = self.trainer.accelerator.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            played = self.rollouts.run(step, plan) if plan else []
        here = [sum(episode.scores.get(self.headline, 0.0) for episode in played), float(len(played))]
        sums: Any = self.trainer.accelerator.reduce(torch.tensor(here, dtype=torch.float64, device=device))
        total, count = sums.tolist()
        before = self.best
        self.scores.append({"step": step, "score": total / max(1.0, count), "n": int(count)})
        if not self.main:
            return
        if self.settings.keep_best and (before is None or self.scores[-1]["score"] > before["score"]):
            self._keep(step)
        write_json(self.out / SCORES, {"metric": self.headline, "best": self.best, "scores": self.scores})

    def restore_best(self) -> int | None:
        """Load the best step's weights into the model; the step, or None where the last is the best already."""
        best = self.best
        if not self.settings.keep_best or best is None or best is self.scores[-1]:
            return None
        weights = torch.load(self._weights_of(best["step"]), weights_only=True)
        trained = dict(_trained(self.trainer))
        with torch.no_grad():
            for name, value in weights.items():
                trained[name].copy_(value)
        return best["step"]

    def close(self) -> None:
        """Close the log and the loop; the weights that were kept are part of the stage's model by now."""
        self.rollouts.close()

    def forget_weights(self) -> None:
        """Remove what was kept."""
        for path in self.out.glob("best-*.pt"):
            path.unlink()

    def _keep(self, step: int) -> None:
        path = self._weights_of(step)
        partial = path.with_name(f".{path.name}.part")
        torch.save({name: value.detach().cpu() for name, value in _trained(self.trainer)}, partial)
        os.replace(partial, path)

    def _weights_of(self, step: int) -> Path:
        return self.out / f"best-{step}.pt"


def _trained(trainer: Any) -> list[tuple[str, Any]]:
    """The weights that training changes."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def _whole_weights(trainer: Any) -> bool:
    from accelerate.utils import DistributedType

    return trainer.accelerator.distributed_type not in (DistributedType.FSDP, DistributedType.DEEPSPEED)
