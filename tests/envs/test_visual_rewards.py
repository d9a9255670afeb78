"""Rewards of agents that look and draw, against numbers worked by hand, on episodes that were really played."""

from __future__ import annotations

import asyncio
from typing import Any

import PIL.Image
import pytest

from agent import ScriptedSampler, rollout
from envs import Rubric, Task, ToolEnv, assistant, user
from envs.message import Message
from envs.rewards.visual import (
    choice_or_number,
    deepeyes,
    deepeyes_math_score,
    deepeyes_score,
    deepeyes_v2,
    redrawn,
    reflections,
    rewardmap_detail,
    rewardmap_score,
    rewardmap_weight,
    vilasr,
    vilasr_form,
    vilasr_score,
)
from envs.scoring.routes import Leg, write
from envs.trajectory import Trajectory
from tools import BlobStore, ToolCall, ToolError, tool
from tools.content import Image

STORE = BlobStore()
RED = STORE.put_image(PIL.Image.new("RGB", (8, 8), "red"))
ZOOM = ToolCall(id="1", name="zoom", raw="", arguments={"box": [0, 0, 4, 4]})
OUTSIDE = ToolCall(id="2", name="zoom", raw="", arguments={"box": []})
BROKEN = ToolCall(id="3", name="zoom", raw="<tool_call>", error="not closed")


@tool
def zoom(box: list[int]) -> Image:
    """Zoom."""
    if not box:
        raise ToolError("bbox_2d must be four numbers")
    return RED


@tool
def draw(items: list[dict[str, Any]]) -> Image:
    """Draw."""
    return RED


def same(given: str, expected: Any) -> bool:
    return given == expected


def played(*script: Message, answer: Any = "K4", reward: Any = None) -> Trajectory:
    task = Task(id="t", prompt=(user(RED, "What is written there?"),), answer=answer)
    rubric = None if reward is None else Rubric(rewards={"score": (reward, 1.0)})
    return asyncio.run(rollout(ToolEnv(task=task, tools=(zoom, draw)), ScriptedSampler(script), rubric=rubric))


def reward_of(fn: Any, answer: str, *calls: ToolCall) -> float | None:
    return played(*(assistant(tool_calls=[call]) for call in calls), assistant(answer), reward=fn).reward


RIGHT, WRONG = "<answer>K4</answer>", "<answer>X1</answer>"


def test_deepeyes_pays_for_a_look_only_where_the_answer_is_right() -> None:
    fn = deepeyes(same)
    assert reward_of(fn, RIGHT, ZOOM) == pytest.approx(0.8 + 1.2)
    assert reward_of(fn, RIGHT) == pytest.approx(0.8)
    assert reward_of(fn, WRONG, ZOOM) == 0
    assert reward_of(fn, WRONG) == 0
    assert reward_of(fn, "K4", ZOOM) == pytest.approx(-0.2), "no answer in its tags is bad form"
    assert reward_of(fn, RIGHT, ZOOM, BROKEN) == pytest.approx(0.8 - 0.2 + 1.2)
    assert reward_of(fn, f"<answer>{'K' * 1000}</answer>", ZOOM) == pytest.approx(-0.2)


def test_a_look_that_failed_or_was_only_written_about_is_no_look() -> None:
    assert reward_of(deepeyes(same), RIGHT, OUTSIDE) == pytest.approx(0.8)
    assert reward_of(deepeyes(same), f"<|vision_start|><|image_pad|><|vision_end|>{RIGHT}") == pytest.approx(0.8)


def test_the_arms_of_deepeyes_ablation() -> None:
    assert reward_of(deepeyes(same, bonus="unconditional"), WRONG, ZOOM) == pytest.approx(1.2)
    assert reward_of(deepeyes(same, bonus="unconditional"), WRONG) == 0
    assert reward_of(deepeyes(same, bonus="none"), RIGHT, ZOOM) == pytest.approx(0.8)
    assert deepeyes_score(1, False, True, weights=(1, 1, 1)) == 1, "the paper's: 1 - 1 + 1"
    assert (deepeyes_math_score(1), deepeyes_math_score(0, False)) == (1.2, -0.4)


def test_deepeyes_v2_pays_for_no_tool_and_search_data_costs_a_tenth() -> None:
    assert reward_of(deepeyes_v2(same), RIGHT, ZOOM) == pytest.approx(1.0)
    assert reward_of(deepeyes_v2(same), WRONG, ZOOM) == pytest.approx(0.2)
    assert reward_of(deepeyes_v2(same), RIGHT, BROKEN) == pytest.approx(0.8)
    assert reward_of(deepeyes_v2(same, search_data=True), RIGHT, ZOOM) == pytest.approx(0.8 * 0.9 + 0.2)
    assert reward_of(deepeyes_v2(same), f"<answer>{'K' * 300}</answer>") == pytest.approx(0.2)


