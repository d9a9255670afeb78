"""Does it matter that tool tokens carry no loss? GRPO with them masked, as here, and trained on like the policy's own.

The task: look `47+12=?` up with a tool that gives the right number and then a long text without meaning, drawn anew at
each call. The policy is the tiny model after a cold start in which a quarter of the episodes look the whole sum up and
the others its first number alone, so that their answer is wrong. Only the reward says which is better. Both arms then
do the same steps of GRPO from the same weights with the same seeds, tasks and settings; they differ in the loss mask.

Reported is the accuracy on held-out tasks after training, sampled at temperature 1: the mean over seeds with Student's
95% interval, seeds being the unit, and the paired difference.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from _common import installed

from agent.models import model_folder
from tools import ToolError

HONEST_EVERY = 4
"""In one cold-start episode of so many, the whole sum is looked up."""
COLD, IN_ALL = 500, 900
"""Tasks of the cold start; the others are GRPO's."""
NOISE = 40
"""Words and numbers behind the one that counts."""
WORDS = ("the", "of", "and", "to", "in", "is", "that", "for", "school", "shop", "farm", "market", "library", "garden")
MAX_TOKENS = 32
ARMS = ("masked", "unmasked")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of everything."""

    sft_steps: int
    grpo_steps: int
    seeds: int
    measured: int


WHOLE, QUICK = (
    Size(sft_steps=320, grpo_steps=40, seeds=5, measured=200),
    Size(sft_steps=10, grpo_steps=1, seeds=2, measured=32),
)


def noisy(value: str, dice: random.Random) -> str:
    """The number that counts, and words and numbers without meaning."""
    noise = [str(dice.randrange(10)) if dice.random() < 0.2 else dice.choice(WORDS) for _ in range(NOISE)]
    return f"{value}\n{' '.join(noise)}"


def lookups(split: str, n: int) -> Any:
    """`n` sums, and the tool. The noise of a call depends on its task and on how often that was played."""
    from envs import Task, ToolEnv
    from envs.find import find_taskset
    from tools import tool

    sums = find_taskset("toy_arithmetic", {"split": split, "n": 5 * n})
    tasks = [task for task in sums.tasks if "+" in task.prompt[-1].text][:n]
    played: Counter[str] = Counter()

    def env(task: Task) -> ToolEnv:
        played[task.id] += 1
        dice = random.Random(f"{task.id} {played[task.id]}")

        @tool
        async def python(code: str) -> str:
            """Run Python code and see what it prints.

            Args:
                code: Python source code.
            """
            numbers = re.fullmatch(r"print\((\d+)(?:\+(\d+))?\)", code)
            if numbers is None:
                raise ToolError("only print(a) and print(a+b)")
            return noisy(str(int(numbers[1]) + int(numbers[2] or 0)), dice)

        return ToolEnv(task=task, tools=(python,))

    return replace(sums, tasks=tasks, env=env)


def cold_start(folder: Path, size: Size) -> Path:
    """The model that both arms start from."""
    from agent import ScriptedSampler, rollout
    from envs import assistant
    from envs.log import TrajectoryLog
    from training.recipe import SFT, Recipe, StageRun
    from training.sft import sft

    if (folder / "sft" / "model").exists():
        return folder / "sft" / "model"
    taskset = lookups("train", IN_ALL)

    async def play() -> None:
        (folder / "cold.jsonl").unlink(missing_ok=True)
        with TrajectoryLog(folder / "cold.jsonl") as log:
            for index, task in enumerate(taskset.tasks[:COLD]):
                first = task.prompt[-1].text[:2]
                call = replace(task.gold[0].tool_calls[0], arguments={"code": f"print({first})"})
                careless = [assistant(tool_calls=(call,)), assistant(f"Answer: {first}")]
                player = ScriptedSampler(careless) if index % HONEST_EVERY else ScriptedSampler()
                log.append(await rollout(taskset.env(task), player, rubric=taskset.rubric))

    asyncio.run(play())
    trl = {"bf16": False, "lr_scheduler_type": "constant_with_warmup"}
    stage = SFT(data=str(folder / "cold.jsonl"), steps=size.sft_steps, batch_size=32, lr=1.2e-3, warmup=10, trl=trl)
    recipe = Recipe(name="masking", model="tiny", taskset="lookups", stages=(stage,), threads=1)
    run = StageRun(
        recipe=recipe,
        folder=folder / "sft",
        start=model_folder("tiny"),
        dialect="hermes",
        seed=0,
    )
    run.folder.mkdir(exist_ok=True)
    sft(stage, run, Path(stage.data))
    return run.folder / "model"


def with_tool_tokens(trainer: Any) -> None:
    """Have `trainer` train on every token between an episode's first sampled one and its last."""
    batch_of = trainer._batch_of

    def unmasked(rows: Any, outcomes: Any) -> Any:
        return batch_of([replace(row, mask=(1,) * len(row.mask)) for row in rows], outcomes)

    trainer._batch_of = unmasked


