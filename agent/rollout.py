"""The one loop: an environment, a sampler, limits; out comes a trajectory.

REPL, evals, collection and GRPO all call it.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import field, replace
from typing import Any, final

from agent.event import CallFinished, CallStarted, Ended, Event, Observed, OnEvent, Sampled, TextDelta
from agent.sampler import ContextFull, Sampler, SamplingParams
from envs.env import Budget, Env
from envs.rubric import Rubric
from envs.seed import derive_seed
from envs.trajectory import CallRecord, Outcome, Stop, Trajectory
from tools.content import Text
from tools.errors import ConfigError
from tools.record import record
from tools.schema import problem_with
from tools.tool import Tool, ToolCall, ToolError, ToolResult


@record
class Limits:
    """Where an episode is cut. A cut episode is scored, and its `stop` says which limit it met. None is no limit."""

    max_turns: int | None = 16
    """Model actions."""
    max_calls: int | None = None
    """Tool calls that ran, over all tools."""
    max_calls_per_tool: Mapping[str, int] = field(default_factory=dict[str, int])
    max_tokens: int | None = None
    """Tokens sampled, over all actions."""
    timeout_s: float | None = None
    """Wall time of the whole episode."""
    call_timeout_s: float | None = 60.0
    """Wall time of one tool call; past it the model is told, and the episode goes on."""
    max_result_chars: int | None = 20_000
    """Longest text of one tool result; the middle of a longer one is cut out, and says so."""

    def __post_init__(self) -> None:
        if self.max_turns is not None and self.max_turns < 1:
            raise ConfigError(f"max_turns is {self.max_turns}; an episode needs at least 1 action")
        for name in ("max_calls", "max_tokens", "max_result_chars", "timeout_s", "call_timeout_s"):
            value: float | None = getattr(self, name)
            if value is not None and not value >= 0:
                raise ConfigError(f"{name} is {value}; it must be 0 or more, or none for no limit")


async def rollout(
    env: Env,
    sampler: Sampler,
    params: SamplingParams | None = None,
    limits: Limits | None = None,
    *,
    rubric: Rubric | None = None,
    on_event: OnEvent | None = None,
    sample: int = 0,
) -> Trajectory:
    """Run one episode, score it with `rubric` while the environment is open, and close the environment.

    What the model gets wrong is an observation. What breaks on our side ends the episode as `Stop.ERROR`, with the
    traceback kept and no score. A `ConfigError` (a broken setup, a reward that is no number) is raised, the unfinished
    record on its `episode`.

    >>> import asyncio
    >>> from agent import ScriptedSampler
    >>> from envs import Task, ToolEnv, assistant, user
    >>> task = Task(id="greet", prompt=(user("Say hello."),), gold=(assistant("Hello."),))
    >>> asyncio.run(rollout(ToolEnv(task=task), ScriptedSampler())).answer
    'Hello.'
    """
    params, limits = params or SamplingParams(), limits or Limits()
    trajectory = Trajectory(task=env.task, tools=env.tools, sample=sample, seed=params.seed)
    emit = on_event or _ignore
    try:
        await _play_to_the_end(env, sampler, params, limits, trajectory, emit)
        if rubric is not None and trajectory.stop is not Stop.ERROR:
            await rubric.score(env, trajectory)
    except ConfigError as error:
        error.episode = trajectory
        raise
    finally:
        await _close(env, trajectory)
    emit(Ended(trajectory=trajectory))
    return trajectory


def rollout_sync(env: Env, sampler: Sampler, *args: Any, **kwargs: Any) -> Trajectory:
    """`rollout()` for notebooks and scripts that have no event loop running."""
    import asyncio

    return asyncio.run(rollout(env, sampler, *args, **kwargs))


async def _close(env: Env, trajectory: Trajectory) -> None:
    """Close the world. One that cannot be closed may have been broken before that: its episode ends as an error too."""
    try:
        await env.close()
    except ConfigError:
        raise
    except Exception:
        trajectory.stop, trajectory.reward = Stop.ERROR, None
        trajectory.scores.clear()
        trajectory.error = (trajectory.error or "") + traceback.format_exc()


async def _play_to_the_end(
    env: Env, sampler: Sampler, params: SamplingParams, limits: Limits, trajectory: Trajectory, emit: OnEvent
) -> None:
    """Play under the episode's deadline, and turn whatever ends it into `trajectory.stop`."""
    import asyncio

    started = time.monotonic()
    ledger = Ledger(env.tools, limits, trajectory, emit, started)
    deadline = asyncio.timeout(limits.timeout_s)
    try:
        async with deadline:
            trajectory.stop = await _play(env, sampler, params, limits, trajectory, ledger)
    except ConfigError:
        raise
    except Exception as error:
        # A tool's or an engine's own TimeoutError is its bug; only our deadline is the episode's limit.
        if isinstance(error, TimeoutError) and deadline.expired():
            trajectory.stop = Stop.TIMEOUT
        else:
            trajectory.stop, trajectory.error = Stop.ERROR, traceback.format_exc()
    finally:
        trajectory.seconds = time.monotonic() - started


