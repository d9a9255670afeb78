"""Run a recipe in a folder. After a kill at any moment the same command continues, with the same order and seeds.

recipe.json          what runs and what resumes; a run folder holds one recipe
versions.json        of the libraries, and our commit, when the run began and, where they were others then, went on
base.json            which weights it began from
STAGE/               one folder per stage: its episodes, metrics, checkpoints, `model`, and last of all done.json
report.json .md .html, plots/    what came of it
"""

from __future__ import annotations

import contextlib
import gc
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from agent.models import DEFAULT_DIALECT, dialect_of, keep_model, model_folder
from envs.seed import derive_seed
from tools.errors import ConfigError
from tools.lock import held
from training.files import DONE, MODEL, read_json, write_json
from training.inputs import check_inputs, measured_taskset, weights_of
from training.launch import announce, rank, wait_for, wait_for_launch
from training.overrides import differences, to_json
from training.progress import Stopwatch, duration
from training.recipe import BASE, GOLD, GRPO, SFT, Collect, Evaluate, Recipe, Stage, StageRun, is_path, trains
from training.resume import hold_to_base, remember_base

RECIPE = "recipe.json"
VERSIONS = "versions.json"
BEGAN_FROM = "base.json"
PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "tokenizers")


def run(recipe: Recipe, out: Path, *, fresh: bool = False) -> Path:
    """Run the stages that `out` does not hold yet, and write the report; returns `out`.

    Raises `ConfigError` when `out` holds another recipe or is in use. `fresh` forgets what it holds.
    """
    if not recipe.stages:
        raise ConfigError(f"recipe {recipe.name} has no stages")
    if rank() > 0:
        return follow(recipe, out)
    left = [stage for stage in recipe.stages if fresh or read_json(out / stage.name / DONE) is None]
    check_inputs(recipe, left)
    with held(out):
        if left:
            require_memory(recipe)
        if fresh:
            forget(out)
        settle(recipe, out)
        if left:
            note_versions(out)
        if any(weights_of(stage) == BASE for stage in left):
            if not any((out / stage.name).exists() for stage in recipe.stages):
                remember_base(recipe.model, out / BEGAN_FROM)
            hold_to_base(recipe.model, out / BEGAN_FROM)
        announce(out)
        for number, stage in enumerate(recipe.stages, start=1):
            label = f"[{number}/{len(recipe.stages)}] {stage.name}"
            if (done := read_json(out / stage.name / DONE)) is not None:
                print(f"{label}: done before, in {duration(done['seconds'])}", file=sys.stderr)
                continue
            print(label, file=sys.stderr, flush=True)
            if weights_of(stage) == BASE:  # which may have been trained anew while the stages before it ran
                hold_to_base(recipe.model, out / BEGAN_FROM)
            run_stage(recipe, stage, out)
        from training.report import write_reports

        write_reports(recipe, out)
        if recipe.keep_as is not None:
            trained = [stage.name for stage in recipe.stages if trains(stage)]
            kept = keep_model(recipe.keep_as, out / trained[-1] / MODEL)
            print(f"kept as {recipe.keep_as}: {kept}", file=sys.stderr)
    return out


def require_memory(recipe: Recipe) -> None:
    """Raise `ConfigError` where less memory is free than the recipe says it needs."""
    if not recipe.memory_gb:
        return
    import psutil

    free = psutil.virtual_memory().available / 1e9
    if free < recipe.memory_gb:
        raise ConfigError(
            f"{recipe.name} needs {recipe.memory_gb:g} GB of memory, and {free:.1f} GB are free",
            hint="end what else runs, or set memory_gb=0 to try",
        )


def follow(recipe: Recipe, out: Path) -> Path:
    """What the other processes of a launch do: join in where a stage trains, else wait for what the first leaves."""
    wait_for_launch(out)
    for stage in recipe.stages:
        done = out / stage.name / DONE
        if trains(stage) and read_json(done) is None:
            limit_threads(recipe, stage)
            perform(recipe, stage, out)
        wait_for(lambda done=done: read_json(done) is not None)
    return out


def run_stage(recipe: Recipe, stage: Stage, out: Path) -> None:
    """Run or continue one stage; its done.json comes last, when all it made is on the disk."""
    folder = out / stage.name
    folder.mkdir(parents=True, exist_ok=True)
    limit_threads(recipe, stage)
    with Stopwatch(folder) as watch:
        found = perform(recipe, stage, out)
        write_json(folder / DONE, {"seconds": round(watch.seconds, 2), **found})
    give_memory_back()


def perform(recipe: Recipe, stage: Stage, out: Path) -> dict[str, Any]:
    """Do what a stage is for; what it found goes into done.json."""
    if isinstance(stage, Collect):
        from training.collect import collect

        return collect(stage, stage_run(recipe, stage, out, stage.source))
    if isinstance(stage, SFT):
        from training.sft import sft

        return sft(stage, stage_run(recipe, stage, out, stage.start), data_of(stage, out))
    if isinstance(stage, GRPO):
        from training.grpo import grpo

        return grpo(stage, stage_run(recipe, stage, out, stage.start))
    return measure(stage, stage_run(recipe, stage, out, stage.model))


