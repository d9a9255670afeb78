"""What the runs of an experiment found, from their files alone: `NAME.json`, and all that its page says.

The seed is the unit: a row's value is one number a seed, its interval Student's over seeds,

    mean +- t(0.975, k - 1) * sd / sqrt(k)    over k seeds,

cut to [0, 1] for shares. Differences are taken within each seed first, and cut to [-1, 1]. One seed, and seeds that all
say the same, have no spread to go by: there it is the interval of one evaluation, over its questions; for a difference
the two such intervals put together by squaring and adding (Newcombe 1998, method 10).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TypeAlias

from evals.index import latest_entries, read_index
from evals.run_folder import RunFolder
from evals.stats import Estimate, estimate, student_t_quantile
from tools.errors import ConfigError
from tools.record import record
from training.experiment import NUMBERS, PER_EPISODE, Experiment, Row, behind
from training.files import DONE, read_json, read_metrics
from training.recipe import GRPO, SFT, Recipe, Stage
from training.run import made_with

BINS = 6
"""Parts of a stage's steps that its curves are averaged over."""

Span: TypeAlias = tuple[float, float, float]
"""A value and its 95% interval: (value, low, high)."""


@record
class Interval:
    """A mean and how far it can be trusted."""

    mean: float
    low: float
    high: float
    over: str
    """`seeds`, or `questions` where the seeds do not differ."""


