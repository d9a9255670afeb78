"""A tool to compute with beats the same training without it, and GRPO adds to the cold start (quickstart, 3 seeds)."""

from __future__ import annotations

from training.experiment import Experiment, Row


def tool_or_not() -> Experiment:
    """The quickstart's arms."""
    return Experiment(
        title="A tool, or as much training without it",
        claim="Trained to call an interpreter, a model solves what as many steps on worked solutions do not teach it; "
        "and reinforcement learning with the interpreter in the loop teaches more than the cold start did. ReTool "
        "(arXiv 2504.11536) shows it of 32 billion parameters on AIME.",
        recipe="quickstart",
        rows=(
            Row(label="untrained", stages=("eval-base",)),
            Row(label="cold start without the tool", stages=("eval-no-tool",)),
            Row(label="cold start", stages=("eval-sft",)),
            Row(label="cold start and GRPO", stages=("eval-grpo",)),
        ),
        metrics=("calls_per_task", "tool_error_rate%", "mean_tokens"),
        differences=(("cold start", "cold start without the tool"), ("cold start and GRPO", "cold start")),
        curves={"grpo": ("reward", "episodes/calls", "tools/error_rate", "completions/mean_length")},
        limits="A million parameters on sums of two numbers, where copying a result is much easier than computing it.",
    )
