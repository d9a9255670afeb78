"""Tool-Star (arXiv 2505.16410): RL over two tools at once, search and code, paid a little for using both.

What it shows: a hierarchical reward (form, then the answer, then 0.1 for an answer that took both tools) teaches a 3B
model to combine tools: 46.1 in the mean of ten benchmarks, 39.1 for the best peer; without the cold start, or without
masking what tools returned, it falls behind or collapses.

    training run tool_star                                    the smoke preset: minutes on a CPU, all offline
    training run tool_star preset=paper data=grpo_mix.parquet sft_data=sft.jsonl      3B, for GPUs

Format: text, `<search>` or `<python>`, `<result>`, `<answer>` with a `\\boxed{}`, all in one assistant turn. Paper
preset: the released scripts' GRPO (8 attempts a task, 128 tasks in mini-batches of 16, lr 1e-6, no KL, at most 3 calls,
4096 tokens), from SFT (lr 7e-6, 3 epochs of 54,000 rows in batches of 4 on each of 8 processes).

Differences from the paper, in the paper preset:
- The last stage, DPO on the policy's own right and wrong episodes, is left out.
- The debugger, refiner and backtracer of its inference are left out.
- Math questions of the mixed data are scored as the others, by token F1 of the box.
- Whether an episode is well-formed is read from its record: an answer, and no malformed call.

The smoke preset shows that every part runs, not that anything is learned: SmolLM2-135M on questions that take two
searches and a subtraction. It needs the offline world (`python -m tools.search world`, once). Cost: 4 CPU-minutes for
the cold start alone; 3 GB of memory for each training stage.
"""

from __future__ import annotations

from agent.rollout import Limits
from agent.sampler import SamplingParams
from training.comparison import one_of, rehearsal
from training.recipe import GRPO, SFT, Recipe, Stage

PRESETS = ("smoke", "paper")


def tool_star(
    preset: str = "smoke",
    seed: int = 0,
    model: str | None = None,
    data: str = "grpo_mix_train.parquet",
    sft_data: str = "tool_star_sft.jsonl",
    search: str = "retriever=http://127.0.0.1:8000",
    replies: str | None = None,
    processes: int = 8,
    threads: int | None = None,
) -> Recipe:
    """`preset` is `smoke` or `paper`; `processes` is how many the paper preset is launched on."""
    one_of(PRESETS, preset=preset)
    if preset == "paper":
        return Recipe(
            name="tool_star",
            model=model or "Qwen/Qwen2.5-3B-Instruct",
            dialect="tool-star",
            taskset="search_qa",
            taskset_args={"data": data, "search": search, "python": True, "reward": "tool_star", "replies": replies},
            stages=_paper(sft_data, processes),
            seed=seed,
            threads=threads,
        )
    asked = {"kind": "computed", "python": True, "n": 128, "form": "tags", "reward": "tool_star", "k": 1}
    return Recipe(
        name="tool_star",
        model=model or "smollm2",
        dialect="tool-star",
        taskset="wiki_search",
        taskset_args={**asked, "replies": replies},
        stages=rehearsal(turns=5, n=32, steps=3),
        seed=seed,
        threads=threads,
    )


def _paper(sft_data: str, processes: int) -> tuple[Stage, ...]:
    tasks, mini, group = 128, 16, 8
    updates = tasks // mini
    return (
        SFT(data=sft_data, steps=3 * 54_000 // 32, batch_size=32, lr=7e-6, warmup=500, max_length=15000),
        GRPO(
            start="sft",
            steps=2 * (10_000 // tasks) * updates,
            tasks_per_step=tasks,
            group_size=group,
            lr=1e-6,
            params=SamplingParams(max_tokens=4096),
            limits=Limits(max_turns=4, max_calls=3, max_tokens=4096, max_result_chars=2000),
            micro_batch_size=1,
            checkpoint_every=updates,
            concurrency=1024,
            trl={
                "steps_per_generation": tasks * group // processes,
                "gradient_accumulation_steps": mini * group // processes,
                "beta": 0.0,
            },
        ),
    )
