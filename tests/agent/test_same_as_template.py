"""Whatever is said, in whatever order: the ids are those of the published chat template, where it can say it at all.

Left out is what `docs/concepts/tokens.md` names: white space round what is said, tags and control tokens in it (a
template takes them for its own), thinking, and Mistral's tools before version 13, which move with the last user.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from conversations import look_up, now, theirs, told
from family_tokenizers import FAMILIES, family_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.dialects import dialect_named
from agent.renderer import Renderer
from envs import Message, assistant, system, user
from tools import ToolCall

PLAIN = (*FAMILIES, "mistral-v11")
WITH_CALLS = ("qwen2.5", "qwen3", "llama3.1", "llama3.2", "mistral", "gpt-oss")
SEVERAL = ("qwen2.5", "qwen3", "mistral")
"""Those whose template writes several calls of one action, and words beside them."""
PIECES = [
    "So",
    " 12",
    "naïve",
    " 你好",
    "🙂🙃",
    "\n",
    "\n\n",
    "  ",
    " привет",
    ".",
    "{}",
    '"q"',
    "<b>",
    "\\n",
    "\t",
    "'s",
    "x = 1",
]
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])

pieces = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)
said = pieces.map(lambda text: f"a{text}z")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | pieces,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(pieces, inner, max_size=2),
    max_leaves=4,
)
calls = st.builds(
    lambda name, given: ToolCall(id="abcdef123", name=name, raw="", arguments=given),
    st.sampled_from(["look_up", "now"]),
    st.dictionaries(pieces, json_values, max_size=3),
)


@cache
def renderer_of(family: str, dialect: str) -> Renderer:
    return Renderer(family_tokenizer(family), dialect_named(dialect))


@st.composite
def talks(draw: st.DrawFn) -> list[Message]:
    """Turns that alternate, with or without a system turn."""
    turns: list[Message] = [system(draw(said))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 4))):
        turns += [user(draw(said)), assistant(draw(said))]
    return [*turns, user(draw(said))]


@st.composite
def errands(draw: st.DrawFn, several: bool) -> list[Message]:
    """Turns in which tools are called and answer, up to where the model goes on."""
    turns: list[Message] = [system(draw(said))] if draw(st.booleans()) else []
    rounds = draw(st.integers(1, 3))
    for index in range(rounds):
        turns.append(user(draw(said)))
        for _ in range(draw(st.integers(index == rounds - 1, 2))):
            made = draw(st.lists(calls, min_size=1, max_size=3 if several else 1))
            turns.append(assistant(draw(st.just("") | said) if several else "", tool_calls=made))
            turns += [told(call, draw(said)) for call in made]
        if index < rounds - 1:
            turns.append(assistant(draw(said)))
    return turns


def same(renderer: Renderer, messages: list[Message], tools: Any) -> None:
    tokenizer: Any = renderer.tokenizer
    expected = theirs(tokenizer, renderer, messages, tools)
    ours = list(renderer.start(messages, tools).ids)
    assert tokenizer.decode(ours) == tokenizer.decode(expected)
    assert ours == expected


@pytest.mark.parametrize("family", PLAIN)
@settings(relaxed, max_examples=12)
@given(messages=talks())
def test_a_talk_has_the_ids_of_the_template(family: str, messages: list[Message]) -> None:
    same(renderer_of(family, "native" if family == "gpt-oss" else "hermes"), messages, [])


@pytest.mark.parametrize("family", WITH_CALLS)
@settings(relaxed, max_examples=12)
@given(data=st.data())
def test_an_errand_has_the_ids_of_the_template(family: str, data: st.DataObject) -> None:
    same(renderer_of(family, "native"), data.draw(errands(family in SEVERAL)), [look_up, now])


@pytest.mark.slow
@pytest.mark.parametrize("family", WITH_CALLS)
@settings(relaxed, max_examples=100)
@given(data=st.data())
def test_any_errand_has_the_ids_of_the_template(family: str, data: st.DataObject) -> None:
    same(renderer_of(family, "native"), data.draw(errands(family in SEVERAL)), [look_up, now])
