"""A stage that ends before its last step: when it has trained on so many tokens, or predicts them well enough."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback

from training.progress import Progress

WINDOW = 20
"""Steps over which accuracy is averaged."""


class TokenBudget(TrainerCallback):
    """Ends training after the step in which `most` tokens have been trained on, over all processes.

    Prompts, pictures and what tools returned count. The count is in the trainer's state, so a resumed run goes on
    counting. After its warmup a schedule of the learning rate goes over the tokens, as nobody knows before in which
    step they are used up: one that falls to zero is there when the budget ends. `progress` is told how many steps the
    budget will last.
    """

    def __init__(self, most: int, progress: Progress) -> None:
        self.most = most
        self.progress = progress

    def on_train_begin(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **_: Any) -> None:
        """Let the schedule go over the tokens."""
        if not isinstance(lr_scheduler, LambdaLR):
            return
        warmup = args.get_warmup_steps(state.max_steps)

        def over_tokens(rate: Callable[..., float]) -> Callable[[int], float]:
            def at(step: int) -> float:
                used = min(1.0, state.num_input_tokens_seen / self.most) * state.max_steps
                return rate(step if step < warmup else max(step, used))

            return at

        lr_scheduler.lr_lambdas = [over_tokens(rate) for rate in lr_scheduler.lr_lambdas]

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop where the budget is used up."""
        seen, step = state.num_input_tokens_seen, state.global_step
        if seen:
            self.progress.total = min(state.max_steps, max(step, math.ceil(step * self.most / seen)))
        if seen >= self.most:
            control.should_training_stop = True


def count_tokens(trainer: Any, inputs: dict[str, Any]) -> None:
    """Add a batch of SFT to the tokens that the state of its trainer has seen, over all processes, and log how many.

    TRL has a count of its own, which begins at 0 where a run goes on.
    """
    seen = inputs.get("attention_mask")  # packed rows have none: nothing in them is padding
    count = inputs["input_ids"].new_tensor(inputs["input_ids"].numel()) if seen is None else seen.sum()
    everywhere: Any = trainer.accelerator.gather(count)
    trainer.state.num_input_tokens_seen += int(everywhere.sum())
    trainer._metrics["train"]["num_tokens"] = [trainer.state.num_input_tokens_seen]


class GoodEnough(TrainerCallback):
    """Ends training once `mean_token_accuracy`, averaged over the last `WINDOW` logged steps, is `least` or more."""

    def __init__(self, least: float) -> None:
        self.least = least
        self._last: deque[float] = deque(maxlen=WINDOW)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Of a resumed run, what was logged before counts."""
        self._last.extend(row["mean_token_accuracy"] for row in state.log_history if "mean_token_accuracy" in row)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Stop where it is good enough."""
        if logs and "mean_token_accuracy" in logs:
            self._last.append(float(logs["mean_token_accuracy"]))
            if len(self._last) == WINDOW and sum(self._last) / WINDOW >= self.least:
                control.should_training_stop = True
