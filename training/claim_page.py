"""The page of an experiment, from its findings: what is claimed, what was measured, and what that says."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from training.progress import duration
from training.report import markdown_table, number, percent

WIDTH = 130


def claim_page(found: Mapping[str, Any]) -> str:
    """The whole page as markdown."""
    parts = [
        f"# {found['title']}",
        _filled(f"**Claim.** {found['claim']}"),
        _filled(f"**Here.** {conclusion(found)}"),
        "\n".join(_filled(f"- {sentence(one)}", "  ") for one in found["differences"]),
        f"```console\n$ {found['command']}\n```",
        markdown_table(*_results(found)),
        _filled(_how(found)),
        markdown_table(*_differences(found)),
        *(_budgets(found)),
        *(part for curve in found["curves"] for part in _curve(curve)),
        _filled(f"**What it does not say.** {found['limits']}") if found["limits"] else "",
        _filled(_made(found)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def conclusion(found: Mapping[str, Any]) -> str:
    """What the differences say together, by their verdicts alone.

    >>> conclusion({"differences": [{"verdict": "as claimed"}, {"verdict": "not told apart"}], "seeds": [0, 1]})
    'Of 2 differences, 1 is as claimed and 1 is not told apart.'
    """
    verdicts = [one["verdict"] for one in found["differences"]]
    if not verdicts:
        return "Measured as it stands; nothing is compared."
    if set(verdicts) == {"not told apart"}:
        which = {1: "The difference is not", 2: "Neither difference is"}.get(len(verdicts), "No difference is")
        said = f"{which} told apart."
    elif len(set(verdicts)) == 1:
        which = {1: "The difference is", 2: "Both differences are"}.get(len(verdicts), "All differences are")
        said = f"{which} {verdicts[0]}."
    else:
        order = ("as claimed", "not told apart", "the other way round")
        counts = [(verdicts.count(kind), kind) for kind in order if kind in verdicts]
        parts = [f"{count} {'is' if count == 1 else 'are'} {kind}" for count, kind in counts]
        said = f"Of {len(verdicts)} differences, {', '.join(parts[:-1])} and {parts[-1]}."
    return said + (" One seed says nothing of others." if len(found["seeds"]) == 1 else "")


def sentence(one: Mapping[str, Any]) -> str:
    """What a difference says, in words."""
    low, high = one["ci95"]
    higher, lower, mean = f"*{one['higher']}*", f"*{one['lower']}*", one["mean"]
    if one["verdict"] == "the other way round":
        (low, high), (higher, lower), mean = (-high, -low), (lower, higher), -mean
    shown = _amount(one)
    size = f"{shown(mean)} {_unit(one)} (95% {shown(low)} to {shown(high)})"
    if one["verdict"] == "not told apart":
        return f"{higher} and {lower} are not told apart: the difference is {size}."
    return f"{higher} is above {lower} by {size}, {one['verdict']}."


def _results(found: Mapping[str, Any]) -> tuple[Sequence[str], list[list[str]]]:
    heads = [
        "",
        "accuracy",
        "95% interval",
        *_seed_heads(found),
        *(name.removesuffix("%") for name in found["columns"]),
    ]
    rows: list[list[str]] = []
    for row in found["rows"]:
        low, high = row["ci95"]
        shown = [
            (percent if column.endswith("%") else number)(_mean(row["metrics"][column.removesuffix("%")]))
            for column in found["columns"]
        ]
        rows.append(
            [row["label"], percent(row["mean"]), f"{percent(low)} to {percent(high)}", *_each(found, row), *shown]
        )
    return heads, rows


def _differences(found: Mapping[str, Any]) -> tuple[Sequence[str], list[list[str]]]:
    heads = ["difference", "in", "mean", "95% interval", *_seed_heads(found), ""]
    rows: list[list[str]] = []
    for one in found["differences"]:
        shown, (low, high) = _amount(one), one["ci95"]
        each = [" ".join(map(shown, one["values"]))] if len(found["seeds"]) > 1 else []
        name = f"{one['higher']} - {one['lower']}"
        rows.append(
            [name, _unit(one), shown(one["mean"]), f"{shown(low)} to {shown(high)}", *each, f"**{one['verdict']}**"]
        )
    return heads, rows


def _amount(one: Mapping[str, Any]) -> Callable[[float], str]:
    """How an amount of a difference is written: shares in points."""
    return (lambda value: f"{100 * value:.1f}") if one["share"] else number


def _unit(one: Mapping[str, Any]) -> str:
    points = ["points"] if one["share"] else []
    return " of ".join([*points, *([one["metric"]] if one["metric"] else [])])


def _seed_heads(found: Mapping[str, Any]) -> list[str]:
    return ["each seed"] if len(found["seeds"]) > 1 else []


def _each(found: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    return [" ".join(f"{100 * value:.1f}" for value in row["values"])] if len(found["seeds"]) > 1 else []


def _how(found: Mapping[str, Any]) -> str:
    """What the numbers in the table are."""
    rows, seeds = found["rows"], found["seeds"]
    tasks = sorted({row["tasks"] for row in rows})
    measured = f"{tasks[0]}" if len(tasks) == 1 else f"{tasks[0]} to {tasks[-1]}"
    said = [f"Accuracy on {measured} held-out tasks a row."]
    by_seeds = [row for row in [*rows, *found["differences"]] if row["over"] == "seeds"]
    if by_seeds:
        said.append(f"Means over {len(seeds)} seeds with Student's interval, the seed being the unit.")
    if len(by_seeds) < len(rows) + len(found["differences"]):
        why = "With one seed" if len(seeds) == 1 else "Where seeds do not differ"
        said.append(f"{why} the interval is that of one evaluation, over its questions.")
    if found["missing"]:
        missing = ", ".join(map(str, found["missing"]))
        said.append(f"**{len(seeds)} of {len(seeds) + len(found['missing'])} seeds are done; missing: {missing}.**")
    errors = sum(row["errors"] for row in rows)
    if errors:
        said.append(f"{errors} episodes ended in an error of ours and are left out.")
    return " ".join(said)


def _budgets(found: Mapping[str, Any]) -> list[str]:
    """What each row was trained with; rows that were trained alike share a line."""
    together: dict[str, list[str]] = {}
    facts: dict[str, Mapping[str, Any]] = {}
    for one in found["budgets"]:
        key = " -> ".join(one["stages"])
        together.setdefault(key, []).append(one["label"])
        facts[key] = one
    if not any(facts):
        return []
    heads = ("trained since the base", "stages", "SFT rows", "GRPO episodes", "tokens", "time")
    rows = [
        [
            " / ".join(labels),
            key or "none",
            f"{round(facts[key]['sft_rows']):,}",
            f"{round(facts[key]['episodes']):,}",
            "-" if facts[key]["tokens"] is None else f"{round(facts[key]['tokens']):,}",
            duration(facts[key]["seconds"]),
        ]
        for key, labels in together.items()
    ]
    what = (
        "Tokens are those of all rows trained on: prompts, what tools returned and what was written. Means over seeds."
    )
    return ["## What each was trained with", markdown_table(heads, rows), what]


def _curve(curve: Mapping[str, Any]) -> list[str]:
    heads = ("steps", *curve["steps"])
    rows = [[name, *map(number, values)] for name, values in curve["metrics"].items()]
    return [f"## While {curve['stage']} trained", markdown_table(heads, rows)]


def _made(found: Mapping[str, Any]) -> str:
    """With what and how long; a line of its own, as it differs from one making to the next."""
    versions = ", ".join(f"{name} {value}" for name, value in found["versions"].items())
    time = f"{duration(fmean(found['seconds']))} a seed on {_threads(found['threads'])}"
    return f"Model {found['model']}; {time}; {versions}; commit {' or '.join(map(_short, found['commits']))}."


def _short(commit: str) -> str:
    head, plus, changed = commit.partition("+")
    return head[:12] + plus + changed


def _threads(threads: int | None) -> str:
    """What torch computes on; pictures for the next step may be drawn by another process."""
    return "a thread for each core" if threads is None else "one thread" if threads == 1 else f"{threads} threads"


def _mean(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return fmean(found) if found else None


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(" ".join(text.split()), WIDTH, subsequent_indent=indent, break_on_hyphens=False)
