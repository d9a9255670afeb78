"""How good a trained model is, for tests of learning: accuracy at temperature 1, one attempt each."""

from __future__ import annotations

from pathlib import Path

from agent import Limits, SamplingParams
from agent.models import sampler_for
from envs import Taskset
from evals import evaluate


def accuracy_of(
    model: Path, taskset: Taskset, out: Path, *, params: SamplingParams, limits: Limits, dialect: str = "hermes"
) -> float:
    """The share of `taskset` that `model` gets right; every episode must end without an error."""
    result = evaluate(
        taskset,
        sampler_for(str(model), dialect=dialect, threads=1),
        out=out,
        params=params,
        limits=limits,
        concurrency=50,
        progress=False,
        report_episodes=0,
    )
    assert result.n == len(taskset.tasks) and result.errors == 0
    return result.accuracy
