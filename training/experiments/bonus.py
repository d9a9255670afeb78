"""The three bonuses for looking of DeepEyes, side by side: after a right answer, for any look, none (three seeds)."""

from __future__ import annotations

from training.experiment import Experiment, Row
from training.experiments.zoom import LIMITS


def bonus() -> Experiment:
    """DeepEyes' ablation of its tool reward."""
    seen = ("episodes/calls", "rewards/useful_calls/mean", "rewards/correct/mean")
    return Experiment(
        title="What a bonus for looking does",
        claim="DeepEyes (arXiv 2505.14362) pays 1.2 for a right answer after a look. On V* that beats a bonus for any "
        "look and none at all (90.1, 87.4, 87.4): without one zooming dies out, with that it is of little use.",
        recipe="deepeyes",
        settings=("preset=tiny", "arms=tool,unconditional,plain"),
        rows=(
            Row(label="cold start", stages=("eval-sft",)),
            Row(label="conditional", stages=("eval-grpo",)),
            Row(label="for any look", stages=("eval-grpo-unconditional",)),
            Row(label="no bonus", stages=("eval-grpo-plain",)),
        ),
        metrics=("used_tools%", "tool_calls", "useful_calls", "tool_error_rate%", "mean_tokens"),
        differences=(
            ("conditional", "for any look"),
            ("conditional", "no bonus"),
            ("conditional", "no bonus", "tool_calls"),
            ("conditional", "for any look", "useful_calls"),
        ),
        curves={name: seen for name in ("grpo", "grpo-unconditional", "grpo-plain")},
        limits=LIMITS,
    )
