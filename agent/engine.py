"""Token ids in, token ids and log-probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from envs.trajectory import Finish, PlacedImage
from tools.record import record


@record
class Request:
    """What an engine is asked for."""

    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop_ids: frozenset[int] = frozenset()
    """Any of these ends the completion, which includes it."""
    stop_strings: tuple[str, ...] = ()
    """Any of these in the completion's text ends it, at the token that completed it; no id is split or re-encoded."""
    images: tuple[PlacedImage, ...] = ()
    """All that stand in the prompt, in order, with their positions in it."""


@record
class Generated:
    """What an engine returned."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """One per id: log-softmax(logits / temperature), before top-p and top-k (temperature 1 where it is greedy). NaN
    where a server does not give them so."""
    finish: Finish
    policy_version: int = 0


class ServerError(Exception):
    """The server failed to answer, retries included, though the setup looks right: overload, time-out, broken stream.

    Within `rollout()` it ends that episode as `Stop.ERROR`; the run goes on.
    """


class Engine(Protocol):
    """Where a policy's weights run."""

    max_context: int
    """Most ids, prompt and completion together."""

    async def generate(self, request: Request, on_ids: Callable[[Sequence[int]], None] | None = None) -> Generated:
        """Sample one completion. `on_ids` receives ids as they are sampled. Cancelling the call frees its place.

        Raises `ConfigError` for a request this engine cannot serve, `ServerError` where a server failed to answer.
        """
        ...
