"""The law of every dialect: what is written parses back, and whatever a model writes is parsed without raising."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.chat_format import read_call
from agent.dialects import DIALECTS, Hermes, InlineTags, dialect_named
from envs import Message, answer_to, assistant
from tools import ConfigError, Text, ToolCall, ToolResult, tool

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
markup = st.lists(
    st.sampled_from(
        [
            "<tool_call>",
            "</tool_call>",
            "<code>",
            "</code>",
            "<search>",
            "<search><img></search>",
            "</search>",
            "<tool_calls>",
            "</tool_calls>",
            "<clip>",
            "</clip>",
            "<answer>",
            "</answer>",
            "BEGIN\n",
            "\nEND",
            "Action: Path Tracer\n",
            "```json\n[",
            "<think>\n",
            "\n</think>\n\n",
            "```python\n",
            "\n```",
            "\n",
        ]
    )
    | st.sampled_from(['{"name": "python"', ', "arguments": {"code": "1"}}', "<|im_end|>", "x", " "])
    | st.text(max_size=8),
    max_size=12,
).map("".join)


@tool
def run_python(code: str) -> str:
    """Run Python code."""
    return code


def call(name: str, **arguments: object) -> ToolCall:
    return ToolCall(id="", name=name, raw="", arguments=arguments)


def without_ids(message: Message) -> Message:
    return replace(message, tool_calls=tuple(replace(c, id="", raw="") for c in message.tool_calls))


@given(
    st.text().filter(lambda t: "<tool_call>" not in t and not t.startswith("<think>\n")),
    st.none() | st.text().filter(lambda t: "\n</think>\n\n" not in f"{t}\n</think>\n"),
    st.lists(st.builds(ToolCall, id=st.just(""), name=st.text(min_size=1), raw=st.just(""),
                       arguments=st.dictionaries(st.text(), json_values, max_size=3)), max_size=3),
)  # fmt: skip
@example("", None, [call("python", code="print('</tool_call>')")])
def test_hermes_reads_back_what_it_writes(text: str, reasoning: str | None, calls: list[ToolCall]):
    message = assistant(text, reasoning=reasoning, tool_calls=calls)
    assert without_ids(Hermes().parse(Hermes().write(message), ())) == message


@given(
    st.text().filter(lambda t: "<code>" not in t and not t.startswith("<think>\n")),
    st.none() | st.text().filter(lambda t: "</code>" not in t),
)
@example("", "\n\n")
@example("Let me see.\n", "```python\nprint(1)\n```")
def test_inline_tags_read_back_what_they_write(text: str, code: str | None):
    message = assistant(text, tool_calls=() if code is None else [call("python", code=code)])
    assert without_ids(InlineTags().parse(InlineTags().write(message), ())) == message


@given(st.sampled_from(sorted(set(DIALECTS) - {"native"})), markup, st.booleans())
def test_whatever_a_model_writes_is_parsed_and_no_call_is_lost(name: str, text: str, with_tools: bool):
    dialect = dialect_named(name)
    message = dialect.parse(text, [run_python] if with_tools else [])
    opening = {"hermes": "<tool_call>", "inline": "<code>"}.get(name)
    if opening is not None and opening not in text:
        assert message.tool_calls == ()
    for c in message.tool_calls:
        assert c.raw in text and (opening is None or c.raw.startswith(opening))
        assert (c.arguments is None) != (c.error is None)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('{"name": "python", "arguments": {"code": 1}', "not valid JSON"),
        ('{"name": "python"}', '"arguments" object'),
        ('{"arguments": {}}', '"name" string'),
        ("[1]", "JSON object"),
        ('{"name": "python", "arguments": "print(1)"}', '"arguments" object'),
        ('{"name": "a", "arguments": {}} and more', "text after"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_malformed_hermes_call_survives_with_its_reason(body: str, says: str):
    (found,) = Hermes().parse(f"So:\n<tool_call>\n{body}\n</tool_call>", ()).tool_calls
    assert found.arguments is None and found.error is not None and says in found.error
    assert body in found.raw


LONG = "1" * 5000
"""More digits than Python makes a number of."""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hermes", f'<tool_call>{{"name": "f", "arguments": {{"a": {LONG}}}}}</tool_call>'),
        ("deepeyes-v2", f'<tool_call>{{"name": "f", "arguments": {{"a": {LONG}}}}}</tool_call>'),
        ("atf", f'<tool_calls>{{"name": "f", "arguments": {{"a": {LONG}}}}}</tool_calls>'),
        ("vilasr", f'Action: Object Mapper\n```json\n[{{"a": {LONG}}}]\n```'),
    ],
)
def test_a_number_without_end_is_a_malformed_call(name: str, text: str):
    (found,) = dialect_named(name).parse(text, ()).tool_calls
    assert found.arguments is None and found.error is not None and "not valid JSON" in found.error
    assert read_call("c", "f", f'{{"a": {LONG}}}').error


def test_calls_after_a_malformed_one_are_still_read():
    text = '<tool_call>{"name": </tool_call><tool_call>{"name": "b", "arguments": {}}</tool_call>'
    first, second = Hermes().parse(text, ()).tool_calls
    assert first.error and second.name == "b" and second.error is None


def test_an_inline_call_that_was_never_closed_survives():
    (found,) = InlineTags().parse("I run <code>\nprint(1)", ()).tool_calls
    assert found.error and "</code>" in found.error and found.raw == "<code>\nprint(1)"


def test_an_inline_call_without_its_fence_is_read_as_it_stands():
    (found,) = InlineTags().parse("<code>print(1)</code>\n", ()).tool_calls
    assert found.arguments == {"code": "print(1)"} and found.raw == "<code>print(1)</code>\n"


def test_what_inline_tags_cannot_carry_is_refused_with_the_way_out():
    with pytest.raises(ConfigError, match="one call an action"):
        InlineTags().write(assistant(tool_calls=[call("python", code="1"), call("python", code="2")]))
    with pytest.raises(ConfigError, match="no tag for the tool 'zoom'"):
        InlineTags().write(assistant(tool_calls=[call("zoom", box="1")]))
    with pytest.raises(ConfigError, match="without the closing tag"):
        InlineTags().write(assistant(tool_calls=[call("python", code="'</code>'")]))


def test_an_unknown_dialect_names_the_nearest():
    with pytest.raises(ConfigError) as caught:
        dialect_named("hermess")
    assert caught.value.hint == "did you mean hermes?"


def answered(dialect_name: str, text: str, result: str) -> str:
    """What follows a text of the model's whose calls all get the same result."""
    dialect = dialect_named(dialect_name)
    calls = dialect.parse(text, [run_python]).tool_calls
    return dialect.format(calls, [answer_to(c, ToolResult(content=(Text(text=result),))) for c in calls]).text


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("search-r1", "<search>who</search>", "\n\n<information>R</information>\n\n"),
        ("tool-star", "<python>print(1)</python>", " <result>\nR\n</result>"),
        ("deepmmsearch", "<img_search><img></img_search>", "\n<information>\nR\n</information>\n"),
        (
            "atf",
            '<tool_calls>\n{"name": "f", "arguments": {}}\n</tool_calls>',
            "\n<tool_results>\nR\n</tool_results>\n",
        ),
        ("deepeyes-v2", "<code>\n```python\n1\n```\n</code>", "Code execution result: R"),
        (
            "deepeyes-v2",
            '<tool_call>{"name": "f", "arguments": {}}</tool_call>',
            "<tool_response>\nR\n</tool_response>",
        ),
        ("vilasr", 'Action: Path Tracer\n```json\n[{"index": 1}]\n```', "R"),
    ],
)
def test_results_come_back_in_the_form_of_each_system(name: str, text: str, expected: str):
    assert answered(name, text, "R") == expected


