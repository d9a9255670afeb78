"""Zooming in pays on signs that are too small to read: the same recipe with the tool and without (three seeds)."""

from __future__ import annotations

from training.experiment import Experiment, Row

LIMITS = (
    "The model has 0.7 million parameters and the signs one of eight characters, on drawn grounds, so that guessing is "
    "right once in eight. One base policy; the stage on near signs is the same in every seed, so that a seed is that "
    "of the cold start with the tool and of reinforcement learning. All seeds see the same test pictures. Measured as "
    "it is trained, sampling at temperature 1. The pages about zooming, bonuses and cold starts share the runs of the "
    "stages that they have in common. Settings were chosen with another seed, 10, on this base and on a worse one. "
    "Seed 0, run again in a new environment, had the same weights to the last bit until reinforcement learning with "
    "the tool, and then 56.7% instead of 53.0%; most likely because how fast the tool answers decides which requests "
    "share a batch, and so how sums are rounded. It takes a base that sees well: from the worse one, trained with two "
    "threads, which read 60% of single characters instead of 75%, two seeds came from 23.7 to 27.7% and from 23.0 to "
    "23.3%, with a third and a half of their calls failing."
)
"""Of every claim about the `deepeyes` recipe's tiny preset."""


def zoom() -> Experiment:
    """DeepEyes' central result, beside the same recipe that never had the tool."""
    seen = ("episodes/calls", "rewards/useful_calls/mean", "rewards/correct/mean", "completions/mean_length")
    return Experiment(
        title="Zooming in on what is too small to see",
        claim="Reinforcement learning teaches a model that sees to zoom in, and that beats the same training "
        "without the tool: DeepEyes (arXiv 2505.14362), 71.2 before and 90.1 after on V*. Calls first rise, then "
        "fall as they become exact.",
        recipe="deepeyes",
        settings=("preset=tiny", "arms=tool,no-tool"),
        rows=(
            Row(label="base policy", stages=("eval-base",)),
            Row(label="cold start", stages=("eval-sft",)),
            Row(label="zoom", stages=("eval-grpo",)),
            Row(label="zoom, tool taken away", stages=("eval-grpo-hidden",)),
            Row(label="never had the tool", stages=("eval-grpo-no-tool",)),
        ),
        metrics=("used_tools%", "tool_calls", "useful_calls", "tool_error_rate%", "mean_tokens"),
        differences=(
            ("zoom", "never had the tool"),
            ("zoom", "cold start"),
            ("zoom", "cold start", "used_tools"),
            ("zoom", "cold start", "useful_calls"),
        ),
        curves={"grpo": seen},
        limits=f"{LIMITS} The paper's calls fall in the end; these come to one a picture and stay there, and more of "
        "them fail than at first: its third phase does not appear in so short a training.",
    )
