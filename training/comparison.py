"""What several recipes share: a check of arguments; nine stages that show what a tool is worth; five that rehearse.

eval-base   collect          sft          eval-sft   grpo   eval-grpo
            collect-no-tool  sft-no-tool                                eval-no-tool
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from agent.rollout import Limits
from agent.sampler import SamplingParams
from tools.errors import ConfigError, nearest
from training.recipe import GRPO, SFT, Collect, Evaluate, Stage


def one_of(known: Iterable[str], **given: str) -> None:
    """Raise `ConfigError` where a recipe's argument is none of those it knows.

    >>> one_of(("tiny", "paper"), preset="tinny")
    Traceback (most recent call last):
    tools.errors.ConfigError: preset is 'tinny'
    """
    names = list(known)
    for argument, value in given.items():
        if value not in names:
            raise ConfigError(f"{argument} is {value!r}", hint=nearest(value, names))


def with_control(
    *, collect: Collect, sft: SFT, grpo: GRPO, measure: Evaluate, bare_params: SamplingParams
) -> tuple[Stage, ...]:
    """The stages around one setting of each kind.

    The control gets as many steps on gold episodes of the same tasks worked without the tool, and is measured without
    it, sampled with `bare_params` (working by hand takes more tokens). The taskset takes `tools=False` for that.
    """
    bare = {"tools": False}
    return (
        replace(measure, name="eval-base", model="base"),
        collect,
        sft,
        replace(measure, name="eval-sft", model="sft"),
        replace(grpo, start="sft", skip=collect.n or 0),
        replace(measure, name="eval-grpo", model="grpo"),
        replace(collect, name="collect-no-tool", tools=False, taskset_args=bare),
        replace(sft, name="sft-no-tool", data="collect-no-tool"),
        replace(
            measure,
            name="eval-no-tool",
            model="sft-no-tool",
            tools=False,
            taskset_args={**measure.taskset_args, **bare},
            params=bare_params,
        ),
    )


def rehearsal(*, turns: int, n: int, steps: int, beta: float = 0.0) -> tuple[Stage, ...]:
    """A few steps of everything on a small model, measured on `n` held-out tasks: it shows that all runs.

    `turns` are an episode's at most, `steps` and `beta` GRPO's.
    """
    gold = 64
    limits = Limits(max_turns=turns, max_calls=turns)
    params = SamplingParams(max_tokens=48)
    measure = Evaluate(n=n, taskset_args={"split": "test", "n": n}, params=params, limits=limits)
    return (
        Collect(n=gold, limits=limits),
        SFT(steps=8, batch_size=8, micro_batch_size=1, lr=2e-4, warmup=2, checkpoint_every=4),
        replace(measure, name="eval-sft", model="sft"),
        GRPO(
            start="sft",
            steps=steps,
            tasks_per_step=4,
            group_size=4,
            skip=gold,
            lr=2e-5,
            params=params,
            limits=limits,
            micro_batch_size=2,
            checkpoint_every=2,
            trl={"beta": beta},
        ),
        replace(measure, name="eval-grpo", model="grpo"),
    )
