"""What the tools were worth: the same model on the same tasks, with and without them."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from evals.compare import Comparison, compare
from evals.index import latest_entries, read_index
from evals.result import percent, plain, write_json
from evals.run_folder import opened
from evals.show import metric_of, natural_key
from tools.record import record


@record
class Ablation:
    """Tools against no tools. A tool that is called on what the model can do without it has earned nothing."""

    metric: str
    with_tools: str
    """Run folder."""
    without_tools: str
    comparison: Comparison
    """B is with tools."""
    tool_solved: tuple[str, ...]
    """Questions solved with tools in which a tool was called: at least half of all attempts are right and call one."""
    also_without: tuple[str, ...]
    """Those of them that are solved without tools too."""
    only_with: tuple[str, ...]
    """Those that are not."""

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        return plain(asdict(self))


def ablation(with_tools: Path | str, without_tools: Path | str) -> Ablation:
    """Compare the two runs and write `ablation.json` into the first.

    A question is solved when the mean of its attempts is at least one half. Raises `ConfigError` as `compare` does.
    """
    metric = metric_of(opened(with_tools))
    found = compare(without_tools, with_tools)
    earned, alone = _solved(with_tools, metric, calling=True), _solved(without_tools, metric, calling=False)
    tool_solved = sorted(earned, key=natural_key)
    result = Ablation(
        metric=metric,
        with_tools=str(with_tools),
        without_tools=str(without_tools),
        comparison=found,
        tool_solved=tuple(tool_solved),
        also_without=tuple(id for id in tool_solved if id in alone),
        only_with=tuple(id for id in tool_solved if id not in alone),
    )
    write_json(Path(with_tools) / "ablation.json", result.to_json())
    return result


def print_ablation(found: Ablation) -> None:
    """The ablation for a person."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    low, high = found.comparison.ci95
    interval = "" if math.isnan(low) else f" (95% {100 * low:+.1f} to {100 * high:+.1f})"
    solved, also = len(found.tool_solved), len(found.also_without)
    share = f"{also} of {solved} ({percent(also / solved)})" if solved else "none were solved with a call"
    table = Table(title=Text("what the tools were worth"), show_header=False, title_justify="left")
    for label, value in (
        (f"{found.metric} with tools", percent(found.comparison.mean_b)),
        (f"{found.metric} without", percent(found.comparison.mean_a)),
        ("difference", f"{100 * found.comparison.difference:+.1f} points{interval}"),
        ("McNemar exact p", "-" if found.comparison.p_value is None else f"{found.comparison.p_value:.4g}"),
        ("solved with a call, and also without tools", share),
        ("solved only with tools", str(len(found.only_with))),
        ("better without tools", str(len(found.comparison.a_wins))),
    ):
        table.add_row(Text(label), Text(value))
    console = Console(highlight=False)
    console.print(table)
    if found.also_without:
        rest = f" and {also - 20} more" if also > 20 else ""
        console.print(Text(f"did not need their tool: {', '.join(found.also_without[:20])}{rest}"), soft_wrap=True)
    console.print(Text(f"in full: {Path(found.with_tools) / 'ablation.json'}"), soft_wrap=True)


def _solved(path: Path | str, metric: str, *, calling: bool) -> set[str]:
    attempts: dict[str, list[float]] = {}
    for entry in latest_entries(read_index(opened(path))).values():
        sample = entry.sample
        if sample.scored:
            counted = sample.scores.get(metric, 0.0) if sample.calls or not calling else 0.0
            attempts.setdefault(sample.id, []).append(counted)
    return {id for id, scores in attempts.items() if fmean(scores) >= 0.5}
