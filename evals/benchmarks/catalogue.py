"""Every benchmark by name, as a function that `evals run` calls, and the lines of `evals list`."""

from __future__ import annotations

from collections.abc import Callable

from envs.task import Taskset
from evals.benchmarks.adapter import Benchmark, Tools, load, source_of
from evals.benchmarks.images import IMAGES
from evals.benchmarks.text import TEXT
from evals.benchmarks.video import VIDEO
from tools.cache import image_store

BENCHMARKS: dict[str, Benchmark] = {spec.name: spec for spec in (*TEXT, *IMAGES, *VIDEO)}

READ_FOR_REAL: frozenset[str] = frozenset()
"""Names whose adapter has read its published file; the others were written from cards and other projects' loaders."""

NEVER_READ = "never read a real file"


def line_of(spec: Benchmark) -> str:
    """A benchmark in one line: what it is, its licence, what `--data` takes, what to beware of."""
    parts = [spec.about, f"licence {spec.licence}", f"data {source_of(spec)}"]
    parts += [spec.note] if spec.note else []
    parts += [] if spec.name in READ_FOR_REAL else [NEVER_READ]
    return "; ".join(parts)


def __getattr__(name: str) -> Callable[..., Taskset]:
    """`catalogue:gsm8k` is the function that loads gsm8k."""
    if name not in BENCHMARKS:
        raise AttributeError(name)
    return _function(BENCHMARKS[name])


def _function(spec: Benchmark) -> Callable[..., Taskset]:
    def benchmark(
        data: str = "", split: str = "", tools: Tools = spec.tools, n: int | None = None, context: bool = False
    ) -> Taskset:
        return load(spec, data, split, tools, n, context, image_store())

    benchmark.__name__ = spec.name
    benchmark.__doc__ = line_of(spec)
    return benchmark
