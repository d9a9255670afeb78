"""A run in the terminal: its numbers, its list of episodes, one episode to read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from envs.log import blobs_beside
from envs.message import Message
from envs.trajectory import CallRecord, Trajectory
from evals.index import latest_entries, read_episode, read_index
from evals.result import EvalResult, category_table, rows
from evals.run_folder import RunFolder, opened
from evals.sample import name_of_key, target_of
from tools.content import BlobStore, Content, Image, Text
from tools.errors import ConfigError, nearest

if TYPE_CHECKING:
    from rich.console import Console

_COLOUR = {"system": "dim", "user": "cyan", "assistant": "green", "tool": "yellow"}


def print_result(result: EvalResult) -> None:
    """The summary table, and where the page is."""
    from rich.table import Table
    from rich.text import Text as Styled

    table = Table(title=Styled(result.taskset), show_header=False, title_justify="left")
    for label, value in rows(result):
        table.add_row(Styled(label), Styled(value))
    console = _console()
    console.print(table)
    _print_categories(console, result)
    if result.first_error:
        console.print(Styled(f"first error: {printable(result.first_error)}", style="red"))
    report = RunFolder(result.out).report
    console.print(Styled(f"episodes: {report if report.exists() else result.out}"), soft_wrap=True)


def _print_categories(console: Console, result: EvalResult) -> None:
    """A line for each category of the tasks, where there are several."""
    from rich.table import Table
    from rich.text import Text as Styled

    found = category_table(result.to_json())
    if not found:
        return
    table = Table()
    for index, heading in enumerate(found[0]):
        table.add_column(Styled(heading), justify="right" if index else "left")
    for row in found[1:]:
        table.add_row(*(Styled(printable(cell)) for cell in row))
    console.print(table)


def show_list(path: Path) -> None:
    """One line per episode: id, score, how it ended, calls, tokens, answer."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text as Styled

    folder = opened(path)
    metric = metric_of(folder)
    console = _console()
    narrow = ("turns", "tokens", "failed") if console.width < 100 else ()  # so that answers can be read
    columns = ("episode", metric, "stop", "turns", "calls", "failed", "tokens", "target", "answer")
    table = Table(title=Styled(str(folder.root)), title_justify="left", expand=True, box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        if column not in narrow:
            share = {"target": 1, "answer": 2}.get(column)  # of the width that the others leave
            table.add_column(Styled(column), no_wrap=True, overflow="ellipsis", ratio=share)
    samples = [entry.sample for entry in latest_entries(read_index(folder)).values()]
    for sample in sorted(samples, key=lambda sample: (natural_key(sample.id), sample.repeat)):
        cells = (
            name_of_key(*sample.key),
            f"{sample.scores.get(metric, 0.0):g}" if sample.scored else "-",
            sample.stop,
            str(sample.turns),
            str(sample.calls),
            str(sample.call_errors or ""),
            str(sample.tokens),
            _short(sample.target),
            _short(sample.extracted or sample.answer or sample.error or ""),
        )
        shown = (cell for column, cell in zip(columns, cells, strict=True) if column not in narrow)
        table.add_row(*map(Styled, shown))
    console.print(table)


def show_episode(path: Path, name: str, console: Console | None = None) -> None:
    """One episode, whole: what was said, its pictures, each call with its result, scores and how it ended."""
    from rich.rule import Rule
    from rich.text import Text as Styled

    folder = opened(path)
    trajectory, blobs = find_episode(folder, name), blobs_beside(folder.samples)
    console = console or _console()
    console.print(Rule(Styled(name_of(trajectory))))
    for step in trajectory.steps:
        for message in step.observation:
            if message.role != "tool":  # results stand beside their calls
                _print_message(console, message, blobs)
        _print_message(console, step.action, blobs)
        for call in step.calls:
            _print_call(console, call, blobs)
        answered = {call.call.id for call in step.calls}
        for call in step.action.tool_calls:
            if call.id not in answered:
                console.print(Styled(f"  {call.name or 'call'} did not run: {printable(call.raw)}", style="red"))
    for message in trajectory.final:
        if message.role != "tool":
            _print_message(console, message, blobs)
    console.print(Rule())
    scores = "  ".join(f"{key} {value:g}" for key, value in trajectory.scores.items()) or "no score"
    facts = [f"stop: {trajectory.stop}", f"target: {target_of(trajectory)}", scores, f"seed {trajectory.seed}"]
    console.print(Styled(printable("   ".join(facts))), soft_wrap=True)
    if trajectory.error:
        console.print(Styled(printable(trajectory.error), style="red"), soft_wrap=True)


def find_episode(folder: RunFolder, name: str) -> Trajectory:
    """The episode called `ID` or `ID#REPEAT`. Raises `ConfigError` with the nearest names."""
    found = {name_of_key(*key): entry for key, entry in latest_entries(read_index(folder)).items()}
    id, mark, repeat = name.rpartition("#")
    wanted = name_of_key(id, int(repeat)) if mark and repeat.isdecimal() else name
    if wanted not in found:
        raise ConfigError(f"{folder.root} has no episode {name!r}", hint=nearest(name, list(found)[:2000]))
    return read_episode(folder, found[wanted])


def name_of(trajectory: Trajectory) -> str:
    """`ID`, or `ID#REPEAT` for any but the first attempt."""
    return name_of_key(trajectory.task.id, trajectory.sample)


def natural_key(text: str) -> list[tuple[int, int | str]]:
    """Sorts `task-9` before `task-10`.

    >>> sorted(["task-10", "task-9"], key=natural_key)
    ['task-9', 'task-10']
    """
    parts = re.split(r"([0-9]+)", text)
    return [(0, int(part)) if index % 2 else (1, part) for index, part in enumerate(parts)]


def metric_of(folder: RunFolder) -> str:
    """The headline score of a stored run."""
    config = folder.read_config() or {}
    return str(config.get("metric") or config.get("identity", {}).get("metric", "score"))


def text_of(content: tuple[Content, ...]) -> str:
    """Contents as text, an image as its size."""
    return "".join(p.text if isinstance(p, Text) else f"[image {p.width}x{p.height}]" for p in content)


def printable(text: str) -> str:
    """`text` without control characters: an episode may hold escape sequences that would drive the terminal.

    >>> printable("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return "".join(c if c in "\n\t" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _print_message(console: Console, message: Message, blobs: BlobStore) -> None:
    from rich.text import Text as Styled

    console.print(Styled(message.role, style=f"bold {_COLOUR[message.role]}"))
    if message.reasoning:
        console.print(Styled(printable(message.reasoning), style="dim italic"), soft_wrap=True)
    text = text_of(message.content)
    if text:
        console.print(Styled(printable(text)), soft_wrap=True)
    _print_pictures(console, message.content, blobs)


def _print_call(console: Console, record: CallRecord, blobs: BlobStore) -> None:
    from rich.text import Text as Styled

    call = record.call
    console.print(Styled(f"  call {printable(call.name)}", style="bold magenta"))
    if call.arguments is None:
        console.print(Styled(printable(call.raw)), soft_wrap=True)
    for key, value in (call.arguments or {}).items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        console.print(Styled(_indented(printable(f"{key}: {shown}"))), soft_wrap=True)
    style = "yellow" if record.outcome == "ok" else "red"
    console.print(Styled(f"  {record.outcome} in {record.seconds:.2f} s", style=f"bold {style}"))
    console.print(Styled(_indented(printable(text_of(record.result.content)))), soft_wrap=True)
    _print_pictures(console, record.result.content, blobs)


def _print_pictures(console: Console, content: tuple[Content, ...], blobs: BlobStore) -> None:
    """Each picture, where the terminal has colours; where its bytes are gone, a line that says so."""
    from rich.text import Text as Styled

    from agent.repl.pictures import show

    for part in content:
        if isinstance(part, Image) and console.is_terminal and not console.no_color:
            try:
                show(console, blobs.open(part))
            except ConfigError as error:
                console.print(Styled(str(error), style="red"), soft_wrap=True)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _short(text: str) -> str:
    flat = printable(" ".join(text.split()))
    return flat if len(flat) <= 60 else f"{flat[:57]}..."


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)
