"""A limit on thinking: whatever is thought, in any family and dialect, every id of the record is accounted for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from family_tokenizers import family_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vllm_client import engine_for
from vllm_server import VLLMServer

from agent import Limits, SamplingParams, rollout
from agent.chat import ChatSampler
from agent.dialect import TokenDialect
from agent.dialects import dialect_named
from agent.engine import Engine, Generated, Request
from agent.local import TransformersEngine
from agent.models import load_model
from agent.renderer import Renderer
from agent.token_sampler import Prefix, TokenSampler
from envs import Message, Stop, Task, ToolEnv, Trajectory, assistant, user
from envs.codec import from_json, to_json
from tools import tool
from tools.errors import ConfigError
from training.audit import problem_with_episode, problem_with_rows
from training.batch import rows_of

PAIRS = [
    *[(family, "native") for family in ("qwen2.5", "qwen3", "llama3.1", "mistral", "gpt-oss")],
    *[("gemma3", "hermes"), ("qwen3", "inline"), ("llama3.2", "vilasr"), ("qwen3", "conan"), ("mistral", "atf")],
]
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
thoughts = st.lists(st.sampled_from(["So", " 12", "é 🙂", " 你好", "\n\n", ".", "</th", "<", " x"]), max_size=12)


class Playing:
    """An engine with a known policy: it says `free`, or `answer` once thinking was closed for it.

    Like any engine it stops at stop ids, at stop strings within what it samples itself, and at its limit.
    """

    max_context = 100_000

    def __init__(self, renderer: Renderer, free: Sequence[int], closing: Sequence[int], answer: Sequence[int]) -> None:
        self.renderer = renderer
        self.free, self.closing, self.answer = tuple(free), tuple(closing), tuple(answer)
        self.asked: list[Request] = []

    async def generate(self, request: Request, on_ids: Callable[[Sequence[int]], None] | None = None) -> Generated:
        self.asked.append(request)
        said = request.prompt[len(self.asked[0].prompt) :]
        rest = self.free[len(said) :] if said == self.free[: len(said)] else self._answer(said)
        ids: list[int] = []
        finish: Any = "length"
        for number in rest[: request.max_tokens]:
            ids.append(number)
            text = self.renderer.encoder.text(ids)
            if number in request.stop_ids or any(stop in text for stop in request.stop_strings):
                finish = "stop"
                break
        if on_ids:
            on_ids(ids)
        return Generated(token_ids=tuple(ids), logprobs=(-0.5,) * len(ids), finish=finish)

    def _answer(self, said: tuple[int, ...]) -> tuple[int, ...]:
        for cut in range(len(said) + 1):
            if said == (self.free[:cut] + self.closing + self.answer)[: len(said)]:
                return self.answer[len(said) - cut - len(self.closing) :]
        raise AssertionError("it was asked to go on with what it never said")


@cache
def renderer_of(family: str, dialect: str) -> Renderer:
    return Renderer(family_tokenizer(family), dialect_named(dialect))


def ids_of(renderer: Renderer, text: str, seed: int = 0) -> list[int]:
    """The ids of a text, now and then in odd pieces."""
    rng = random.Random(seed)
    pieces = [text] if rng.random() < 0.5 else [text[i : i + 3] for i in range(0, len(text), 3)]
    return [number for piece in pieces for number in renderer.encoder.ids(renderer._parts_of(piece))]  # pyright: ignore[reportPrivateUsage]


def ended(renderer: Renderer, action: Message) -> list[int]:
    """The ids of an action without thinking, and of the token that ends it."""
    dialect = renderer.dialect
    end = dialect.ends(action) if isinstance(dialect, TokenDialect) else None
    body = renderer.encoder.ids(renderer._body(action))  # pyright: ignore[reportPrivateUsage]
    return [*body, renderer.encoder.control(end or renderer.family.ends[0])]


def play(renderer: Renderer, engine: Engine, params: SamplingParams, **more: Any) -> Trajectory:
    env = ToolEnv(task=Task(id="t", prompt=(user("2 + 2?"),)), tools=more.pop("tools", ()))
    return asyncio.run(rollout(env, TokenSampler(renderer, engine), params, Limits(**more)))


def check(trajectory: Trajectory, vocab_size: int) -> None:
    """What every record promises."""
    step = trajectory.steps[0]
    tokens = step.tokens
    assert tokens is not None
    (row,) = trajectory.sequences()
    start = len(tokens.added)
    inside = [any(a <= i < b for a, b in tokens.inserted) or i < tokens.forced for i in range(len(tokens.completion))]
    assert sum(span.end - span.start for span in tokens.spans) == start
    assert row.token_ids == tokens.added + tokens.completion
    assert row.loss_mask[start:] == tuple(int(not forced) for forced in inside)
    assert row.sources[start:] == tuple("forced" if forced else "model" for forced in inside)
    assert all((p == 0.0) == forced for p, forced in zip(row.logprobs[start:], inside, strict=True))
    assert trajectory.sampled_tokens == inside.count(False) == len(tokens.sampled_ids)
    assert from_json(to_json(trajectory)).steps == trajectory.steps
    assert problem_with_episode(trajectory, trajectory.sequences(), vocab_size=vocab_size) is None
    rows = rows_of(trajectory.sequences(), episode=0, advantage=1.0)
    assert problem_with_rows(rows, trajectory) is None


@pytest.mark.parametrize(("family", "dialect"), PAIRS)
@settings(relaxed, max_examples=10)
@given(
    words=thoughts.map("".join),
    budget=st.integers(1, 30),
    closes=st.booleans(),
    last=st.sampled_from(["", " That is all."]),
    seed=st.integers(0, 9),
)
def test_thinking_is_closed_where_its_budget_ends_and_nowhere_else(
    family: str, dialect: str, words: str, budget: int, closes: bool, last: str, seed: int
) -> None:
    renderer = renderer_of(family, dialect)
    thought = renderer.dialect.thought
    lead = "\n" if thought.closing.startswith("\n") else ""
    answer = assistant("<answer>4</answer>" if dialect == "conan" else "It is 4.")
    opening = list(renderer.written(thought.opening))
    after = [*ids_of(renderer, lead + words, seed), *(renderer.written(thought.closing) if closes else ())]
    free = [*opening, *after, *(ended(renderer, answer) if closes else ids_of(renderer, " and so on" * 40))]
    closing = renderer.written(last + thought.closing)
    engine = Playing(renderer, free, closing, ended(renderer, answer))
    params = SamplingParams(max_tokens=len(free) + len(closing) + 99, thinking_budget=budget, last_thought=last)
    played = play(renderer, engine, params)
    tokens = played.steps[0].tokens
    assert tokens is not None and played.stop is Stop.DONE
    cut = len(opening) + budget
    if closes and cut >= len(opening) + len(after):
        assert tokens.inserted == () and tokens.completion == tuple(free)
    elif tokens.inserted:
        assert tokens.inserted == ((cut, cut + len(closing)),)
        assert tokens.completion == (*free[:cut], *closing, *engine.answer)
        said = renderer.encoder.text(tokens.completion[: cut + len(closing)])
        assert played.steps[0].action == assistant(
            answer.text, reasoning=said[len(thought.opening + lead) : -len(thought.closing)]
        )
    else:  # the words that close it were cut in two, behind the tag itself
        end = "<|end|>" if family == "gpt-oss" else "</think>"
        assert closes and end in renderer.encoder.text(free[:cut]) and tokens.completion == tuple(free)
    check(played, 10**6)
    assert renderer.extend(played, [user("Why?")]) is not None


def test_a_stop_string_that_the_budget_cuts_in_two_still_ends_the_action() -> None:
    @tool
    def python(code: str) -> str:
        """Run."""
        return code

    renderer = renderer_of("llama3.1", "inline")
    text = "I add.\n<code>\n```python\n2 + 2\n```\n</code> and never this"
    free = [number for letter in text for number in renderer.encoder.ids(renderer._parts_of(letter))]  # pyright: ignore[reportPrivateUsage]
    for budget in range(1, len(free)):
        engine = Playing(renderer, free, (), ())
        params = SamplingParams(max_tokens=len(free) + 40, thinking_budget=budget)
        played = play(renderer, engine, params, tools=(python,), max_turns=1)
        assert renderer.text(played.steps[0].tokens.completion).endswith("</code>"), budget  # type: ignore[union-attr]
        assert played.steps[0].action.tool_calls[0].arguments == {"code": "2 + 2"}
        check(played, 10**6)
        assert len(engine.asked) < 14


def test_thinking_that_a_result_interrupted_is_limited_where_it_goes_on() -> None:
    @tool
    def python(code: str) -> str:
        """Run."""
        return "4"

    renderer = renderer_of("qwen3", "inline")
    first = ids_of(renderer, "<think>\nI add.\n<code>\n2 + 2\n</code>", 1)

    class Interrupted:
        """Calls first; then it plays."""

        max_context = 100_000
        called = False

        async def generate(self, request: Request, on_ids: Any = None) -> Generated:
            if self.called:
                return await playing.generate(request, on_ids)
            self.called = True
            return Generated(token_ids=tuple(first), logprobs=(-1.0,) * len(first), finish="stop")

    closing = renderer.written("\n</think>\n\n")
    playing = Playing(renderer, ids_of(renderer, " and so on" * 40), closing, ended(renderer, assistant("It is 4.")))
    played = play(renderer, Interrupted(), SamplingParams(max_tokens=400, thinking_budget=40), tools=(python,))
    assert [len(step.tokens.inserted) for step in played.steps if step.tokens] == [0, 1]
    assert played.steps[1].tokens.inserted[0][0] == 40  # type: ignore[union-attr]
    assert played.answer.endswith("\n</think>\n\nIt is 4.") and played.stop is Stop.DONE


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    return load_model("tiny")


def scored(model: Any, ids: Sequence[int]) -> list[float]:
    """Log-probability of each id after those before it."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    return torch.log_softmax(logits[:-1], dim=-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()


