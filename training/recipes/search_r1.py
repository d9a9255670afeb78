"""Search-R1 (arXiv 2503.09516): RL with a search engine in the loop, from a model that was never shown how.

What it shows: rewards of the final answer alone teach a model to search, and masking what the engine returned makes it
stable (7B, PPO: mean EM 0.431 with the mask, 0.343 without; Search-R1's paper and its follow-up arXiv 2505.15117).

    training run search_r1                                  the smoke preset: minutes on a CPU, all offline
    training run search_r1 preset=paper data=train.jsonl    7B, for GPUs; needs a retriever (docs/concepts/search.md)

Format: text, `<search>`, the three best passages in `<information>`, `<answer>`, all in one assistant turn. Reward:
exact match of the answer. Paper preset: GRPO's settings of the released scripts (5 attempts a task, lr 1e-6, KL 0.001,
512 tasks a step, 4 turns, results of 500 tokens), on NQ and HotpotQA rows with the wiki-18 index behind
`retriever=URL`.

Differences from the paper, in the paper preset:
- GRPO, which the paper compares with PPO; PPO's critic is not here.
- The forced last turn without search is left out: the fourth turn is the last.
- The limit on a result is 2,000 characters for 500 tokens.

The smoke preset has a cold start, which the paper does without: a model of 135M parameters never calls by itself. It
shows that every part runs, not that anything is learned. Cost: 7 minutes on one busy CPU core.
"""

from __future__ import annotations

from agent.rollout import Limits
from agent.sampler import SamplingParams
from training.comparison import one_of, rehearsal
from training.recipe import GRPO, Recipe

PRESETS = ("smoke", "paper")


def search_r1(
    preset: str = "smoke",
    seed: int = 0,
    model: str | None = None,
    data: str = "nq_hotpotqa_train.jsonl",
    retriever: str = "http://127.0.0.1:8000",
    replies: str | None = None,
    threads: int | None = None,
) -> Recipe:
    """`preset` is `smoke` or `paper`; `replies` records what the search answered, so that the run can be replayed."""
    one_of(PRESETS, preset=preset)
    if preset == "paper":
        return _paper(seed, model or "Qwen/Qwen2.5-7B", data, retriever, replies, threads)
    asked = {"kind": "one_hop", "n": 200, "form": "tags", "reward": "search_r1", "k": 1}
    return Recipe(
        name="search_r1",
        model=model or "smollm2",
        dialect="search-r1",
        taskset="wiki_search",
        taskset_args={**asked, "replies": replies},
        stages=rehearsal(turns=3, n=48, steps=4, beta=0.001),
        seed=seed,
        threads=threads,
    )


def _paper(seed: int, model: str, data: str, retriever: str, replies: str | None, threads: int | None) -> Recipe:
    limits = Limits(max_turns=4, max_result_chars=2000, max_tokens=2048)
    params = SamplingParams(max_tokens=500)
    return Recipe(
        name="search_r1",
        model=model,
        dialect="search-r1",
        taskset="search_qa",
        taskset_args={"data": data, "search": f"retriever={retriever}", "replies": replies, "reward": "search_r1"},
        stages=(
            GRPO(
                steps=1005,
                tasks_per_step=512,
                group_size=5,
                lr=1e-6,
                params=params,
                limits=limits,
                micro_batch_size=1,
                checkpoint_every=100,
                concurrency=1024,
                trl={"beta": 0.001, "epsilon": 0.2},
            ),
        ),
        seed=seed,
        threads=threads,
    )
