"""ReTool (arXiv 2504.11536): cold start on code-integrated reasoning, then RL with a live Python interpreter.

What it shows: RL with the tool beats RL without in accuracy and in steps; the share of episodes that run code rises.
The paper, Qwen2.5-32B-Instruct on AIME24 / AIME25: 26.7 before, 40.9 after cold start (AIME24), 67.0 / 49.3 after 400
steps; text-only RL 40.0 / 36.7 after about 1080.

    training run retool                                            the smoke preset: minutes on a CPU
    training run retool preset=paper sft_data=retool_sft.jsonl     32B, for GPUs; see docs/guides/scale.md

Format: text, `<code>` with a fenced script, `<interpreter>` with its output, `<answer>\\boxed{}</answer>`, all in one
assistant turn; only what the model wrote is trained. Reward: +1 for an equivalent boxed answer, else -1; code that runs
earns nothing. Data: JoeYing/ReTool-SFT as JSON lines (`sft_data`), DAPO-Math-17k, and AIME for measuring, 32 samples a
problem at temperature 1 and top-p 0.7.

Differences from the paper, in the paper preset:
- GRPO's group baseline in the place of PPO's critic: the published verl recipe's settings (16 attempts a task, clip 0.2
  and 0.28, dual clip 10, 8 turns, prompts of 512 tasks in mini-batches of 64, lr 1e-6, no KL, token mean).
- The verl recipe's smaller penalty for wrong answers after calls is left out; `turn_bonus=true` has it.
- The verl recipe calls by Hermes JSON; here it is the paper's tags (`dialect=hermes` is the other).
- The prompt is in our words; the paper's template is not copied.
- The learning rate of the cold start is not in the paper: 1e-5, falling to 0, is ours. Two epochs of 2000 rows in
  batches of 32 make 125 steps.
- Variables live on from one call to the next; the paper runs each script by itself.

The smoke preset shows that every part runs, not that anything is learned: SmolLM2-135M on word problems of one step,
a handful of steps. Cost: six CPU-minutes, in eight on one of two shared cores, and about 3 GB of memory.
"""

from __future__ import annotations

from agent.rollout import Limits
from agent.sampler import SamplingParams
from training.comparison import one_of
from training.recipe import GRPO, SFT, Collect, Evaluate, HeldOut, Recipe, Stage

PRESETS = ("smoke", "paper")


def retool(
    preset: str = "smoke",
    seed: int = 0,
    model: str | None = None,
    sft_data: str = "retool_sft.jsonl",
    rl_data: str = "BytedTsinghua-SIA/DAPO-Math-17k",
    turn_bonus: bool = False,
    processes: int = 8,
    dialect: str = "inline",
    threads: int | None = None,
) -> Recipe:
    """`preset` is `smoke` or `paper`; `processes` is how many the paper preset is launched on."""
    one_of(PRESETS, preset=preset)
    if preset == "paper":
        return Recipe(
            name="retool",
            model=model or "Qwen/Qwen2.5-32B-Instruct",
            dialect=dialect,
            taskset="retool_math",
            taskset_args={"data": rl_data, "turn_bonus": turn_bonus},
            stages=_paper(sft_data, processes),
            seed=seed,
            threads=threads,
        )
    return Recipe(
        name="retool",
        model=model or "smollm2",
        dialect=dialect,
        taskset="retool_arithmetic",
        taskset_args={"difficulty": 1, "n": 96},
        stages=_smoke(),
        seed=seed,
        threads=threads,
    )


def _paper(sft_data: str, processes: int) -> tuple[Stage, ...]:
    prompts, mini, group, samplings = 512, 64, 16, 150
    limits = Limits(max_turns=8, max_tokens=16384, max_result_chars=400, call_timeout_s=30.0)
    aime = SamplingParams(max_tokens=16384, temperature=1.0, top_p=0.7)
    updates = prompts // mini

    def measure(name: str, of: str, data: str) -> Evaluate:
        arguments = {"data": data, "split": "all"}
        return Evaluate(name=name, model=of, n=30, repeats=32, taskset_args=arguments, params=aime, limits=limits)

    return (
        SFT(data=sft_data, steps=125, batch_size=32, lr=1e-5, warmup=0, max_length=16384, micro_batch_size=1),
        measure("eval-sft-aime24", "sft", "Maxwell-Jia/AIME_2024"),
        GRPO(
            start="sft",
            steps=samplings * updates,
            tasks_per_step=prompts,
            group_size=group,
            lr=1e-6,
            params=SamplingParams(max_tokens=16384),
            limits=limits,
            micro_batch_size=1,
            checkpoint_every=5 * updates,
            held_out=HeldOut(every=10 * updates, n=128, keep_best=False),
            concurrency=1024,
            trl={
                "steps_per_generation": prompts * group // processes,
                "gradient_accumulation_steps": mini * group // processes,
                "beta": 0.0,
                "epsilon": 0.2,
                "epsilon_high": 0.28,
                "delta": 10.0,
                "loss_type": "dapo",
            },
        ),
        measure("eval-grpo-aime24", "grpo", "Maxwell-Jia/AIME_2024"),
        measure("eval-grpo-aime25", "grpo", "yentinglin/aime_2025"),
    )


def _smoke() -> tuple[Stage, ...]:
    gold, steps, per_step = 48, 4, 4
    limits = Limits(max_turns=3, max_calls=3, max_result_chars=400, call_timeout_s=60.0)
    params = SamplingParams(max_tokens=72)

    def measure(name: str, of: str) -> Evaluate:
        return Evaluate(name=name, model=of, n=32, taskset_args={"split": "test"}, params=params, limits=limits)

    return (
        Collect(n=gold, limits=limits),
        SFT(steps=6, batch_size=8, micro_batch_size=1, lr=2e-4, warmup=2, checkpoint_every=3),
        measure("eval-sft", "sft"),
        GRPO(
            start="sft",
            steps=steps,
            tasks_per_step=per_step,
            group_size=4,
            lr=2e-5,
            skip=gold,
            params=params,
            limits=limits,
            micro_batch_size=2,
            checkpoint_every=2,
            held_out=HeldOut(every=2, n=16),
            trl={"epsilon": 0.2, "epsilon_high": 0.28, "delta": 10.0},
        ),
        measure("eval-grpo", "grpo"),
    )
