"""The rubric of a taskset that can pay one of several rewards."""

from __future__ import annotations

from collections.abc import Mapping

from envs.rewards.answers import Read, has_answer
from envs.rewards.calls import tool_calls, tool_errors
from envs.rubric import RewardFn, Rubric
from tools.errors import ConfigError, nearest


def rubric_of(
    right: RewardFn, read: Read, reward: str = "correct", paid: Mapping[str, RewardFn] | None = None, **also: RewardFn
) -> Rubric:
    """Pays the `reward` named: `correct`, which is `right`, or one of `paid`.

    Accuracy, calls, failed calls and whether `read` finds an answer are counted beside it, as is what `also` names.
    Raises `ConfigError` for a reward that there is not.
    """
    paid = paid or {}
    if reward not in ("correct", *paid):
        raise ConfigError(f"there is no reward {reward!r}", hint=nearest(reward, ("correct", *paid)))
    counted = {"tool_calls": tool_calls(), "tool_errors": tool_errors(), **also, "has_answer": has_answer(read)}
    return Rubric(
        rewards={
            "correct": (right, float(reward == "correct")),
            **({reward: (paid[reward], 1.0)} if reward in paid else {}),
            **{name: (fn, 0.0) for name, fn in counted.items()},
        }
    )