def arm(start: Path, folder: Path, size: Size, seed: int, *, masked: bool) -> float:
    """GRPO from `start`; the accuracy afterwards."""
    from agent.dialects import dialect_named
    from agent.local import TransformersEngine
    from agent.models import load_model
    from agent.renderer import Renderer
    from agent.rollout import Limits
    from agent.sampler import SamplingParams
    from agent.token_sampler import TokenSampler
    from training.grpo import make_trainer
    from training.recipe import GRPO

    model, tokenizer = load_model(str(start))
    taskset = lookups("train", IN_ALL)
    settings = GRPO(
        steps=size.grpo_steps,
        tasks_per_step=8,
        group_size=4,
        lr=4e-4,
        params=SamplingParams(max_tokens=MAX_TOKENS),
        limits=Limits(max_turns=3),
        checkpoint_every=10_000,
        trl={"bf16": False, "lr_scheduler_type": "linear"},
    )
    renderer = Renderer(tokenizer, dialect_named("hermes"))
    trainer = make_trainer(
        settings,
        model=model,
        tokenizer=tokenizer,
        taskset=replace(taskset, tasks=taskset.tasks[COLD:]),
        make_sampler=lambda trained: TokenSampler(renderer, TransformersEngine(trained, tokenizer, own_thread=False)),
        out=folder,
        seed=seed,
    )
    if not masked:
        with_tool_tokens(trainer)
    try:
        trainer.train()
    finally:
        trainer.close()
    return accuracy(trainer.model, tokenizer, folder / "eval", size)


def accuracy(model: Any, tokenizer: Any, folder: Path, size: Size) -> float:
    """On held-out tasks, one attempt each."""
    from agent.dialects import dialect_named
    from agent.local import TransformersEngine
    from agent.renderer import Renderer
    from agent.rollout import Limits
    from agent.sampler import SamplingParams
    from agent.token_sampler import TokenSampler
    from evals import evaluate

    sampler = TokenSampler(Renderer(tokenizer, dialect_named("hermes")), TransformersEngine(model, tokenizer))
    try:
        result = evaluate(
            lookups("test", size.measured),
            sampler,
            out=folder,
            params=SamplingParams(max_tokens=MAX_TOKENS),
            limits=Limits(max_turns=3),
            concurrency=64,
            progress=False,
            report_episodes=0,
        )
    finally:
        sampler.engine.close()
    assert result.errors == 0
    return result.accuracy


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and Student's 95% interval."""
    from evals.stats import student_t_quantile

    half = student_t_quantile(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return fmean(values), fmean(values) - half, fmean(values) + half


def measured(folder: Path, size: Size) -> tuple[float, dict[str, list[float]]]:
    """The accuracy before, and of each arm by seed; what `folder` holds already is not run again."""
    from agent.models import load_model

    path = folder / "scores.json"
    scores: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    start = cold_start(folder, size)
    arms = [(f"{name}-{seed}", name, seed) for seed in range(size.seeds) for name in ARMS]
    for key, name, seed in [("before", "", 0), *arms]:
        if key in scores:
            continue
        began = time.perf_counter()
        out = folder / key
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        if name:
            scores[key] = arm(start, out, size, seed, masked=name == "masked")
        else:
            scores[key] = accuracy(*load_model(str(start)), out, size)
        path.write_text(json.dumps(scores))
        print(f"{key}: {scores[key]:.3f} in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return scores["before"], {name: [scores[f"{name}-{seed}"] for seed in range(size.seeds)] for name in ARMS}


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps that teach nothing, in a minute")
    parser.add_argument("--out", help="a folder that keeps what was done, so that a stopped run goes on")
    args = parser.parse_args()
    size = QUICK if args.quick else WHOLE
    logging.disable(logging.WARNING)  # tool tokens were not sampled, so log-probs differ there, as they must
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(args.out or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        before, found = measured(folder, size)
    gains = [one - other for one, other in zip(found["masked"], found["unmasked"], strict=True)]
    rows = [
        {"what": what, "mean": round(mean, 4), "low": round(low, 4), "high": round(high, 4), "seeds": values}
        for what, values in (*found.items(), ("masked - unmasked", gains))
        for mean, low, high in [interval(values)]
    ]
    print(f"accuracy on {size.measured} held-out tasks; {before:.3f} after the cold start")
    for line in rows:
        seeds = " ".join(f"{value:.3f}" for value in line["seeds"])
        print(f"{line['what']:18} {line['mean']:6.3f}  [{line['low']:.3f}, {line['high']:.3f}]  seeds: {seeds}")
    versions = {name: installed(name) for name in ("toolweave", "trl", "transformers", "torch")}
    print(json.dumps({"benchmark": "masking", "versions": versions, "before": before, "rows": rows}))


if __name__ == "__main__":
    main()
