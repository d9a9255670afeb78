"""Tasks to learn from by their gold, as many as a stage asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from envs.find import find_taskset
from envs.task import Taskset


@final
class GoldTasks:
    """Tasks without an end: those of a taskset, then those of the same taskset with the next `seed`, and so on.

    One seed's taskset is held at a time. Raises `ConfigError` for a taskset that takes no seed once it is used up.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        self.name = name
        self.arguments = dict(arguments)
        self._held: tuple[int, Taskset] | None = None
        self._size = 0

    def taskset(self, number: int) -> Taskset:
        """That of the seed `number` after the first."""
        if self._held is None or self._held[0] != number:
            more = {"seed": self.arguments.get("seed", 0) + number} if number else {}
            self._held = number, find_taskset(self.name, {**self.arguments, **more})
        return self._held[1]

    def of(self, row: int) -> tuple[int, int]:
        """Which taskset a row's task is of, and its index there."""
        self._size = self._size or len(self.taskset(0).tasks)
        return divmod(row, self._size)