@pytest.mark.parametrize("kind", ["transformers", "vllm"])
def test_a_real_model_goes_on_from_the_words_that_were_put_in(tiny: tuple[Any, Any], kind: str) -> None:
    renderer = Renderer(tiny[1], dialect_named("hermes"))
    with VLLMServer(*tiny) as server:
        engine = engine_for(server) if kind == "vllm" else server.engine
        sampler = TokenSampler(renderer, engine, prefix=lambda so_far: Prefix(text="<think>\n"))
        env = ToolEnv(task=Task(id="t", prompt=(user("12*7=?"),)))
        params = SamplingParams(max_tokens=30, seed=1, thinking_budget=6, last_thought="So")
        said: list[str] = []
        played = asyncio.run(
            rollout(env, sampler, params, on_event=lambda event: said.append(getattr(event, "text", "")))
        )
    tokens = played.steps[0].tokens
    assert tokens is not None
    closing = renderer.written("So\n</think>\n\n")
    at = tokens.forced + 6
    assert tokens.inserted == ((at, at + len(closing)),) and tokens.completion[at : at + len(closing)] == closing
    assert len(tokens.completion) == 30 and "".join(said) == renderer.text(tokens.completion)
    check(played, len(tiny[1]))
    (row,) = played.sequences()
    known = [0.0, *scored(tiny[0], row.token_ids)]
    for value, mine, on in zip(known, row.logprobs, row.loss_mask, strict=True):
        assert not on or mine == pytest.approx(value, abs=1e-4)


