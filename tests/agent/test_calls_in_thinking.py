"""A call that stands in thinking is thought about: it is read as one only behind `</think>`."""

from __future__ import annotations

from typing import Any

import pytest
from family_tokenizers import family_tokenizer

from agent.dialects import DIALECTS, dialect_named
from agent.dialects.systems import INVALID_SEARCH
from agent.renderer import Renderer
from tools import ToolCall

HERMES = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
LLAMA = '{"name": "f", "parameters": {"a": 1}}'
MISTRAL = '[TOOL_CALLS]f[ARGS]{"a": 1}'
FENCED = 'Action: Path Tracer\n```json\n[{"index": 1}]\n```'
CLIPS = "<clip>00:00:01-00:00:09</clip><answer></answer>"
CALLS = [
    *[("qwen3", dialect, HERMES) for dialect in ("hermes", "deepeyes", "geovista", "native")],
    ("llama3.1", "native", LLAMA),
    ("mistral", "native", MISTRAL),
    ("qwen3", "vilasr", FENCED),
    ("qwen3", "chartsketcher", "BEGIN\ndelete top\nEND"),
    ("qwen3", "conan", CLIPS),
]
"""How each family and dialect whose actions end with the turn writes a call."""
STOPPED = [
    ("tool-star", "<search>q</search>", "The thinking was still open: a call comes after </think>."),
    ("tool-star", "<python>1</python>", "The thinking was still open: a call comes after </think>."),
    ("search-r1", "<search>q</search>", INVALID_SEARCH),
    ("deepeyes-v2", "<code>\n1\n</code>", "The thinking was still open: a call comes after </think>."),
    ("deepeyes-v2", HERMES, "The thinking was still open: a call comes after </think>."),
]
"""The dialects whose closing tag ends the action, and whose published form has thinking tags."""
WITHOUT_TAGS = {"inline", "deepmmsearch", "mmsearch-r1", "atf"}
"""Their published forms have no thinking tags: a call may stand anywhere."""


def read(family: str, dialect: str, text: str) -> Any:
    renderer = Renderer(family_tokenizer(family), dialect_named(dialect))
    parts = renderer._parts_of(text)  # pyright: ignore[reportPrivateUsage]
    return renderer.parse(renderer.encoder.ids(parts), [])


def test_every_dialect_is_looked_at_here() -> None:
    assert {dialect for _, dialect, _ in CALLS} | {dialect for dialect, *_ in STOPPED} | WITHOUT_TAGS == set(DIALECTS)


@pytest.mark.parametrize("before", ["<think>\nSo ", "<think>", "\n<think>I could write\n", "<think></think> <think>\n"])
@pytest.mark.parametrize(("family", "dialect", "call"), CALLS)
def test_in_thinking_that_never_closed_it_is_not_made(family: str, dialect: str, call: str, before: str) -> None:
    said = read(family, dialect, f"{before}\n{call}")
    assert said.tool_calls == () and said.text.endswith(f"\n{call}")


@pytest.mark.parametrize("after", ["\n</think>\n\nNo.", "</think>No.", "\n</think>"])
@pytest.mark.parametrize(("family", "dialect", "call"), CALLS)
def test_in_thinking_that_closed_it_is_not_made_either(family: str, dialect: str, call: str, after: str) -> None:
    said = read(family, dialect, f"<think>\nI could write\n{call}{after}")
    assert not said.tool_calls


@pytest.mark.parametrize("thought", ["<think>\nhm\n</think>\n\n", "<think>hm</think>", "<think></think>\n"])
@pytest.mark.parametrize(("family", "dialect", "call"), CALLS)
def test_behind_thinking_it_is_made(family: str, dialect: str, call: str, thought: str) -> None:
    if dialect != "conan":  # its tags stand one behind the other
        call = f"\n{call}"
    (made,) = read(family, dialect, f"{thought}{call}").tool_calls
    assert made.error is None


@pytest.mark.parametrize("thought", ["<think>\nhm ", "<think>hm</think><think>"])
@pytest.mark.parametrize(("dialect", "call", "told"), STOPPED)
def test_one_that_ended_the_action_within_thinking_is_answered_with_what_to_do(
    dialect: str, call: str, told: str, thought: str
) -> None:
    (made,) = read("qwen3", dialect, f"{thought}{call}").tool_calls
    assert made == ToolCall(id="call_0", name=made.name, raw=call, error=told)
    (made,) = read("qwen3", dialect, f"{thought}</think>{call}").tool_calls
    assert made.error is None


def test_in_retools_form_a_call_may_stand_in_thinking() -> None:
    (made,) = read("qwen3", "inline", "<think>\nI compute.\n<code>\nprint(1)\n</code>").tool_calls
    assert made.arguments == {"code": "print(1)"}


@pytest.mark.parametrize("header", ["<|start|>assistant", ""])
def test_gpt_oss_thinks_on_until_the_message_ends(header: str) -> None:
    call = f'{header}<|channel|>commentary to=functions.f<|message|>{{"a": 1}}<|call|>'
    said = read("gpt-oss", "native", f"<|channel|>analysis<|message|>hm{call}")
    assert said.tool_calls == () and said.reasoning == f"hm{call.removesuffix('<|call|>')}"
    (made,) = read("gpt-oss", "native", f"<|channel|>analysis<|message|>hm<|end|><|start|>assistant{call}").tool_calls
    assert made.arguments == {"a": 1}
