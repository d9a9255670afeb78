"""Pictures as tokens, for every family that sees: placeholders, positions, masks, and the model's own processor."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from copy import copy
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from vlm_families import BLOBS, FAMILIES, TAGS, seen

from agent import Limits, SamplingParams, ScriptedSampler, rollout
from agent.dialects import dialect_named
from agent.engine import Generated, Request
from agent.renderer import Renderer
from agent.tiny import tiny_tokenizer
from agent.tiny_vlm import SPECIAL
from agent.token_sampler import TokenSampler
from agent.vision import Vision
from envs import Message, Task, ToolEnv, Trajectory, assistant, system, user
from tools import Image, Text, ToolCall, ToolResult, tool
from tools.errors import ConfigError
from training.audit import problem_with_episode
from training.pixels import sight_of

TEMPLATES = Path(next(iter(find_spec("trl").submodule_search_locations))) / "chat_templates"  # type: ignore[union-attr]
QWEN = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
GEMMA = ("<bos>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>")
EPISODES = 12
"""Random episodes of each family here; `test_a_thousand_episodes` plays the rest."""


@cache
def renderer(family: str) -> Renderer:
    _, tokenizer, vision = seen(family)
    return Renderer(tokenizer, dialect_named("hermes"), vision=vision)


@cache
def picture(width: int, height: int, shade: int = 0) -> Image:
    return BLOBS.put_image(Pillow.linear_gradient("L").rotate(shade).resize((width, height)).convert("RGB"))


class Says:
    """An engine that answers with given texts, whatever it is asked."""

    max_context = 100_000

    def __init__(self, renderer: Renderer, texts: Sequence[str]) -> None:
        self.renderer = renderer
        self.texts = list(texts)
        self.asked: list[Request] = []

    async def generate(self, request: Request, on_ids: Any = None) -> Generated:
        self.asked.append(request)
        ids = (*self.renderer.written(self.texts.pop(0)), 2)
        return Generated(token_ids=ids, logprobs=(-0.5,) * len(ids), finish="stop")


WORDS = st.sampled_from(
    [
        "",
        "a",
        " look",
        "\n",
        "\n\n",
        "<image>",
        "<|image_pad|>",
        "<start_of_image>",
        "<fake_token_around_image>",
        "<|im_end|>",
        "12",
    ]
)
PICTURES = st.builds(picture, st.integers(1, 150), st.integers(1, 150), st.sampled_from([0, 90]))
CONTENT = st.lists(WORDS | PICTURES, max_size=4).map(lambda parts: [part for part in parts if part != ""])
RESULTS = st.lists(CONTENT, min_size=1, max_size=2)


def played(family: str, first: Sequence[Any], prompt: Sequence[Any], turns: Sequence[Sequence[Any]]) -> Any:
    """An episode whose tool returns `turns`: every turn calls it as often as it has contents, then answers."""
    results = iter([content for turn in turns for content in turn])

    @tool
    async def see() -> ToolResult:
        """See."""
        return ToolResult(content=tuple(Text(text=p) if isinstance(p, str) else p for p in next(results)))

    calls = [
        "\n".join('<tool_call>\n{"name": "see", "arguments": {}}\n</tool_call>' for _ in contents) for contents in turns
    ]
    engine = Says(renderer(family), [*calls, "It is <image> 12."])
    told = [system("Be brief.")] if not first else [Message(role="system", content=user(*first).content)]
    env = ToolEnv(task=Task(id="t", prompt=(*told, user(*prompt, "?"))), tools=(see,))
    trajectory = asyncio.run(rollout(env, TokenSampler(renderer(family), engine), limits=Limits(max_turns=None)))
    assert trajectory.error is None, trajectory.error
    return trajectory, engine


def images_in(messages: Sequence[Message]) -> list[Image]:
    return [part for message in messages for part in message.content if isinstance(part, Image)]


def check(family: str, trajectory: Trajectory, engine: Says) -> None:
    """Every promise about pictures and tokens, on one episode."""
    _, _, vision = seen(family)
    ours = renderer(family)
    (row,) = trajectory.sequences()
    shown = images_in(trajectory.messages)
    assert [image.sha256 for image in row.images] == [image.sha256 for image in shown]
    sight = sight_of(ours)
    assert sight is not None
    expected: set[int] = set()
    for image in row.images:
        block = tuple(sight.block(image.shown_size))
        assert row.token_ids[image.position : image.position + len(block)] == block
        assert block.count(vision.placeholder) == vision.count(image.shown_size)
        expected |= {image.position + at for at, number in enumerate(block) if number == vision.placeholder}
    assert {at for at, number in enumerate(row.token_ids) if number == vision.placeholder} == expected
    assert vision.places(row.token_ids, row.images) == sorted(expected)
    sampled = [number for step in trajectory.steps if step.tokens for number in step.tokens.completion]
    assert [number for number, on in zip(row.token_ids, row.loss_mask, strict=True) if on] == sampled
    assert problem_with_episode(trajectory, [row], vocab_size=10_000, sight=sight) is None
    # Appended turn by turn, and written at once, it is the same.
    last = engine.asked[-1]
    whole = ours.start(trajectory.messages[:-1], trajectory.tools)
    assert (last.prompt, last.images) == (whole.ids, whole.images)
    assert row.token_ids[: len(last.prompt)] == last.prompt


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=EPISODES)
@given(first=CONTENT, prompt=CONTENT, turns=st.lists(RESULTS, max_size=3))
def test_placeholders_positions_and_masks_are_exact_in_random_episodes(
    family: str, first: list[Any], prompt: list[Any], turns: list[Any]
) -> None:
    check(family, *played(family, first, prompt, turns))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=1000 // len(FAMILIES))
@given(first=CONTENT, prompt=CONTENT, turns=st.lists(RESULTS, max_size=4))
def test_a_thousand_episodes(family: str, first: list[Any], prompt: list[Any], turns: list[Any]) -> None:
    check(family, *played(family, first, prompt, turns))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_taught_row_is_the_row_that_sampling_the_same_words_would_have_made(family: str) -> None:
    @tool
    async def see() -> ToolResult:
        """See."""
        return ToolResult(content=(Text(text="here: "), picture(70, 40), Text(text=" <image>")))

    call = ToolCall(id="1", name="see", raw="", arguments={})
    gold = (assistant("Look.", tool_calls=[call]), assistant("12"))
    task = Task(id="t", prompt=(user("see ", picture(30, 90)),), gold=gold)
    spoken = asyncio.run(rollout(ToolEnv(task=task, tools=(see,)), ScriptedSampler()))
    (taught,) = renderer(family).teach(spoken)
    words = ['Look.\n<tool_call>\n{"name": "see", "arguments": {}}\n</tool_call>', "12"]
    sampler = TokenSampler(renderer(family), Says(renderer(family), words))
    (sampled,) = asyncio.run(rollout(ToolEnv(task=task, tools=(see,)), sampler)).sequences()
    assert (taught.token_ids, taught.loss_mask, taught.images) == (
        sampled.token_ids,
        sampled.loss_mask,
        sampled.images,
    )


@pytest.mark.parametrize("family", ["idefics3-tiles", "smolvlm", "qwen2.5-vl", "qwen3-vl"])
@settings(max_examples=60)
@given(width=st.integers(1, 400), height=st.integers(1, 400), longest=st.sampled_from([96, 80]))
def test_the_arithmetic_on_sizes_is_what_the_image_processor_does(
    family: str, width: int, height: int, longest: int
) -> None:
    _, _, vision = seen(family)
    eyes: Any = copy(vision.eyes)
    blank = Pillow.new("RGB", (width, height))
    if family.startswith("qwen"):
        if max(width, height) > 200 * min(width, height):
            with pytest.raises(ValueError, match="aspect ratio"):
                eyes.grid((width, height))
            return
        assert eyes.pixels(blank)["image_grid_thw"].tolist() == [1, *eyes.grid((width, height))]
        return
    tile = eyes.processor.max_image_size  # 32: the longest edge is three of them, or two and a half
    eyes.processor = type(eyes.processor)(size={"longest_edge": longest}, max_image_size=dict(tile))
    made = eyes.processor([[blank]], return_tensors="pt", return_row_col_info=True)
    rows, columns = eyes.tiles((width, height))
    assert (made["rows"], made["cols"]) == ([[rows]], [[columns]])
    assert made["pixel_values"].shape[1] == rows * columns + 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_makes_as_many_features_as_there_are_placeholders(family: str) -> None:
    model, _, vision = seen(family)
    sizes = [(33, 21), (64, 64), (20, 150)]
    placed = [picture_placed(*size) for size in sizes]
    features = vision.features(model, placed)
    assert [len(feature.rows) for feature in features] == [vision.count(size) for size in sizes]


def picture_placed(width: int, height: int, position: int = 0) -> Any:
    from envs.trajectory import PlacedImage

    return PlacedImage(sha256=picture(width, height).sha256, shown_size=(width, height), position=position)


def processor_of(family: str) -> Any:
    """The family's own processor, for those that can be built without torchvision."""
    from transformers import Idefics3Processor, LlavaProcessor

    _, tokenizer, vision = seen(family)
    eyes: Any = vision.eyes
    if family.startswith("idefics3"):
        return Idefics3Processor(eyes.processor, tokenizer, image_seq_len=eyes.each)
    clip = family == "llava-clip"
    return LlavaProcessor(
        eyes.processor,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default" if clip else "full",
        num_additional_image_tokens=int(clip),
    )


