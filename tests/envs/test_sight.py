"""What a small model learns to see: pictures say what the answer says, splits share nothing, guesses are chance."""

from __future__ import annotations

from typing import Any

import pytest

from agent import ScriptedSampler, rollout_sync
from envs import assistant
from envs.scenes import sights
from envs.scenes.pens import COLOURS
from envs.tasksets.sight import PLACES, sight
from evals.check import check
from tools import ConfigError

pytest.importorskip("skimage")

SEEN: dict[str, Any] = {"skills": "read,colour,shape,count,where"}


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


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"skills": "reed"}, "reed"),
        ({"skills": ""}, "skills"),
        ({"edge": 8}, "edge"),
        ({"length": "0"}, "length"),
        ({"most": 12}, "most"),
        ({"photos": "/nowhere"}, "nowhere"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        sight(n=2, **arguments)
