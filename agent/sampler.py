"""A sampler is the policy's side of the loop: messages in, one action out. The two here need no model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol, final

from envs.message import Message, assistant
from envs.trajectory import Step, Stop, Trajectory
from tools.errors import ConfigError
from tools.record import record


@record
class SamplingParams:
    """How one action is sampled."""

    max_tokens: int = 512
    """Per action."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps all."""
    seed: int | None = None
    """`rollout()` derives one per turn from it; None draws a fresh one."""
    thinking_budget: int | None = None
    """Most tokens an action thinks before its thinking is closed for it and the answer is sampled; None: no limit."""
    last_thought: str = ""
    """Words that are then put in before the closing tag."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens is {self.max_tokens}; an action needs at least 1 token")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature is {self.temperature}; it must be 0 (greedy) or more")
        if self.top_k < 0:
            raise ConfigError(f"top_k is {self.top_k}; it must be 0 (keep all) or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.thinking_budget is not None and self.thinking_budget < 1:
            raise ConfigError(f"thinking_budget is {self.thinking_budget}; it must be 1 or more, or none for no limit")

    def within(self, tokens: int | None) -> SamplingParams:
        """The same with at most `tokens` for an action; None is no limit."""
        if tokens is None or tokens >= self.max_tokens:
            return self
        if self.thinking_budget is None or self.thinking_budget < tokens:
            return replace(self, max_tokens=tokens)
        return replace(self, max_tokens=tokens, thinking_budget=None, last_thought="")


class ContextFull(Exception):
    """Raised by a sampler when the prompt leaves no room to sample: the episode ends with `Stop.MAX_CONTEXT`.

    A subclass may end it with another limit's `stop`.
    """

    stop = Stop.MAX_CONTEXT


class Sampler(Protocol):
    """Extends a trajectory by one action."""

    async def sample(
        self,
        so_far: Trajectory,
        new: tuple[Message, ...],
        params: SamplingParams,
        on_text: Callable[[str], None] | None = None,
    ) -> Step:
        """One step whose observation is `new`.

        `so_far.messages` is the whole conversation and already ends with `new`; `so_far.tools` are the tools on offer.
        `on_text` receives text as it is sampled, where the sampler streams. Raises `ContextFull` when the prompt
        leaves no room.
        """
        ...


def actions_before(so_far: Trajectory) -> int:
    """How often the policy has spoken, in the prompt too: call ids numbered by it are unique in a conversation that is
    taken up again."""
    observed = [message for step in so_far.steps for message in step.observation]
    return len(so_far.steps) + [message.role for message in (*observed, *so_far.final)].count("assistant")


@final
class ScriptedSampler:
    """Plays given actions in order; a fake that is good enough to ship.

    With no actions given it plays `task.gold`. When the script runs out it says nothing, which ends the episode.
    Tool calls get fresh ids, so one script can be played many times.
    """

    def __init__(self, actions: Sequence[Message] | None = None) -> None:
        self.actions = None if actions is None else tuple(actions)

    async def sample(
        self,
        so_far: Trajectory,
        new: tuple[Message, ...],
        params: SamplingParams,
        on_text: Callable[[str], None] | None = None,
    ) -> Step:
        script = so_far.task.gold if self.actions is None else self.actions
        if self.actions is None and not script:
            raise ConfigError(f"task {so_far.task.id} has no gold messages to play")
        turn = len(so_far.steps)
        action = script[turn] if turn < len(script) else assistant()
        number = actions_before(so_far)
        calls = tuple(replace(call, id=f"call_{number}_{i}") for i, call in enumerate(action.tool_calls))
        if on_text and action.text:
            on_text(action.text)
        return Step(observation=new, action=replace(action, tool_calls=calls))


@final
class HumanSampler:
    """A person plays the model: `ask` is shown what is new and returns the action."""

    def __init__(self, ask: Callable[[Trajectory, tuple[Message, ...]], Awaitable[Message]]) -> None:
        self.ask = ask

    async def sample(
        self,
        so_far: Trajectory,
        new: tuple[Message, ...],
        params: SamplingParams,
        on_text: Callable[[str], None] | None = None,
    ) -> Step:
        return Step(observation=new, action=await self.ask(so_far, new))