def test_a_limit_on_tokens_that_leaves_no_answer_ends_the_action_in_its_thinking(tiny: tuple[Any, Any]) -> None:
    engine = TransformersEngine(*tiny)
    renderer = Renderer(tiny[1], dialect_named("hermes"), prefix="<think>\n")
    env = ToolEnv(task=Task(id="t", prompt=(user("12*7=?"),)))
    params = SamplingParams(max_tokens=40, seed=1, thinking_budget=6)
    for most in (4, 6, 7):
        played = asyncio.run(rollout(env, TokenSampler(renderer, engine), params, Limits(max_tokens=most)))
        assert played.stop is Stop.MAX_TOKENS and played.sampled_tokens <= most
        assert played.steps[0].tokens is not None and played.steps[0].tokens.inserted == ()
    engine.close()


def test_a_budget_that_cannot_be_kept_is_refused() -> None:
    renderer = renderer_of("qwen3", "hermes")
    engine = Playing(renderer, (), (), ())
    with pytest.raises(ConfigError, match="the thinking_budget of 600 leaves no room for an answer within max_tokens"):
        play(renderer, engine, SamplingParams(max_tokens=512, thinking_budget=600))
    with pytest.raises(ConfigError, match="last_thought is said when"):
        play(renderer, engine, SamplingParams(last_thought="Enough."))
    with pytest.raises(ConfigError, match="thinking_budget is 0; it must be 1 or more"):
        SamplingParams(thinking_budget=0)
    assert engine.asked == []
    sampler = ChatSampler("m", "http://127.0.0.1:9/v1")
    with pytest.raises(ConfigError, match="a chat server cannot be made to close its thinking after 9 tokens"):
        asyncio.run(
            rollout(ToolEnv(task=Task(id="t", prompt=(user("?"),))), sampler, SamplingParams(thinking_budget=9))
        )


def test_the_limit_of_an_action_holds_its_budget_only_where_both_fit() -> None:
    params = SamplingParams(max_tokens=100, thinking_budget=50, last_thought="So")
    assert params.within(None) is params.within(100) is params
    assert params.within(60) == SamplingParams(max_tokens=60, thinking_budget=50, last_thought="So")
    assert params.within(50) == SamplingParams(max_tokens=50)
