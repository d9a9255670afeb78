"""ViLaSR (arXiv 2506.09965): a model draws on the picture, looks at what it drew, and reasons on from there.

What it shows: drawing and seeing the drawing beats reasoning in text on mazes by far (98.2, 64.5 points over the base
model, Qwen2.5-VL-7B); without a cold start drawing is not discovered.

    training run vilasr                                              the tiny preset, on a CPU
    training run vilasr preset=paper data=vilasr_rl_data.jsonl sft_data=vilasr_cold_start.jsonl       7B, for GPUs
    training reproduce maze                                          all arms, three seeds, a page

The tiny preset is a whole experiment in one run, with the model of `training run tiny_vlm`: which exit of a maze can be
reached? All arms share two stages on gold: `mazes`, what each cell holds and in which directions it is open; and `way`,
to go from cell to cell in words. Then each has a cold start on gold and GRPO, both on as many tokens; it is measured
as it is trained, and at the end greedily too. All but the last say the same words of each cell before they go on:

    see      draws a line to the next cell, looks at the picture, and goes on
    blind    draws the same lines and is told that they were drawn
    text     goes the way in words alone
    glance   answers at once; not by default

Format: Hermes calls and `<answer>` in the tiny preset; thoughts and fenced JSON in the paper's. Reward: tiny, a right
answer; paper, accuracy and form.

Differences from the paper, in the paper preset:
- Reflective rejection sampling is left out: data that was sampled so can be given as `sft_data`.
- The eyes are trained in RL as in the released script, and frozen in the cold start.

Cost: tiny, three arms: 53 minutes on one thread, three seeds at once on two cores; 3 GB of memory. What came of it is
in docs/claims/maze.md: on a small model words win.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agent.rollout import Limits
from agent.sampler import SamplingParams
from training.comparison import one_of
from training.recipe import GOLD, GRPO, SFT, Evaluate, Recipe, Stage, falling

PRESETS = ("tiny", "paper")
ARMS: dict[str, dict[str, Any]] = {
    "see": {"tools": "see", "aloud": "way"},
    "blind": {"tools": "blind", "aloud": "way"},
    "text": {"tools": "none", "aloud": "way"},
    "glance": {"tools": "none"},
}
"""Arm -> how the maze taskset is to be played."""
TASK: dict[str, Any] = {
    "n": 1024,
    "cells": 4,
    "shown": 64,
    "ask": "exit",
    "exits": 2,
    "marks": "colours",
    "corridors": True,
    "lines_per_call": 1,
    "line": "cell",
    "style": "short",
}
"""Sixteen cells of 16 pixels, a feature of the model's eyes each; guessing is right half the time."""
FRESH: dict[str, Any] = {"dataloader_num_workers": 1}
OF_A_SEED, WAY, ARM, LATER = 1000, 100, 200, 500
"""A recipe's seed has so many seeds of the taskset. Stages on gold take one after the other: `mazes` from the first,
`way` and the arms from these on; GRPO takes the last."""


