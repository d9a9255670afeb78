"""A server that is overloaded, away for a moment or talking nonsense: fewer requests at once, and each sent again.

The number of requests in flight follows additive increase, multiplicative decrease (Chiu and Jain 1989), as TCP does:
halved when requests fail, one more for every round that succeeds.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, final

from agent.chat import ChatSampler, ServerError
from agent.sampler import Sampler, SamplingParams
from envs.message import Message
from envs.trajectory import Step, Trajectory
from evals.cost import MeteredSampler
from tools.errors import ConfigError

_LONGEST_WAIT_S = 30.0


class InfrastructureError(ConfigError):
    """The run cannot go on, and not by a mistake in its request: a server that went away, a disk that is full.

    What had finished is kept, and the same command goes on from there. `evals` exits with 2.
    """


@final
class Gate:
    """How many requests may be in flight.

    >>> gate = Gate(8)
    >>> gate.shrink(began=gate.clock()), int(gate.limit)
    (None, 4)
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self.limit = float(most)
        self.running = 0
        self.clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._shrunk = -1.0

    @asynccontextmanager
    async def slot(self) -> AsyncGenerator[None]:
        """Hold one of the places."""
        while self.running >= int(self.limit):
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._wake()  # it may have been called up in the same moment
                raise
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._wake()

    def grow(self) -> None:
        """A request succeeded."""
        self.limit = min(float(self.most), self.limit + 1 / self.limit)
        self._wake()

    def shrink(self, began: float) -> None:
        """A request that began at `began` failed. Those of the same burst count once."""
        if began > self._shrunk:
            self.limit = max(1.0, self.limit / 2)
            self._shrunk = self.clock()

    def _wake(self) -> None:
        free = int(self.limit) - self.running
        while free > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1


@final
class PatientSampler:
    """A chat server's sampler behind a gate: what may pass is tried again, what cannot is raised at once.

    Waiting counts towards an episode's time limit. `Step.usage["retries"]` says how often a request was sent again.
    """

    def __init__(self, inner: ChatSampler, most: int, *, retries: int = 8, wait_s: float = 0.5) -> None:
        """Args:
        most: Requests in flight when the server is well.
        retries: Tries after the first. With waits of 0.5, 1, 2 ... 30 seconds, 8 last for a minute and a half.
        """
        self.inner = inner
        inner.max_retries = 0  # its own retries would hide from the gate that the server is in trouble
        self.gate = Gate(most)
        self.retries = retries
        self.wait_s = wait_s
        self.answered = False
        """The server has answered once: that it does not now is no mistake in its address."""
        self.known = False
        """It has in an earlier session of the run."""

    async def sample(
        self,
        so_far: Trajectory,
        new: tuple[Message, ...],
        params: SamplingParams,
        on_text: Callable[[str], None] | None = None,
    ) -> Step:
        """See `Sampler.sample`."""
        attempt = 0
        while True:
            async with self.gate.slot():
                began = self.gate.clock()
                try:
                    step = await self.inner.sample(so_far, new, params, on_text)
                except Exception as error:
                    wait = self.wait_of(error)
                    if wait is None:
                        if self.known and _is_gone(error):
                            raise _given_up(error) from error
                        raise
                    self.gate.shrink(began)
                    if attempt == self.retries:
                        raise _given_up(error) from error
                else:
                    self.answered = True
                    self.gate.grow()
                    return replace(step, usage={**step.usage, "retries": attempt}) if attempt else step
            backoff = min(_LONGEST_WAIT_S, self.wait_s * 2**attempt) * random.uniform(0.5, 1.0)
            await asyncio.sleep(max(wait, backoff))
            attempt += 1

    def wait_of(self, error: Exception) -> float | None:
        """Seconds to wait at least before another try; None where another try would change nothing."""
        import openai

        cause = error.__cause__
        if isinstance(error, ServerError):
            if isinstance(cause, openai.APIStatusError):
                again = cause.status_code in (408, 409, 429) or cause.status_code >= 500
                return _retry_after(cause) if again else None
            return 0.0
        if not isinstance(error, ConfigError):
            return None
        if isinstance(cause, openai.APIConnectionError):
            return 0.0 if self.answered else None
        nonsense = isinstance(cause, AttributeError | LookupError | TypeError | ValueError)
        return 0.0 if nonsense and (self.answered or self.known) else None


def patient(sampler: Sampler, most: int) -> Sampler:
    """`sampler` behind a gate where it talks to a server; itself otherwise."""
    return PatientSampler(sampler, most) if isinstance(sampler, ChatSampler) else sampler


def patience_of(sampler: Sampler) -> PatientSampler | None:
    """The gate that `sampler` asks through; None where it asks no server."""
    inner = sampler.inner if isinstance(sampler, MeteredSampler) else sampler
    return inner if isinstance(inner, PatientSampler) else None


def _retry_after(error: Any) -> float:
    """What a Retry-After header asks for, within reason."""
    try:
        return min(120.0, max(0.0, float(error.response.headers.get("retry-after", 0))))
    except ValueError:  # a date: our own wait has to do
        return 0.0


def _is_gone(error: Exception) -> bool:
    """Nobody answers at the server's address."""
    import openai

    return isinstance(error, ConfigError) and isinstance(error.__cause__, openai.APIConnectionError)


def _given_up(error: Exception) -> Exception:
    """What is raised when the tries are used up: a server that is gone stops the run, anything else one episode."""
    if _is_gone(error):
        hint = "what has finished is kept; the same command goes on when the server is back"
        return InfrastructureError(f"{error}, though it did before", hint=hint)
    return error if isinstance(error, ServerError) else ServerError(str(error))
