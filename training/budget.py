"""A stage that ends before its last step: when it has trained on so many tokens, or predicts them well enough."""

from __future__ import annotations

from collections import deque
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import SchedulerType

WINDOW = 20
"""Steps over which accuracy is averaged."""


class TokenBudget(TrainerCallback):
    """Ends training after the step in which `most` tokens have been trained on, over all processes.

    Prompts, pictures and what tools returned count. The count is in the trainer's state, so a resumed run goes on
    counting. A learning rate that falls in a line (`lr_scheduler_type="linear"`) reaches zero where the budget ends, as
    nobody knows before in which step that will be.
    """

    def __init__(self, most: int) -> None:
        self.most = most

    def on_train_begin(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **_: Any) -> None:
        """Let a rate that falls in a line fall with the tokens."""
        if args.lr_scheduler_type != SchedulerType.LINEAR:
            return

        def part(step: int) -> float:
            warm = min(1.0, step / max(1, args.get_warmup_steps(state.max_steps)))
            gone = max(state.num_input_tokens_seen / self.most, step / state.max_steps)
            return warm * max(0.0, 1.0 - gone)

        lr_scheduler.lr_lambdas = [part for _ in lr_scheduler.lr_lambdas]

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop where the budget is used up."""
        if state.num_input_tokens_seen >= self.most:
            control.should_training_stop = True


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
