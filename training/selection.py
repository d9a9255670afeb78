"""Which collected episodes are kept. Filters chosen by name, in order; each sees all attempts, and what is kept so far.

A filter is `(episodes, kept, headline, **arguments) -> for each episode why it goes, or None`, naming those of the
first three that it wants: the scored episodes in task order, True for those no filter before it dropped, and the name
of the reward that says correct. Yours, as `path/file.py:function`, is used like ours.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from envs.trajectory import Trajectory
from tools.errors import ConfigError
from tools.record import record
from training.monitors import asked
from training.recipe import Collect
from training.seam import bound

Reasons: TypeAlias = list[str | None]

SEES = ("episodes", "kept", "headline")


def well_formed(episodes: Sequence[Trajectory]) -> Reasons:
    """Drops an episode with a call that could not be read, names no tool, or does not fit its schema."""
    bad = [any(done.outcome == "malformed" for done in episode.calls) for episode in episodes]
    return ["a malformed call" if one else None for one in bad]


def min_calls(episodes: Sequence[Trajectory], k: int = 1) -> Reasons:
    """Drops an episode with fewer than `k` calls that went well: counted from executed calls, never from text."""
    counts = [sum(done.outcome == "ok" for done in episode.calls) for episode in episodes]
    return [f"fewer than {k} calls" if count < k else None for count in counts]


def unique(episodes: Sequence[Trajectory], kept: Sequence[bool]) -> Reasons:
    """Drops an episode that says what an earlier kept one said to the same prompt."""
    seen: set[tuple[Any, ...]] = set()
    reasons: Reasons = []
    for episode, on in zip(episodes, kept, strict=True):
        # The first observation holds the pictures too.
        first = episode.steps[0].observation if episode.steps else episode.task.prompt
        prompt = tuple((message.role, message.content) for message in first)
        key = (prompt, *((step.action.text, tuple(map(asked, step.action.tool_calls))) for step in episode.steps))
        reasons.append("said before" if on and key in seen else None)
        if on:
            seen.add(key)
    return reasons


def pass_rate(episodes: Sequence[Trajectory], headline: str, low: float = 0.0, high: float = 1.0) -> Reasons:
    """Drops the tasks whose share of correct attempts is outside [low, high]: never solved, or always.

    All attempts count, whatever other filters say of them.
    """
    right: defaultdict[str, list[bool]] = defaultdict(list)
    for episode in episodes:
        right[episode.task.id].append(episode.scores.get(headline, 0.0) >= 1.0)
    rates = {task: sum(found) / len(found) for task, found in right.items()}
    return [None if low <= rates[e.task.id] <= high else "pass rate outside the band" for e in episodes]


def per_task(episodes: Sequence[Trajectory], kept: Sequence[bool], most: int = 1) -> Reasons:
    """Drops what is kept of a task beyond its first `most` episodes."""
    counts: Counter[str] = Counter()
    reasons: Reasons = []
    for episode, on in zip(episodes, kept, strict=True):
        counts[episode.task.id] += on
        reasons.append(f"more than {most} of a task" if on and counts[episode.task.id] > most else None)
    return reasons


SELECTION: Mapping[str, Callable[..., Any]] = {
    "well_formed": well_formed,
    "min_calls": min_calls,
    "unique": unique,
    "pass_rate": pass_rate,
    "per_task": per_task,
}


def filters_of(stage: Collect) -> dict[str, Callable[..., Any]]:
    """The stage's filters, looked up. Raises `ConfigError` for what does not exist or does not fit."""
    return {name: bound("filter", name, SELECTION, args, SEES) for name, args in stage.filters.items()}


def reasons_to_drop(
    stage: Collect, episodes: Sequence[Trajectory], reasons: Sequence[str | None], headline: str
) -> Reasons:
    """`reasons`, and for episodes that have none the first that a filter of the stage gives."""
    found: Reasons = list(reasons)
    scored = [index for index, episode in enumerate(episodes) if episode.reward is not None]
    seen = [episodes[index] for index in scored]
    for name, chosen in filters_of(stage).items():
        kept = [found[index] is None for index in scored]
        said = chosen(episodes=seen, kept=kept, headline=headline)
        if not isinstance(said, list) or len(cast("list[Any]", said)) != len(seen):
            raise ConfigError(
                f"filter {name!r} returned {said!r} for {len(seen)} episodes; it needs a list, one for each"
            )
        for index, reason in zip(scored, cast("Reasons", said), strict=True):
            found[index] = found[index] or reason
    return found


@record
class Spent:
    """What episodes took."""

    prompt: int = 0
    """Tokens read, every turn's whole prompt anew, as a server counts and bills them."""
    sampled: int = 0

    def cost(self, prices: tuple[float, float]) -> float:
        """Money, at prices per million prompt and sampled tokens.

        >>> Spent(prompt=2_000_000, sampled=500_000).cost((0.5, 2.0))
        2.0
        """
        return (self.prompt * prices[0] + self.sampled * prices[1]) / 1e6

    def __add__(self, other: Spent) -> Spent:
        return Spent(prompt=self.prompt + other.prompt, sampled=self.sampled + other.sampled)


def spent_on(episode: Trajectory) -> Spent:
    """By the server's counts where it gave them, else by recorded ids."""
    prompt = before = 0
    for step in episode.steps:
        if step.tokens is None:
            prompt += step.usage.get("prompt", 0)
            continue
        before = len(step.tokens.added) + (before if step.tokens.extends else 0)
        prompt += before
        before += len(step.tokens.completion)
    return Spent(prompt=prompt, sampled=episode.sampled_tokens)
