"""How far a stage is, and how long it still takes: a bar on a terminal, else a line every few seconds on stderr."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, final

from training.files import read_json, write_json

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

LINE_EVERY_S = 10.0


@final
class Progress:
    """Counts work done; shows time left from the pace of this process, so that resumed work does not flatter it.

    with Progress("collect", total=200, done=40) as progress:
        progress.advance(kept=1)
    """

    def __init__(self, title: str, total: int, done: int = 0, unit: str = "") -> None:
        self.title = title
        self.total = total
        self.done = done
        self.unit = unit
        self._began_at = done
        self._started = time.monotonic()
        self._said = self._started
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._open_bar()
        else:
            resumed = f", {self.done} done before" if self.done else ""
            print(f"{self.title}: {self.total} {self.unit}".rstrip() + resumed, file=sys.stderr, flush=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            spent = duration(time.monotonic() - self._started)
            print(f"{self.title}: {self.done}/{self.total} in {spent}", file=sys.stderr, flush=True)

    def advance(self, by: int = 1, **shown: float | int | str) -> None:
        """Count `by` more, and show the given values beside the bar."""
        self.done += by
        note = "  ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items()
        )
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.done, total=self.total, note=note)
            return
        now = time.monotonic()
        if now - self._said >= LINE_EVERY_S:
            self._said = now
            left = f"{duration(self.seconds_left)} left" if self.seconds_left is not None else ""
            parts = (f"{self.title}: {self.done}/{self.total}", left, note)
            print("  ".join(part for part in parts if part), file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """A line of text, above the bar where there is one."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            self._said = time.monotonic()  # it says more than the next line about progress would
            print(line, file=sys.stderr, flush=True)

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None before there is one."""
        made = self.done - self._began_at
        if made <= 0:
            return None
        return (time.monotonic() - self._started) / made * max(0, self.total - self.done)

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._bar = Bar(*columns, console=Console(stderr=True), refresh_per_second=4)
        self._task = self._bar.add_task(self.title, total=self.total, completed=self.done, note="")
        self._bar.start()


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(7.2), duration(75), duration(3700)
    ('7 s', '1 min 15 s', '1 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@final
class Stopwatch:
    """Seconds a stage has taken over all its runs, kept in `clock.json` so that a kill loses at most one tick."""

    def __init__(self, folder: Path, tick_s: float = 2.0) -> None:
        self._path = folder / "clock.json"
        saved: dict[str, float] | None = read_json(self._path)
        self._before = saved["seconds"] if saved else 0.0
        self._tick_s = tick_s
        self._started = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="stopwatch")

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._save()

    @property
    def seconds(self) -> float:
        """So far, earlier runs included."""
        return self._before + time.monotonic() - self._started

    def _keep(self) -> None:
        while not self._stop.wait(self._tick_s):
            self._save()

    def _save(self) -> None:
        write_json(self._path, {"seconds": round(self.seconds, 2)})
