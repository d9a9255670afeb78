"""Sampling with pictures in this process: ragged batches, shared prompts, tokens that only look like pictures."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from PIL import Image as Pillow
from vlm_families import BLOBS, FAMILIES, seen, vlm_folder

from agent import Limits, SamplingParams, rollout
from agent.dialects import dialect_named
from agent.engine import Generated, Request
from agent.local import TransformersEngine
from agent.models import load_model
from agent.renderer import Renderer
from agent.token_sampler import TokenSampler
from agent.vision import vision_of
from envs import Message, Task, TokenSequence, ToolEnv, user
from tools import BlobStore, Image
from tools.errors import ConfigError

QUICK = ("idefics3", "qwen3-vl")
"""A family of plain and one of three-dimensional positions; the others run with the slow tests."""
ALL = [family if family in QUICK else pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES]


@cache
def shade(value: int, width: int = 40, height: int = 30) -> Image:
    return BLOBS.put_image(Pillow.linear_gradient("L").resize((width, height)).point(lambda p: (p + value) % 256))


class EndsSoon:
    """The engine, with so many ids ending a turn that untrained models end theirs at different lengths."""

    def __init__(self, engine: TransformersEngine) -> None:
        self.engine = engine
        self.max_context = engine.max_context

    async def generate(self, request: Request, on_ids: Any = None) -> Generated:
        return await self.engine.generate(replace(request, stop_ids=frozenset(range(300))), on_ids)


def sampled(family: str, prompts: Sequence[Sequence[Any]], again: Sequence[Any] = (), **params: Any) -> Any:
    """One episode of two turns for each prompt, all at once."""
    model, tokenizer, vision = seen(family)
    engine = TransformersEngine(model, tokenizer, vision=vision)
    sampler = TokenSampler(Renderer(tokenizer, dialect_named("hermes"), vision=vision), EndsSoon(engine))

    def world(index: int, prompt: Sequence[Any]) -> ToolEnv:
        left = [again] if again else []

        async def answers(_: Message) -> Message | None:
            return user(*left.pop()) if left else None

        return ToolEnv(task=Task(id=str(index), prompt=(user(*prompt),)), user=answers)

    async def play() -> Any:
        settings = {"max_tokens": 10, **params}
        episodes = (
            rollout(world(i, prompt), sampler, SamplingParams(seed=i, **settings), Limits())
            for i, prompt in enumerate(prompts)
        )
        return await asyncio.gather(*episodes)

    try:
        trajectories = asyncio.run(play())
    finally:
        engine.close()
    assert [trajectory.error for trajectory in trajectories] == [None] * len(prompts)
    return trajectories


def gap(family: str, row: TokenSequence) -> float:
    """Greatest difference between the recorded log-probs and those of a forward pass of the whole row, alone."""
    model, _, vision = seen(family)
    ids = torch.tensor([row.token_ids])
    with torch.no_grad():
        logits = model(input_ids=ids, **vision.inputs(model, [row.images], ids)).logits.float()
    plain = logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
    trained = torch.tensor(row.loss_mask[1:]).bool()
    return float((plain - torch.tensor(row.logprobs[1:])).abs()[trained].max())


@pytest.mark.parametrize("family", ALL)
def test_a_ragged_batch_samples_each_row_as_it_would_be_computed_alone(family: str) -> None:
    """Two turns; rows of none, one and two pictures, of the same words with the same and with other pictures."""
    one, other = shade(0), shade(90, 70, 20)
    prompts = [("see ", one, "?"), ("see ", other, "?"), ("see ", one, "?"), ("no picture",), (other, one, "both")]
    trajectories = sampled(family, prompts, again=("and ", shade(30, 20, 60), "?"))
    rows = [row for trajectory in trajectories for row in trajectory.sequences()]
    assert [len(row.images) for row in rows] == [2, 2, 2, 1, 3]
    assert len({len(row.token_ids) for row in rows}) > 1
    assert max(gap(family, row) for row in rows) < 1e-5


def test_the_same_words_with_another_picture_are_another_prompt() -> None:
    """They share ids and nothing else: a prefill shared by ids alone would show one picture to both."""
    same = [("see ", shade(0), "?")] * 2 + [("see ", shade(120), "?")] * 2
    first, _, _, last = sampled("idefics3", same, temperature=0.0)
    (row, _), (other, _) = (t.sequences() * 2 for t in (first, last))
    assert row.token_ids[: row.loss_mask.index(1)] == other.token_ids[: other.loss_mask.index(1)]
    assert row.logprobs != other.logprobs


def test_each_picture_is_encoded_once_while_the_weights_stand_still() -> None:
    model, _, vision = seen("idefics3")
    calls: list[int] = []
    hook = model.model.vision_model.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    fresh, again = shade(7), shade(8)
    try:
        sampled("idefics3", [("a", fresh), ("b", fresh, again), ("a", fresh)], again=(fresh, again))
        assert sum(calls) == 2
        sampled("idefics3", [("a", fresh)])
        assert sum(calls) == 2
    finally:
        hook.remove()
    placed = sampled("idefics3", [("a", fresh)])[0].sequences()[0].images
    with torch.enable_grad():  # trained towers: nothing kept is used
        assert vision.features(model, placed)[0].rows.requires_grad


@pytest.mark.parametrize("how", ["fused", "foreach", "sgd", "loaded"])
def test_features_of_earlier_weights_are_never_used(how: str) -> None:
    """A fused optimiser changes weights without torch's version counter moving."""
    model, tokenizer = load_model(str(vlm_folder("idefics3")))
    vision = vision_of(str(vlm_folder("idefics3")), tokenizer, BLOBS)
    assert vision is not None
    placed = Renderer(tokenizer, dialect_named("hermes"), vision=vision).start([user(shade(3))], ()).images
    with torch.no_grad():
        before = vision.features(model, placed)[0].rows
        assert vision.features(model, placed)[0].rows is before
    if how == "loaded":
        model.load_state_dict({name: value + 0.01 for name, value in model.state_dict().items()})
    else:
        vision.features(model, placed)[0].rows.square().sum().backward()
        options = {} if how == "sgd" else {"fused": how == "fused", "foreach": how == "foreach"}
        kind = torch.optim.SGD if how == "sgd" else torch.optim.AdamW
        kind(vision.parameters(model), lr=0.01, **options).step()
    with torch.no_grad():
        after = vision.features(model, placed)[0].rows
    assert not torch.allclose(before, after)


