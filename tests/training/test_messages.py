"""Public chat data becomes rows whose loss is on the model's turns alone, whatever shape it comes in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.dialects import dialect_named
from agent.renderer import Renderer
from envs import Trajectory
from tools.errors import ConfigError
from training.messages import holds_messages, read_messages

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
ADD = {"type": "function", "function": {"name": "add", "description": "Add two integers.", "parameters": SCHEMA}}
CALL = {"id": "x1", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
ASKED = {"role": "user", "content": "What is 1 + 2?"}
TALK = [
    {"role": "system", "content": "Be brief."},
    ASKED,
    {"role": "assistant", "content": "I add.", "reasoning_content": "hm", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "x1", "content": "3"},
    {"role": "assistant", "content": "It is 3."},
    {"role": "user", "content": "Thanks!"},
    {"role": "assistant", "content": "Any time."},
]


@pytest.fixture
def data(tmp_path: Path) -> Any:
    def write(*rows: Any) -> Path:
        path = tmp_path / "talk.jsonl"
        path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
        return path

    return write


def one(path: Path, dialect: Any = None) -> Trajectory:
    (found,) = read_messages(path, dialect)
    return found


def test_a_conversation_with_tools_is_an_episode(data: Any) -> None:
    found = one(data({"messages": TALK, "tools": [ADD]}))
    assert [step.action.text for step in found.steps] == ["I add.", "It is 3.", "Any time."]
    assert found.steps[0].action.reasoning == "hm"
    assert found.tools[0].parameters == SCHEMA
    (call,) = found.calls
    assert (call.call.name, call.call.arguments, call.result.text, call.outcome) == ("add", {"a": 1, "b": 2}, "3", "ok")
    assert found.task.id == "talk-1" and found.task.prompt[1].text == "What is 1 + 2?"


def test_shapes_that_data_sets_come_in(data: Any) -> None:
    as_text = {"function": {"name": "add", "arguments": json.dumps({"a": 1, "b": 2})}}
    bare = [
        *TALK[1:2],
        {"role": "assistant", "content": None, "tool_calls": [as_text]},
        {"role": "tool", "content": "3"},
    ]
    rows = [
        {"prompt": TALK[:2], "completion": TALK[2:5], "tools": json.dumps([ADD])},
        {
            "messages": [*bare, {"role": "assistant", "content": [{"type": "text", "text": "3."}]}],
            "tools": [ADD["function"]],
        },
        {"messages": [{"role": "human", "content": "Hi"}, {"role": "gpt", "content": "Hello"}]},
    ]
    found = list(read_messages(data(*rows)))
    assert [len(t.steps) for t in found] == [2, 2, 1]
    assert [t.calls[0].result.text for t in found[:2]] == ["3", "3"]
    assert found[1].answer == "3."


def test_loss_is_on_the_models_turns_alone(data: Any, tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, dialect_named("hermes"))
    (row,) = renderer.teach(one(data({"messages": TALK, "tools": [ADD]})))

    def text(of: int) -> str:
        return tokenizer.decode([i for i, on in zip(row.token_ids, row.loss_mask, strict=True) if on == of])

    trained, context = text(1), text(0)
    assert "I add." in trained and "It is 3." in trained and "Any time." in trained and '"name": "add"' in trained
    assert "What is 1 + 2?" in context and "Thanks!" in context and "Be brief." in context
    assert "Thanks!" not in trained and "What is" not in trained and "tool_response" not in trained
    assert all(source == "model" for source, on in zip(row.sources, row.loss_mask, strict=True) if on)


INLINE = """I compute.
<code>
```python
print(37 * 48)
```
</code>
<interpreter>
1776
</interpreter>
So it is
<code>
```python
print(1776 + 1)
```
</code>
<interpreter>
1777
</interpreter>
1777."""


def test_results_inside_the_assistants_text_carry_no_loss_in_the_inline_dialect(data: Any, tokenizer: Any) -> None:
    dialect = dialect_named("inline")
    python = {"name": "python", "description": "Run.", "parameters": {"type": "object", "properties": {}}}
    row = {"messages": [ASKED, {"role": "assistant", "content": INLINE}], "tools": [python]}
    found = one(data(row), dialect)
    assert [done.result.text for done in found.calls] == ["1776", "1777"]
    assert [done.call.arguments for done in found.calls] == [{"code": "print(37 * 48)"}, {"code": "print(1776 + 1)"}]
    assert found.answer == "1777." and len({done.call.id for done in found.calls}) == 2
    (taught,) = Renderer(tokenizer, dialect).teach(found)
    trained = tokenizer.decode([i for i, on in zip(taught.token_ids, taught.loss_mask, strict=True) if on])
    assert "print(37 * 48)" in trained and "So it is" in trained and "interpreter" not in trained
    assert trained.count("1777") == 1, "said by the model; the interpreter's is context"


def test_a_result_that_no_call_asked_for_is_refused_with_its_place(data: Any) -> None:
    row = {"messages": [ASKED, {"role": "assistant", "content": "<interpreter>\n3\n</interpreter>"}]}
    with pytest.raises(ConfigError, match=r"line 1, message 2: a <interpreter> at character 0 follows no call"):
        one(data(row), dialect_named("inline"))


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("{", "line 1: this is no JSON"),
        ("[]", "a row must be a JSON object"),
        ({"messages": [ASKED]}, "no assistant message to learn from"),
        ({"messages": "Hello"}, "messages must be a list of messages"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, "begins with the assistant"),
        ({"messages": [*TALK[:3], TALK[4]]}, "two assistant messages in a row"),
        ({"messages": [ASKED, {"role": "tool", "content": "3"}]}, "a tool's result answers no call"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "its role is 'narrator'"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "it shows more pictures than the row has"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "is of type 'audio'"),
        ({"messages": [ASKED, {"role": "assistant", "tool_calls": [{"function": {}}]}]}, "a call without a name"),
        ({"messages": TALK, "tools": "[{"}, "tools are a string that is no JSON"),
        ({"messages": TALK, "tools": [{"description": "x"}]}, "a tool without a name"),
    ],
)
def test_what_cannot_be_learned_from_is_said_with_its_line(data: Any, row: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        list(read_messages(data(row)))
    assert sentence in str(caught.value) and "line 1" in str(caught.value)


def test_a_call_whose_arguments_cannot_be_read_is_kept_as_malformed(data: Any) -> None:
    broken = {"id": "x1", "function": {"name": "add", "arguments": '{"a": 1'}}
    messages = [ASKED, {"role": "assistant", "tool_calls": [broken]}, {"role": "tool", "content": "no"}, TALK[4]]
    (call,) = one(data({"messages": messages, "tools": [ADD]})).calls
    assert call.outcome == "malformed" and call.call.raw == '{"a": 1'


def test_messages_and_logs_are_told_apart(data: Any) -> None:
    assert holds_messages(data({"messages": TALK}))
    assert holds_messages(data("", {"prompt": [], "completion": []}))
    assert not holds_messages(data({"schema_version": 1, "task": {}, "messages": []}))
    assert not holds_messages(data("{"))


def test_a_row_that_would_teach_what_is_read_as_something_else_is_left_out_with_a_warning(
    data: Any, caplog: pytest.LogCaptureFixture
) -> None:
    shown = [ASKED, {"role": "assistant", "content": 'Write <tool_call>{"name": "f", "arguments": {}}</tool_call>.'}]
    thought = [ASKED, {"role": "assistant", "content": "<think>\n<tool_call>?\n</think>\n\nIt is 3."}]
    path = data({"messages": shown}, {"messages": TALK, "tools": [ADD]}, {"messages": thought}, {"messages": shown})
    assert [found.task.id for found in read_messages(path, dialect_named("hermes"))] == ["talk-2", "talk-3"]
    (warning,) = caplog.messages
    assert warning.endswith(
        "2 rows are left out, as an action in them would not be read as what it is "
        "(line 1, action 1: it would be read as a call of f, and it is an answer)"
    )
    assert len(list(read_messages(path))) == 4, "nothing is rendered, so nothing can be misread"


def test_inline_data_whose_call_was_never_run_is_left_out(data: Any, caplog: pytest.LogCaptureFixture) -> None:
    never = "I run <code>1</code> and <code>2</code><interpreter>2</interpreter> It is 2."
    row = {"messages": [ASKED, {"role": "assistant", "content": never}]}
    assert list(read_messages(data(row), dialect_named("inline"))) == []
    assert "line 1, action 1: it would end at its first </code>" in caplog.text
