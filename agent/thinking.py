"""A limit on thinking: past it, the words that close it are put into the policy's mouth, and the answer is sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from agent.engine import Engine, Generated, Request
from agent.renderer import Delta, Renderer
from agent.sampler import SamplingParams
from envs.seed import derive_seed
from envs.trajectory import Trajectory
from tools.errors import ConfigError
from tools.record import record


@record
class Limit:
    """How far one action may think."""

    most: int
    """Ids of the action after which thinking that is still open is closed."""
    closing: tuple[int, ...]
    """What closes it."""
    is_open: Callable[[Sequence[int]], bool]
    """Whether the action is still thinking after these ids of it."""
    text: Callable[[Sequence[int]], str]


@record
class Limited:
    """A completion, and what was put into it."""

    reply: Generated
    inserted: tuple[tuple[int, int], ...] = ()
    """Stretches [start, end) of its ids; their log-probs are 0."""


def limit_of(
    renderer: Renderer, params: SamplingParams, so_far: Trajectory, delta: Delta, begun: Sequence[int]
) -> Limit | None:
    """The limit on the next action, which is made to begin with `begun`; None where there is none.

    Raises `ConfigError` where no answer would ever follow, or where `last_thought` would never be said.
    """
    if params.thinking_budget is None:
        if params.last_thought:
            raise ConfigError("last_thought is said when a thinking_budget is spent, and there is none")
        return None
    if params.thinking_budget >= params.max_tokens:
        raise ConfigError(
            f"the thinking_budget of {params.thinking_budget} leaves no room for an answer within max_tokens, "
            f"{params.max_tokens}",
            hint="raise max_tokens",
        )
    thought, encoder = renderer.dialect.thought, renderer.encoder

    def is_open(ids: Sequence[int]) -> bool:
        said = _turn_so_far(renderer, so_far) if delta.continues_turn else renderer.prefix
        return thought.unclosed.match(said + encoder.text((*begun, *ids))) is not None

    # The tag that opens thinking is not thinking.
    opening = () if is_open(()) else renderer.written(thought.opening)
    return Limit(
        most=params.thinking_budget + len(opening),
        closing=renderer.written(params.last_thought + thought.closing),
        is_open=is_open,
        text=encoder.text,
    )


def _turn_so_far(renderer: Renderer, so_far: Trajectory) -> str:
    """What the model has said in the assistant turn that it goes on with, the prefix included."""
    said: list[str] = []
    for step in reversed(so_far.steps):
        if step.tokens is None:
            break
        said.append(renderer.encoder.text(step.tokens.completion))
        if not step.tokens.extends or not renderer.encoder.numbers.isdisjoint(step.tokens.added):
            break  # a turn was opened there
    return "".join((renderer.prefix, *reversed(said)))


async def generate_within(
    engine: Engine, request: Request, limit: Limit, on_ids: Callable[[Sequence[int]], None] | None = None
) -> Limited:
    """One completion of at most `request.max_tokens` ids, of which no more than `limit.most` are thinking.

    What goes beyond `limit.most` is another request, whose prompt ends with what there is: any engine can do it, and
    one that caches prefixes computes little twice. Where the weights changed between the two, the completion has the
    version of the older. Raises as `Engine.generate` does.
    """
    reply = await engine.generate(replace(request, max_tokens=min(limit.most, request.max_tokens)), on_ids)
    if reply.finish != "length":
        return Limited(reply=reply)
    ids, logprobs = list(reply.token_ids), list(reply.logprobs)
    inserted: tuple[tuple[int, int], ...] = ()
    if limit.is_open(ids):
        if len(ids) + len(limit.closing) >= request.max_tokens:  # no room for an answer
            return Limited(reply=reply)
        inserted = ((len(ids), len(ids) + len(limit.closing)),)
        ids += limit.closing
        logprobs += [0.0] * len(limit.closing)
        if on_ids is not None:
            on_ids(limit.closing)
    finish, version = reply.finish, reply.policy_version
    longest = max((len(stop.encode()) for stop in request.stop_strings), default=0)
    while finish == "length" and len(ids) < request.max_tokens:
        # An engine looks for stop strings in what it samples alone: one that has begun is gone through id by id.
        begun = bool(longest) and not inserted and _has_begun(limit.text(ids[-longest:]), request.stop_strings)
        rest = replace(
            request,
            prompt=(*request.prompt, *ids),
            max_tokens=1 if begun else request.max_tokens - len(ids),
            seed=derive_seed(request.seed, len(ids)),
        )
        reply = await engine.generate(rest, on_ids)
        ids += reply.token_ids
        logprobs += reply.logprobs
        finish, version = reply.finish, min(version, reply.policy_version)
        if begun and any(stop in limit.text(ids[-longest:]) for stop in request.stop_strings):
            finish = "stop"
    made = Generated(token_ids=tuple(ids), logprobs=tuple(logprobs), finish=finish, policy_version=version)
    return Limited(reply=made, inserted=inserted)


def _has_begun(tail: str, stops: Sequence[str]) -> bool:
    """Whether a text ends with the beginning of a stop string.

    >>> _has_begun("print(2)\\n</co", ["</code>"]), _has_begun("a < b", ["</code>"])
    (True, False)
    """
    return any(tail.endswith(stop[:length]) for stop in stops for length in range(1, len(stop)))