async def _play(
    env: Env, sampler: Sampler, params: SamplingParams, limits: Limits, trajectory: Trajectory, ledger: Ledger
) -> Stop:
    new = await env.start()
    while True:
        if new:
            ledger.emit(Observed(messages=new))
        trajectory.final = new
        left = ledger.left
        if left.turns == 0:
            return Stop.MAX_TURNS
        if left.tokens == 0:
            return Stop.MAX_TOKENS
        if left.seconds == 0:  # a tool or an environment swallowed the deadline's cancellation
            return Stop.TIMEOUT
        turn = len(trajectory.steps)
        turn_params = replace(
            params.within(left.tokens),
            seed=None if params.seed is None else derive_seed(params.seed, turn),
        )
        asked = time.monotonic()
        try:
            step = await sampler.sample(trajectory, new, turn_params, ledger.on_text)
        except ContextFull as full:
            return full.stop
        sampled = time.monotonic()
        trajectory.steps.append(step)
        trajectory.final = ()
        ledger.emit(Sampled(step=step))
        if step.finish != "stop":
            return Stop.MAX_TOKENS if step.finish == "length" else Stop.MAX_CONTEXT
        try:
            reply = await env.step(step.action, ledger)
        except Exception:
            if not ledger.spent:
                raise
            return Stop.MAX_CALLS
        finally:
            seconds = {**step.seconds, "model": sampled - asked, "tools": time.monotonic() - sampled}
            trajectory.steps[-1] = replace(step, calls=ledger.take(), seconds=seconds)
        trajectory.info.update(reply.info)
        if ledger.spent or reply.done:
            trajectory.final = reply.messages
            return Stop.MAX_CALLS if ledger.spent else Stop.DONE
        new = reply.messages


class CallsSpent(Exception):
    """Raised through `Env.step` when a call would go over its cap: the episode ends with `Stop.MAX_CALLS`."""


