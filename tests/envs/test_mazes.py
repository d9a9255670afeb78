"""Mazes: what is drawn can be walked, what the gold says is what is there, and only what is right scores 1."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import ScriptedSampler, rollout_sync
from envs import Message, assistant
from envs.scenes import mazes
from envs.scenes.drawn import Style, point_for
from envs.task import Task
from envs.tasksets.maze import Line, maze
from tools import ConfigError, ToolCall


@given(st.integers(0, 2**32), st.integers(2, 8), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_a_maze_has_one_way_out_and_the_lines_of_the_gold_cross_no_wall(seed: int, cells: int, exits: int) -> None:
    exits = min(exits, cells * cells // 4)
    made = mazes.make(random.Random(seed), cells, cells, list("ABC")[:exits])
    assert mazes.from_json(json.loads(json.dumps(mazes.to_json(made)))) == made
    ways = {name: mazes.way(made, cell) for name, cell in made.exits.items()}
    (name,) = [name for name, way in ways.items() if way is not None]
    way = ways[name]
    assert way is not None and way[0] == made.start and len(set(way)) == len(way)
    moves = mazes.moves_of(way)
    assert (
        mazes.walk(made, moves) == made.exits[name]
        and mazes.walk(made, mazes.read_moves(", ".join(moves)) or []) == way[-1]
    )
    size = cells * 16
    picture = mazes.draw(made, size).convert("RGB")
    for start, end in mazes.strokes(way):
        (x1, y1), (x2, y2) = (mazes.middle(made, size, cell) for cell in (start, end))
        steps = max(abs(x2 - x1), abs(y2 - y1))
        line = [(x1 + (x2 - x1) * k // steps, y1 + (y2 - y1) * k // steps) for k in range(steps + 1)]
        assert all(picture.getpixel(point) != (125, 125, 140) for point in line)


@given(st.integers(0, 2**32), st.integers(2, 5), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_corridors_have_no_forks_and_start_and_exits_at_their_ends(seed: int, cells: int, exits: int) -> None:
    made = mazes.make(random.Random(seed), cells, cells, list("ABC")[: min(exits, cells * cells // 4)], corridors=True)
    around = {(x, y): len(mazes.open_moves(made.doors, (x, y))) for x in range(cells) for y in range(cells)}
    assert set(around.values()) <= {1, 2}
    assert all(around[cell] == 1 and cell != made.start for cell in made.exits.values()) and around[made.start] == 1


def test_each_cell_is_told_of_in_any_order_and_all_of_them_must_be_right() -> None:
    taskset = maze(n=2, cells=3, shown=96, ask="doors", exits=2, marks="colours", order="way")
    in_lines = maze(n=2, cells=3, shown=96, ask="doors", exits=2, marks="colours")
    assert [task.info for task in taskset.tasks] == [task.info for task in in_lines.tasks]
    task = taskset.tasks[0]
    lines = task.gold[-1].text.removeprefix("<answer>").removesuffix("</answer>").splitlines()
    assert len(lines) == 9 and lines[0].endswith("green"), "the way begins at the green disc"
    assert sum(line.endswith(("yellow", "purple")) for line in lines) == 2

    def score(said: list[str]) -> float:
        script = [assistant("<answer>" + "\n".join(said) + "</answer>")]
        return rollout_sync(taskset.env(task), ScriptedSampler(script), rubric=taskset.rubric).scores["correct"]

    assert score(lines) == score(sorted(lines)) == score([" ".join(line.upper().split()[::-1]) for line in lines]) == 1
    assert score(lines[1:]) == score([*lines, lines[0]]) == score([lines[0] + " up", *lines[1:]]) == 0


@pytest.mark.parametrize("coordinates", ["pixel", "unit", "per_mille", "unit_square_padded"])
@pytest.mark.parametrize("line", ["straight", "cell"])
def test_the_way_counts_as_drawn_in_any_order_but_not_with_a_gap_or_through_a_wall(
    line: Line, coordinates: Any
) -> None:
    asked: dict[str, Any] = {"n": 5, "cells": 4, "shown": 64, "ask": "exit", "exits": 2, "style": "short"}
    taskset = maze(**asked, lines_per_call=1, line=line, coordinates=coordinates)

    def drawn(task: Task, script: list[Message]) -> float:
        return rollout_sync(taskset.env(task), ScriptedSampler(script), rubric=taskset.rubric).scores["way_drawn"]

    for task in taskset.tasks:
        *calls, last = task.gold
        assert (
            drawn(task, [*calls, last]) == drawn(task, [*calls[::-1], last]) == drawn(task, [*calls, *calls, last]) == 1
        )
        for gap in range(len(calls)):
            assert drawn(task, [*calls[:gap], *calls[gap + 1 :], last]) == 0
        made = mazes.from_json(task.info["scene"]["maze"])
        x, y = walled = next(
            cell for cell in mazes.cells_of(made) if cell[0] and "left" not in mazes.open_moves(made.doors, cell)
        )
        ends = [point_for(mazes.middle(made, 64, cell), coordinates, (64, 64)) for cell in (walled, (x - 1, y))]
        item = {"index": 1, "start_point_2d": ends[0], "end_point_2d": ends[1], "label": "1"}
        through = ToolCall(id="wall", name="path_tracer", raw="", arguments={"items": [item]})
        assert drawn(task, [*calls, assistant("", tool_calls=[through]), last]) == 0


def _thought(message: Message, style: str) -> str:
    return (message.reasoning or "") if style == "full" else message.text.partition("<")[0].strip()


@pytest.mark.parametrize("style", ["full", "short"])
def test_thoughts_are_said_before_each_line_and_before_the_answer(style: Style) -> None:
    asked: dict[str, Any] = {
        "n": 1,
        "cells": 4,
        "shown": 64,
        "ask": "exit",
        "exits": 2,
        "corridors": True,
        "style": style,
    }
    (told,) = maze(**asked, tools="none", aloud="way").tasks
    assert len(told.gold) == 1
    for line, lines_per_call in itertools.product(("cell", "straight"), (0, 1, 2)):
        (drawn,) = maze(**asked, tools="blind", line=line, lines_per_call=lines_per_call, aloud="way").tasks
        said = [_thought(message, style) for message in drawn.gold]
        assert "\n".join(said) == _thought(told.gold[0], style), "the same thoughts, in pieces or at once"
        assert "green" in said[0].split() and said[-1].endswith(str(drawn.answer))
        assert [one.split()[-1] for one in said[:-1]] == [one.split()[0] for one in said[1:]], "where it goes, it is"
        assert drawn.gold[-1].text.endswith(f"<answer>{drawn.answer}</answer>")
        if line == "cell" and lines_per_call == 1:
            assert len(said) == drawn.info["moves"] + 1


def test_dials_of_a_maze_that_cannot_be_are_said() -> None:
    asked: dict[str, Any]
    for asked, why in (
        ({"cells": 6, "corridors": True}, "ways without forks"),
        ({"lines_per_call": -1}, "lines_per_call is -1"),
        ({"cells": 10, "ask": "doors"}, "one digit each"),
        ({"cells": 2, "ask": "exit"}, "exits is 3"),
    ):
        with pytest.raises(ConfigError, match=why) as caught:
            maze(n=1, **asked)
        assert caught.value.hint


def test_moves_into_a_wall_and_moves_that_end_short_are_wrong() -> None:
    taskset = maze(n=3, cells=4, shown=96)
    task = taskset.tasks[0]
    moves = task.gold[-1].text.removeprefix("<answer>").removesuffix("</answer>").split(", ")
    back = {"left": "right", "right": "left", "up": "down", "down": "up"}[moves[-1]]

    def score(*said: str) -> float:
        script = [assistant(f"<answer>{', '.join(said)}</answer>")]
        return rollout_sync(taskset.env(task), ScriptedSampler(script), rubric=taskset.rubric).scores["correct"]

    assert score(*moves) == 1 and score(*(move[0].upper() for move in moves)) == 1
    assert score(*moves, back, moves[-1]) == 1, "a detour that comes back leads there too"
    assert score(*moves[:-1]) == 0 and score(*moves, *moves, *moves, *moves) == 0 and score("north") == 0
