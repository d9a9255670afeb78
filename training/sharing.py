"""Tools that episodes share: how many calls run at once, and results that the attempts at one task have in common."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any, final

from envs.env import Env
from envs.task import Task, Taskset
from tools.errors import ConfigError, nearest
from tools.tool import Tool, ToolResult


def with_slots(taskset: Taskset, most: Mapping[str, int]) -> Taskset:
    """The taskset with at most `most[tool]` calls of a tool running at once, over all its episodes.

    A call waits its turn before its deadline begins, then for what the tool has slots for of its own. One that is cut
    at its deadline gives its slot back at once; Python cannot stop the thread of a sync tool, so there the old call may
    still be running beside the next.
    Raises `ConfigError` for less than one; an episode that lacks the tool is left as it is.
    """
    for name, count in most.items():
        if count < 1:
            raise ConfigError(f"tool_concurrency.{name} is {count}; it must be at least 1")
    slots = {name: asyncio.Semaphore(count) for name, count in most.items()}

    def bounded(_: Task, tool: Tool) -> Tool:
        if tool.name not in slots:
            return tool
        ours = slots[tool.name]
        return replace(tool, slots=ours if tool.slots is None else _Both(ours, tool.slots))

    return _with_tools(taskset, bounded)


@final
class _Both(AbstractAsyncContextManager[None]):
    """Two slots, taken one after the other."""

    def __init__(self, first: AbstractAsyncContextManager[Any], second: AbstractAsyncContextManager[Any]) -> None:
        self._first = first
        self._second = second

    async def __aenter__(self) -> None:
        await self._first.__aenter__()
        try:
            await self._second.__aenter__()
        except BaseException:
            await self._first.__aexit__(None, None, None)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            await self._second.__aexit__(kind, value, tb)
        finally:
            await self._first.__aexit__(kind, value, tb)


def with_shared_results(taskset: Taskset, names: Sequence[str]) -> Taskset:
    """The taskset with the results of the named tools shared by all episodes of one task.

    The same arguments are looked up once, and whoever asks meanwhile waits, within its own deadline. Failures are not
    kept. For tools whose result depends on nothing but their arguments; it lasts as long as the taskset returned.
    """
    results: defaultdict[str, dict[str, ToolResult]] = defaultdict(dict)
    locks: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    def shared(task: Task, tool: Tool) -> Tool:
        if tool.name not in names:
            return tool
        known, run = results[task.id], tool.fn

        async def call(**arguments: Any) -> ToolResult:
            key = json.dumps([tool.name, arguments], sort_keys=True, default=repr)
            async with locks[task.id, key]:
                if key not in known:
                    result = await run(**arguments)
                    if result.is_error:
                        return result
                    known[key] = result
                return known[key]

        fn: Callable[..., Awaitable[ToolResult]] = call
        return replace(tool, fn=fn)

    return _with_tools(taskset, shared)


def check_tools(taskset: Taskset, setting: str, names: Sequence[str]) -> None:
    """Refuse names that no tool of the first task has."""
    if not names:
        return
    known = [tool.name for tool in taskset.env(taskset.tasks[0]).tools]
    for name in names:
        if name not in known:
            raise ConfigError(f"{setting} names {name!r}, and {taskset.name} has no such tool", nearest(name, known))


def _with_tools(taskset: Taskset, change: Callable[[Task, Tool], Tool]) -> Taskset:
    """The tools are changed on the world itself, not on a wrapper: rewards look into the world."""

    def build(task: Task) -> Env:
        env = taskset.env(task)
        env.tools = tuple(change(task, tool) for tool in env.tools)
        return env

    return replace(taskset, env=build)
