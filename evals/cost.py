"""What an episode costs, and cutting it where it has cost enough. Prices are given, never guessed: lists go stale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from agent.sampler import ContextFull, Sampler, SamplingParams
from envs.message import Message
from envs.trajectory import Step, Stop, Trajectory
from evals.sample import prompt_tokens
from tools.errors import ConfigError
from tools.record import record

MILLION = 1_000_000


@record
class Prices:
    """US dollars for a million tokens."""

    prompt: float
    sampled: float


def parse_prices(text: str) -> Prices:
    """`IN,OUT` in US dollars for a million tokens.

    >>> parse_prices("0.25,2")
    Prices(prompt=0.25, sampled=2.0)
    """
    parts = text.split(",")
    try:
        prompt, sampled = map(float, parts)
    except ValueError as error:
        raise ConfigError(
            f"the price {text!r} is not IN,OUT", hint="US dollars for a million tokens: 0.25,2"
        ) from error
    if not (prompt >= 0 and sampled >= 0):
        raise ConfigError(f"the price {text!r} is negative or no number")
    return Prices(prompt=prompt, sampled=sampled)


def cost_of(trajectory: Trajectory, prices: Prices) -> float:
    """US dollars that the policy's tokens cost: every turn pays for its whole prompt, as APIs bill it.

    A discount for cached prompts is not known here, so this is an upper bound where there is one.
    """
    return (prompt_tokens(trajectory) * prices.prompt + trajectory.sampled_tokens * prices.sampled) / MILLION


class CostSpent(ContextFull):
    """The episode has cost what it may."""

    stop = Stop.MAX_COST


@final
class MeteredSampler:
    """Ends an episode with `Stop.MAX_COST` at the first turn that begins with its money spent."""

    def __init__(self, inner: Sampler, prices: Prices, most: float) -> None:
        self.inner = inner
        self.prices = prices
        self.most = most

    @property
    def renderer(self) -> Any:
        """The inner sampler's, where it has one: its tokenizer, and its eyes."""
        return getattr(self.inner, "renderer", None)

    async def sample(
        self,
        so_far: Trajectory,
        new: tuple[Message, ...],
        params: SamplingParams,
        on_text: Callable[[str], None] | None = None,
    ) -> Step:
        """See `Sampler.sample`."""
        if cost_of(so_far, self.prices) >= self.most:
            raise CostSpent
        return await self.inner.sample(so_far, new, params, on_text)