def test_search_r1_corrects_what_is_neither_call_nor_answer_in_its_own_words():
    (lost,) = dialect_named("search-r1").parse("I think.", [run_python]).tool_calls
    assert lost.error and lost.error.startswith("My previous action is invalid.")
    assert "My previous action is invalid." in answered("search-r1", "I think.", "ignored")
    assert "<information>" not in answered("search-r1", "I think.", "ignored")
    assert dialect_named("search-r1").parse("<answer>me</answer>", [run_python]).tool_calls == ()
    assert dialect_named("search-r1").parse("I think.", []).tool_calls == (), (
        "without tools there is nothing to correct"
    )


@pytest.mark.parametrize(("name", "opening"), [("deepeyes", "Error: "), ("geovista", "Tool call error: ")])
def test_a_malformed_call_is_answered_in_the_papers_words(name: str, opening: str):
    (broken,) = dialect_named(name).parse('<tool_call>{"name": </tool_call>', ()).tool_calls
    assert broken.error and broken.error.startswith(f"{opening}The call is not valid JSON")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("vilasr", "Action: Object Mapper\nno list", "needs a fenced json list"),
        ("vilasr", "Action: Object Mapper\n```json\n[1]\n```", "list of JSON objects"),
        ("vilasr", "Action: Object Mapper\n```json\n[{\n```", "not valid JSON"),
        ("chartsketcher", "BEGIN\ndelete a", "line END"),
        ("conan", "<think>x</think><clip></clip><answer></answer>", "exactly one"),
        ("conan", "<clip>00:00:01-00:00:02</clip><answer>A</answer>", "exactly one"),
        ("conan", "<clip>later</clip><answer></answer>", "HH:MM:SS"),
        ("mmsearch-r1", "<search>who</search>", "<search> takes <img>"),
    ],
)
def test_a_malformed_call_of_each_form_survives_with_its_reason(name: str, text: str, says: str):
    (found,) = dialect_named(name).parse(text, ()).tool_calls
    assert found.arguments is None and found.error is not None and says in found.error
    assert found.raw and found.raw in text


def test_python_literals_are_read_where_vilasr_reads_them():
    (found,) = dialect_named("vilasr").parse("Action: Object Mapper\n```json\n[{'index': 1,}]\n```", ()).tool_calls
    assert found.arguments == {"items": [{"index": 1}]}


def test_a_conan_answer_keeps_its_scores():
    text = "<score>00:00:01: 4</score><think>clear</think><clip></clip><answer>A</answer>"
    message = dialect_named("conan").parse(text, ())
    assert (message.text, message.reasoning) == ("<score>00:00:01: 4</score><answer>A</answer>", "clear")
    assert dialect_named("conan").write(message) == text
