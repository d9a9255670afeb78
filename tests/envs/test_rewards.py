"""Every reward with numbers worked by hand."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from envs import CallRecord, RewardFn, Step, Task, ToolEnv, Trajectory, assistant
from envs.rewards import correct, has_answer, retool, tool_calls, tool_errors
from envs.rewards.choice import rubric_of
from envs.scoring import boxed, same_number
from envs.trajectory import Finish, Outcome
from tools import ConfigError, ToolCall, ToolResult

TASK = Task(id="t", prompt=(), answer=1795)


def called(outcome: Outcome, name: str = "python") -> CallRecord:
    call = ToolCall(id="c", name=name, raw="")
    return CallRecord(call=call, result=ToolResult(), outcome=outcome, seconds=0.0)


def episode(*said: str, calls: tuple[tuple[CallRecord, ...], ...] = (), finish: Finish = "stop") -> Trajectory:
    """An episode that said these things, with the calls of its first steps."""
    steps = [Step(observation=(), action=assistant(text)) for text in said]
    steps = [replace(step, calls=made) for step, made in zip(steps, [*calls, *[()] * len(said)], strict=False)]
    if steps:
        steps[-1] = replace(steps[-1], finish=finish)
    return Trajectory(task=TASK, steps=steps)


def value(reward: RewardFn, trajectory: Trajectory) -> float:
    return asyncio.run(reward(ToolEnv(task=trajectory.task), trajectory))


@pytest.mark.parametrize(
    ("trajectory", "right", "stated"),
    [
        (episode("Answer: 1795"), 1, 1),
        (episode("thinking\nAnswer: 1,795."), 1, 1),
        (episode("Answer: 1794"), 0, 1),
        (episode("1795"), 0, 0),
        (episode("Answer: 1795", "I am not sure."), 0, 0),
        (episode("Answer: 1795", ""), 0, 0),
        (episode("Answer: 3", "Answer: 1795"), 1, 1),
        (episode(""), 0, 0),
        (episode(), 0, 0),
        (episode("Answer: 1795", finish="length"), 0, 0),  # may have been going to be 17951
        (episode("Answer: 1795\nbecause", finish="length"), 1, 1),
    ],
)
def test_only_the_answer_line_of_the_last_message_counts(trajectory: Trajectory, right: int, stated: int):
    assert value(correct(), trajectory) == right
    assert value(has_answer(), trajectory) == stated


def test_retool_pays_plus_or_minus_one_and_nothing_for_calls():
    ran = (called("ok"),)
    assert value(retool(), episode(r"\boxed{1795}")) == 1.0
    assert value(retool(), episode(r"\boxed{3590/2}")) == 1.0
    assert value(retool(), episode("", r"\boxed{1}", calls=(ran,))) == -1.0
    assert value(retool(), episode("1795")) == -1.0
    assert value(retool(), episode()) == -1.0


@pytest.mark.parametrize(("rounds", "expected"), [(0, -1.0), (1, -0.9), (3, -0.7), (4, -0.6), (9, -0.6)])
def test_the_recipes_turn_bonus_lifts_a_wrong_answer_to_minus_0_6_at_most(rounds: int, expected: float):
    reward = retool(read=boxed, same=same_number, turn_bonus=True)
    wrong = episode(*[""] * rounds, r"\boxed{1}", calls=tuple([(called("ok"),)] * rounds))
    assert value(reward, wrong) == pytest.approx(expected)
    right = episode(*[""] * rounds, r"\boxed{1795}", calls=tuple([(called("ok"),)] * rounds))
    assert value(reward, right) == 1.0


def test_calls_are_counted_from_what_ran_and_errors_from_what_failed():
    trajectory = episode(
        "print(1)",
        "",
        calls=(
            (called("ok"), called("tool_error"), called("malformed")),
            (called("timeout"), called("ok", name="search")),
        ),
    )
    assert value(tool_calls(), trajectory) == 4
    assert value(tool_calls("search"), trajectory) == 1
    assert value(tool_errors(), trajectory) == 3
    assert value(tool_calls(), episode("<tool_call>print(1)</tool_call>")) == 0


def test_of_several_rewards_the_one_named_pays_and_the_rest_is_counted() -> None:
    right = correct(boxed, same_number)
    accuracy = rubric_of(right, boxed)
    assert {name: weight for name, (_, weight) in accuracy.rewards.items()} == {
        "correct": 1.0,
        "tool_calls": 0.0,
        "tool_errors": 0.0,
        "has_answer": 0.0,
    }
    paper = rubric_of(right, boxed, "retool", {"retool": retool(), "other": tool_calls()}, marks=tool_calls())
    weights = {name: weight for name, (_, weight) in paper.rewards.items()}
    assert paper.headline == "correct" and [name for name, weight in weights.items() if weight] == ["retool"]
    assert weights["marks"] == 0.0 and "other" not in weights
    with pytest.raises(ConfigError, match="there is no reward 'retol'") as told:
        rubric_of(right, boxed, "retol", {"retool": retool()})
    assert "retool" in str(told.value.hint)
