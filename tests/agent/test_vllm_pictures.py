"""Pictures to a real vLLM server: the tokens and log-probs that this process has, and new weights while it runs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as Pillow
from real_vllm import own_vllm

from agent import Limits, SamplingParams, rollout
from agent.dialects import dialect_named
from agent.engine import Request
from agent.models import load_model
from agent.renderer import Renderer
from agent.token_sampler import TokenSampler
from agent.vision import Vision, vision_of
from agent.vllm import VLLMEngine
from agent.vllm_weights import save_weights
from envs import Message, Task, TokenSequence, ToolEnv, user
from tools import BlobStore, Image

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]

TOLERANCE = 1e-4
BLOBS = BlobStore()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with own_vllm(tmp_path_factory.mktemp("vllm") / "server.log", port, "--model", "tiny_vlm:0"):
        yield f"http://127.0.0.1:{port}"


def loaded() -> tuple[Any, Any, Vision]:
    model, tokenizer = load_model("tiny_vlm:0")
    vision = vision_of("tiny_vlm:0", tokenizer, BLOBS)
    assert vision is not None
    return model, tokenizer, vision


def shade(value: int, width: int, height: int) -> Image:
    return BLOBS.put_image(Pillow.linear_gradient("L").resize((width, height)).point(lambda p: (p + value) % 256))


def gap(model: Any, vision: Vision, row: TokenSequence) -> float:
    ids = torch.tensor([row.token_ids])
    with torch.no_grad():
        logits = model(input_ids=ids, **vision.inputs(model, [row.images], ids)).logits
    plain = logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
    trained = torch.tensor(row.loss_mask[1:]).bool()
    return float((plain - torch.tensor(row.logprobs[1:])).abs()[trained].max())


def test_an_episode_of_pictures_is_sampled_as_it_is_computed_here(url: str) -> None:
    """Two turns, two pictures and then one; the second streamed."""
    model, tokenizer, vision = loaded()
    engine = VLLMEngine(url, tokenizer, vision=vision)
    left = [user("and ", shade(90, 30, 70), "?")]

    async def again(_: Message) -> Message | None:
        return left.pop() if left else None

    class Ends:
        """Whatever comes fourth ends the turn: an untrained model never does."""

        max_context = engine.max_context

        async def generate(self, request: Request, on_ids: Any = None) -> Any:
            return await engine.generate(
                Request(
                    prompt=request.prompt,
                    images=request.images,
                    max_tokens=request.max_tokens,
                    seed=request.seed,
                    stop_ids=frozenset(range(3, 700)),
                ),
                on_ids,
            )

    prompt = user("see ", shade(0, 40, 30), " and ", shade(40, 90, 64), "?")
    sampler = TokenSampler(Renderer(tokenizer, dialect_named("hermes"), vision=vision), Ends())
    episode = asyncio.run(
        rollout(
            ToolEnv(task=Task(id="t", prompt=(prompt,)), user=again), sampler, SamplingParams(max_tokens=12), Limits()
        )
    )
    assert episode.error is None and len(episode.steps) == 2
    (row,) = episode.sequences()
    assert len(row.images) == 3
    assert gap(model, vision, row) < TOLERANCE


def test_placeholders_that_were_sampled_are_no_pictures_to_the_server(url: str) -> None:
    _, tokenizer, vision = loaded()
    engine = VLLMEngine(url, tokenizer, vision=vision)
    delta = Renderer(tokenizer, dialect_named("hermes"), vision=vision).start([user(shade(3, 20, 20), "?")], ())
    heard: list[int] = []

    async def ask(*more: int, listen: bool = False) -> Any:
        request = Request(prompt=(*delta.ids, *more), images=delta.images, max_tokens=4, seed=5)
        return await engine.generate(request, heard.extend if listen else None)

    async def both() -> Any:
        return await ask(vision.placeholder, 5, listen=True), await ask(vision.neutral, 5)

    stray, neutral = asyncio.run(both())
    assert stray.token_ids == neutral.token_ids == tuple(heard)


def test_new_weights_see_too(url: str, tmp_path: Path) -> None:
    model, tokenizer, vision = loaded()
    engine = VLLMEngine(url, tokenizer, vision=vision)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.1)
    save_weights(model, tmp_path / "v1")
    delta = Renderer(tokenizer, dialect_named("hermes"), vision=vision).start([user(shade(9, 20, 20), "?")], ())

    async def play() -> Any:
        await engine.refresh(1, folder=str(tmp_path / "v1"))
        return await engine.generate(Request(prompt=delta.ids, images=delta.images, max_tokens=6, seed=7))

    reply = asyncio.run(play())
    row = TokenSequence(
        token_ids=(*delta.ids, *reply.token_ids),
        loss_mask=(*(0,) * len(delta.ids), *(1,) * len(reply.token_ids)),
        sources=("prompt",) * (len(delta.ids) + len(reply.token_ids)),
        logprobs=(*(0.0,) * len(delta.ids), *reply.logprobs),
        images=delta.images,
    )
    assert reply.policy_version == 1
    assert gap(model, vision, row) < TOLERANCE
