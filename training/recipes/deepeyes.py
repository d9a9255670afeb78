"""DeepEyes (arXiv 2505.14362): RL teaches a model that sees to zoom in, and a bonus for looking makes it worth trying.

What it shows: with a bonus for a right answer after a look, zooming comes, spreads and becomes exact; without one it
dies out; a bonus for any look gives looks of little use. The paper, Qwen2.5-VL-7B on V*: 71.2 before, 90.1 after;
87.4 without a bonus, where zooming stops, and 87.4 with one for any look. What came of it on a small model is in
docs/claims: zoom.md, bonus.md and cold_start.md.

    training run deepeyes                                          the tiny preset: minutes on a CPU
    training run deepeyes preset=paper data=DeepEyes-Datasets-47k  7B, for GPUs
    training reproduce zoom                                        three seeds and a page; also bonus, cold_start

The tiny preset is a whole experiment in one run, with the model of `training run tiny_vlm`. A sign too small to be read
is somewhere on a picture. Every arm first learns what signs look like from near. The cold start's gold zooms in on the
sign more often than not, and else guesses: only the reward says that it should always. Each arm is a stage of GRPO on
as many tokens, all but the last two from weights taught with as many tokens:

    grpo                 with the tool, DeepEyes' conditional bonus
    grpo-unconditional   the bonus for any look          grpo-plain     no bonus
    grpo-no-tool         the same recipe without the tool, cold start included
    grpo-near            from weights taught on signs from near, which know the tool by its description alone
    grpo-no-cold-start   from the base policy, which does not know the question either

Format: Hermes calls, the part as the next user turn, `<answer>`. Reward: 0.8 right - 0.2 bad form + 1.2 bonus.

Differences from the paper:
- The tiny preset has a cold start; the paper's model knows the format from its instructions.
- Its advantages are divided by the deviation of the step, not of each group (the paper's GRPO): where no attempt of a
  group is right, a call in bad form weighs as much as a right answer does elsewhere, and calls become fewer.
- Answers are compared as text; the paper asks a judge. Its paper preset has `max_turns` 6, its script 5.
Cost: tiny, arms=tool,no-tool: 15 minutes on one thread, 35 with three seeds at once on two busy cores; 1.5 GB.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agent.rollout import Limits
from agent.sampler import SamplingParams
from training.comparison import one_of
from training.recipe import GOLD, GRPO, SFT, Collect, Evaluate, Recipe, Stage, falling

PRESETS = ("tiny", "paper")
ARMS = ("tool", "no-tool", "unconditional", "plain", "near", "no-cold-start")


def deepeyes(
    preset: str = "tiny",
    seed: int = 0,
    model: str | None = None,
    arms: str = "tool,no-tool",
    gold: int = 3072,
    sft_tokens: int = 1_600_000,
    grpo_tokens: int = 200_000,
    n: int = 300,
    data: str = "DeepEyes-Datasets-47k",
    processes: int = 8,
    threads: int | None = None,
) -> Recipe:
    """`preset` is `tiny` or `paper`; of the tiny one, `arms` (some of `ARMS`) and each arm's tokens, `n` to measure."""
    one_of(PRESETS, preset=preset)
    if preset == "paper":
        return Recipe(
            name="deepeyes",
            model=model or "Qwen/Qwen2.5-VL-7B-Instruct",
            taskset="deepeyes_data",
            taskset_args={"data": data},
            stages=(_paper(processes),),
            seed=seed,
            threads=threads,
        )
    asked = [arm.strip() for arm in arms.split(",")]
    for arm in asked:
        one_of(ARMS, arm=arm)
    return Recipe(
        name="deepeyes",
        model=model or "tiny_vlm",
        taskset="visual_search",
        taskset_args={**TASK, "n": gold + 4096},
        stages=_tiny(asked, gold, sft_tokens, grpo_tokens, n),
        seed=seed,
        threads=threads,
        memory_gb=2.0,
    )


TASK: dict[str, Any] = {
    "size": "256x256",
    "shown": 64,
    "capital": 2.5,
    "margin": 0.15,
    "photos": "none",
    "letters": "ACEHLTX7",
    "length": 1,
    "style": "short",
    "reward": "deepeyes",
}
"""A sign of one of eight characters, 2.5 pixels high where it is first seen; enlarged it is about twenty."""
NEAR: dict[str, Any] = {"capital": 18.0, "careful": 0.0}
"""Signs as they look from near, read at once: what every arm learns first."""
COLD: dict[str, Any] = {"careful": 0.7, "needs_tool": 0.5, "readable": 18.0}
"""Half of the signs are near still, or reading is forgotten. Of others, gold guesses three of ten."""
BARE: dict[str, Any] = {"tools": False}


def _tiny(arms: list[str], gold: int, sft_tokens: int, grpo_tokens: int, n: int) -> tuple[Stage, ...]:
    limits = Limits(max_turns=4, max_calls=3, max_tokens=96)
    collect = Collect(n=gold, taskset_args=COLD, keep="finished", limits=limits)
    near = SFT(name="near", data=GOLD, taskset_args=NEAR, steps=60, batch_size=64, lr=1e-3, warmup=10)
    sft = SFT(
        start="near",
        steps=2000,
        max_tokens=sft_tokens,
        batch_size=32,
        lr=1e-3,
        warmup=10,
        trl=falling(2000),
    )
    grpo = GRPO(
        start="sft",
        steps=2000,
        max_tokens=grpo_tokens,
        tasks_per_step=8,
        group_size=8,
        lr=1e-4,
        warmup=5,
        advantages="magistral",
        skip=gold,
        params=SamplingParams(max_tokens=32),
        limits=limits,
    )
    measure = Evaluate(n=n, taskset_args={"split": "test", "n": n}, params=SamplingParams(max_tokens=32), limits=limits)

    def measured(name: str, model: str, **asked: Any) -> Evaluate:
        return replace(measure, name=name, model=model, taskset_args={**measure.taskset_args, **asked})

    stages: list[Stage] = [measured("eval-base", "base"), near, collect, sft, measured("eval-sft", "sft")]
    if "tool" in arms:
        stages += [grpo, measured("eval-grpo", "grpo"), replace(measured("eval-grpo-hidden", "grpo"), tools=False)]
    for arm, bonus in (("unconditional", "unconditional"), ("plain", "none")):
        if arm in arms:
            name = f"grpo-{arm}"
            stages += [replace(grpo, name=name, taskset_args={"bonus": bonus}), measured(f"eval-{name}", name)]
    if "no-tool" in arms:
        name = "grpo-no-tool"
        stages += [
            replace(collect, name="collect-no-tool", taskset_args={**COLD, **BARE}),
            replace(sft, name="sft-no-tool", data="collect-no-tool"),
            replace(grpo, name=name, start="sft-no-tool", taskset_args=BARE),
            measured(f"eval-{name}", name, **BARE),
        ]
    for arm, start in (("near", "near"), ("no-cold-start", "base")):
        if arm in arms:
            name = f"grpo-{arm}"
            stages += [replace(grpo, name=name, start=start), measured(f"eval-{name}", name)]
    return tuple(stages)


def _paper(processes: int) -> GRPO:
    tasks, group = 256, 16
    return GRPO(
        steps=80,
        tasks_per_step=tasks,
        group_size=group,
        lr=1e-6,
        params=SamplingParams(max_tokens=10240),
        limits=Limits(max_turns=6, max_tokens=20480),
        micro_batch_size=1,
        concurrency=1024,
        trl={"gradient_accumulation_steps": tasks * group // processes, "beta": 0.0},
    )
