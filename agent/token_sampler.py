"""A renderer and an engine make a sampler that records every id."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import final

from agent.engine import Engine, Request
from agent.renderer import Delta, Renderer
from agent.sampler import ContextFull, SamplingParams, actions_before
from agent.thinking import Limited, generate_within, limit_of
from envs.message import Message
from envs.trajectory import PlacedImage, Step, StepTokens, Trajectory
from tools.record import record

KEPT = 256
"""How many prompts a sampler remembers: more than episodes usually run at once."""


@record
class Prefix:
    """Words that an action is made to begin with."""

    text: str
    """Special tokens in it are tokens: `</think>` is one where the tokenizer has it."""
    logprob: float | None = None
    """Log-probability with which it was chosen, where it was drawn: its first id records it, the others 0, and all are
    trained on as sampled from that distribution (AdaptThink, arXiv 2505.13417, begins half of the attempts with
    `</think>`: log 0.5). None: it was imposed, and no loss sees it."""


@final
class TokenSampler:
    """Messages in, one action out, and the exact ids and log-probs it was made of.

    The engine is given the previous prompt, the previous completion, and what is new; where the renderer cannot
    extend, the whole conversation is rendered again and the step says so (`extends=False`, a fork). `prefix` is asked
    before each action for what it must begin with; the prefix counts towards `max_tokens`.
    """

    def __init__(
        self, renderer: Renderer, engine: Engine, *, prefix: Callable[[Trajectory], Prefix | None] | None = None
    ) -> None:
        self.renderer = renderer
        self.engine = engine
        self.prefix = prefix
        self._contexts = _Contexts()

    async def sample(
        self,
        so_far: Trajectory,
        new: tuple[Message, ...],
        params: SamplingParams,
        on_text: Callable[[str], None] | None = None,
    ) -> Step:
        delta = self.renderer.extend(so_far, new)
        extends = delta is not None
        if delta is None:
            delta = self.renderer.start(so_far.messages, so_far.tools)
        prompt, images = self._contexts.with_more(so_far, delta) if extends else (delta.ids, delta.images)
        prefix = self.prefix(so_far) if self.prefix is not None else None
        begun = self._ids(prefix)
        wanted = max(1, params.max_tokens - len(begun))
        room = self.engine.max_context - len(prompt) - len(begun)
        if room <= 0:
            raise ContextFull
        request = Request(
            prompt=prompt + begun,
            max_tokens=min(wanted, room),
            temperature=params.temperature,
            top_p=params.top_p,
            top_k=params.top_k,
            seed=secrets.randbits(63) if params.seed is None else params.seed,
            stop_ids=self.renderer.stop_ids,
            stop_strings=self.renderer.stop_strings,
            images=images,
        )
        on_ids = _streamer(self.renderer, on_text) if on_text else None
        if on_ids is not None and begun:
            on_ids(begun)
        limit = limit_of(self.renderer, params, so_far, delta, begun)
        if limit is None:
            limited = Limited(reply=await self.engine.generate(request, on_ids))
        else:
            limited = await generate_within(self.engine, request, limit, on_ids)
        reply = limited.reply
        finish = "context" if reply.finish == "length" and room < wanted else reply.finish
        completion = (*begun, *reply.token_ids)
        tokens = StepTokens(
            added=delta.ids,
            completion=completion,
            logprobs=(*_logprobs(prefix, len(begun)), *reply.logprobs),
            extends=extends,
            spans=delta.spans,
            images=delta.images,
            forced=len(begun) if prefix is not None and prefix.logprob is None else 0,
            inserted=tuple((len(begun) + start, len(begun) + end) for start, end in limited.inserted),
        )
        self._contexts.keep(tokens, prompt, images)
        action = self.renderer.parse(completion, so_far.tools, opened=not delta.continues_turn)
        return Step(
            observation=new,
            action=_numbered(action, actions_before(so_far)),
            finish=finish,
            tokens=tokens,
            policy_version=reply.policy_version,
        )

    def _ids(self, prefix: Prefix | None) -> tuple[int, ...]:
        return tuple(self.renderer.tokenizer.encode(prefix.text, add_special_tokens=False)) if prefix else ()


def _logprobs(prefix: Prefix | None, length: int) -> tuple[float, ...]:
    known = prefix.logprob if prefix is not None else None
    return (known or 0.0, *(0.0,) * (length - 1)) if length else ()


@final
class _Contexts:
    """The prompts of the last steps, so that the next is put together from one and not from all before it.

    An entry holds its step's tokens, whose id is therefore nobody else's. Those of episodes that ended are pushed out
    by others; what was pushed out too early is put together from the record.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[StepTokens, tuple[int, ...], tuple[PlacedImage, ...]]] = OrderedDict()

    def keep(self, tokens: StepTokens, prompt: tuple[int, ...], images: tuple[PlacedImage, ...]) -> None:
        """Remember what `tokens` were sampled from: the ids and the pictures among them."""
        self._kept[id(tokens)] = tokens, prompt, images
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def with_more(self, so_far: Trajectory, delta: Delta) -> tuple[tuple[int, ...], tuple[PlacedImage, ...]]:
        """The prompt after the last step, ids and pictures, when `delta` is put behind it."""
        kept = self._kept.pop(id(so_far.steps[-1].tokens), None)
        if kept is None:
            ids, images = context_ids(so_far), context_images(so_far)
            return ids + delta.ids, _after(images, delta.images, len(ids))
        tokens, prompt, images = kept
        length = len(prompt) + len(tokens.completion)
        return prompt + (tokens.completion + delta.ids), _after(images, delta.images, length)


def context_ids(so_far: Trajectory) -> tuple[int, ...]:
    """The ids of the present sequence: every prompt and completion since the last fork."""
    ids: list[int] = []
    for step in so_far.steps:
        if step.tokens is None:
            continue
        if not step.tokens.extends:
            ids.clear()
        ids += step.tokens.added
        ids += step.tokens.completion
    return tuple(ids)


def context_images(so_far: Trajectory) -> tuple[PlacedImage, ...]:
    """The pictures of the present sequence, with their positions in `context_ids`."""
    images: tuple[PlacedImage, ...] = ()
    length = 0
    for step in so_far.steps:
        if step.tokens is None:
            continue
        if not step.tokens.extends:
            images, length = (), 0
        images = _after(images, step.tokens.images, length)
        length += len(step.tokens.added) + len(step.tokens.completion)
    return images


def _after(images: tuple[PlacedImage, ...], more: tuple[PlacedImage, ...], length: int) -> tuple[PlacedImage, ...]:
    """Pictures of a context of `length` ids, and those of what is put behind it."""
    return (*images, *(replace(image, position=length + image.position) for image in more))


def _numbered(action: Message, turn: int) -> Message:
    """Calls with ids that are unique within the episode."""
    calls = tuple(replace(call, id=f"call_{turn}_{index}") for index, call in enumerate(action.tool_calls))
    return replace(action, tool_calls=calls)


def _streamer(renderer: Renderer, on_text: Callable[[str], None]) -> Callable[[Sequence[int]], None]:
    """Turn ids as they come into text as it becomes readable: half a character is held back until it is whole."""
    ids: list[int] = []

    def on_ids(more: Sequence[int]) -> None:
        ids.extend(more)
        text = renderer.text(ids)
        if text and not text.endswith("\ufffd"):
            on_text(text)
            ids.clear()

    return on_ids
