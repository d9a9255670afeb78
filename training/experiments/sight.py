"""A small model trained from nothing sees: each skill against guessing (tiny_vlm, 3 seeds)."""

from __future__ import annotations

from training.experiment import Experiment, Row
from training.recipes.tiny_vlm import SKILLS


def sight() -> Experiment:
    """Every skill of the base policy on held-out pictures."""
    return Experiment(
        title="What a small model learns to see",
        claim="Seven hundred thousand parameters in Idefics3's architecture, trained from nothing on pictures that are "
        "drawn as they train, come to see: each skill is above guessing on pictures, photographs "
        "and handwriting that were never trained on.",
        recipe="tiny_vlm",
        settings=("keep=false",),
        rows=tuple(Row(label=skill, stages=(f"eval-{skill}",)) for skill in SKILLS),
        metrics=("chance%", "has_answer%"),
        differences=tuple((skill, "chance") for skill in SKILLS),
        curves={name: ("loss", "mean_token_accuracy") for name in ("pages", "faces", "near", "wide", "free", "boxes")},
        limits="Chance is a guess among the possible answers, all equally likely; of boxes it is 0 here. Pictures are "
        "64 pixels wide. All seeds are measured on the same pictures.",
    )