def test_vilasr_counts_form_only_where_the_answer_is_partly_right() -> None:
    assert [vilasr_score(1, True), vilasr_score(1, False), vilasr_score(0, True)] == [2, 1, 0]
    assert [vilasr_score(a, True, "code") for a in (1, 0.4, 0)] == [1, pytest.approx(0.7), 0]
    # |9 - 10| / 10 = 0.1 holds for c = 0.50 ... 0.90, nine of the ten.
    assert choice_or_number("9", 10) == pytest.approx(0.9)
    assert choice_or_number("about 9 m", 10) == pytest.approx(0.9)
    assert choice_or_number("4", 10) == 0 and choice_or_number("A", "B") == 0 and choice_or_number("A", "A") == 1


def box(label: str, *at: int, index: int = 1) -> dict[str, Any]:
    return {"index": index, "bbox_2d": list(at), "label": label}


def drawn(*items: dict[str, Any], name: str = "1") -> Message:
    call = ToolCall(id=name, name="draw", raw="", arguments={"items": list(items)})
    return assistant("", reasoning="I mark it.", tool_calls=[call])


def said(text: str) -> Message:
    return assistant(text, reasoning="So.")


def test_vilasr_form_wants_thoughts_marks_and_one_answer_at_the_end() -> None:
    good = played(drawn(box("cup", 0, 0, 2, 2)), said(RIGHT))
    assert vilasr_form(good)
    assert not vilasr_form(played(drawn(box("cup", 0, 0, 2, 2)), assistant(RIGHT))), "the last turn does not reason"
    assert vilasr_form(played(drawn(box("cup", 0, 0, 2, 2)), assistant(RIGHT)), thinks=False)
    assert not vilasr_form(played(drawn({"label": "cup"}), said(RIGHT))), "a mark that is neither box nor line"
    assert not vilasr_form(played(drawn(box("cup", 0, 0, 2, 2)), said("K4")))
    line = {"index": 1, "start_point_2d": [0, 0], "end_point_2d": [1, 1], "label": "way"}
    assert vilasr_form(played(drawn(line), said(RIGHT)))
    assert not vilasr_form(played(assistant(tool_calls=[BROKEN], reasoning="So."), said(RIGHT)))
    assert played(drawn(box("cup", 0, 0, 2, 2)), said(RIGHT), reward=vilasr(choice_or_number)).reward == 2


def test_a_mark_drawn_again_elsewhere_is_a_reflection() -> None:
    again = played(drawn(box("cup", 0, 0, 2, 2)), drawn(box("cup", 0, 0, 3, 3), name="2"), said(RIGHT))
    assert redrawn(again) == {(1, "cup")}
    assert played(*[m for m in again.messages if m.role == "assistant"], reward=reflections()).reward == 1
    same_place = played(drawn(box("cup", 0, 0, 2, 2)), drawn(box("cup", 0, 0, 2, 2), name="2"), said(RIGHT))
    other_picture = played(drawn(box("cup", 0, 0, 2, 2), box("cup", 1, 1, 2, 2, index=2)), said(RIGHT))
    assert redrawn(same_place) == redrawn(other_picture) == set()


LINES = {"Line 1": ["A", "B", "C"], "Line 2": ["C", "D"], "Line 3": ["D", "E"]}


def legs(*parts: str) -> str:
    return write([Leg(line=f"Line {part[0]}", start=part[1], end=part[2]) for part in parts])


@pytest.mark.parametrize(
    ("route", "start", "end", "transfers", "paper", "code"),
    [
        (("1AC",), "A", "C", 0, 2 + 4, 2 - 5 + 4),
        (("1AC", "2CD"), "A", "D", 1, 2 + (3 + 1) + 3, 2 + (3 + 1) + (3 - 5)),
        (("1AC", "2CD", "3DE"), "A", "E", 2, 10, 2 + 4 + 4 - 2),  # the paper's 2 + 4 + 4 + 3 is cut at 10
        (("1AC", "2CD"), "A", "E", 2, 2 + (3 + 1) + 3, 0),  # only the start is right
        (("1BC",), "A", "D", 1, 0, 0),  # neither end is
        (("9AC",), "A", "C", 0, 2, 2 - 5),  # there is no such line
        (("2AC",), "A", "C", 0, 2, 2 - 5),  # a line that does not join them
        (("1AB", "1BC"), "A", "C", 0, 2 + (4 + 0) + (4 - 5) + 1, 2 + 2 * (4 - 5)),  # a change where none is needed
    ],
)
def test_rewardmap_detail(
    route: tuple[str, ...], start: str, end: str, transfers: int, paper: float, code: float
) -> None:
    text = legs(*route)
    assert rewardmap_detail(text, LINES, start, end, transfers) == paper
    assert rewardmap_detail(text, LINES, start, end, transfers, "code") == code


def test_rewardmap_weighs_hard_maps_and_transfers() -> None:
    assert [rewardmap_weight(level) for level in ("easy", "middle", "hard")] == [1.0, 1.2, 1.5]  # type: ignore[arg-type]
    assert rewardmap_weight("hard", 1) == 2.0 and rewardmap_weight("hard", 0) == 1.5
    assert rewardmap_score(True, 9, weight=2.0) == 2 * (10 + 4.5)
    assert rewardmap_score(False, form=1) == 1
    assert rewardmap_detail("no route", LINES, "A", "C", 0) == 0
