"""A task, and the set it belongs to: what an environment module exports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

from envs.message import Message
from tools.record import record

if TYPE_CHECKING:
    from envs.env import Env
    from envs.rubric import Rubric
    from tools.content import BlobStore


@record
class Task:
    """One problem: what the model is told first, and what the scorer knows."""

    id: str
    """Unique and stable within its taskset: resume, seeds and comparisons hang on it."""
    prompt: tuple[Message, ...]
    answer: Any = None
    """What is right; JSON values only. Never shown to the model."""
    gold: tuple[Message, ...] = ()
    """Assistant messages that solve the task when played in order; cold-start data and `evals check` use them."""
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Anything else a scorer or a report wants; JSON values only.

    `category` is the part of its taskset that a task counts in: an evaluation shows the score of each beside the whole.
    """


@record
class Taskset:
    """Tasks, the world each is played in, and how an episode is scored."""

    name: str
    tasks: Sequence[Task]
    env: Callable[[Task], Env]
    """Builds a fresh, single-use environment."""
    rubric: Rubric
    blobs: BlobStore | None = None
    """Where the pictures of the prompts are, if there are any."""

    def take(self, n: int | None) -> Taskset:
        """The first `n` tasks; all of them for None."""
        return self if n is None else replace(self, tasks=self.tasks[:n])
