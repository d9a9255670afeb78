"""Put a claim to the test: run its recipe for several seeds, and write the page from what they left.

OUT/seed-K           the run of a seed
OUT/seed-K.log       what its process said, where several ran at once
OUT/NAME.json .md    what was found, for programs and for people
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tools.errors import ConfigError
from training.claim_page import claim_page
from training.experiment import Experiment, check_fits, check_seeds
from training.files import write_json, write_text
from training.find import find_experiment, find_recipe
from training.findings import findings
from training.overrides import build, split
from training.recipe import Recipe
from training.run import settle
from training.seeds import is_finished, run_seeds, seed_folder


def reproduce(
    name: str,
    settings: Sequence[str] = (),
    *,
    seeds: Sequence[int] | None = None,
    jobs: int | None = None,
    out: Path | None = None,
    page: Path | None = None,
    run: bool = True,
    fresh: bool = False,
) -> Path:
    """Run or continue every seed of an experiment and write its page; returns where that is.

    `settings` are `key=value` of the recipe, `jobs` how many seeds run at once (as many as there are cores, and as
    memory holds), `page` another place for the page. Without `run` it is written of the seeds that are done.
    Raises `ConfigError`.
    """
    experiment = find_experiment(name)
    chosen = tuple(experiment.seeds if seeds is None else seeds)
    check_seeds(chosen)
    recipes = {seed: recipe_of(experiment, settings, seed) for seed in chosen}
    first = recipes[chosen[0]]
    check_fits(experiment, first)
    out = out or Path("runs") / "reproduce" / file_name(name)
    if run:
        run_seeds(recipes, out, jobs=jobs_for(first, chosen) if jobs is None else jobs, fresh=fresh)
    runs = {seed: seed_folder(out, seed) for seed in chosen if is_finished(seed_folder(out, seed))}
    if not runs:
        raise ConfigError(f"no seed is finished in {out}", hint=f"{command(name, settings, seeds)} --out {out}")
    for seed, folder in runs.items():
        settle(recipes[seed], folder)
    found = {"command": command(name, settings, seeds), **findings(experiment, first, runs, chosen)}
    target = out / f"{file_name(name)}.md"
    write_json(target.with_suffix(".json"), found)
    text = claim_page(found)
    for path in (target, *([page] if page else [])):
        write_text(path, text)
    return target


def recipe_of(experiment: Experiment, settings: Sequence[str], seed: int) -> Recipe:
    """The recipe with one seed. It runs on one core unless it or the settings say otherwise: seeds share the machine,
    and the order of sums, which cores change, is part of a result."""
    pairs = {**split(experiment.settings), **split(settings)}
    for key, instead in {"seed": "--seeds", "out": "--out"}.items():
        if key in pairs:
            raise ConfigError(f"{key}={pairs[key]} is given", hint=f"{instead} says it for the whole experiment")
    recipe = build(find_recipe(experiment.recipe), {**pairs, "seed": str(seed)})
    return recipe if recipe.threads is not None or "threads" in pairs else replace(recipe, threads=1)


def seeds_of(text: str) -> tuple[int, ...]:
    """Seeds from a command line.

    >>> seeds_of("0,1,2")
    (0, 1, 2)
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not part.isdecimal():
            raise ConfigError(f"--seeds {text}: {part!r} is no seed", hint="whole numbers with commas: --seeds 0,1,2")
    return tuple(int(part) for part in parts)


def command(name: str, settings: Sequence[str], seeds: Sequence[int] | None) -> str:
    """What to type for the same."""
    chosen = [] if seeds is None else ["--seeds", ",".join(map(str, seeds))]
    return shlex.join(["training", "reproduce", name, *settings, *chosen])


def file_name(name: str) -> str:
    """What the files of an experiment are called.

    >>> file_name("deepeyes"), file_name("mine/claims.py:zoom"), file_name("mine/claims.py")
    ('deepeyes', 'zoom', 'claims')
    """
    where, colon, function = name.rpartition(":")
    return function if colon else Path(where + function).stem


def jobs_for(recipe: Recipe, seeds: Sequence[int]) -> int:
    """How many seeds this machine runs at once: by the cores that this process may use, and by free memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(len(seeds), cores, fitting(recipe.memory_gb)))


def fitting(memory_gb: float) -> int:
    """How many runs of so many gigabytes there is free memory for."""
    if not memory_gb:
        return sys.maxsize
    import psutil

    return int(psutil.virtual_memory().available / 1e9 / memory_gb)
