"""From episodes to one result: what is counted, what is counted apart, and the files that say so."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, field
from pathlib import Path
from statistics import fmean
from typing import Any

from envs.rubric import Rubric
from evals.measures import Measure, default_measures, measure
from evals.sample import Sample
from evals.stats import estimate
from tools.record import record

SHOWN_CATEGORIES = 100
"""Categories that people are shown; results.json has all of them."""


@record
class Category:
    """What one category of the tasks came to, counted as the whole is: see the fields of `EvalResult`."""

    n: int
    """Questions with a finished sample."""
    samples: int
    scored: int
    errors: int
    accuracy: float
    accuracy_errors_zero: float
    ci95_errors_zero: tuple[float, float]
    ci95: tuple[float, float]
    stderr: float
    interval: str
    scores: Mapping[str, float]


@record
class EvalResult:
    """What an evaluation found. Rates and means are over the samples that were scored, unless they say otherwise."""

    taskset: str
    metric: str
    """The rubric's first reward: what `accuracy` is the mean of."""
    accuracy: float
    """Mean over questions, errors left out; nan when nothing was scored."""
    accuracy_errors_zero: float
    """The same with every error counted as 0."""
    ci95_errors_zero: tuple[float, float]
    ci95: tuple[float, float]
    """Of `accuracy`."""
    stderr: float
    """Of `accuracy`, clustered by question."""
    interval: str
    """How `ci95` was made: `wilson`, `student-t` or `none`."""
    n: int
    """Questions asked for."""
    repeats: int
    samples: int
    """Finished, of n x repeats."""
    scored: int
    errors: int
    """Finished without a score: our side broke. Never counted as a wrong answer in `accuracy`."""
    complete: bool
    """Every sample asked for has finished."""
    calls_per_task: float
    """Mean calls per episode."""
    tool_error_rate: float
    """Calls that came back as an error, of all calls; 0 without calls."""
    used_tools: float
    """Share of episodes with at least one call."""
    truncated: float
    """Share of episodes cut by a limit. They are scored all the same."""
    unanswered: float
    """Share of episodes in which no answer was found."""
    mean_turns: float
    mean_tokens: float
    """Sampled by the model, per episode."""
    mean_seconds: float
    """Per episode."""
    tokens: Mapping[str, int]
    """In all, errors among them: `prompt` and `sampled` by the policy, `judge` for both of a judge's."""
    cost: float | None
    """US dollars in all, errors, what was tried again and judges among them; None where no prices were given."""
    retries: int
    """Requests that were sent again. A server that fails on long answers shifts what is measured: look here."""
    seconds: float
    """Wall time of the sessions that made these samples, but for one that was killed."""
    stops: Mapping[str, int]
    """How many episodes ended how."""
    scores: Mapping[str, float]
    """Mean of every reward and metric, over questions."""
    measures: Mapping[str, Measure] = field(default_factory=dict[str, Measure])
    """pass@k, pass^k, maj@k and avg@k by name, of `metric`."""
    categories: Mapping[str, Category] = field(default_factory=dict[str, Category])
    """By `Task.info["category"]`, sorted; a task without one is in none. Empty where there are not two of them."""
    first_error: str | None = None
    stopped: str | None = None
    """`max_cost` or `max_time` where a limit of the whole run ended it early."""
    out: Path = Path()
    """The run folder."""

    def to_json(self) -> dict[str, Any]:
        """JSON values only: an undefined number is null."""
        return {key: plain(value) for key, value in asdict(self).items() if key != "out"}