@final
class Ledger:
    """The `Context` of one episode: runs its calls within limits, says whose fault a failure is, and records both."""

    def __init__(
        self, tools: tuple[Tool, ...], limits: Limits, trajectory: Trajectory, emit: OnEvent, started: float
    ) -> None:
        self.tools = {tool.name: tool for tool in tools}
        if len(self.tools) < len(tools):
            names = ", ".join(tool.name for tool in tools)
            raise ConfigError(f"two tools of task {trajectory.task.id} have the same name: {names}")
        self.limits = limits
        self.trajectory = trajectory
        self.emit = emit
        self.started = started
        self.spent = False
        self.ran: dict[str, int] = {}
        self._begun = 0
        self._records: list[tuple[int, CallRecord]] = []

    @property
    def on_text(self) -> Callable[[str], None] | None:
        """Where a sampler streams to; None when nobody listens, so that it need not stream."""
        return None if self.emit is _ignore else lambda text: self.emit(TextDelta(text=text))

    @property
    def left(self) -> Budget:
        """What is left of the limits."""
        limits = self.limits
        turns, calls, tokens, seconds = limits.max_turns, limits.max_calls, limits.max_tokens, limits.timeout_s
        return Budget(
            turns=None if turns is None else max(0, turns - len(self.trajectory.steps)),
            calls=None if calls is None else max(0, calls - sum(self.ran.values())),
            tokens=None if tokens is None else max(0, tokens - self.trajectory.sampled_tokens),
            seconds=None if seconds is None else max(0.0, seconds - (time.monotonic() - self.started)),
            calls_per_tool={
                name: max(0, most - self.ran.get(name, 0)) for name, most in limits.max_calls_per_tool.items()
            },
        )

    def take(self) -> tuple[CallRecord, ...]:
        """The calls recorded since the last `take`, in the order they began."""
        taken, self._records = sorted(self._records, key=lambda record: record[0]), []
        return tuple(done for _, done in taken)

    async def call(self, call: ToolCall) -> ToolResult:
        """See `Context.call`."""
        from asyncio import CancelledError

        self.emit(CallStarted(call=call))
        started, order = time.monotonic(), self._begun
        self._begun += 1
        outcome: Outcome = "crashed"
        result = ToolResult(is_error=True)
        try:
            result, outcome = await self._try(call)
        except CancelledError:
            outcome = "cancelled"
            raise
        finally:
            if not (outcome == "crashed" and self.spent):  # a call over its cap never ran
                done = CallRecord(call=call, result=result, outcome=outcome, seconds=time.monotonic() - started)
                self._records.append((order, done))
                self.emit(CallFinished(call=done))
        return result

    async def _try(self, call: ToolCall) -> tuple[ToolResult, Outcome]:
        tool = self.tools.get(call.name)
        if call.error is not None:
            return _complaint(call.error), "malformed"
        if tool is None:
            known = ", ".join(self.tools) or "none"
            return _complaint(f"There is no tool named {call.name!r}. Tools: {known}."), "malformed"
        problem = problem_with(call.arguments or {}, tool.parameters)
        if problem is not None:
            return _complaint(f"Wrong arguments for {call.name}: {problem}."), "malformed"
        self._count(call.name)
        async with tool.slots or nullcontext():
            return await self._run(tool, call)

    async def _run(self, tool: Tool, call: ToolCall) -> tuple[ToolResult, Outcome]:
        from asyncio import timeout

        deadline = timeout(self.limits.call_timeout_s)
        try:
            async with deadline:
                result = await tool.fn(**(call.arguments or {}))
        except ToolError as error:
            return self._shortened(_complaint(str(error))), "tool_error"
        except TimeoutError:
            if not deadline.expired():  # the tool's own TimeoutError is its bug
                raise
            return _complaint(f"{call.name} did not return within {self.limits.call_timeout_s:g} seconds."), "timeout"
        return self._shortened(result), "tool_error" if result.is_error else "ok"

    def _count(self, name: str) -> None:
        left = self.left
        if left.calls == 0 or left.calls_per_tool.get(name, 1) == 0:
            self.spent = True
            raise CallsSpent(name)
        self.ran[name] = self.ran.get(name, 0) + 1

    def _shortened(self, result: ToolResult) -> ToolResult:
        """The result with its text within `max_result_chars`: head and tail kept, as errors stand at the end."""
        most = self.limits.max_result_chars
        if most is None or len(result.text) <= most:
            return result
        text, half = result.text, most // 2
        kept = f"{text[: most - half]}\n[... {len(text) - most} characters cut ...]\n{text[len(text) - half :]}"
        images = tuple(part for part in result.content if not isinstance(part, Text))
        return replace(result, content=(Text(text=kept), *images))


def _complaint(text: str) -> ToolResult:
    return ToolResult(content=(Text(text=text),), is_error=True)


def _ignore(event: Event) -> None:
    pass


def unfinished(error: ConfigError) -> Trajectory | None:
    """The episode that a `ConfigError` interrupted, for whoever keeps a log."""
    return error.episode if isinstance(error.episode, Trajectory) else None
