"""Environments of verifiers 0.1 as tasksets: their loop, tools and rubric, with our policy in the place of the model.

`verifiers:NAME` loads NAME as `verifiers.load_environment` does. An episode runs their own `rollout()` beside ours:
what it asks its model for is what our policy is shown next, and what our policy says is what its model answers.

Differences from playing it there: sampling, seeds and limits are ours; a call is recorded when its result has come, so
its seconds stand with the step and not with the call, and what verifiers answers to a failed call is a result as any.
"""

# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, final

from envs.env import Context, Env, Reply
from envs.message import Message
from envs.rubric import RewardFn, Rubric
from envs.task import Task, Taskset
from envs.trajectory import Trajectory
from tools.content import Text
from tools.errors import ConfigError
from tools.tool import Tool, ToolCall, ToolResult

REWARD = "reward"


def verifiers_taskset(name: str) -> Callable[..., Taskset]:
    """The function behind `verifiers:NAME`."""

    def taskset(split: Literal["eval", "train"] = "eval", n: int | None = None, **arguments: Any) -> Taskset:
        """`arguments` go to the environment's `load_environment`; each is read as JSON, and what is none as text."""
        world = _verifiers().load_environment(name, **{key: _read(value) for key, value in arguments.items()})
        if world.rubric.has_group_rewards:
            raise ConfigError(f"verifiers:{name} scores attempts in groups, and an evaluation scores each by itself")
        found = world.get_eval_dataset(n or -1) if split == "eval" else world.get_dataset(n or -1)
        rows = {f"{name}-{split}-{row['example_id']}": row for row in found.to_list()}
        tasks = [Task(id=id, prompt=_messages(row["prompt"]), answer=row.get("answer")) for id, row in rows.items()]
        rubric = Rubric(rewards={REWARD: (_score(REWARD), 1.0), **_metrics(world)})
        return Taskset(
            name=f"verifiers:{name}",
            tasks=tasks,
            env=lambda task: VerifiersEnv(task, world, rows[task.id]),
            rubric=rubric,
        )

    return taskset