def result_of(
    samples: Sequence[Sample],
    *,
    taskset: str,
    rubric: Rubric,
    n: int,
    repeats: int,
    seconds: float,
    out: Path,
    measures: Sequence[str] | None = None,
    stopped: str | None = None,
) -> EvalResult:
    """Count `samples` (each key once) of the n x repeats asked for. `measures` None: those that fit the repeats."""
    scored = [sample for sample in samples if sample.scored]
    errors = [sample for sample in samples if not sample.scored]
    metric = rubric.headline
    whole = _counted(samples, rubric)
    calls = sum(sample.calls for sample in scored)
    wanted = default_measures(repeats) if measures is None else measures
    costs = [sample.cost for sample in samples if sample.cost is not None]
    return EvalResult(
        taskset=taskset,
        metric=metric,
        accuracy=whole.accuracy,
        accuracy_errors_zero=whole.accuracy_errors_zero,
        ci95_errors_zero=whole.ci95_errors_zero,
        ci95=whole.ci95,
        stderr=whole.stderr,
        interval=whole.interval,
        n=n,
        repeats=repeats,
        samples=len(samples),
        scored=len(scored),
        errors=len(errors),
        complete=len(samples) == n * repeats,
        calls_per_task=_mean(sample.calls for sample in scored),
        tool_error_rate=sum(sample.call_errors for sample in scored) / calls if calls else 0.0,
        used_tools=_mean(sample.calls > 0 for sample in scored),
        truncated=_mean(sample.truncated for sample in scored),
        unanswered=_mean(not sample.answered for sample in scored),
        mean_turns=_mean(sample.turns for sample in scored),
        mean_tokens=_mean(sample.tokens for sample in scored),
        mean_seconds=_mean(sample.seconds for sample in scored),
        tokens={
            "prompt": sum(sample.prompt_tokens for sample in samples),
            "sampled": sum(sample.tokens for sample in samples),
            "judge": sum(sample.judge_tokens for sample in samples),
        },
        cost=sum(costs) if costs else None,
        retries=sum(sample.retries for sample in samples),
        seconds=seconds,
        stops=dict(sorted(Counter(sample.stop for sample in samples).items())),
        scores=whole.scores,
        measures={name: measure(name, scored, metric) for name in wanted},
        categories=by_category(samples, rubric),
        first_error=errors[0].error if errors else None,
        stopped=stopped,
        out=out,
    )


def by_category(samples: Iterable[Sample], rubric: Rubric) -> dict[str, Category]:
    """Each category counted by itself; nothing where the samples name fewer than two."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.category is not None:
            found.setdefault(sample.category, []).append(sample)
    return {name: _counted(found[name], rubric) for name in sorted(found)} if len(found) > 1 else {}


def _counted(samples: Sequence[Sample], rubric: Rubric) -> Category:
    scored = [sample for sample in samples if sample.scored]
    found = estimate(by_question(scored, rubric.headline))
    with_zeros = estimate(by_question(samples, rubric.headline))
    return Category(
        n=len({sample.id for sample in samples}),
        samples=len(samples),
        scored=len(scored),
        errors=len(samples) - len(scored),
        accuracy=found.mean,
        accuracy_errors_zero=with_zeros.mean,
        ci95_errors_zero=with_zeros.ci95,
        ci95=found.ci95,
        stderr=found.stderr,
        interval=found.method,
        scores={name: estimate(by_question(scored, name)).mean for name in rubric.rewards},
    )


def by_question(samples: Iterable[Sample], metric: str) -> list[list[float]]:
    """Each question's scores; 0 for a sample without one."""
    questions: dict[str, list[float]] = {}
    for sample in samples:
        questions.setdefault(sample.id, []).append(sample.scores.get(metric, 0.0) if sample.scored else 0.0)
    return list(questions.values())


def percent(share: float) -> str:
    """A share for people.

    >>> percent(0.4166), percent(float("nan"))
    ('41.7%', '-')
    """
    return "-" if math.isnan(share) else f"{100 * share:.1f}%"


