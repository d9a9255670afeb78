"""What came of a run: report.json for programs, a table, curves, and a page for people."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evals.run_folder import RunFolder
from tools.errors import ConfigError
from training.files import DONE, MODEL, read_json, read_metrics, write_json, write_text
from training.progress import duration
from training.recipe import GRPO, SFT, Collect, Evaluate, Recipe, Stage, plays_tasks, title_of, trains

REPORT = "report"
PLOTS = "plots"
HEADS = ("model", "tools", "accuracy", "95% interval", "calls per task", "tool errors", "tokens", "time")


def report_of(recipe: Recipe, out: Path) -> dict[str, Any]:
    """report.json: one row per evaluation; its seconds are its own and those of the stages since the row before."""
    rows: list[dict[str, Any]] = []
    since, tasks = 0.0, 0
    for stage in recipe.stages:
        done = _done(out, stage)
        since += done["seconds"]
        if not isinstance(stage, Evaluate):
            continue
        found = done["result"]
        tasks = min(tasks or found["n"], found["n"])
        rows.append(
            {
                "evaluation": stage.name,
                "stage": stage.model,
                "tools": offers_tools(stage, out),
                "accuracy": found["accuracy"],
                "ci95": found["ci95"],
                "calls_per_task": found["calls_per_task"],
                "tool_error_rate": found["tool_error_rate"],
                "mean_tokens": found["mean_tokens"],
                "seconds": round(since, 1),
            }
        )
        since = 0.0
    versions: dict[str, Any] = read_json(out / "versions.json") or {}
    return {
        "model": recipe.model,
        "n": tasks,
        "rows": rows,
        "seconds": round(sum(_done(out, stage)["seconds"] for stage in recipe.stages), 1),
        "seed": recipe.seed,
        "versions": {**versions.get("versions", {}), "commit": versions.get("commit")},
    }


def offers_tools(stage: Evaluate, out: Path) -> bool:
    """Whether the model that was measured had any: they may be hidden, and a taskset may have none."""
    asked = RunFolder(out / stage.name).read_config()
    return stage.tools if asked is None else bool(asked["identity"].get("tools"))


def write_reports(recipe: Recipe, out: Path) -> None:
    """Write report.json, report.md, the plots and report.html of a finished run."""
    from training.before_after import before_and_after
    from training.pages import link_of, page, write_episode_pages

    report = report_of(recipe, out)
    curves = write_plots(recipe, out)
    table = markdown_table(HEADS, table_rows(report["rows"]))
    stages = markdown_table(("stage", "what it did", "time"), [stage_cells(stage, out) for stage in recipe.stages])
    pictures = "\n".join(f"![{path.stem}]({PLOTS}/{path.name})" for path in curves)
    head = f"# {title_of(recipe)}, seed {recipe.seed}"
    write_text(out / f"{REPORT}.md", "\n\n".join(part for part in (head, table, stages, pictures) if part) + "\n")
    write_episode_pages(recipe, out)
    write_text(
        out / f"{REPORT}.html",
        page(
            recipe,
            report,
            results=(HEADS, table_rows(report["rows"])),
            stages=[(stage_cells(stage, out), link_of(stage, out)) for stage in recipe.stages],
            curves=curves,
            examples=before_and_after(recipe, out),
        ),
    )
    write_json(out / f"{REPORT}.json", report)


def closing_words(recipe: Recipe, out: Path) -> str:
    """The last lines of a run: the table, where the report is, how to talk to the model."""
    report = read_json(out / f"{REPORT}.json")
    parts: list[str] = []
    if report["rows"]:
        parts.append(text_table(HEADS, table_rows(report["rows"])))
    else:
        parts.append(text_table(("stage", "what it did", "time"), [stage_cells(s, out) for s in recipe.stages]))
    parts.append(f"{duration(report['seconds'])} in all. Report: {out / REPORT}.html")
    model = best_model(recipe)
    if model is not None:
        parts.append(f"Talk to it: agent --model {out / model / MODEL}{_tools_of(recipe)}")
    return "\n\n".join(parts)


def best_model(recipe: Recipe) -> str | None:
    """The stage whose model the run was for: the last that goes on from the first GRPO, as controls are trained beside
    it; without GRPO the last that trained.

    >>> from training.recipe import GRPO, SFT
    >>> sft, grpo = SFT(data="gold"), GRPO(start="sft")
    >>> best_model(Recipe(name="r", stages=(sft, grpo, GRPO(name="on", start="grpo"), GRPO(name="control"))))
    'on'
    """
    trained = [stage for stage in recipe.stages if isinstance(stage, SFT | GRPO)]
    best = next((stage.name for stage in trained if isinstance(stage, GRPO)), None)
    if best is None:
        return trained[-1].name if trained else None
    for stage in trained:
        if stage.start == best:
            best = stage.name
    return best


def _tools_of(recipe: Recipe) -> str:
    python = recipe.taskset in ("arithmetic", "toy_arithmetic") and plays_tasks(recipe)
    return " --tools python" if python else ""


def table_rows(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The rows of report.json for people, called by the model measured; of several of one model, by the evaluation."""
    measured = Counter((row["stage"], row["tools"]) for row in rows)
    return [_cells(row, row["stage" if measured[row["stage"], row["tools"]] == 1 else "evaluation"]) for row in rows]