def over_seeds(spans: Sequence[Span], bounds: tuple[float, float] = (0.0, 1.0)) -> Interval:
    """The mean of one value a seed with its interval; `spans` are the values with the intervals of their evaluations.

    The interval is cut to `bounds` where all values lie in them.

    Worked by hand: 60%, 62% and 67% have mean 63% and sd sqrt((9 + 1 + 16) / 2) = 3.606 points; t(0.975, 2) is 4.303
    and 4.303 * 3.606 / sqrt(3) is 8.96 points.

    >>> found = over_seeds([(0.60, 0.5, 0.7), (0.62, 0.5, 0.7), (0.67, 0.6, 0.7)])
    >>> round(found.mean, 4), round(found.low, 4), round(found.high, 4), found.over
    (0.63, 0.5404, 0.7196, 'seeds')
    >>> over_seeds([(0.6, 0.5, 0.7), (0.6, 0.5, 0.7)])
    Interval(mean=0.6, low=0.5, high=0.7, over='questions')
    """
    values = [value for value, _, _ in spans]
    mean = fmean(values)
    if max(values) - min(values) < 1e-9:
        low, high = fmean([low for _, low, _ in spans]), fmean([high for _, _, high in spans])
        return Interval(mean=mean, low=low, high=high, over="questions")
    half = student_t_quantile(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    low, high = mean - half, mean + half
    if all(bounds[0] <= value <= bounds[1] for value in values):
        low, high = max(bounds[0], low), min(bounds[1], high)
    return Interval(mean=mean, low=low, high=high, over="seeds")


def minus(one: Span, other: Span) -> Span:
    """The difference of two measurements.

    >>> [round(x, 3) for x in minus((0.9, 0.85, 0.94), (0.5, 0.4, 0.6))]
    [0.4, 0.288, 0.508]
    """
    (a, a_low, a_high), (b, b_low, b_high) = one, other
    return a - b, a - b - math.hypot(a - a_low, b_high - b), a - b + math.hypot(a_high - a, b - b_low)


def mean_of(spans: Sequence[Span]) -> Span:
    """The mean of measurements that are independent of each other; of one, itself."""
    k = len(spans)
    mean = fmean([value for value, _, _ in spans])
    down = math.hypot(*(value - low for value, low, _ in spans)) / k
    up = math.hypot(*(high - value for value, _, high in spans)) / k
    return mean, mean - down, mean + up


def verdict(found: Interval) -> str:
    """What a difference says of a claim that it is above 0: `as claimed`, `the other way round` or `not told apart`."""
    return "as claimed" if found.low > 0 else "the other way round" if found.high < 0 else "not told apart"


def findings(experiment: Experiment, recipe: Recipe, runs: Mapping[int, Path], asked: Sequence[int]) -> dict[str, Any]:
    """All that is told of the finished runs, seed -> folder, as JSON values; `asked` are the seeds there should be."""
    spans = {row.label: [_measured(row, folder) for folder in runs.values()] for row in experiment.rows}
    made = [one for folder in runs.values() for one in made_with(folder)]
    return {
        "title": experiment.title,
        "claim": experiment.claim,
        "limits": experiment.limits,
        "recipe": recipe.name,
        "model": recipe.model,
        "taskset": recipe.taskset,
        "threads": recipe.threads,
        "seeds": list(runs),
        "missing": [seed for seed in asked if seed not in runs],
        "columns": list(experiment.metrics),
        "rows": [
            {
                "label": row.label,
                "stages": list(row.stages),
                "tasks": _counted(row, runs.values(), "n") // len(runs),
                "errors": _counted(row, runs.values(), "errors"),
                **_told(spans[row.label], over_seeds(spans[row.label])),
                "metrics": _metrics(row, experiment.metric_names, runs.values()),
            }
            for row in experiment.rows
        ],
        "differences": [_difference(experiment, one, runs.values()) for one in experiment.differences],
        "budgets": [_budget(row, recipe, runs.values()) for row in experiment.rows],
        "curves": [_curves(recipe.stage(name), names, runs.values()) for name, names in experiment.curves.items()],
        "seconds": [read_json(folder / "report.json")["seconds"] for folder in runs.values()],
        "versions": _distinct([one["versions"] for one in made]),
        "commits": sorted({str(one["commit"]) for one in made}),
    }


def _difference(experiment: Experiment, asked: Sequence[str], runs: Collection[Path]) -> dict[str, Any]:
    """Of two rows, (higher, lower) or (higher, lower, metric); or of a row and one of its own metrics."""
    rows = {row.label: row for row in experiment.rows}
    (higher, lower), metric = asked[:2], asked[2] if len(asked) > 2 else None
    gaps: list[Span] = []
    for folder in runs:
        above = _measured(rows[higher], folder, metric)
        below = _measured(rows[lower], folder, metric) if lower in rows else _measured(rows[higher], folder, lower)
        gaps.append(minus(above, below))
    share = metric is None or f"{metric}%" in experiment.metrics
    found = over_seeds(gaps, (-1.0, 1.0) if share else (-math.inf, math.inf))
    about = {"higher": higher, "lower": lower, "metric": metric, "share": share}
    return {**about, **_told(gaps, found), "verdict": verdict(found)}


def _told(spans: Sequence[Span], found: Interval) -> dict[str, Any]:
    return {
        "values": [value for value, _, _ in spans],
        "mean": found.mean,
        "ci95": [found.low, found.high],
        "over": found.over,
    }


def _result(folder: Path, stage: str) -> dict[str, Any]:
    return read_json(folder / stage / DONE)["result"]


def _measured(row: Row, folder: Path, metric: str | None = None) -> Span:
    """A row's accuracy, or a metric, in one run, with the interval of its evaluation."""
    found: list[Span] = []
    for stage in row.stages:
        result = _result(folder, stage)
        if result["accuracy"] is None:
            raise ConfigError(f"{folder / stage} has no score: {result['first_error']}", hint="no episode was scored")
        if metric is None:
            mean, (low, high) = result["accuracy"], (_or_none(bound) for bound in result["ci95"])
        else:
            counted = _of_samples(folder / stage, metric)
            mean, (low, high) = counted.mean, counted.ci95
        found.append((mean, mean if math.isnan(low) else low, mean if math.isnan(high) else high))
    return mean_of(found)


def _or_none(bound: float | None) -> float:
    return math.nan if bound is None else bound


def _of_samples(stage: Path, metric: str) -> Estimate:
    """A metric over the questions of one evaluation."""
    questions: dict[str, list[float]] = {}
    for entry in latest_entries(read_index(RunFolder(stage))).values():
        sample = entry.sample
        if sample.scored:
            value = PER_EPISODE[metric](sample) if metric in PER_EPISODE else sample.scores[metric]
            questions.setdefault(sample.id, []).append(value)
    return estimate(list(questions.values()))


def _metrics(row: Row, names: Sequence[str], runs: Collection[Path]) -> dict[str, list[float | None]]:
    """Metric -> a value for each run."""

    def value(folder: Path, name: str) -> float | None:
        results = [_result(folder, stage) for stage in row.stages]
        values = [result[name] if name in NUMBERS else result["scores"].get(name) for result in results]
        return None if None in values else fmean(values)

    return {name: [value(folder, name) for folder in runs] for name in names}


def _counted(row: Row, runs: Collection[Path], name: str) -> int:
    """A count of the row's evaluations, summed over them and over runs."""
    return sum(_result(folder, stage)[name] for folder in runs for stage in row.stages)


def _budget(row: Row, recipe: Recipe, runs: Collection[Path]) -> dict[str, Any]:
    """What the row's models were trained with since the base."""
    trained = behind(row, recipe)
    per_run = [[_tokens(folder / stage.name) for stage in trained] for folder in runs]
    tokens = None if any(None in counts for counts in per_run) else fmean([sum(filter(None, c)) for c in per_run])
    return {
        "label": row.label,
        "stages": [stage.name for stage in trained],
        "sft_rows": fmean([sum(_rows(stage, folder / stage.name) for stage in trained) for folder in runs]),
        "episodes": fmean([sum(_episodes(stage, folder / stage.name) for stage in trained) for folder in runs]),
        "tokens": tokens,
        "seconds": fmean([sum(read_json(folder / s.name / DONE)["seconds"] for s in trained) for folder in runs]),
    }


def _tokens(stage: Path) -> float | None:
    """Tokens of all the rows a stage was trained on, prompts and tool results among them; None where not counted."""
    rows = [row for row in read_metrics(stage) if "loss" in row]
    return rows[-1]["num_tokens"] if rows and all("num_tokens" in row for row in rows) else None


def _rows(stage: Stage, folder: Path) -> int:
    """Rows that a stage of SFT was trained on: as many steps as it took, which may be fewer than it was given."""
    return read_metrics(folder)[-1]["step"] * stage.batch_size if isinstance(stage, SFT) else 0


def _episodes(stage: Stage, folder: Path) -> int:
    """Episodes that a stage of GRPO played and graded."""
    if not isinstance(stage, GRPO):
        return 0
    with (folder / "advantages.jsonl").open("rb") as log:
        return sum(1 for _ in log)


def _curves(stage: SFT | GRPO, names: Sequence[str], runs: Collection[Path]) -> dict[str, Any]:
    """Means over equal parts of a stage's steps, and over runs; None where a part has no such number."""
    logged = [read_metrics(folder / stage.name) for folder in runs]
    taken = max(row.get("step", 0) for rows in logged for row in rows)
    bins = min(BINS, taken)
    edges = [part * taken // bins for part in range(bins + 1)]
    metrics: dict[str, list[float | None]] = {name: [] for name in names}
    for first, last in pairwise(edges):
        for name, parts in metrics.items():
            means = [_mean([row.get(name) for row in rows if first < row.get("step", 0) <= last]) for rows in logged]
            parts.append(_mean(means))
    steps = [f"{first + 1}-{last}" if last > first + 1 else str(last) for first, last in pairwise(edges)]
    return {"stage": stage.name, "steps": steps, "metrics": metrics}


def _mean(values: Sequence[Any]) -> float | None:
    """Of those that are numbers."""
    found = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
    return fmean(found) if found else None


def _distinct(facts: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Name -> value; with `or` between the values in which runs differ."""
    names = dict.fromkeys(name for one in facts for name in one)
    return {name: " or ".join(dict.fromkeys(one[name] for one in facts if name in one)) for name in names}
