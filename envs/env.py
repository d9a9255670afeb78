"""An environment: one episode of a world that speaks messages, then discarded."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, final

from envs.message import Message, answer_to
from envs.task import Task
from tools.errors import ConfigError
from tools.record import record
from tools.tool import Tool, ToolCall, ToolResult

if TYPE_CHECKING:
    from tools.image.gallery import Gallery


@record
class Budget:
    """What is left of an episode's limits; None where there is no limit. For "last turn" nudges and forced answers."""

    turns: int | None = None
    """Model actions still allowed; within `Env.step`, after the one it answers."""
    calls: int | None = None
    """Tool calls still allowed, over all tools."""
    tokens: int | None = None
    """Tokens the model may still sample."""
    seconds: float | None = None
    """Wall time until the episode is cut."""
    calls_per_tool: Mapping[str, int] = field(default_factory=dict[str, int])
    """Calls still allowed of each tool that has a cap of its own."""


class Context(Protocol):
    """Handed to `Env.step` by `rollout()`: the only way a tool runs."""

    async def call(self, call: ToolCall) -> ToolResult:
        """Run one call under its deadline and caps, and record it.

        A malformed call, an unknown tool, arguments that do not fit, a `ToolError` and a time-out come back as a
        result with `is_error`. Any other exception of the tool is raised, and ends the episode as `Stop.ERROR`.
        """
        ...

    @property
    def left(self) -> Budget:
        """What is left of the limits now."""
        ...


@record
class Reply:
    """What the world said to an action."""

    messages: tuple[Message, ...] = ()
    done: bool = False
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Kept in `Trajectory.info` for rewards and the log; JSON values only."""


class Env(ABC):
    """One episode. Most worlds are a `ToolEnv`; subclass this for dynamics of your own (games, simulators)."""

    task: Task
    tools: tuple[Tool, ...] = ()

    async def start(self) -> tuple[Message, ...]:
        """The first messages the model sees."""
        return self.task.prompt

    @abstractmethod
    async def step(self, action: Message, ctx: Context) -> Reply:
        """Answer one assistant message. Tools run through `ctx.call` only."""

    async def close(self) -> None:  # noqa: B027 - most worlds hold nothing
        """Give back what the episode held. Called once, after scoring, whatever happened."""


class Closable(Protocol):
    """Something an episode holds until it ends: a kernel, a browser page."""

    async def close(self) -> None: ...


User: TypeAlias = Callable[[Message], Awaitable[Message | None]]
"""Answers an assistant message that made no call: a person, a simulated user; None ends the episode."""


@final
class ToolEnv(Env):
    """The world of nine environments in ten: run the calls, answer each; no calls, ask the user; no user, done.

    `resources` are closed with the episode. With a `gallery` the prompt's pictures are numbered in it and shown as it
    shows them; the tools that were made for it add theirs.
    """

    def __init__(
        self,
        *,
        task: Task,
        tools: Sequence[Tool] = (),
        user: User | None = None,
        resources: Sequence[Closable] = (),
        gallery: Gallery | None = None,
    ) -> None:
        self.task = task
        self.tools = tuple(tools)
        self.user = user
        self.resources = tuple(resources)
        self.gallery = gallery

    async def start(self) -> tuple[Message, ...]:
        if self.gallery is None:
            return self.task.prompt
        from envs.pictures import entered

        return await entered(self.task.prompt, self.gallery)

    async def step(self, action: Message, ctx: Context) -> Reply:
        if not action.tool_calls:
            answer = await self.user(action) if self.user else None
            return Reply(messages=(answer,) if answer else (), done=answer is None)
        results = await self._run(action.tool_calls, ctx)
        messages = tuple(answer_to(call, result) for call, result in zip(action.tool_calls, results, strict=False))
        return Reply(messages=messages, done=any(result.stop for result in results))

    async def _run(self, calls: tuple[ToolCall, ...], ctx: Context) -> list[ToolResult]:
        safe = {tool.name for tool in self.tools if tool.parallel_safe}
        if len(calls) > 1 and all(call.name in safe for call in calls):
            import asyncio

            try:
                async with asyncio.TaskGroup() as tasks:
                    running = [tasks.create_task(ctx.call(call)) for call in calls]
            except ExceptionGroup as group:  # the first failure says what went wrong, unless the setup is wrong
                broken = [error for error in group.exceptions if isinstance(error, ConfigError)]
                raise (broken or group.exceptions)[0] from group
            return [task.result() for task in running]
        results: list[ToolResult] = []
        for call in calls:
            results.append(await ctx.call(call))
            if results[-1].stop:  # nothing runs after the call that ended the episode
                break
        return results

    async def close(self) -> None:
        async with contextlib.AsyncExitStack() as stack:  # one that fails to close does not keep the others open
            for resource in self.resources:
                stack.push_async_callback(resource.close)


@final
class WithoutTools(Env):
    """A world with its tools hidden: the control that shows what the tools are worth."""

    def __init__(self, inner: Env) -> None:
        self.inner = inner
        self.task = inner.task
        self.tools = ()

    async def start(self) -> tuple[Message, ...]:
        return await self.inner.start()

    async def step(self, action: Message, ctx: Context) -> Reply:
        return await self.inner.step(action, ctx)

    async def close(self) -> None:
        await self.inner.close()