def give_memory_back() -> None:
    """Return what a stage freed to the system: the next loads a model of its own, and glibc keeps gigabytes."""
    with interrupts_held():
        gc.collect()
        if sys.platform == "linux":
            import ctypes

            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; musl has none
            if trim is not None:
                trim(0)


@contextlib.contextmanager
def interrupts_held() -> Generator[None]:
    """Within it Ctrl-C waits. Python drops an interrupt that is raised while an object is finalised."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed:
            signal.raise_signal(signal.SIGINT)


def measure(stage: Evaluate, run: StageRun) -> dict[str, Any]:
    """Evaluate a stage's model on the recipe's taskset."""
    from agent.models import sampler_for
    from evals import evaluate
    from evals.decode import decoder_of
    from training.collect import close_sampler

    taskset = measured_taskset(run.recipe, stage)
    sampler = sampler_for(run.start, dialect=run.dialect, **run.recipe.local)
    try:
        result = evaluate(
            taskset,
            sampler,
            out=run.folder,
            params=stage.params,
            limits=stage.limits,
            n=stage.n,
            repeats=stage.repeats,
            seed=run.recipe.seed,
            concurrency=stage.concurrency,
            about={"model": run.start, "dialect": run.dialect, "taskset_args": run.recipe.arguments(stage)},
            decode=decoder_of(sampler),
        )
    finally:
        close_sampler(sampler)
    return {"result": result.to_json()}


def stage_run(recipe: Recipe, stage: Stage, out: Path, weights: str) -> StageRun:
    """What `stage` is run with; `weights` names `base`, an earlier stage, or for collection any model spec."""
    base = recipe.model
    said = recipe.dialect or dialect_of(base)
    if weights == BASE:
        start = model_folder(base)
    elif any(known.name == weights for known in recipe.stages):
        start = str(out / weights / MODEL)
        said = said or dialect_of(start)  # the base may be gone by now
    else:
        start = weights
    return StageRun(
        recipe=recipe,
        folder=out / stage.name,
        start=start,
        dialect=said or DEFAULT_DIALECT,
        seed=derive_seed(recipe.seed, stage.name),
    )


def data_of(stage: SFT, out: Path) -> Path | None:
    """The log an SFT stage learns from; None where it plays the gold itself."""
    from training.collect import KEPT

    if stage.data == GOLD:
        return None
    return Path(stage.data) if is_path(stage.data) else out / stage.data / KEPT


def settle(recipe: Recipe, out: Path) -> None:
    """Write recipe.json and versions.json, or raise `ConfigError` naming the field in which a stored recipe differs."""
    wanted = to_json(recipe)
    stored = read_json(out / RECIPE)
    if stored is not None:
        here = {**stored, "memory_gb": recipe.memory_gb}  # nothing that comes of a run; 0 is how to try with less
        changed = differences(here, wanted)
        if changed:
            more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
            raise ConfigError(
                f"{out} holds a run with other settings: {changed[0]}{more}",
                hint="give the settings it began with to continue it, another --out, or --fresh to start over",
            )
        if here != stored:  # what goes on by the folder alone asks for as much
            write_json(out / RECIPE, here)
    elif any(not path.name.startswith(".") for path in out.iterdir()):
        raise ConfigError(f"{out} is not empty and holds no run", hint="give another folder with --out")
    else:
        write_json(out / RECIPE, wanted)
    if read_json(out / VERSIONS) is None:
        write_json(out / VERSIONS, {"versions": versions(), "commit": commit(), "argv": sys.argv})


def note_versions(out: Path) -> None:
    """Add to versions.json what goes on with a run, where other code or other libraries began it."""
    stored: dict[str, Any] = read_json(out / VERSIONS)
    now = {"versions": versions(), "commit": commit()}
    if now not in made_with(out):
        write_json(out / VERSIONS, {**stored, "later": [*stored.get("later", []), now]})


def made_with(out: Path) -> list[dict[str, Any]]:
    """Versions and commit with which a run began, and those with which it went on."""
    stored: dict[str, Any] = read_json(out / VERSIONS) or {}
    return [{"versions": stored.get("versions", {}), "commit": stored.get("commit")}, *stored.get("later", [])]


def forget(out: Path) -> None:
    """Remove what a run left in `out`, and nothing in a folder that holds none."""
    if not (out / RECIPE).exists():
        return
    for path in out.iterdir():
        if path.name == ".lock":
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def limit_threads(recipe: Recipe, stage: Stage) -> None:
    """Set torch's threads, for a stage that uses torch."""
    if recipe.threads is None or (isinstance(stage, Collect) and stage.source == "gold"):
        return
    import torch

    torch.set_num_threads(recipe.threads)


def versions() -> dict[str, str]:
    """Of this project, Python and the libraries that train, where installed. Imports none of them."""
    from agent.cli import our_version

    found = {"toolweave": our_version(), "python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of our source, with `+changes` where it has been edited; None when installed without a repository."""
    root = Path(__file__).parents[1]
    try:
        if not (root / ".git").exists():
            return None
        head = _git(root, "rev-parse", "HEAD")
        return f"{head}+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
