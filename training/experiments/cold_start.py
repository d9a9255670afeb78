"""Using a tool does not appear without a cold start: the same reinforcement learning with one and without."""

from __future__ import annotations

from training.experiment import Experiment, Row
from training.experiments.zoom import LIMITS


def cold_start() -> Experiment:
    """DeepEyesV2's reason for its cold start."""
    seen = ("episodes/calls", "rewards/correct/mean", "completions/mean_length")
    return Experiment(
        title="No cold start, no tool",
        claim="Reinforcement learning alone does not teach a model to use a tool that its instructions describe: "
        "DeepEyesV2 (arXiv 2511.05271), whose cold start comes first for that reason.",
        recipe="deepeyes",
        settings=("preset=tiny", "arms=tool,near,no-cold-start"),
        rows=(
            Row(label="base policy", stages=("eval-base",)),
            Row(label="with a cold start", stages=("eval-grpo",)),
            Row(label="taught to read alone", stages=("eval-grpo-near",)),
            Row(label="no cold start", stages=("eval-grpo-no-cold-start",)),
        ),
        metrics=("used_tools%", "tool_calls", "useful_calls", "has_answer%", "mean_tokens"),
        differences=(
            ("with a cold start", "no cold start"),
            ("with a cold start", "taught to read alone"),
            ("with a cold start", "no cold start", "used_tools"),
            ("with a cold start", "taught to read alone", "used_tools"),
        ),
        curves={name: seen for name in ("grpo", "grpo-near", "grpo-no-cold-start")},
        limits=f"{LIMITS} The base policy was never asked about signs, so that it lacks the task as well as the tool. "
        "Taught to read alone knows the task and has the tool in its instructions as all arms have it; it was shown "
        "answers without calls, which also teaches not to call, and had fewer tokens, as its line above says. "
        "Earlier runs of three seeds at four times the learning rate called nothing either.",
    )