def _cells(row: dict[str, Any], name: str) -> list[str]:
    low, high = row["ci95"]
    return [
        name,
        "yes" if row["tools"] else "no",
        percent(row["accuracy"]),
        f"{percent(low)} to {percent(high)}",
        number(row["calls_per_task"]),
        percent(row["tool_error_rate"]),
        number(row["mean_tokens"]),
        duration(row["seconds"]),
    ]


def stage_cells(stage: Stage, out: Path) -> list[str]:
    """What a stage did, in a line."""
    done = _done(out, stage)
    return [stage.name, _said(stage, out, done, read_metrics(out / stage.name)), duration(done["seconds"])]


def _said(stage: Stage, out: Path, done: dict[str, Any], metrics: Sequence[dict[str, Any]]) -> str:
    if isinstance(stage, Collect):
        dropped = "".join(f", {count} dropped ({reason})" for reason, count in done["dropped"].items())
        return f"kept {done['kept']} of {done['episodes']} episodes{dropped}"
    if isinstance(stage, SFT):
        losses = [row["loss"] for row in metrics if "loss" in row]
        fell = f", loss {losses[0]:.3f} to {losses[-1]:.3f}" if losses else ""
        return f"{_steps(stage, metrics)} steps of {stage.batch_size} rows{fell}"
    if isinstance(stage, GRPO):
        rewards = [row["reward"] for row in metrics if "reward" in row]
        rose = f", reward {_ends(rewards)}" if rewards else ""
        return f"{_steps(stage, metrics)} steps of {stage.tasks_per_step} x {stage.group_size} episodes{rose}"
    tools = "with" if offers_tools(stage, out) else "without"
    return f"{stage.model}, {tools} tools: {percent(done['result']['accuracy'])}"


def _steps(stage: SFT | GRPO, metrics: Sequence[dict[str, Any]]) -> int:
    """How many were taken: a stage may end before its last."""
    return int(metrics[-1]["step"]) if metrics else stage.steps


def _ends(values: Sequence[float], most: int = 5) -> str:
    """The means of the first and the last few values."""
    few = max(1, min(most, len(values) // 2))
    return f"{sum(values[:few]) / few:.2f} to {sum(values[-few:]) / few:.2f} (first and last {few} steps)"


def write_plots(recipe: Recipe, out: Path) -> list[Path]:
    """Curves of every stage that trained; none where matplotlib is not installed."""
    from training.plot import SHOWN, curves_of, draw

    made: list[Path] = []
    for stage in recipe.stages:
        curves = curves_of({stage.name: read_metrics(out / stage.name)}, SHOWN) if trains(stage) else {}
        if curves:
            try:
                made.append(draw(curves, out / PLOTS / f"{stage.name}.png"))
            except ConfigError as error:  # the run is not worth less without pictures
                print(f"no plots: {error}", file=sys.stderr)
                return []
    return made


def percent(share: float | None) -> str:
    """A share for people; `-` where there is none.

    >>> percent(0.4166), percent(None)
    ('41.7%', '-')
    """
    return "-" if share is None or math.isnan(share) else f"{100 * share:.1f}%"


def number(value: float | None) -> str:
    """A number for people.

    >>> number(1.0), number(37.456), number(None)
    ('1', '37.5', '-')
    """
    return "-" if value is None or math.isnan(value) else f"{value:.3g}"


def text_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned with spaces.

    >>> print(text_table(("model", "right"), [("base", "0%"), ("sft", "41%")]))
    model  right
    base   0%
    sft    41%
    """
    widths = [max(len(row[at]) for row in (heads, *rows)) for at in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (heads, *rows)]
    return "\n".join(line.rstrip() for line in lines)


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same in markdown; empty without rows."""
    if not rows:
        return ""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _done(out: Path, stage: Stage) -> dict[str, Any]:
    return read_json(out / stage.name / DONE)
