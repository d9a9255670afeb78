"""What a small model learns to see: pictures say what the answer says, splits share nothing, guesses are chance."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import ScriptedSampler, rollout_sync
from envs import assistant
from envs.scenes import sights
from envs.scenes.pens import COLOURS
from envs.scoring.places import box_iou
from envs.tasksets.sight import PLACES, sight
from evals.check import check
from tools import ConfigError

pytest.importorskip("skimage")

WHITE = (255, 255, 255)
SEEN: dict[str, Any] = {"skills": "read,colour,shape,count,where,page,find,box"}


def test_gold_scores_1_and_wrong_answers_0() -> None:
    report = check(sight(n=24, **SEEN))
    assert report.problems == ()
    pytest.importorskip("sklearn")
    assert check(sight(n=12, skills="digit")).problems == ()


def test_the_picture_holds_what_the_answer_says() -> None:
    for task in sight(n=60, on_photos=0, **SEEN).tasks:
        picture = sights.draw(task.info["scene"])
        inked = [at for at, value in enumerate(picture.convert("L").tobytes()) if value < 235]
        if task.info["category"] == "colour":
            assert COLOURS[task.answer] in {picture.getpixel((at % 64, at // 64)) for at in inked}
        if task.info["category"] == "where":
            x, y = (sum(at % 64 for at in inked) / len(inked), sum(at // 64 for at in inked) / len(inked))
            row = "upper" if y < 64 / 3 else "lower" if y > 128 / 3 else ""
            column = "left" if x < 64 / 3 else "right" if x > 128 / 3 else ""
            assert task.answer == (f"{row} {column}".strip() or "middle")
        if task.info["category"] in ("find", "box"):
            left, top, right, bottom = task.answer
            colours = {COLOURS[task.prompt[-1].text.split()[0]]} if task.info["category"] == "box" else None
            here = {picture.getpixel((x, y)) for x in range(left, right) for y in range(top, bottom)} - {WHITE}
            assert here and (colours is None or colours <= here)
            if task.info["category"] == "find":
                xs, ys = [at % 64 for at in inked], [at // 64 for at in inked]
                assert left - 1 <= min(xs) <= max(xs) <= right + 1 and top - 1 <= min(ys) <= max(ys) <= bottom + 1
        if task.info["category"] == "read":
            assert inked
            border = [at for at in inked if at % 64 in (0, 63) or at // 64 in (0, 63)]
            assert len(border) < len(inked) / 4, "writing is cut off by the edge"


def test_splits_share_no_scene_no_photograph_and_no_written_digit() -> None:
    pytest.importorskip("sklearn")
    splits = ("train", "val", "test")
    scenes = {split: [task.info["scene"] for task in sight(split, n=120).tasks] for split in splits}
    for what in ("photo", "digit"):
        found = [
            {
                str(scene[what]["number"] if what == "digit" else scene[what])
                for scene in scenes[split]
                if scene.get(what)
            }
            for split in splits
        ]
        assert all(found) and not (found[0] & found[1] or found[0] & found[2] or found[1] & found[2])


def test_scenes_do_not_depend_on_how_many_there_are() -> None:
    few, many = sight(n=5, **SEEN), sight(n=50, **SEEN)
    assert [task.info for task in few.tasks] == [task.info for task in many.tasks[:5]]


def test_a_guess_is_right_as_often_as_chance_says() -> None:
    tasks = sight(n=400, skills="where", on_photos=0).tasks
    assert {task.answer for task in tasks} == set(PLACES)
    right = sum(task.answer == "middle" for task in tasks) / len(tasks)
    assert abs(right - tasks[0].info["chance"]) < 0.08  # four standard errors
    episode = rollout_sync(
        sight(n=1, skills="where", on_photos=0).env(tasks[0]),
        ScriptedSampler([assistant("<answer>nowhere</answer>")]),
        rubric=sight(n=1, skills="where", on_photos=0).rubric,
    )
    assert (episode.scores["correct"], episode.scores["chance"]) == (0.0, 0.2)


def test_a_page_is_written_line_by_line_and_the_more_freely_the_larger_the_dial() -> None:
    for freedom in (0.0, 1.0):
        tasks = sight(n=30, skills="page", on_photos=0, freedom=freedom).tasks
        written = [task.info["scene"]["writings"] for task in tasks]
        assert [task.answer for task in tasks] == ["".join(one["text"] for one in page) for page in written]
        assert {len(page) for page in written} == {16}
        for page in written:
            cells = [(one["x"] // 16, one["y"] // 16) for one in page]
            assert cells == [(at % 4, at // 4) for at in range(16)]
        faces = {one["typeface"] for page in written for one in page}
        spread = {(one["x"] % 16, one["y"] % 16) for page in written for one in page}
        assert len(faces) == len(spread) == 1 if not freedom else len(faces) > 5 and len(spread) > 10


@settings(max_examples=25)
@given(st.lists(st.integers(0, 64), min_size=4, max_size=4))
def test_a_box_is_right_where_it_shares_half_of_the_union(sides: list[int]) -> None:
    task = sight(n=1, skills="find", on_photos=0).tasks[0]
    taskset = sight(n=1, skills="find", on_photos=0)
    said = assistant(f"<answer>{sides}</answer>")
    episode = rollout_sync(taskset.env(task), ScriptedSampler([said]), rubric=taskset.rubric)
    assert episode.scores["correct"] == float(box_iou(sides, task.answer) >= 0.5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"skills": "reed"}, "reed"),
        ({"skills": ""}, "skills"),
        ({"edge": 8}, "edge"),
        ({"length": "0"}, "length"),
        ({"most": 12}, "most"),
        ({"grid": "0-4"}, "grid"),
        ({"freedom": 2.0}, "freedom"),
        ({"photos": "/nowhere"}, "nowhere"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        sight(n=2, **arguments)
