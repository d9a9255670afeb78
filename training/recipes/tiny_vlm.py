"""A small model learns to see from nothing: pictures that are drawn as it trains, easy ones first.

What it shows: a model of 0.7 million parameters in Idefics3's architecture, fresh from its seed, comes to read, to
tell colours, shapes and hand-written digits, to count, to find and to point, on pictures it has never seen. Tests,
demonstrations and claims about pictures run on it; SmolVLM or Qwen-VL takes its place unchanged.

    training run tiny_vlm              then `--model tiny_vlm` names what came of it
    evals run sight -a skills=read -a length=1 --model tiny_vlm -n 200

A curriculum, because without one it learns nothing for a very long time: first pages of sixteen characters, each in
its place, where one picture says much; then every skill, with writing that lies ever more freely, in more typefaces,
anywhere and on photographs; at last more boxes, which need more examples. Each step's pictures are new. They are drawn
by another process.
Cost: 28 minutes on 2 shared cores, 3 GB of memory.
"""

from __future__ import annotations

from typing import Any

from agent.sampler import SamplingParams
from tools.errors import ConfigError
from training.recipe import GOLD, SFT, Evaluate, Recipe, Stage

SKILLS = ("read", "digit", "colour", "shape", "count", "where", "page", "find", "box")
"""Those of the `sight` taskset."""
_MIX = "read,read,read,digit,colour,shape,count,where,box,page"
_BOXES = f"{_MIX},find,find,find,box,box"


def tiny_vlm(
    seed: int = 0,
    model: str | None = None,
    steps: str = "1000,500,500,700,1500,500",
    batch_size: int = 64,
    n: int = 400,
    keep: bool = True,
    threads: int | None = 1,
) -> Recipe:
    """`steps` are the most of the six parts, easy ones first; `n` held-out tasks measure each skill.

    One thread, because the pictures are drawn on another core, and because sums of floats differ with the number of
    threads: the same seed then gives the same weights on machines with more cores or fewer.
    `keep` puts what came of it in the place of the `tiny_vlm` of the user's cache.
    """
    if keep and model is not None and model.partition(":")[0] != "tiny_vlm":
        raise ConfigError(f"model is {model}, which cannot be kept as tiny_vlm", hint="keep=false")
    lengths = _lengths(steps)
    page: dict[str, Any] = {"skills": "page", "on_photos": 0.0}
    stages: tuple[Stage, ...] = (
        _part("pages", "base", lengths[0], batch_size, 3e-3, {**page, "freedom": 0.0}, until=0.97),
        _part("faces", "pages", lengths[1], batch_size, 3e-3, {**page, "freedom": 0.5}, until=0.95),
        _part("near", "faces", lengths[2], batch_size, 2e-3, {"skills": _MIX, "freedom": 0.3, "on_photos": 0.0}),
        _part("wide", "near", lengths[3], batch_size, 2e-3, {"skills": _MIX, "freedom": 0.6}),
        _part("free", "wide", lengths[4], batch_size, 2e-3, {"skills": _MIX}, schedule="linear"),
        _part("boxes", "free", lengths[5], batch_size, 1.5e-3, {"skills": _BOXES}, schedule="linear"),
        *(_measure(skill, n) for skill in SKILLS),
    )
    return Recipe(
        name="tiny_vlm",
        model=model or f"tiny_vlm:{seed}",
        taskset="sight",
        taskset_args={"n": 4096, "length": "1", "on_photos": 0.3},
        stages=stages,
        seed=seed,
        threads=threads,
        keep_as="tiny_vlm" if keep else None,
        memory_gb=4.0,
    )


def _lengths(steps: str) -> tuple[int, ...]:
    parts = steps.split(",")
    if len(parts) != 6 or not all(part.strip().isdecimal() and int(part) for part in parts):
        raise ConfigError(f"steps is {steps!r}", hint="six numbers above 0, with commas: 1000,500,500,700,1500,500")
    return tuple(int(part) for part in parts)


def _part(
    name: str,
    start: str,
    steps: int,
    batch_size: int,
    lr: float,
    asked: dict[str, Any],
    *,
    until: float | None = None,
    schedule: str = "constant_with_warmup",
) -> SFT:
    return SFT(
        name=name,
        data=GOLD,
        taskset_args=asked,
        start=start,
        steps=steps,
        until_accuracy=until,
        batch_size=batch_size,
        lr=lr,
        warmup=30,
        checkpoint_every=250,
        trl={"dataloader_num_workers": 1, "lr_scheduler_type": schedule},
    )


def _measure(skill: str, n: int) -> Evaluate:
    return Evaluate(
        name=f"eval-{skill}",
        model="boxes",
        n=n,
        taskset_args={"split": "test", "n": n, "skills": skill},
        params=SamplingParams(max_tokens=64, temperature=0.0),
    )
