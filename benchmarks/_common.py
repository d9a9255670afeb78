"""What the benchmarks share: repeated timing of both sides in turns, one table, one closing JSON line."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

Row = Mapping[str, Any]

# A benchmark may be called like a package of ours (evals.py), and Python looks in a script's own folder first.
_HERE = str(Path(__file__).parent)
sys.path[:] = [*(path for path in sys.path if path != _HERE), _HERE]


def arguments(about: str | None) -> argparse.Namespace:
    """The command line of a benchmark: `--quick` keeps it under a minute."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, under a minute")
    return parser.parse_args()


def row(
    what: str, peer: str, ours: float, theirs: float, unit: str, *, better: Literal["lower", "higher"] = "lower"
) -> Row:
    """One comparison. `ratio` is how many times better ours is: above 1, ours is better.

    >>> row("start", "peer", 0.2, 0.1, "s")["ratio"]
    0.5
    """
    ratio = theirs / ours if better == "lower" else ours / theirs
    return {
        "what": what,
        "peer": peer,
        "ours_value": float(f"{ours:.4g}"),
        "peer_value": float(f"{theirs:.4g}"),
        "unit": unit,
        "ratio": float(f"{ratio:.3g}"),
    }


def alternate(
    sides: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Fewest seconds of each side, run in turns: other work on the machine can only add to them.

    With `time.process_time` they are seconds of CPU, of all threads.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            started = clock()
            run()
            seconds[name].append(clock() - started)
    return {name: min(values) for name, values in seconds.items()}


def report(
    benchmark: str, rows: Sequence[Row], packages: Sequence[str], others: Mapping[str, str] | None = None
) -> None:
    """Print the table, then one JSON line with the versions of everything compared; `others` lie elsewhere."""
    header = ("what", "peer", "ours", "peer's", "unit", "times better")
    keys = ("what", "peer", "ours_value", "peer_value", "unit", "ratio")
    cells = [header, *(tuple(str(line[key]) for key in keys) for line in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    versions = {"python": platform.python_version(), **{name: installed(name) for name in ("toolweave", *packages)}}
    versions |= others or {}
    print(json.dumps({"benchmark": benchmark, "versions": versions, "rows": list(rows)}))
    sys.stdout.flush()


def installed(package: str) -> str | None:
    """Its version, or None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