def vilasr(
    preset: str = "tiny",
    seed: int = 0,
    model: str | None = None,
    arms: str = "see,blind,text",
    sight_steps: int = 1400,
    sft_tokens: int = 1_000_000,
    grpo_tokens: int = 200_000,
    n: int = 300,
    data: str = "vilasr_rl_data.jsonl",
    sft_data: str = "vilasr_cold_start.jsonl",
    processes: int = 16,
    threads: int | None = None,
) -> Recipe:
    """`preset` is `tiny` or `paper`; of the tiny one, `sight_steps` in which mazes are first looked at, `arms` (some of
    `ARMS`) and each arm's tokens, `n` to measure. Without `grpo_tokens` it ends with the cold starts."""
    one_of(PRESETS, preset=preset)
    if preset == "paper":
        return Recipe(
            name="vilasr",
            model=model or "Qwen/Qwen2.5-VL-7B-Instruct",
            dialect="vilasr",
            taskset="vilasr_data",
            taskset_args={"data": data},
            stages=_paper(sft_data, processes),
            seed=seed,
            threads=threads,
        )
    asked = [arm.strip() for arm in arms.split(",")]
    for arm in asked:
        one_of(ARMS, arm=arm)
    return Recipe(
        name="vilasr",
        model=model or "tiny_vlm",
        taskset="maze",
        taskset_args=TASK,
        stages=(
            _mazes(seed, sight_steps),
            _taught("way", "text", "mazes", seed * OF_A_SEED + WAY, sft_tokens * 6 // 10),
            *(stage for arm in asked for stage in _arm(arm, seed, sft_tokens, grpo_tokens, n)),
        ),
        seed=seed,
        threads=threads,
        memory_gb=3.0,
    )


def _mazes(seed: int, steps: int) -> SFT:
    """Where each cell is and what it looks like, in no order, so that places are learnt and not turns."""
    return SFT(
        name="mazes",
        data=GOLD,
        taskset_args={"ask": "doors", "order": "way", "tools": "none", "seed": seed * OF_A_SEED},
        steps=steps,
        batch_size=16,
        lr=3e-3,
        warmup=30,
        trl=FRESH,
    )


def _taught(name: str, arm: str, start: str, first: int, tokens: int) -> SFT:
    """Gold of an arm, with the taskset's seeds from `first` on."""
    return SFT(
        name=name,
        data=GOLD,
        start=start,
        taskset_args={**ARMS[arm], "seed": first},
        steps=4000,
        max_tokens=tokens,
        batch_size=16,
        lr=2e-3,
        warmup=20,
        trl={**FRESH, **falling(4000)},
    )


def _arm(arm: str, seed: int, sft_tokens: int, grpo_tokens: int, n: int) -> tuple[Stage, ...]:
    asked = ARMS[arm]
    limits = Limits(max_turns=14, max_calls=13, max_tokens=1000)
    params = SamplingParams(max_tokens=128)
    measure = Evaluate(n=n, taskset_args={**asked, "split": "test", "n": n}, params=params, limits=limits)
    cold = _taught(f"sft-{arm}", arm, "way", seed * OF_A_SEED + ARM, sft_tokens)
    trained: list[Stage] = [cold]
    if grpo_tokens:
        trained.append(
            GRPO(
                name=f"grpo-{arm}",
                start=cold.name,
                steps=2000,
                max_tokens=grpo_tokens,
                tasks_per_step=8,
                group_size=8,
                lr=1e-4,
                warmup=2,
                taskset_args={**asked, "seed": seed * OF_A_SEED + LATER},
                params=params,
                limits=limits,
            )
        )
    sampled = [(stage, replace(measure, name=f"eval-{stage.name}", model=stage.name)) for stage in trained]
    greedy = replace(measure, name=f"greedy-{arm}", model=trained[-1].name, params=replace(params, temperature=0.0))
    return (*(stage for pair in sampled for stage in pair), greedy)


def _paper(sft_data: str, processes: int) -> tuple[Stage, ...]:
    tasks, mini, group = 32, 16, 8
    sft_steps = 3 * 33_000 // processes
    return (
        SFT(
            data=sft_data,
            steps=sft_steps,
            batch_size=processes,
            micro_batch_size=1,
            lr=1e-5,
            warmup=sft_steps // 10,
            max_length=18432,
            freeze_vision=True,
            trl={"lr_scheduler_type": "cosine"},
        ),
        GRPO(
            start="sft",
            steps=40_000 // tasks * (tasks // mini),
            tasks_per_step=tasks,
            group_size=group,
            lr=1e-6,
            params=SamplingParams(max_tokens=4096),
            limits=Limits(max_turns=10, max_tokens=16384),
            micro_batch_size=1,
            concurrency=1024,
            trl={
                "steps_per_generation": tasks * group // processes,
                "gradient_accumulation_steps": mini * group // processes,
                "beta": 0.0,
            },
        ),
    )