def rows(result: EvalResult) -> list[tuple[str, str]]:
    """The summary as label and value, for the terminal, `summary.md` and the page."""
    low, high = result.ci95
    interval = "no interval" if math.isnan(low) else f"95% {percent(low)} to {percent(high)}, {result.interval}"
    finished = f"{result.scored} of {result.n * result.repeats}"
    found = [
        (result.metric, f"{percent(result.accuracy)}  ({interval})"),
        ("scored", f"{finished} ({result.n} tasks x {result.repeats})" if result.repeats > 1 else finished),
        ("errors", str(result.errors)),
    ]
    if result.errors:
        found.append((f"{result.metric}, errors = 0", percent(result.accuracy_errors_zero)))
    found += [(name, _measure_cell(measured)) for name, measured in result.measures.items()]
    found += [(name, _number(value)) for name, value in result.scores.items() if name != result.metric]
    return [
        *found,
        ("calls per task", f"{_number(result.calls_per_task)}  (used in {percent(result.used_tools)} of episodes)"),
        ("tool error rate", percent(result.tool_error_rate)),
        ("truncated (scored all the same)", percent(result.truncated)),
        ("no answer found", percent(result.unanswered)),
        ("mean turns", _number(result.mean_turns)),
        ("mean tokens", _number(result.mean_tokens)),
        ("seconds per episode", _number(result.mean_seconds)),
        ("seconds in all", _number(result.seconds)),
        ("tokens in / out", f"{result.tokens['prompt']} / {result.tokens['sampled']}"),
        *([("tokens of the judge", str(result.tokens["judge"]))] if result.tokens["judge"] else []),
        *([("cost", f"${result.cost:.4f}")] if result.cost is not None else []),
        *([("requests sent again", str(result.retries))] if result.retries else []),
    ]


def category_table(results: Mapping[str, Any]) -> list[list[str]]:
    """The categories in `results` (`EvalResult.to_json()`, or results.json) for people, headings first; or nothing."""
    categories: Mapping[str, Mapping[str, Any]] = results.get("categories") or {}
    if not categories:
        return []
    metric = str(results["metric"])
    shown = list(categories.items())[:SHOWN_CATEGORIES]
    failed = any(found["errors"] for found in categories.values())
    others = [name for name in shown[0][1]["scores"] if name != metric]
    table = [["category", "tasks", metric, "95%", *(["errors"] if failed else []), *others]]
    for name, found in shown:
        low, high = found["ci95"]
        table.append(
            [
                name,
                str(found["n"]),
                percent(_known(found["accuracy"])),
                "-" if low is None else f"{percent(low)} to {percent(high)}",
                *([str(found["errors"])] if failed else []),
                *(_number(_known(found["scores"][other])) for other in others),
            ]
        )
    left_out = len(categories) - len(shown)
    return [*table, [f"and {left_out} more in results.json", *[""] * (len(table[0]) - 1)]] if left_out else table


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _measure_cell(found: Measure) -> str:
    if found.questions == 0:
        return f"undefined: no question has {found.k} scored attempts"
    low, high = found.ci95
    interval = "no interval" if math.isnan(low) else f"95% {percent(low)} to {percent(high)}"
    return f"{percent(found.value)}  ({interval}, {found.questions} tasks)"


def summary(result: EvalResult, about: Mapping[str, Any]) -> str:
    """`summary.md`: what was asked, what was found."""
    asked = [(key, value) for key, value in about.items() if isinstance(value, str | int | float) and value != ""]
    table = [*asked, *rows(result)]
    body = "\n".join(f"| {_cell(str(label))} | {_cell(str(value))} |" for label, value in table)
    why = f" Stopped by {result.stopped}." if result.stopped else ""
    asked_for = result.n * result.repeats
    state = "" if result.complete else f"\nUnfinished: {result.samples} of {asked_for} samples.{why}\n"
    return f"# {result.taskset}\n{state}\n| | |\n|---|---|\n{body}\n{_categories(result)}"


def _categories(result: EvalResult) -> str:
    """The categories as a table in Markdown; empty where there are none."""
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in category_table(result.to_json())]
    return "\n".join(["", lines[0], "|---" * lines[0].count(" | ") + "|---|", *lines[1:], ""]) if lines else ""


def write_atomic(path: Path, text: str) -> None:
    """Replace `path` in one step: a reader meets the old file or the new one, never half."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of readable JSON."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}".rstrip("0").rstrip(".")


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return fmean(found) if found else math.nan


def plain(value: Any) -> Any:
    """`value` in JSON's own types; a number that is none is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}  # pyright: ignore
    return value
