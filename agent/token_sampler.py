"""A renderer and an engine make a sampler that records every id."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import final

from agent.engine import Engine, Request
from agent.renderer import Renderer
from agent.sampler import ContextFull, SamplingParams, actions_before
from agent.thinking import Limited, generate_within, limit_of
from envs.message import Message
from envs.trajectory import PlacedImage, Step, StepTokens, Trajectory
from tools.record import record


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
        prompt = (*context_ids(so_far), *delta.ids) if extends else delta.ids
        shown = context_images(so_far) if extends else ()
        prefix = self.prefix(so_far) if self.prefix is not None else None
        begun = self._ids(prefix)
        wanted = max(1, params.max_tokens - len(begun))
        room = self.engine.max_context - len(prompt) - len(begun)
        if room <= 0:
            raise ContextFull
        request = Request(
            prompt=(*prompt, *begun),
            max_tokens=min(wanted, room),
            temperature=params.temperature,
            top_p=params.top_p,
            top_k=params.top_k,
            seed=secrets.randbits(63) if params.seed is None else params.seed,
            stop_ids=self.renderer.stop_ids,
            stop_strings=self.renderer.stop_strings,
            images=_after(shown, delta.images, len(prompt) - len(delta.ids)),
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
        return Step(
            observation=new,
            action=_numbered(
                self.renderer.parse(completion, so_far.tools, opened=not delta.continues_turn),
                actions_before(so_far),
            ),
            finish=finish,
            tokens=StepTokens(
                added=delta.ids,
                completion=completion,
                logprobs=(*_logprobs(prefix, len(begun)), *reply.logprobs),
                extends=extends,
                spans=delta.spans,
                images=delta.images,
                forced=len(begun) if prefix is not None and prefix.logprob is None else 0,
                inserted=tuple((len(begun) + start, len(begun) + end) for start, end in limited.inserted),
            ),
            policy_version=reply.policy_version,
        )

    def _ids(self, prefix: Prefix | None) -> tuple[int, ...]:
        return tuple(self.renderer.tokenizer.encode(prefix.text, add_special_tokens=False)) if prefix else ()


def _logprobs(prefix: Prefix | None, length: int) -> tuple[float, ...]:
    known = prefix.logprob if prefix is not None else None
    return (known or 0.0, *(0.0,) * (length - 1)) if length else ()


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
    sent = 0

    def on_ids(more: Sequence[int]) -> None:
        nonlocal sent
        ids.extend(more)
        text = renderer.text(ids)
        if len(text) > sent and not text.endswith("\ufffd"):
            on_text(text[sent:])
            sent = len(text)

    return on_ids