@final
class VerifiersEnv(Env):
    """One episode of a verifiers environment."""

    def __init__(self, task: Task, world: Any, row: Mapping[str, Any]) -> None:
        self.task = task
        self._world = world
        self._row = dict(row)
        info = self._row.get("info")
        offered = (info.get("tool_defs") if isinstance(info, Mapping) else None) or world.tool_defs or ()
        self.tools = tuple(self._tool(definition) for definition in offered)
        self._policy = _Policy()
        self._playing: asyncio.Task[Any] | None = None
        self._shown = 0
        self._said = 0
        self._results: dict[str, ToolResult] = {}
        self._calling = ""
        self._scores: Mapping[str, float] | None = None

    async def start(self) -> tuple[Message, ...]:
        from verifiers.clients import Client

        Client.register(_Policy)  # their loop takes nothing else for a model
        self._playing = asyncio.create_task(self._world.rollout(self._row, self._policy, "policy", {}))
        prompt = await self._next()
        if prompt is None:
            raise RuntimeError(f"{self.task.id} ended before its model was asked anything")
        self._shown = len(prompt)
        return _messages(prompt)

    async def step(self, action: Message, ctx: Context) -> Reply:
        prompt = await self._say(action)
        if prompt is None:
            final = (await self._state()).get("final_env_response")
            return Reply(messages=_messages(final) if final else (), done=True)
        new = prompt[self._shown + 1 :]
        if len(prompt) <= self._shown or _field(prompt[self._shown], "role") != "assistant":
            raise ConfigError(f"{self.task.id} rewrites what was said before, which cannot be played here")
        self._shown = len(prompt)
        messages = _messages(new)
        self._results = {m.tool_call_id: ToolResult(content=m.content) for m in messages if m.tool_call_id}
        for call in action.tool_calls:
            if call.id in self._results:
                self._calling = call.id
                await ctx.call(call)
        return Reply(messages=messages)

    async def scores(self, trajectory: Trajectory) -> Mapping[str, float]:
        """What the environment's own rubric says. Raises `ConfigError` for an episode that was not played here."""
        if self._scores is None:
            if self._playing is None:
                hint = "evals score --replay plays the recorded actions again"
                raise ConfigError("a verifiers environment scores what happened in it", hint=hint)
            if self._said < len(trajectory.steps) and not self._playing.done():  # a limit cut the last action off
                await self._say(trajectory.steps[-1].action)
            state = await self._state()
            await self._world.rubric.score_rollout(state)
            await self._world.rubric.cleanup(state)
            self._scores = {**(state["metrics"] or {}), REWARD: state["reward"]}
        return self._scores

    async def close(self) -> None:
        await self._stop()

    async def _say(self, action: Message) -> Sequence[Any] | None:
        self._said += 1
        self._policy.said.put_nowait(action)
        return await self._next()

    async def _next(self) -> Sequence[Any] | None:
        """What the model is asked next; None when the episode is over. Raises what went wrong in the environment."""
        assert self._playing is not None
        asked = asyncio.ensure_future(self._policy.asked.get())
        try:
            await asyncio.wait({asked, self._playing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not asked.done():
                asked.cancel()
        if asked.done() and not asked.cancelled():
            return asked.result()
        error = self._playing.result().get("error")
        if error is not None:
            raise RuntimeError(f"verifiers ended {self.task.id}: {error!r}")
        return None

    async def _state(self) -> Any:
        """verifiers' record of the episode, as far as it has come."""
        await self._stop()
        assert self._playing is not None
        return self._policy.state if self._playing.cancelled() else self._playing.result()

    async def _stop(self) -> None:
        if self._playing is not None and not self._playing.done():
            self._playing.cancel()
            with suppress(asyncio.CancelledError):
                await self._playing

    def _tool(self, definition: Any) -> Tool:
        async def result(**arguments: Any) -> ToolResult:
            return self._results[self._calling]

        name, about, parameters = (_field(definition, key) for key in ("name", "description", "parameters"))
        return Tool(name=name, description=about or "", parameters=parameters or {"type": "object"}, fn=result)


@final
class _Policy:
    """What verifiers takes for the client of a model."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[Sequence[Any]] = asyncio.Queue()
        self.said: asyncio.Queue[Message] = asyncio.Queue()
        self.state: Any = None

    async def get_response(
        self, prompt: Sequence[Any], model: str, sampling_args: Any = None, tools: Any = None, **rest: Any
    ) -> Any:
        """Ask for the next action, and wait for it."""
        self.state = rest.get("state")
        self.asked.put_nowait(prompt)
        return _response(await self.said.get())

    async def close(self) -> None:
        """Nothing is held."""


def _response(action: Message) -> Any:
    """An action as verifiers' clients give it."""
    from verifiers.types import Response, ResponseMessage
    from verifiers.types import ToolCall as TheirCall

    calls = [TheirCall(id=call.id, name=call.name, arguments=_arguments(call)) for call in action.tool_calls]
    message = ResponseMessage(
        content=action.text,
        reasoning_content=action.reasoning,
        tool_calls=calls or None,
        finish_reason="tool_calls" if calls else "stop",
        is_truncated=False,
    )
    return Response(id="policy", created=0, model="policy", message=message)


def _arguments(call: ToolCall) -> str:
    return call.raw if call.arguments is None else json.dumps(dict(call.arguments))


def _messages(said: str | Sequence[Any]) -> tuple[Message, ...]:
    """Messages of verifiers, or the dicts of its data sets, as ours. Raises `ConfigError` for what is no text."""
    items: Sequence[Any] = [{"role": "user", "content": said}] if isinstance(said, str) else said
    found: list[Message] = []
    for item in items:
        content = _field(item, "content") or ""
        parts = [content] if isinstance(content, str) else [_text(part) for part in content]
        shown = tuple(Text(text=part) for part in parts if part)
        calls = tuple(_call(call) for call in _field(item, "tool_calls") or ())
        role, answers = _field(item, "role"), _field(item, "tool_call_id")
        found.append(Message(role=role, content=shown, tool_calls=calls, tool_call_id=answers))
    return tuple(found)


def _text(part: Any) -> str:
    if _field(part, "type") != "text":
        raise ConfigError(f"a message of the environment holds {_field(part, 'type')}; only text can be played here")
    return _field(part, "text")


def _call(call: Any) -> ToolCall:
    raw = _field(call, "arguments")
    return ToolCall(id=_field(call, "id"), name=_field(call, "name"), raw=raw, arguments=json.loads(raw))


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _metrics(world: Any) -> dict[str, tuple[RewardFn, float]]:
    """Each function of the environment's rubric as a metric beside its reward."""
    names = [name for name in world.rubric._get_reward_func_names() if name != REWARD]
    return {name: (_score(name), 0.0) for name in names}


def _score(name: str) -> RewardFn:
    async def score(env: Env, trajectory: Trajectory) -> float:
        inner: Any = getattr(env, "inner", env)  # as the control without tools wraps it
        found: Mapping[str, float] = await inner.scores(trajectory)
        return float(found[name])

    return score


def _read(value: Any) -> Any:
    """An argument as typed: JSON where it is some, else the text.

    >>> _read("3"), _read("[1, 2]"), _read("hard")
    (3, [1, 2], 'hard')
    """
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _verifiers() -> Any:
    """The package. Raises `ConfigError` where it is not installed, or has no `load_environment`."""
    hint = "pip install 'verifiers<0.2', in an environment of its own if its pins clash with yours"
    try:
        import verifiers  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
    except ImportError as error:
        raise ConfigError("verifiers is not installed", hint=hint) from error
    if not hasattr(verifiers, "load_environment"):
        try:
            found = version("verifiers")
        except PackageNotFoundError:
            found = "of unknown version"
        raise ConfigError(f"verifiers {found} has no load_environment: its 0.1 is what can be imported", hint=hint)
    return verifiers