@pytest.mark.parametrize("family", ["idefics3", "idefics3-tiles", "llava", "llava-clip"])
def test_ids_and_log_probs_are_those_of_the_familys_own_processor(family: str) -> None:
    model, _, vision = seen(family)
    shown = [picture(50, 40), picture(120, 33)]
    ours = renderer(family).start([system("Be brief."), user("see ", shown[0], " and\n", shown[1], "?")], ())
    own = processor_of(family)
    text = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nsee <image> and\n<image>?<|im_end|>\n"
    text += "<|im_start|>assistant\n"
    pictures: Any = [BLOBS.open(image) for image in shown]
    inputs = own(text=[text], images=[pictures] if family.startswith("idefics") else pictures, return_tensors="pt")
    assert list(ours.ids) == inputs["input_ids"][0].tolist()
    ids = torch.tensor([ours.ids])
    with torch.no_grad():
        theirs = model(**inputs).logits.log_softmax(-1)
        mine = model(input_ids=ids, **vision.inputs(model, [ours.images], ids)).logits.log_softmax(-1)
    assert torch.allclose(mine, theirs, atol=1e-5)


PUBLISHED = {
    "qwen2.5-vl": ("qwen2_5_vl", QWEN, "<|vision_start|><|image_pad|><|vision_end|>"),
    "qwen3-vl": ("qwen3_vl", QWEN, "<|vision_start|><|image_pad|><|vision_end|>"),
    "gemma3": ("gemma3", GEMMA, "<start_of_image>"),
    "smolvlm": ("smolvlm", (*SPECIAL, *TAGS), "<image>"),
    "idefics3-tiles": ("idefics3", ("<|begin_of_text|>", *SPECIAL, *TAGS), "<image>"),
}
"""Chat template as TRL ships it, the special tokens it needs, and how it writes a picture before a processor does."""


