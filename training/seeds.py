"""One recipe with several seeds, some at once: each in a process of its own, on one core, that ends when this one does.

OUT/seed-K is a run like any other, and OUT/seed-K.log what its process said. `python -m training.seeds OUT/seed-K` is
that process: it stops, as by Ctrl-C, as soon as its standard input is closed, which a kill of this one does too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, final

from agent.cli import INTERRUPTED
from tools.errors import ConfigError
from tools.lock import held
from training.files import DONE, read_json
from training.inputs import check_inputs
from training.progress import duration
from training.recipe import Recipe
from training.resume import hold_to_base
from training.run import BEGAN_FROM, RECIPE, forget, require_memory, run, settle

TICK_S = 0.1


def seed_folder(out: Path, seed: int) -> Path:
    """The run of a seed."""
    return out / f"seed-{seed}"


def is_finished(folder: Path) -> bool:
    """Whether a run is whole; its report comes last of all."""
    return read_json(folder / "report.json") is not None


def run_seeds(recipes: Mapping[int, Recipe], out: Path, *, jobs: int, fresh: bool = False) -> None:
    """Run or continue the recipe of each seed that is not finished, `jobs` of them at once.

    Raises `ConfigError` where a folder holds other settings or a seed fails: the others are then stopped as well, and
    the same command continues.
    """
    if jobs < 1:
        raise ConfigError(f"jobs is {jobs}; it must be at least 1")
    if fresh:  # what cannot begin forgets nothing
        first = next(iter(recipes.values()))
        check_inputs(first, first.stages)
        _require_memory(first, min(jobs, len(recipes)))
    for seed, recipe in recipes.items():
        folder = seed_folder(out, seed)
        if fresh and folder.exists():
            with held(folder):
                forget(folder)
        elif (folder / RECIPE).exists():
            settle(recipe, folder)
    left = {seed: recipe for seed, recipe in recipes.items() if not is_finished(seed_folder(out, seed))}
    for seed in recipes:
        if seed not in left:
            print(f"seed {seed}: done before", file=sys.stderr)
    if jobs == 1:
        for seed, recipe in left.items():
            print(f"seed {seed}", file=sys.stderr, flush=True)
            _hold_to_one_base(seed, recipes, out)
            try:
                run(recipe, seed_folder(out, seed))
            except ConfigError as error:
                raise ConfigError(f"seed {seed} failed: {error}", hint=error.hint) from error
    elif left:
        _run_at_once(left, recipes, out, jobs)


def _hold_to_one_base(asked: int, recipes: Mapping[int, Recipe], out: Path) -> None:
    """Raise `ConfigError` where a seed is about to begin from other weights of its model than another seed did: a page
    would tell of two bases as of one."""
    if (seed_folder(out, asked) / BEGAN_FROM).exists():  # it has begun: to what it began from its own run is held
        return
    for seed, recipe in recipes.items():
        if recipe.model == recipes[asked].model:
            hold_to_base(recipe.model, seed_folder(out, seed) / BEGAN_FROM)


def _run_at_once(left: Mapping[int, Recipe], recipes: Mapping[int, Recipe], out: Path, jobs: int) -> None:
    """The same in processes, of those of the recipes that are `left`."""
    seed, first = next(iter(left.items()))
    _require_memory(first, min(jobs, len(left)))
    check_inputs(first, [s for s in first.stages if read_json(seed_folder(out, seed) / s.name / DONE) is None])
    waiting = list(left)
    running: list[_Child] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                seed = waiting.pop(0)
                _hold_to_one_base(seed, recipes, out)
                folder = seed_folder(out, seed)
                folder.mkdir(parents=True, exist_ok=True)
                settle(recipes[seed], folder)
                running.append(_Child(seed, folder))
            time.sleep(TICK_S)
            for child in list(running):
                if child.has_ended():
                    running.remove(child)
    finally:
        for child in running:
            child.stop()
        for child in running:
            child.wait()


def _require_memory(recipe: Recipe, at_once: int) -> None:
    name = recipe.name if at_once == 1 else f"{at_once} times {recipe.name}"
    require_memory(replace(recipe, name=name, memory_gb=at_once * recipe.memory_gb))


@final
class _Child:
    """The process of one seed; what it says goes to its log, and a line of each stage to the terminal."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.log = folder.with_name(f"{folder.name}.log")
        print(f"seed {seed}: begins or goes on; all it says is in {self.log}", file=sys.stderr, flush=True)
        self._began = time.monotonic()
        with self.log.open("ab") as log:
            self._start = self._read = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "training.seeds", str(folder)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is for this process, which passes it on once
            )

    def has_ended(self) -> bool:
        """Whether it is done. Raises `ConfigError` if it failed."""
        code = self._process.poll()
        said = self._new_lines()
        for line in said:
            if line.startswith("["):  # [2/9] sft
                print(f"seed {self.seed}: {line}", file=sys.stderr, flush=True)
        if code is None:
            return False
        if code != 0:
            raise ConfigError(
                f"seed {self.seed} failed: {self._reason(code)}",
                hint=f"{self.log} has all it said; the same command continues",
            )
        print(f"seed {self.seed}: done in {duration(time.monotonic() - self._began)}", file=sys.stderr, flush=True)
        return True

    def stop(self) -> None:
        """Have it stop where it is."""
        stdin: IO[bytes] | None = self._process.stdin
        if stdin is not None:
            stdin.close()

    def wait(self) -> None:
        """Return when it has stopped."""
        self._process.wait()

    def _new_lines(self) -> list[str]:
        """What it has said since, whole lines only."""
        with self.log.open("rb") as log:
            log.seek(self._read)
            whole, newline, _ = log.read().rpartition(b"\n")
        self._read += len(whole) + len(newline)
        return whole.decode("utf-8", "replace").splitlines()

    def _reason(self, code: int) -> str:
        """Why it ended, in a line: the error it named, or else the last it said."""
        if code < 0:
            return f"{signal.Signals(-code).name} ended it"
        if code == INTERRUPTED:
            return "it was interrupted"
        said = self.log.read_bytes()[self._start :].decode("utf-8", "replace")
        lines = [line for line in said.splitlines() if line.strip()]
        named = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return (named or lines or ["it said nothing"])[-1]


def _stop_with_parent() -> None:
    """Interrupt this process when its standard input ends, also where a shell began it in the background, deaf to
    interrupts: a parent that was killed would leave it running."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def watch() -> None:
        while os.read(0, 1):  # not sys.stdin: its lock would be held when the interpreter ends
            pass
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True, name="parent").start()


def main() -> int:
    """Continue the run in the folder that is named."""
    from agent.cli import run as run_command
    from training.__main__ import cli

    _stop_with_parent()
    return run_command(cli, ["run", sys.argv[1]])


if __name__ == "__main__":
    raise SystemExit(main())
