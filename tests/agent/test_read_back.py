"""What a model would write for an action is read as that action, or it is said beforehand that it would not be."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from family_tokenizers import FAMILIES, family_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.dialect import misread
from agent.dialects import DIALECTS, Hermes, dialect_named
from agent.renderer import Renderer
from envs import Message, assistant
from tools import ConfigError, ToolCall

NATIVE = ("llama3.1", "mistral", "mistral-v11", "gpt-oss")
PAIRS = [("qwen3", dialect) for dialect in DIALECTS] + [(family, "native") for family in NATIVE]
PAIRS += [(family, "hermes") for family in FAMILIES if family != "gpt-oss"]
MARKS = [
    *(
        "<think>",
        "</think>",
        "<think>\n",
        "\n</think>\n\n",
        "<tool_call>",
        "</tool_call>",
        '{"name": "f", "arguments": {}}',
    ),
    *(
        '{"name": "f", "parameters": {}}',
        "[TOOL_CALLS]",
        "[ARGS]",
        "f",
        "{}",
        "<|python_tag|>",
        "<|channel|>",
        "<|message|>",
    ),
    *("<|start|>", "<|end|>", "<|call|>", "<|im_end|>", "</s>", "analysis", " to=functions.f", "assistant"),
    *(
        "<code>",
        "</code>",
        "```python\n",
        "\n```",
        "<search>",
        "</search>",
        "<python>",
        "</python>",
        "<img>",
        "</img_search>",
    ),
    *("<img_search>", "<text_search>", "</text_search>", "<tool_calls>", "</tool_calls>", "<information>", "</result>"),
    *("BEGIN\n", "\nEND", "Action: Path Tracer\n", "Action: Answer\n", "```json\n[]\n```", "<answer>", "</answer>"),
    *("<score>", "</score>", "<clip>", "</clip>", "00:00:01-00:00:02", "\n", "\n\n", " ", "a", "é 🙂", ";"),
]
words = st.lists(st.sampled_from(MARKS), max_size=6).map("".join)
plain = st.lists(
    st.sampled_from(["So", " 12", " naïve 你好", "\n", " ", "{}", "x < y", "</b>", "\n\n"]), max_size=5
).map("".join)
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "inline": ("python", {"code": "print(1)"}),
    "tool-star": ("search", {"query": "q"}),
    "search-r1": ("search", {"query": "q"}),
    "deepmmsearch": ("search", {"query": "q"}),
    "mmsearch-r1": ("image_search", {}),
    "deepeyes-v2": ("python", {"code": "1"}),
    "vilasr": ("path_tracer", {"items": [{"index": 1}]}),
    "chartsketcher": ("sketch", {"script": "delete top"}),
    "conan": ("clips", {"clips": ["00:00:01-00:00:02"]}),
}
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@cache
def renderer_of(family: str, dialect: str) -> Renderer:
    return Renderer(family_tokenizer(family), dialect_named(dialect))


def bare(message: Message) -> Message:
    return replace(message, tool_calls=tuple(replace(call, id="", raw="") for call in message.tool_calls))


def actions(dialect: str, said: st.SearchStrategy[str]) -> st.SearchStrategy[Message]:
    name, arguments = THEIRS.get(dialect, ("f", {"a": [True, None, {"b": "</tool_call>"}]}))
    calls = st.sampled_from([(), (ToolCall(id="", name=name, raw="", arguments=arguments),)])
    return st.builds(
        lambda text, thought, made: assistant(text, reasoning=thought, tool_calls=made), said, st.none() | said, calls
    )


def read_back(renderer: Renderer, action: Message) -> Message:
    """What the ids of an action say."""
    return renderer.parse(renderer.encoder.ids(renderer._body(action)), [])  # pyright: ignore[reportPrivateUsage]


def a_law_holds(family: str, dialect: str, action: Message) -> None:
    renderer = renderer_of(family, dialect)
    try:
        problem = misread(renderer.dialect, action, [])
        said = read_back(renderer, action)
    except ConfigError as error:
        assert "cannot write" in str(error)
        return
    if problem is None:
        assert [(c.name, c.arguments) for c in said.tool_calls] == [(c.name, c.arguments) for c in action.tool_calls]
        assert renderer._body(said) == renderer._body(action)  # pyright: ignore[reportPrivateUsage]
        if (
            "<think>" not in action.text
            and "</think>" not in (action.reasoning or "")
            and dialect not in ("conan", "vilasr")
        ):
            assert bare(said) == bare(action)


@pytest.mark.parametrize(("family", "dialect"), PAIRS)
@settings(relaxed, max_examples=25)
@given(data=st.data())
def test_an_action_that_passes_is_read_as_it_is(family: str, dialect: str, data: st.DataObject) -> None:
    a_law_holds(family, dialect, data.draw(actions(dialect, words)))


@pytest.mark.slow
@pytest.mark.parametrize(("family", "dialect"), PAIRS)
@settings(relaxed, max_examples=500)
@given(data=st.data())
def test_an_action_that_passes_is_read_as_it_is_in_a_deeper_search(
    family: str, dialect: str, data: st.DataObject
) -> None:
    a_law_holds(family, dialect, data.draw(actions(dialect, words)))


@pytest.mark.parametrize(("family", "dialect"), [pair for pair in PAIRS if pair[1] != "conan"])
@settings(relaxed, max_examples=25)
@given(data=st.data())
def test_words_without_marks_always_pass(family: str, dialect: str, data: st.DataObject) -> None:
    renderer = renderer_of(family, dialect)
    action = data.draw(actions(dialect, plain))
    assert misread(renderer.dialect, action, []) is None
    assert bare(read_back(renderer, action)) == bare(action)


@pytest.mark.parametrize(
    ("dialect", "action", "sentence"),
    [
        ("hermes", assistant("I write <tool_call>."), "it would be read as a malformed call, and it is an answer"),
        ("inline", assistant("Run <code>1</code>"), "it would be read as a call of python, and it is an answer"),
        ("inline", assistant("See </code> there."), "it would end at its first </code>"),
        ("chartsketcher", assistant("BEGIN\nx\nEND"), "it would be read as a call of sketch, and it is an answer"),
        ("vilasr", assistant("Action: Path Tracer\n"), "it would be read as a malformed call, and it is an answer"),
    ],
)
def test_what_would_be_read_otherwise_is_said(dialect: str, action: Message, sentence: str) -> None:
    assert misread(dialect_named(dialect), action, []) == sentence


def test_a_call_behind_thinking_that_never_closes_would_be_lost() -> None:
    call = ToolCall(id="", name="f", raw="", arguments={})
    assert misread(Hermes(), assistant("<think>hm", tool_calls=[call]), []) == (
        "it would be read as an answer, and it is a call of f"
    )
    inside = '<think>\nI try <tool_call>{"name": "f", "arguments": {}}</tool_call>\n</think>\n\nNo.'
    assert misread(Hermes(), assistant(inside), []) is None, "thinking that stands in the text is written there again"
