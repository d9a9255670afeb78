"""Signs of gaming the tools, counted from executed calls."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from envs import Step, Task, Trajectory, assistant
from envs.trajectory import CallRecord
from tools import tool
from tools.content import Text
from tools.tool import ToolCall, ToolResult
from training.monitors import CallWatch, is_copied, is_echo, is_empty, monitors, repeated


@tool
def python(code: str) -> str:
    """Run code."""
    return code


def call(result: str, outcome: Any = "ok", **arguments: Any) -> CallRecord:
    asked = ToolCall(id="c", name="python", raw="", arguments=arguments)
    return CallRecord(call=asked, result=ToolResult(content=(Text(text=result),)), outcome=outcome, seconds=0.0)


def episode(answer: str, *calls: CallRecord) -> Trajectory:
    steps = [
        Step(observation=(), action=assistant("I look."), calls=calls),
        Step(observation=(), action=assistant(answer)),
    ]
    return Trajectory(task=Task(id="t", prompt=()), tools=(python,), steps=steps)


def test_a_call_is_repeated_when_name_and_arguments_are() -> None:
    calls = [call("2", code="1+1"), call("3", code="1+2"), call("2", code="1+1"), call("2", code="1+1")]
    assert repeated(calls) == [False, False, True, True]
    assert repeated([call("2", a=1, b=2), call("2", b=2, a=1), call("2", a=2, b=1)]) == [False, True, False]


@pytest.mark.parametrize(
    ("done", "empty"),
    [
        (call("1776", code="print(37 * 48)"), False),
        (call("", code="x = 1"), True),
        (call("0", code="  \n"), True),
        (call("ok"), False),
        (call("", outcome="tool_error", code="1/0"), False),
    ],
)
def test_a_call_is_empty_when_nothing_is_asked_or_said(done: CallRecord, empty: bool) -> None:
    assert is_empty(done) is empty


@pytest.mark.parametrize(
    ("done", "echo"),
    [
        (call("42", code="print(42)"), True),
        (call("4", code="print(47 - 43)"), False),
        (call("1776", code="print(37 * 48)"), False),
        (call("42", query={"text": ["it is 42, say it"]}), True),
        (call("", code="print(42)"), False),
    ],
)
def test_a_call_echoes_when_its_result_was_in_its_arguments(done: CallRecord, echo: bool) -> None:
    assert is_echo(done) is echo


def test_an_answer_is_copied_whole_or_by_a_run_of_eight_words() -> None:
    text = "one two three four five six seven eight nine"
    assert is_copied(episode("1776", call("1776\n", code="37*48")))
    assert is_copied(episode(f"I think {text}.", call(f"so: {text}!", code="")))
    assert not is_copied(episode("one two three four five six seven", call(text, code="")))
    assert not is_copied(episode("Answer: 1776", call("1776", code="37*48")))


def test_the_numbers_add_up() -> None:
    found = monitors([episode("2", call("2", code="1+1"), call("2", code="1+1")), episode("5")])
    assert found == {
        "tools/repeated": (1.0, 2.0),
        "tools/empty": (0.0, 2.0),
        "tools/echoed": (0.0, 2.0),
        "tools/copied": (1.0, 1.0),
        "tools/none": (1.0, 2.0),
    }


def test_calls_that_drop_to_nothing_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = CallWatch()
    with caplog.at_level(logging.WARNING):
        assert not any(watch.see(2.0) for _ in range(5))
        assert not watch.see(0.5)
        assert watch.see(0.1)
        assert not watch.see(0.0)
    assert caplog.text.count("calls fell from 2.00 to 0.10 per episode") == 1


def test_a_policy_that_never_called_is_no_policy_that_stopped() -> None:
    watch = CallWatch()
    assert not any(watch.see(0.0) for _ in range(20))
