"""Tokens per second at 1, 8 and 32 concurrent requests, each engine of ours against the same model without us.

In this process: `TransformersEngine` against one plain call of `generate` on the same ragged work, lengths drawn once
from an exponential distribution as answers are, so that most rows end long before the longest. Each row of `generate`
ends at its length; it returns ids alone, where ours also returns their log-probs. Over HTTP, to a running server
(`make serve`, then `--url http://127.0.0.1:8000`): `VLLMEngine` against a bare client that posts the same bodies and
reads the same replies. The two take turns on the one server, and the last column is what `VLLMEngine` keeps of the bare
client's tokens per second.
"""

# pyright: reportUnknownMemberType=false

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from _common import Row, alternate, report, row

from agent.engine import Request
from agent.models import load_model

GOAL_KEPT = 0.95


def work(tokenizer: Any, count: int, mean: int) -> list[Request]:
    """`count` requests: prompts of 40 to 80 tokens, completions of 1 to four times `mean`."""
    draw = random.Random(count)
    words = ("the", "a", "of", "box", "and", "red", "in", "is", "you", "that", "it", "was", "for", "blue", "as", "with")
    requests: list[Request] = []
    for seed in range(count):
        text = " ".join(draw.choices(words, k=draw.randint(40, 80)))
        length = min(4 * mean, 1 + int(draw.expovariate(1 / mean)))
        prompt = tuple(tokenizer.encode(text, add_special_tokens=False))
        requests.append(Request(prompt=prompt, max_tokens=length, seed=seed))
    return requests


def plain(model: Any, requests: Sequence[Request]) -> int:
    """One call of transformers' `generate`, every row stopped at its length; the number of tokens asked for."""
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    longest = max(len(request.prompt) for request in requests)
    ids = torch.tensor([(0,) * (longest - len(request.prompt)) + request.prompt for request in requests])
    attention = torch.tensor(
        [(0,) * (longest - len(request.prompt)) + (1,) * len(request.prompt) for request in requests]
    )
    lengths = torch.tensor([request.max_tokens for request in requests])

    class AtLength(StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
            return input_ids.shape[1] - longest >= lengths

    torch.manual_seed(0)
    with torch.no_grad():
        model.generate(
            input_ids=ids,
            attention_mask=attention,
            max_new_tokens=int(lengths.max()),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            pad_token_id=0,
            eos_token_id=None,
            stopping_criteria=StoppingCriteriaList([AtLength()]),
        )
    return int(lengths.sum())


def in_process(model: Any, tokenizer: Any, counts: Sequence[int], mean: int, repeats: int) -> list[Row]:
    """TransformersEngine against `plain`."""
    from agent.local import TransformersEngine

    rows: list[Row] = []
    engine = TransformersEngine(model, tokenizer, max_batch=max(counts))
    for count in counts:
        requests = work(tokenizer, count, mean)
        tokens = sum(request.max_tokens for request in requests)

        async def ours(requests: Sequence[Request] = requests) -> int:
            made = await asyncio.gather(*(engine.generate(request) for request in requests))
            return sum(len(one.token_ids) for one in made)

        assert asyncio.run(ours()) == tokens == plain(model, requests)
        sides = {"ours": lambda: asyncio.run(ours()), "generate": lambda: plain(model, requests)}  # noqa: B023
        seconds = alternate(sides, repeats)
        name = f"TransformersEngine, {count} at once"
        rows.append(
            row(name, "generate", tokens / seconds["ours"], tokens / seconds["generate"], "tokens/s", better="higher")
        )
    engine.close()
    return rows


async def bare(url: str, bodies: Sequence[bytes]) -> int:
    """The least a client can do: post, read, parse, count."""
    import httpx2

    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx2.AsyncClient(timeout=None, limits=limits, verify=url.startswith("https:")) as client:

        async def one(body: bytes) -> int:
            reply = await client.post(
                f"{url}/v1/completions", content=body, headers={"Content-Type": "application/json"}
            )
            return len(json.loads(reply.content)["choices"][0]["token_ids"])

        return sum(await asyncio.gather(*map(one, bodies)))


def over_http(url: str, tokenizer: Any, counts: Sequence[int], mean: int, repeats: int) -> list[Row]:
    """VLLMEngine against `bare`, both on one server."""
    from agent.vllm import VLLMEngine

    rows: list[Row] = []
    engine = VLLMEngine(url, tokenizer)
    for count in counts:
        requests = work(tokenizer, count, mean)
        tokens = sum(request.max_tokens for request in requests)
        bodies = [engine.body(request, stream=False) for request in requests]

        async def ours(requests: Sequence[Request] = requests) -> int:
            made = await asyncio.gather(*map(engine.generate, requests))
            return sum(len(one.token_ids) for one in made)

        root = engine.servers.all[0].url
        assert asyncio.run(ours()) == tokens == asyncio.run(bare(root, bodies))  # prompts are cached from here on
        sides = {"ours": lambda: asyncio.run(ours()), "bare": lambda: asyncio.run(bare(root, bodies))}  # noqa: B023
        seconds = alternate(sides, repeats)
        name = f"VLLMEngine, {count} at once"
        rows.append(
            row(
                name,
                "bare HTTP client",
                tokens / seconds["ours"],
                tokens / seconds["bare"],
                "tokens/s",
                better="higher",
            )
        )
        word = "met" if rows[-1]["ratio"] >= GOAL_KEPT else "missed"
        print(f"{name}: {rows[-1]['ratio']} of the bare client's tokens/s; the goal of {GOAL_KEPT} is {word}, now")
    return rows


def served_by(url: str) -> dict[str, str]:
    """The server's own version, as vLLM tells it."""
    import httpx2

    said = httpx2.get(f"{url.rstrip('/').removesuffix('/v1')}/version")
    return {"vllm": said.json()["version"]} if said.status_code == 200 else {}


def main() -> None:
    """The table; rows of a server only where one is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions of less work, under a minute")
    parser.add_argument("--model", help="what both sides run; smollm2, or tiny with --quick")
    parser.add_argument("--url", default=os.environ.get("TOOLWEAVE_VLLM_URL"), help="a vLLM server of that model")
    parser.add_argument("--only-server", action="store_true", help="nothing but the rows of the server")
    given = parser.parse_args()
    if given.only_server and not given.url:
        parser.error("--only-server needs --url, or TOOLWEAVE_VLLM_URL")
    counts, mean, repeats = (1, 8, 32), 12 if given.quick else 48, 2 if given.quick else 3
    import torch

    torch.set_num_threads(1)
    model, tokenizer = load_model(given.model or ("tiny" if given.quick else "smollm2"))
    rows = [] if given.only_server else in_process(model, tokenizer, counts, mean, repeats)
    if given.url:
        rows += over_http(given.url, tokenizer, counts, mean, repeats)
    else:
        print("VLLMEngine: not run, no server was named (--url, or TOOLWEAVE_VLLM_URL)")
    others = served_by(given.url) if given.url else {}
    report("generation", rows, ["torch", "transformers", "httpx2"], others)


if __name__ == "__main__":
    main()
