"""Zooming in pays on small signs; a bonus keeps it alive, a cold start begins it (deepeyes, every arm, 3 seeds)."""

from __future__ import annotations

from training.experiment import Experiment, Row


def zoom() -> Experiment:
    """DeepEyes' central result and its ablation of the bonus, and DeepEyesV2's of the cold start."""
    seen = ("episodes/calls", "rewards/useful_calls/mean", "rewards/correct/mean", "completions/mean_length")
    return Experiment(
        title="Zooming in on what is too small to see",
        claim="Reinforcement learning teaches a model that sees to zoom in, and that beats the same training "
        "without the tool: DeepEyes (arXiv 2505.14362), 71.2 before and 90.1 after on V*. Its bonus for a "
        "right answer after a look (1.2) beats one for any look and none at all (87.4 both), and without one "
        "zooming dies out; calls first rise, then fall as they become exact. DeepEyesV2 (arXiv 2511.05271): "
        "without a cold start, tool use does not appear.",
        recipe="deepeyes",
        settings=("preset=tiny", "arms=tool,no-tool,unconditional,plain,no-cold-start"),
        rows=(
            Row(label="base policy", stages=("eval-base",)),
            Row(label="cold start", stages=("eval-sft",)),
            Row(label="zoom", stages=("eval-grpo",)),
            Row(label="zoom, tool taken away", stages=("eval-grpo-hidden",)),
            Row(label="never had the tool", stages=("eval-grpo-no-tool",)),
            Row(label="bonus for any look", stages=("eval-grpo-unconditional",)),
            Row(label="no bonus", stages=("eval-grpo-plain",)),
            Row(label="no cold start", stages=("eval-grpo-no-cold-start",)),
        ),
        metrics=("used_tools%", "tool_calls", "useful_calls", "tool_error_rate%", "mean_tokens"),
        differences=(
            ("zoom", "never had the tool"),
            ("zoom", "cold start"),
            ("zoom", "bonus for any look"),
            ("zoom", "no bonus"),
            ("zoom", "no bonus", "tool_calls"),
            ("zoom", "bonus for any look", "useful_calls"),
            ("zoom", "no cold start"),
            ("zoom", "no cold start", "used_tools"),
        ),
        curves={name: seen for name in ("grpo", "grpo-unconditional", "grpo-plain", "grpo-no-cold-start")},
        limits="The model has 0.7 million parameters and the signs one character; the base policy is one, and a "
        "seed is that of cold start and reinforcement learning. All seeds are measured on the same pictures.",
    )
