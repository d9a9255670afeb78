"""Drawing on a maze: seeing the drawing, drawing blind, and words alone, side by side (three seeds)."""

from __future__ import annotations

from training.experiment import Experiment, Row


def maze() -> Experiment:
    """ViLaSR's central claim, each arm with a cold start and GRPO of its own."""
    return Experiment(
        title="Drawing on a maze",
        claim="Drawing on the picture and reasoning on from what was drawn beats reasoning in text by far on mazes: "
        "ViLaSR (arXiv 2506.09965), 98.2, 64.5 points over its base model. If it is the drawing that helps, "
        "seeing it matters: text alone, drawing without being shown the drawing, and drawing with it should "
        "stand in that order.",
        recipe="vilasr",
        settings=("preset=tiny", "arms=see,blind,text"),
        rows=tuple(
            Row(label=f"{label}{behind}", stages=(f"{stage}-{arm}",))
            for arm, label in (("text", "text alone"), ("blind", "draw blind"), ("see", "draw and see"))
            for stage, behind in (("eval-sft", ", cold start"), ("eval-grpo", ""), ("greedy", ", greedily"))
        ),
        metrics=("way_drawn%", "tool_calls", "tool_error_rate%", "mean_tokens"),
        differences=(
            ("draw and see", "draw blind"),
            ("draw blind", "text alone"),
            ("draw and see", "text alone"),
            ("draw and see, greedily", "text alone, greedily"),
            ("draw and see", "draw and see, cold start"),
        ),
        curves={
            **{f"sft-{arm}": ("loss", "mean_token_accuracy") for arm in ("see", "blind", "text")},
            **{f"grpo-{arm}": ("reward", "episodes/calls", "entropy") for arm in ("see", "blind", "text")},
        },
        limits="The model has 0.7 million parameters. A maze has sixteen cells, ways without forks and two exits; "
        "guessing is right half the time. All arms say the same of each cell of the way, in the same words, and are "
        "first taught to go it in words alone, so that this arm has more tokens of its own form. As many tokens are "
        "more episodes the shorter they are. Measured as it is trained, sampling at temperature 1, so that a longer "
        "episode has more places to slip, and once greedily. The base policy is one, and a seed is that of everything "
        "after it. All seeds are measured on the same mazes.",
    )
