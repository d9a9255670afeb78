"""Tasksets to look at and draw on: gold scores 1 through the real tools, wrong answers 0, and what is drawn is true."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from agent import ScriptedSampler, rollout_sync
from envs import Taskset, Trajectory, assistant
from envs.scenes import charts as chart_scenes
from envs.scenes import shapes, signs, transit
from envs.scenes.pens import COLOURS
from envs.scenes.photos import SHIPPED, open_photo, photos_of
from envs.tasksets.charts import charts
from envs.tasksets.counting import counting
from envs.tasksets.maze import maze
from envs.tasksets.spatial import spatial
from envs.tasksets.transit_map import rewardmap, transit_map
from envs.tasksets.visual_search import same_writing, visual_search
from evals.check import check
from tools import ConfigError, ToolCall
from tools.content import Image
from tools.image import to_pixels
from tools.image.coordinates import CONVENTIONS, Convention

pytest.importorskip("skimage")

TINY: dict[str, Any] = {"shown": 64, "style": "short"}
SMALL: list[tuple[Callable[..., Taskset], dict[str, Any]]] = [
    (visual_search, {"size": "640x480", "shown": 128, "length": 2, "signs": 2}),
    (visual_search, {**TINY, "size": "256x256", "letters": "0123456789", "length": 1, "photos": "none"}),
    (maze, {"cells": 5, "shown": 160}),
    (maze, {**TINY, "cells": 4, "ask": "exit", "marks": "colours", "lines_per_call": 1}),
    (maze, {**TINY, "cells": 4, "ask": "exit", "exits": 2, "corridors": True, "line": "cell", "aloud": "way"}),
    (maze, {"cells": 5, "shown": 160, "aloud": "way"}),
    (maze, {"cells": 5, "shown": 160, "ask": "doors", "order": "way"}),
    (maze, {**TINY, "cells": 4, "ask": "doors", "exits": 2, "marks": "colours"}),
    (spatial, {"shown": 256, "photos": "skimage"}),
    (spatial, {**TINY, "shown": 96, "ask": "distance", "objects": 4}),
    (charts, {"shown": 256}),
    (charts, {**TINY, "shown": 96, "items": 3, "most": 9, "tick": 3}),
    (transit_map, {"shown": 400, "ask": "all", "lines": 3}),
    (transit_map, {"shown": 200, "lines": 2, "grid": "4x4", "style": "short", "ask": "curriculum"}),
    (counting, {"shown": 256}),
    (counting, {**TINY, "most": 4, "others": 3, "kinds": 2, "colours": 3, "photos": "none"}),
]
EACH = pytest.mark.parametrize(("make", "dials"), SMALL, ids=lambda value: getattr(value, "__name__", ""))


def pictures(taskset: Taskset, episode: Trajectory) -> list[PIL.Image.Image]:
    assert taskset.blobs is not None
    shown = [part for message in episode.messages for part in message.content if isinstance(part, Image)]
    return [taskset.blobs.open(image) for image in shown]


def gold(taskset: Taskset, index: int = 0) -> Trajectory:
    return rollout_sync(taskset.env(taskset.tasks[index]), ScriptedSampler(), rubric=taskset.rubric)


@EACH
def test_gold_scores_1_through_the_real_tools_and_wrong_answers_0(
    make: Callable[..., Taskset], dials: dict[str, Any]
) -> None:
    found = check(make(split="test", n=3, **dials))
    assert found.problems == () and "all right" in found.summary


@EACH
def test_listing_draws_nothing_and_tasks_do_not_depend_on_how_many_there_are(
    make: Callable[..., Taskset], dials: dict[str, Any]
) -> None:
    few, many = make(n=8, seed=3, **dials), make(n=12, seed=3, **dials)
    assert many.blobs is not None and many.blobs.root is not None
    assert list(Path(many.blobs.root).iterdir()) == []
    if dials.get("ask") != "curriculum":
        assert few.tasks == many.tasks[:8]
    assert {json.dumps(task.info["scene"]) for task in make(n=8, seed=4, **dials).tasks}.isdisjoint(
        json.dumps(task.info["scene"]) for task in few.tasks
    )
    assert json.loads(json.dumps(many.tasks[0].info)) == many.tasks[0].info


@EACH
def test_a_scene_drawn_again_is_the_same_picture(make: Callable[..., Taskset], dials: dict[str, Any]) -> None:
    taskset = make(n=2, **dials)
    first = pictures(taskset, gold(taskset))
    other = make(n=2, **dials)
    again = pictures(other, gold(other))
    assert [picture.tobytes() for picture in first] == [picture.tobytes() for picture in again]
    assert max(first[0].size) <= dials["shown"]


def test_splits_share_no_scene() -> None:
    splits = [
        {json.dumps(task.info["scene"]) for task in maze(split=split, n=25, cells=3, shown=64).tasks}
        for split in ("train", "val", "test")
    ]
    assert sum(map(len, splits)) == len(set().union(*splits))


@pytest.mark.parametrize("count", [5, 6, 7, 12])
def test_splits_share_no_photograph(tmp_path: Path, count: int) -> None:
    for index in range(count):
        (tmp_path / f"{index:02}.jpg").touch()
    for source, there in ((str(tmp_path), count), ("skimage", len(SHIPPED["skimage"][1]))):
        splits = [photos_of(source, split) for split in ("train", "val", "test")]
        assert all(splits)
        assert sum(map(len, splits)) == len(set().union(*splits)) == there


def test_a_folder_of_photographs_takes_the_place_of_those_in_packages(tmp_path: Path) -> None:
    for index in range(6):
        PIL.Image.new("RGB", (300, 200), (40 * index, 90, 90)).save(tmp_path / f"{index}.jpg")
    taskset = visual_search(n=2, size="320x240", shown=64, length=1, photos=str(tmp_path))
    assert str(taskset.tasks[0].info["scene"]["photo"]).startswith(str(tmp_path))
    assert gold(taskset).scores["correct"] == 1
    (tmp_path / "5.jpg").unlink(), (tmp_path / "4.jpg").unlink()
    with pytest.raises(ConfigError, match="has 4 photographs; 5 are needed"):
        visual_search(n=2, photos=str(tmp_path))
    (tmp_path / "0.jpg").write_bytes(b"no photograph")
    with pytest.raises(ConfigError, match="cannot be read"):
        open_photo(str(tmp_path / "0.jpg"), (10, 10))
    with pytest.raises(ConfigError, match="is not there"):
        open_photo("skimage/none.png", (10, 10))


# What is drawn is what is asked


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_gold_box_holds_the_sign_in_every_convention(convention: Convention) -> None:
    taskset = visual_search(n=3, size="1000x600", shown=100, length=2, coordinates=convention)
    for task in taskset.tasks:
        sign = signs.from_json(task.info["scene"]["signs"][0])
        left, top, right, bottom = task.gold[0].tool_calls[0].arguments["bbox_2d"]  # type: ignore[index]
        low, high = (to_pixels(point, convention, (100, 60)) for point in ((left, top), (right, bottom)))
        assert low[0] * 10 <= sign.box[0] and low[1] * 10 <= sign.box[1]
        assert high[0] * 10 >= sign.box[2] and high[1] * 10 >= sign.box[3]
        assert gold(taskset).scores["correct"] == 1


def test_a_sign_is_too_small_to_be_read_or_large_enough_as_the_dial_says() -> None:
    tasks = visual_search(n=60, needs_tool=0.5, size="1280x960", shown=256, capital=2.5).tasks
    needing = [task for task in tasks if task.info["needs_tool"]]
    assert 15 < len(needing) < 45
    for task in tasks:
        capital = signs.from_json(task.info["scene"]["signs"][0]).capital / 5  # as shown
        assert capital == pytest.approx(2.5, abs=0.11) if task.info["needs_tool"] else capital == 14
        assert len(task.gold) == 1 + task.info["needs_tool"]


def test_gold_that_is_less_careful_guesses_in_the_same_scenes() -> None:
    dials: dict[str, Any] = {"n": 60, "size": "256x256", "shown": 64, "length": 1, "photos": "none", "style": "short"}
    always, half = visual_search(**dials), visual_search(**dials, careful=0.5)
    assert [task.info for task in always.tasks] == [task.info for task in half.tasks]
    assert all(len(task.gold) == 2 for task in always.tasks)
    assert 15 < sum(len(task.gold) == 2 for task in half.tasks) < 45


def test_a_zoom_is_useful_where_it_shows_the_sign_and_not_much_else() -> None:
    dials: dict[str, Any] = {"size": "256x256", "shown": 64, "length": 1, "photos": "none", "style": "short"}
    taskset = visual_search(n=1, **dials)
    task = taskset.tasks[0]
    left, top, right, bottom = task.info["box"]
    elsewhere = [0, 0, 12, 12] if left > 32 or top > 32 else [52, 52, 64, 64]
    boxes = {
        "gold": [left, top, right, bottom],
        "half": [left, top, (left + right) / 2, bottom],
        "elsewhere": elsewhere,
    }
    found: dict[str, float] = {}
    for name, box in {**boxes, "everything": [0, 0, 64, 64], "no box": [9, 9, 3, 3]}.items():
        call = ToolCall(id="1", name="image_zoom_in_tool", raw="", arguments={"bbox_2d": box})
        script = [assistant(tool_calls=[call]), assistant("<answer>?</answer>")]
        found[name] = rollout_sync(taskset.env(task), ScriptedSampler(script), rubric=taskset.rubric).scores[
            "useful_calls"
        ]
    assert found == {"gold": 1.0, "half": 1.0, "elsewhere": 0.0, "everything": 0.0, "no box": 0.0}


def test_letters_are_lost_at_first_and_there_after_the_zoom() -> None:
    """As a small model might tell digits apart: by the nearest of ten templates, of what it is shown."""
    dials: dict[str, Any] = {"size": "512x512", "shown": 64, "letters": "0123456789", "length": 1, "photos": "none"}
    taskset = visual_search(n=6, style="short", capital=1.5, **dials)
    seen = [pictures(taskset, gold(taskset, index)) for index in range(6)]
    inks: list[tuple[float, float]] = []
    for (whole, part), task in zip(seen, taskset.tasks, strict=True):
        box = task.info["box"]
        darkest = [min(picture.convert("L").tobytes()) for picture in (whole.crop(tuple(box)), part)]
        inks.append((darkest[0], darkest[1]))
    # The dark letter on white has become a grey spot; zoomed, it is as dark as it was drawn.
    assert all(part < 60 for _, part in inks)
    assert sum(whole > part + 40 for whole, part in inks) == 6


def test_the_arms_of_an_experiment_ask_the_same_and_differ_in_what_is_drawn_and_seen() -> None:
    arms = {tools: maze(n=2, cells=4, shown=64, tools=tools) for tools in ("see", "blind", "none")}
    assert (
        len({json.dumps([task.id, task.info["scene"], task.answer]) for arm in arms.values() for task in arm.tasks})
        == 2
    )
    played = {name: gold(arm) for name, arm in arms.items()}
    assert {name: len(pictures(arms[name], episode)) for name, episode in played.items()} == {
        "see": 2,
        "blind": 1,
        "none": 1,
    }
    assert [episode.scores["tool_calls"] for episode in played.values()] == [1, 1, 0]
    assert all(episode.scores["correct"] == 1 for episode in played.values())
    alone = visual_search(n=2, size="320x240", shown=64, length=1, photos="none", tools=False)
    assert gold(alone).scores == {**gold(alone).scores, "correct": 1, "tool_calls": 0} and gold(alone).tools == ()


def test_every_bar_and_point_stands_where_its_coordinates_say() -> None:
    for kind in ("bars", "lines"):
        chart = chart_scenes.from_json(charts(n=1, kind=kind, shown=400).tasks[0].info["scene"])
        picture = chart_scenes.draw(chart).convert("RGB")
        for index in range(len(chart.values)):
            x, y = chart_scenes.point_of(chart, index)
            assert picture.getpixel((int(x), int(y) + 1)) == COLOURS[chart.colour]
            assert picture.getpixel((int(x), max(0, int(y) - 12))) == (255, 255, 255)
        if kind == "bars":
            left, _, right, bottom = chart_scenes.bar_box(chart, 0)
            assert picture.getpixel((int((left + right) / 2), int(bottom) - 1)) == COLOURS[chart.colour]


def test_what_is_counted_is_there_and_nothing_overlaps() -> None:
    for task in counting(n=8, shown=256, photos="none").tasks:
        there = shapes.from_json(task.info["scene"]["shapes"])
        boxes = task.gold[0].tool_calls[0].arguments["items"]  # type: ignore[index]
        assert len(boxes) == task.answer
        picture = shapes.scene(task.info["scene"])
        for box in boxes:
            left, top, right, bottom = box["bbox_2d"]
            inside = [one for one in there if left < one.x < right and top < one.y < bottom]
            assert len(inside) == 1 and picture.getpixel((inside[0].x, inside[0].y)) == COLOURS[inside[0].colour]
        assert sum(one.name in task.prompt[-1].text for one in there) == task.answer


def test_spatial_numbers_are_graded_and_choices_are_not() -> None:
    taskset = spatial(n=12, shown=128)
    graded = next(task for task in taskset.tasks if task.info["kind"] == "number")
    choice = next(task for task in taskset.tasks if task.info["kind"] == "choice")

    def score(task: Any, said: str) -> float:
        script = [assistant(f"<answer>{said}</answer>")]
        return rollout_sync(taskset.env(task), ScriptedSampler(script), rubric=taskset.rubric).scores["correct"]

    assert score(graded, str(graded.answer)) == 1 and 0 < score(graded, str(graded.answer * 1.2)) < 1
    assert score(choice, choice.answer) == 1 and score(choice, "E") == 0


def test_a_map_hangs_together_and_other_routes_than_gold_count() -> None:
    taskset = transit_map(n=6, shown=320, lines=4, reward="rewardmap")
    for index, task in enumerate(taskset.tasks):
        network = transit.from_json(task.info["scene"])
        assert all(
            0 < x < 320 and 0 < y < 240 for x, y in (transit.where(network, name, (320, 240)) for name in network.at)
        )
        episode = gold(taskset, index)
        transfers = task.info["transfers"]
        detail = 6 if transfers == 0 else min(10, 2 + 3 * (transfers + 1) + transfers)
        weight = 1.2 + 0.5 * (transfers > 0)  # four lines are a map of middle difficulty
        assert episode.reward == pytest.approx(weight * (10 + detail / 2))
    asked = taskset.tasks[0].answer
    there = rollout_sync(
        taskset.env(taskset.tasks[0]),
        ScriptedSampler(
            [assistant(f"<answer>Route Name: Line 9\nDeparture Stop: {asked['from']}\nArrival Stop: x</answer>")]
        ),
    )
    paper, code = (asyncio.run(rewardmap(v)(taskset.env(taskset.tasks[0]), there)) for v in ("paper", "code"))
    assert paper > 0 == code, "one right end earns a little in the paper's form, nothing in the code's"


def test_a_wrong_box_is_an_observation_and_the_episode_goes_on() -> None:
    taskset = visual_search(n=1, size="320x240", shown=64, length=1, photos="none")
    for box in ([5, 5, 1, 1], ["a", 0, 1, 1], [900, 900, 999, 999], [1, 2], [0, 0, 0, 0], None):
        call = ToolCall(id="1", name="image_zoom_in_tool", raw="", arguments={"bbox_2d": box})
        script = [assistant(tool_calls=[call]), *taskset.tasks[0].gold]
        episode = rollout_sync(taskset.env(taskset.tasks[0]), ScriptedSampler(script), rubric=taskset.rubric)
        assert episode.calls[0].result.is_error and episode.scores["correct"] == 1


def test_writings_are_compared_without_case_spaces_and_punctuation() -> None:
    assert same_writing("k4 x-7.", "K4X7") and not same_writing("K4X1", "K4X7") and not same_writing(" .", "")


@pytest.mark.parametrize(
    ("make", "dials", "message"),
    [
        (visual_search, {"split": "all"}, "split is 'all'"),
        (visual_search, {"size": "huge"}, "size is 'huge'"),
        (visual_search, {"letters": ""}, "cannot be written"),
        (visual_search, {"needs_tool": 2.0}, "do not fit"),
        (visual_search, {"photos": "/nowhere"}, "there is no folder of photographs"),
        (visual_search, {"size": "128x128", "shown": 64, "length": 40, "photos": "none"}, "finds no new scene"),
        (maze, {"cells": 1}, "cells is 1"),
        (maze, {"cells": 20, "shown": 64}, "cannot be seen"),
        (maze, {"ask": "exit", "exits": 9}, "exits is 9"),
        (maze, {"cells": 2, "n": 400, "shown": 64}, "finds no new scene"),
        (maze, {"n": 0}, "n is 0"),
        (spatial, {"objects": 1}, "objects is 1"),
        (charts, {"items": 40}, "do not fit"),
        (transit_map, {"grid": "big"}, "grid is 'big'"),
        (transit_map, {"lines": 9}, "lines is 9"),
        (counting, {"kinds": 9}, "there are 5 kinds"),
        (counting, {"shown": 8}, "shown is 8"),
    ],
)
def test_what_cannot_be_is_one_sentence(make: Callable[..., Taskset], dials: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**{"n": 2, **dials})
