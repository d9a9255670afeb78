"""The policy behind vLLM servers while it is trained here: new weights reach the servers before the next episode.

The weights are written to `policy/` in the stage's folder, whole or not at all, and the servers read it again: the
folder must be on a disk that trainer and servers share. All processes gather, the first writes and gives the order. A
model whose output layer is its embedding is written once more with a layer of its own, as vLLM needs it on a CPU.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from transformers import TrainerCallback

from agent.vllm_weights import shares_output, with_own_output
from training.files import publish
from training.grpo_config import passes_per_sampling
from training.recipe import GRPO

if TYPE_CHECKING:
    from training.grpo_trainer import ToolGRPOTrainer

POLICY = "policy"
OWN_OUTPUT = "policy-own-output"


@final
class ServedWeights(TrainerCallback):
    """Sends the weights to the servers before training and whenever episodes are sampled next."""

    def __init__(self, settings: GRPO, trainer: ToolGRPOTrainer, tokenizer: Any, dialect: str, out: Path) -> None:
        self.settings = settings
        self.trainer = trainer
        self.tokenizer = tokenizer
        self.dialect = dialect
        self.folder = (out / POLICY).absolute()
        args = trainer.args
        self.every = max(1, passes_per_sampling(args) // args.gradient_accumulation_steps)
        """Optimiser steps between samplings."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.send(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        measured = self.settings.held_out.every and state.global_step % self.settings.held_out.every == 0
        if measured or state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self.send(state.global_step)

    def send(self, step: int) -> None:
        """Write the present weights, and wait until every server has them."""
        from training.sft import save_model

        accelerator: Any = self.trainer.accelerator
        engine: Any = self.trainer.rollouts.engine
        weights = accelerator.get_state_dict(self.trainer.model_wrapped)
        if accelerator.is_main_process:
            model = accelerator.unwrap_model(self.trainer.model)
            publish(self.folder, lambda folder: save_model(model, self.tokenizer, self.dialect, folder, weights))
            written = self.folder
            if shares_output(written):
                written = with_own_output(written, written.with_name(OWN_OUTPUT))
            asyncio.run(engine.refresh(step, folder=str(written)))
        accelerator.wait_for_everyone()
        if not accelerator.is_main_process:  # its own view of the servers; they have the weights
            asyncio.run(engine.refresh(step, reload=False))
        accelerator.wait_for_everyone()