@pytest.mark.parametrize("family", ALL)
def test_placeholders_that_the_model_sampled_show_it_no_picture(family: str) -> None:
    """They stay in the record, and the model is shown its pictures where they were put."""
    model, tokenizer, vision = seen(family)
    renderer = Renderer(tokenizer, dialect_named("hermes"), vision=vision)
    engine = TransformersEngine(model, tokenizer, vision=vision)
    delta = renderer.start([user(shade(0), "?")], ())
    strays = (vision.placeholder,) * 3

    async def ask(prompt: tuple[int, ...]) -> Generated:
        return await engine.generate(Request(prompt=prompt, max_tokens=3, temperature=0.0, images=delta.images))

    async def play() -> Any:
        return await ask((*delta.ids, *strays, 5)), await ask((*delta.ids, *(vision.neutral,) * 3, 5))

    try:
        stray, neutral = asyncio.run(play())
    finally:
        engine.close()
    assert stray.token_ids == neutral.token_ids


def test_a_picture_that_cannot_be_read_ends_its_own_episode_alone() -> None:
    _, tokenizer, vision = seen("idefics3")
    lost = BlobStore().put_image(Pillow.new("RGB", (9, 9)))
    engine = TransformersEngine(*seen("idefics3")[:2], vision=vision)
    sampler = TokenSampler(Renderer(tokenizer, dialect_named("hermes"), vision=vision), engine)

    async def play() -> Any:
        worlds = [ToolEnv(task=Task(id=str(i), prompt=(user(p),))) for i, p in enumerate((shade(0), lost, shade(1)))]
        return await asyncio.gather(*(rollout(world, sampler, SamplingParams(max_tokens=3)) for world in worlds))

    try:
        first, broken, last = asyncio.run(play())
    finally:
        engine.close()
    assert broken.error is not None and f"the picture {lost.sha256[:12]} is in no blob store" in broken.error
    assert first.error is None and last.error is None


def test_an_engine_without_eyes_refuses_a_prompt_with_a_picture() -> None:
    model, tokenizer, vision = seen("idefics3")
    delta = Renderer(tokenizer, dialect_named("hermes"), vision=vision).start([user(shade(0))], ())
    engine = TransformersEngine(model, tokenizer)
    with pytest.raises(ConfigError, match="reads text only"):
        asyncio.run(engine.generate(Request(prompt=delta.ids, max_tokens=1, images=delta.images)))


def test_a_row_whose_placeholders_do_not_match_its_pictures_is_never_computed() -> None:
    """Models compare sums over the batch alone, so one row's surplus would make up for another's lack."""
    model, tokenizer, vision = seen("idefics3")
    placed = Renderer(tokenizer, dialect_named("hermes"), vision=vision).start([user(shade(0))], ()).images
    ids = torch.full((2, vision.count(placed[0].shown_size)), vision.placeholder)
    with pytest.raises(ValueError, match="row 0 has 16 placeholders, and its pictures have 32 features"):
        vision.inputs(model, [(*placed, *placed), ()], ids)
