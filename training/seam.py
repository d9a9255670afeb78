"""The seam: what a step plays, what its rewards become, which groups count and what each token is worth, by name.

    plan        how each attempt at a task is played            `training.plans`
    shape       rewards, after the rubric's, in order           `training.shaping`
    filters     which groups are worth training on              `training.filters`
    advantages  what each episode, or each token, is worth      `training.advantages`

All are pure functions. A setting names one of ours, or your own as `path/file.py:function`; its arguments come from the
settings. A function is given what it names among its parameters: `group` (or `groups`), `rewards_PG`, `moment`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import import_module
from typing import Any

from agent.rollout import Limits
from agent.sampler import Sampler, SamplingParams
from envs.env import Env
from envs.find import module_of_file
from envs.task import Task
from envs.trajectory import Trajectory
from tools.errors import ConfigError, in_one_line, nearest
from tools.record import record


@record
class Moment:
    """When it is: for schedules. The same step looks the same to a run that was killed and resumed."""

    step: int
    """From 0; optimiser steps taken so far."""
    steps: int

    @property
    def progress(self) -> float:
        """0 at the first step, 1 at the last.

        >>> Moment(step=5, steps=11).progress
        0.5
        """
        return self.step / max(1, self.steps - 1)


@record
class Attempt:
    """How one attempt at a task is played; what is None is the stage's."""

    name: str = "policy"
    """Kept in the episode's `info["attempt"]`; metrics and functions of the seam tell attempts apart by it."""
    trained: bool = True
    """False: played and scored, seen by the whole group, and never trained on."""
    sampler: Sampler | None = None
    params: SamplingParams | None = None
    limits: Limits | None = None
    env: Callable[[Env], Env] | None = None
    """Wraps the world, for instance `envs.WithoutTools`."""


@record
class Group:
    """All attempts at one task in one step, as shapes, filters and advantages see them."""

    task: Task
    episodes: tuple[Trajectory, ...]
    attempts: tuple[Attempt, ...]
    rewards: tuple[float, ...]
    """One per episode; NaN for one that is left out: an error, a record that fails the audit, a dropped stop."""


def bound(
    kind: str, name: str, table: Mapping[str, Callable[..., Any]], args: Mapping[str, Any], sees: Collection[str]
) -> Callable[..., Any]:
    """The function `name` of `table`, or of a file or module of the user's, with `args` filled in.

    What comes back is called with all of `sees` by keyword and passes on what the function names; what the function
    raises becomes one sentence. Raises `ConfigError` for an unknown name and for arguments that do not fit.

    >>> table = {"cut": lambda group, by=2: group / by}
    >>> bound("shape", "cut", table, {"by": 4}, ("group", "moment"))(group=8, moment=None)
    2.0
    """
    function = table[name] if name in table else _of_the_user(kind, name, table)
    parameters = inspect.signature(function).parameters
    free = [key for key in parameters if key not in sees]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in args:
        if key in sees or (key not in free and not open_ended):
            raise ConfigError(f"{kind} {name!r} has no argument {key!r}", hint=nearest(key, free))
    for key in free:
        p = parameters[key]
        if key not in args and p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL):
            raise ConfigError(
                f"{kind} {name!r} needs {key}", hint=f"give it as {key}=...; it can see {', '.join(sees)}"
            )
    wanted = [key for key in sees if key in parameters]

    def call(**seen: Any) -> Any:
        try:
            return function(**{key: seen[key] for key in wanted}, **args)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(f"{kind} {name!r} failed: {in_one_line(error)}") from error

    return call


def _of_the_user(kind: str, name: str, table: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    where, colon, attribute = name.rpartition(":")
    if not colon:
        hint = f"{nearest(name, table)}; or path/file.py:function"
        raise ConfigError(f"there is no {kind} named {name!r}", hint=hint)
    try:
        module = module_of_file(where) if where.endswith(".py") else import_module(where)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{kind} {name!r}: there is no module {where}", hint="or path/file.py:function") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise ConfigError(f"{where} has no function {attribute!r}", hint=nearest(attribute, functions))
    return function


def over_turns(episode: Trajectory, values: Sequence[float]) -> list[float]:
    """One value per turn, laid over the tokens sampled in it: for advantages per token.

    Worked: turns of 2 and 3 sampled tokens and the values 1 and -1 give [1, 1, -1, -1, -1].
    """
    if len(values) != len(episode.steps):
        raise ValueError(f"{len(values)} values for {len(episode.steps)} turns")
    laid: list[float] = []
    for step, value in zip(episode.steps, values, strict=True):
        laid += [value] * (len(step.tokens.sampled_ids) if step.tokens else 0)
    return laid