@pytest.mark.parametrize("family", PUBLISHED)
def test_conversations_with_pictures_are_those_of_the_published_chat_template(family: str) -> None:
    name, special, mark = PUBLISHED[family]
    tokenizer = tiny_tokenizer(special=special)
    tokenizer.chat_template = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    tokenizer.bos_token = "<bos>" if family == "gemma3" else tokenizer.bos_token
    vision = Vision(seen(family)[2].eyes, tokenizer, BLOBS)
    ours = Renderer(tokenizer, dialect_named("hermes"), vision=vision)
    one = picture(60, 40)
    for said in (
        [user("See ", one, " here")],
        [user(one, "What?")],
        [system("Be brief."), user("hi"), assistant("Yes."), user(one, one, "And?")],
    ):
        listed = [{"role": message.role, "content": [part_of(part) for part in message.content]} for message in said]
        text = tokenizer.apply_chat_template(listed, tokenize=False, add_generation_prompt=True)
        written = tokenizer.decode(list(vision.ids((60, 40))), skip_special_tokens=False)
        assert list(ours.start(said, ()).ids) == tokenizer.encode(text.replace(mark, written), add_special_tokens=False)
    closed = (*tokenizer.encode(" Yes.", add_special_tokens=False), min(ours.stop_ids))
    assert ours.parse(closed, ()).text == ("Yes." if ours.family.opening else " Yes.")


def part_of(part: Any) -> dict[str, str]:
    return {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": "image"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_for_a_server_has_one_token_where_the_server_puts_a_picture(family: str) -> None:
    _, _, vision = seen(family)
    prompt = renderer(family).start([user("a ", picture(50, 40), picture(120, 33), " b")], ())
    if not vision.eyes.unexpanded:
        with pytest.raises(ConfigError, match="cannot be sent to a server"):
            vision.unexpanded(prompt.ids, prompt.images)
        return
    sent = vision.unexpanded(prompt.ids, prompt.images)
    assert sent.count(vision.placeholder) == 2
    expanded: list[int] = []
    shown = iter(prompt.images)
    around = vision.eyes.unexpanded.index(vision.eyes.placeholder)
    for number in sent:
        whole = vision.ids(next(shown).shown_size) if number == vision.placeholder else (number,)
        expanded += whole[around : len(whole) - around] if len(whole) > 1 else whole
    assert tuple(expanded) == prompt.ids


def test_a_model_without_eyes_refuses_a_picture_in_one_sentence() -> None:
    from agent.tiny import tiny_tokenizer

    blind = Renderer(tiny_tokenizer(), dialect_named("hermes"))
    for message in (user("see ", picture(5, 5)), Message(role="system", content=(picture(5, 5),))):
        with pytest.raises(ConfigError, match="this model reads text only, and a message holds an image"):
            blind.start([message], ())


def test_a_context_full_of_pictures_ends_the_episode_as_max_context() -> None:
    engine = Says(renderer("idefics3"), ["12"])
    engine.max_context = 40
    env = ToolEnv(task=Task(id="t", prompt=(user(*[picture(9, 9)] * 3),)))
    trajectory = asyncio.run(rollout(env, TokenSampler(renderer("idefics3"), engine), SamplingParams(max_tokens=4)))
    assert trajectory.stop == "max_context" and not engine.asked
