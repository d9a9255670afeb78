"""Two runs, question by question: the paired comparison sees differences that two separate intervals hide."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from evals.index import latest_entries, read_index
from evals.result import percent, plain
from evals.run_folder import opened
from evals.show import metric_of, natural_key
from evals.stats import bootstrap, mcnemar, paired_stderr
from tools.errors import ConfigError
from tools.record import record


@record
class Comparison:
    """B against A on the questions that both answered. Positive means B is better."""

    metric: str
    n: int
    """Questions scored in both."""
    mean_a: float
    mean_b: float
    difference: float
    stderr: float
    """Of the difference, from each question's own."""
    ci95: tuple[float, float]
    """Bootstrap over questions, 10,000 resamples, fixed seed; nan where all differ alike, which shows no spread."""
    p_value: float | None
    """Exact McNemar; None unless every question's mean is 0 or 1 in both runs."""
    b_wins: tuple[str, ...]
    """Questions on which B did better."""
    a_wins: tuple[str, ...]
    ties: int
    only_a: tuple[str, ...]
    """Questions that only A scored."""
    only_b: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values only: an undefined number is null."""
        return plain(asdict(self))


def compare(a: Path | str, b: Path | str, metric: str | None = None, *, resamples: int = 10_000) -> Comparison:
    """Compare two run folders by each question's mean over its repeats, errors left out.

    Without `resamples` there is no bootstrap interval, and the comparison costs next to nothing.
    Raises `ConfigError` when the runs share no scored question or lack the score.
    """
    scores_a, scores_b = _scores(a, metric), _scores(b, metric)
    (name_a, means_a), (name_b, means_b) = scores_a, scores_b
    if name_a != name_b:
        raise ConfigError(f"{a} measures {name_a} and {b} measures {name_b}", hint="name one with --metric")
    shared = sorted((id for id in means_a if id in means_b), key=natural_key)  # a log's order is chance
    if not shared:
        raise ConfigError(f"{a} and {b} share no scored question", hint="compare runs of the same tasks")
    differences = [means_b[id] - means_a[id] for id in shared]
    b_wins = tuple(id for id, d in zip(shared, differences, strict=True) if d > 0)
    a_wins = tuple(id for id, d in zip(shared, differences, strict=True) if d < 0)
    spread = len(set(differences)) > 1
    binary = all(means[id] in (0.0, 1.0) for means in (means_a, means_b) for id in shared)
    return Comparison(
        metric=name_a,
        n=len(shared),
        mean_a=fmean(means_a[id] for id in shared),
        mean_b=fmean(means_b[id] for id in shared),
        difference=fmean(differences),
        stderr=paired_stderr(differences),
        ci95=bootstrap(differences, resamples=resamples) if resamples and spread else (math.nan, math.nan),
        p_value=mcnemar(len(a_wins), len(b_wins)) if binary else None,
        b_wins=b_wins,
        a_wins=a_wins,
        ties=len(shared) - len(a_wins) - len(b_wins),
        only_a=tuple(sorted(means_a.keys() - means_b.keys(), key=natural_key)),
        only_b=tuple(sorted(means_b.keys() - means_a.keys(), key=natural_key)),
    )


def print_comparison(found: Comparison, a: str, b: str) -> None:
    """The comparison for a person."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    low, high = found.ci95
    alike = "no interval: all questions differ alike"
    interval = alike if math.isnan(low) else f"95% {_signed(low)} to {_signed(high)}, bootstrap"
    table = Table(title=Text(f"A = {a}\nB = {b}"), show_header=False, title_justify="left")
    verdict = "-" if found.p_value is None else f"{found.p_value:.4g}"
    for label, value in (
        (f"{found.metric} A", percent(found.mean_a)),
        (f"{found.metric} B", percent(found.mean_b)),
        ("B - A", f"{_signed(found.difference)} points  ({interval})"),
        ("McNemar exact p", verdict),
        ("B better / same / A better", f"{len(found.b_wins)} / {found.ties} / {len(found.a_wins)} of {found.n}"),
        ("only in A / only in B", f"{len(found.only_a)} / {len(found.only_b)}"),
    ):
        table.add_row(Text(label), Text(value))
    console = Console(highlight=False)
    console.print(table)
    for label, ids in (("B better on", found.b_wins), ("A better on", found.a_wins)):
        if ids:
            rest = f" and {len(ids) - 20} more" if len(ids) > 20 else ""
            console.print(Text(f"{label}: {', '.join(ids[:20])}{rest}"), soft_wrap=True)


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}"


def _scores(path: Path | str, metric: str | None) -> tuple[str, dict[str, float]]:
    """The score's name, and each question's mean."""
    folder = opened(path)
    name = metric or metric_of(folder)
    attempts: dict[str, list[float]] = {}
    for entry in latest_entries(read_index(folder)).values():
        sample = entry.sample
        if not sample.scored:
            continue
        if name not in sample.scores:
            raise ConfigError(f"{path} has no score {name!r}", hint=f"it has {', '.join(sample.scores)}")
        attempts.setdefault(sample.id, []).append(sample.scores[name])
    return name, {id: fmean(scores) for id, scores in attempts.items()}
