"""Mazes to find a way through, with a pen to draw the way: ViLaSR's (arXiv 2506.09965), as small as a model needs.

`path` asks for the directions from the green disc to the exit; any that lead there are right. `exit` marks several
exits of which one can be reached, and asks which: an answer of one word for which the whole way must be followed.
`doors` asks for what must be seen first: in which directions each cell is open.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

from envs.env import Env
from envs.rewards import correct
from envs.rewards.choice import rubric_of
from envs.rewards.visual import reflections, vilasr
from envs.rubric import RewardFn, Rubric
from envs.scenes import mazes
from envs.scenes.drawn import Asked, Scene, Split, Style, View, drawn_taskset, pens, point_for, scenes, unseen, view_of
from envs.scenes.mazes import Cell, Maze
from envs.scenes.pens import COLOURS
from envs.scoring import tagged
from envs.seed import derive_seed
from envs.task import Taskset
from envs.trajectory import Trajectory
from tools.errors import ConfigError
from tools.image import Gallery
from tools.image.coordinates import Convention, read_point
from tools.record import record
from tools.tool import Tool

Ask: TypeAlias = Literal["path", "exit", "doors"]
Line: TypeAlias = Literal["straight", "cell"]
Order: TypeAlias = Literal["lines", "way"]
Aloud: TypeAlias = Literal["nothing", "way"]
Pen: TypeAlias = Literal["see", "blind", "none"]
"""Whether the model may draw, and whether it sees what it drew: the arms of ViLaSR's central claim."""

_SHORT: Mapping[Ask, str] = {"path": "way?", "exit": "exit?", "doors": "doors?"}
_EACH = (
    "In which directions is each cell open, and what does it hold? Answer with a line for each, in any order: row and "
    "column as one number, and the words for it. The first cell of the second row, open to the right and up, with the "
    "green disc: 21 right up green."
)
_DRAWING = "I draw the way as far as I see it."
_TASK = "Find the way through the maze in the picture."
_END = "End with <answer>...</answer>."
ABOUT: Mapping[Pen, str] = {
    "see": f"{_TASK} You may draw on it with path_tracer, a line at a time, and look at what you drew. {_END}",
    "blind": f"{_TASK} You may draw on it with path_tracer, a line at a time; the drawing is not shown. {_END}",
    "none": f"{_TASK} {_END}",
}
_LOOK = f"Look at the maze in the picture. {_END}"


def maze(
    split: Split = "train",
    n: int = 1000,
    seed: int = 0,
    cells: int = 6,
    shown: int = 384,
    ask: Ask = "path",
    exits: int = 3,
    marks: Literal["letters", "colours"] = "letters",
    corridors: bool = False,
    lines_per_call: int = 0,
    line: Line = "straight",
    aloud: Aloud = "nothing",
    order: Order = "lines",
    tools: Pen = "see",
    coordinates: Convention = "pixel",
    style: Style = "full",
    reward: Literal["correct", "vilasr"] = "correct",
) -> Taskset:
    """Mazes: say the way, or which exit can be reached, after drawing it.

    Args:
        split: `train`, `val` or `test`; they share no maze.
        n: How many tasks. The first tasks are the same for every `n`.
        seed: Another one draws anew from the same split; small mazes come again.
        cells: Cells in a row and in a column, 2 to 30.
        shown: Width and height of the picture in pixels.
        ask: `path`, directions to the only exit; `exit`, which of several can be reached; `doors`, for each cell, by
            row and column, in which directions it is open and what it holds, in any order.
        exits: How many exits `exit` and `doors` have: guessing which can be reached is right once in so many.
        marks: What an exit is marked with: a letter, or a square of its colour.
        corridors: Ways without forks, start and exits at their ends: to be followed, not searched. Up to 5 cells.
        lines_per_call: Straight lines the gold draws with one call, looking at the picture in between; 0: all at once.
        line: How far one line of the gold reaches: as far as the way is `straight`, or to the next `cell`.
        aloud: With `way` the gold says of each of its cells what it is like and where it goes on, in both styles.
        order: How the gold of `doors` goes through the cells: in `lines`, or along the `way` and then in no order.
        tools: `see` gives a pen and shows what was drawn; `blind` gives one and shows nothing; `none` gives none.
        coordinates: How the drawing tool takes points: `pixel`, `unit`, `per_mille` or `unit_square_padded`.
        style: `full` sentences; `short` for a tiny model: no system message, one word, no captions, moves by letter.
        reward: 1 for a right answer, or ViLaSR's.
    """
    _check(cells, ask, corridors, lines_per_call, aloud)
    called, view = _called(cells, shown, ask, exits, marks), view_of(shown, coordinates, style)
    gold = _Gold(lines_per_call=lines_per_call, line=line, aloud=aloud, pen=tools)

    def draw_one(rng: random.Random) -> Scene | None:
        made = mazes.make(rng, cells, cells, called, corridors=corridors)
        return _doors(made, shown, view, order) if ask == "doors" else _scene(made, ask, shown, view, gold)

    stem = f"maze-{split}-{ask}-{cells}-s{seed}"
    return drawn_taskset(
        "maze",
        stem,
        scenes(f"{stem}-{exits}-{marks}-{shown}" + "-corridors" * corridors, split, n, draw_one, apart=_maze_of),
        draw=lambda scene: mazes.draw(mazes.from_json(scene["maze"]), scene["size"][0]),
        tools=lambda gallery: () if ask == "doors" else _tools(gallery, view, tools),
        view=view,
        about=_LOOK if ask == "doors" else ABOUT[tools],
        rubric=_rubric(reward, view),
    )


def _tools(gallery: Gallery, view: View, pen: Pen) -> tuple[Tool, ...]:
    _, tracer = pens(gallery, view)
    return {"see": (tracer,), "blind": (unseen(tracer),), "none": ()}[pen]


def _rubric(reward: str, view: View) -> Rubric:
    paid = {"vilasr": vilasr(leads_out, thinks=view.style == "full")}
    counted = {"way_drawn": way_drawn(view.convention), "reflections": reflections()}
    return rubric_of(correct(tagged, leads_out), tagged, reward, paid, **counted)


def way_drawn(convention: Convention) -> RewardFn:
    """1 where all lines drawn together lead from the green disc to the exit, and none goes through a wall, slants or
    ends in the cell where it began.

    Lines are taken by the cells they start and end in, and every one counts, also one that was drawn anew elsewhere.
    """

    async def reward(env: Env, trajectory: Trajectory) -> float:
        scene = env.task.info["scene"]
        made, size = mazes.from_json(scene["maze"]), (scene["size"][0], scene["size"][1])
        drawn = [call.call for call in trajectory.calls if call.outcome == "ok" and call.call.name == "path_tracer"]

        def cell(line: Mapping[str, Any], end: str) -> Cell:
            return mazes.cell_at(made, max(size), read_point(line[end], end, convention, size))

        lines = [line for call in drawn for line in (call.arguments or {})["items"]]
        return float(mazes.joined(made, [(cell(one, "start_point_2d"), cell(one, "end_point_2d")) for one in lines]))

    return reward


def _check(cells: int, ask: Ask, corridors: bool, lines_per_call: int, aloud: Aloud) -> None:
    """Raise `ConfigError` for dials that do not go together."""
    if lines_per_call < 0:
        raise ConfigError(f"lines_per_call is {lines_per_call}", hint="0 draws all lines at once")
    if cells > 9 and (ask == "doors" or aloud != "nothing"):
        raise ConfigError(f"cells is {cells}; a cell's row and column are told as one digit each", hint="9 at most")
    if corridors and cells > 5:
        raise ConfigError(f"cells is {cells}; ways without forks are found for 5 at most", hint="corridors=false")


def _called(cells: int, shown: int, ask: Ask, exits: int, marks: str) -> list[str]:
    """What the exits are called. Raises `ConfigError` for dials that cannot be."""
    if not 2 <= cells <= 30:
        raise ConfigError(f"cells is {cells}", hint="from 2 to 30")
    if shown < 6 * cells:
        raise ConfigError(f"{cells} cells in {shown} pixels cannot be seen", hint=f"shown={6 * cells} or more")
    names = list("ABCDEF") if marks == "letters" else [name for name in COLOURS if name not in _DRAWN]
    most = min(len(names), cells * cells // 4)
    if ask != "path" and not 2 <= exits <= most:
        known = f"from 2 to {most}" if most > 1 else "one at most, which ask=path has"
        raise ConfigError(f"exits is {exits}", hint=f"with {cells} cells and {marks}: {known}")
    return names[: 1 if ask == "path" else exits]


def leads_out(given: str, expected: Any) -> bool:
    """Whether an answer is right: the name of the exit, moves that lead to it through no wall, or every cell's line.

    >>> corridor = {"doors": ["10"], "start": [0, 0], "exits": {"A": [1, 0]}}    # two cells, a door between them
    >>> leads_out("Right.", {"maze": corridor}), leads_out("up, right", {"maze": corridor}), leads_out("b", "B")
    (True, False, True)
    """
    if isinstance(expected, str):
        return given.strip().strip(".").casefold() == expected.casefold()
    if "cells" in expected:
        return _cells(given.splitlines()) == _cells(expected["cells"])
    made, moves = mazes.from_json(expected["maze"]), mazes.read_moves(given)
    return moves is not None and mazes.walk(made, moves) == next(iter(made.exits.values()))


def _cells(lines: Iterable[str]) -> list[list[str]]:
    """Each line's words in any order, the lines by their words."""
    told = [sorted(re.findall(r"\w+", line.casefold())) for line in lines]
    return sorted(words for words in told if words)


@record
class _Gold:
    """How the gold goes about it; see `maze`."""

    lines_per_call: int
    line: Line
    aloud: Aloud
    pen: Pen


def _scene(made: Maze, ask: Ask, shown: int, view: View, gold: _Gold) -> Scene | None:
    ways = {name: mazes.way(made, cell) for name, cell in made.exits.items()}
    name, way = next((name, way) for name, way in ways.items() if way is not None)
    if len(way) < 3:
        return None
    moves = mazes.moves_of(way)
    full = view.style == "full"
    said = ", ".join(moves) if full else " ".join(move[0].upper() for move in moves)
    drawing = _drawing(made, shown)
    if ask == "exit":
        question, answer, said = (
            f"Which of the exits {', '.join(made.exits)} can be reached from the green disc?",
            name,
            name,
        )
    else:
        exit_is = f"the {name} square" if name in COLOURS else name
        question = f"Which moves lead from the green disc to {exit_is}? Answer with up, down, left, right, in order."
        answer = {"maze": drawing["maze"]}
    draws = gold.pen != "none"
    *before, last = _told(made, way)
    thoughts = [*(f"{line} {_number(there)}" for line, there in zip(before, way[1:], strict=True)), last]
    return Scene(
        drawing=drawing,
        question=question if full else _SHORT[ask],
        answer=answer,
        said=said,
        calls=_traced(made, way, shown, view, gold, thoughts) if draws else (),
        aloud=None if gold.aloud == "nothing" else "\n".join(thoughts[-1:] if draws else thoughts),
        info={"moves": len(moves), "way": [list(cell) for cell in way]},
    )


def _maze_of(scene: Scene) -> Any:
    """What splits are told apart by: a maze is in one, whatever is asked of it and however large it is drawn."""
    return scene.drawing["maze"]


def _doors(made: Maze, shown: int, view: View, order: Order) -> Scene:
    """The question for what is in each cell, and where one can go from there."""
    drawing = _drawing(made, shown)
    rng = random.Random(derive_seed("order of cells", json.dumps(drawing, sort_keys=True)))
    cells = mazes.cells_of(made)
    if order == "way":
        (way,) = (way for cell in made.exits.values() if (way := mazes.way(made, cell)) is not None)
        rest = [cell for cell in cells if cell not in way]
        cells = [*way, *rng.sample(rest, len(rest))]
    lines = _told(made, cells)
    return Scene(
        drawing=drawing,
        question=_EACH if view.style == "full" else _SHORT["doors"],
        answer={"cells": sorted(lines)},
        said="\n".join(lines),
    )


def _told(made: Maze, cells: list[Cell]) -> list[str]:
    """A line for each cell: row and column as a number of two digits, in which directions it is open, what it holds.

    The number is one token of the tiny model, which then need not put two coordinates together to look there.
    """
    held = {cell: [name] for name, cell in (("green", made.start), *made.exits.items())}
    return [" ".join([_number(cell), *mazes.open_moves(made.doors, cell), *held.get(cell, [])]) for cell in cells]


def _number(cell: Cell) -> str:
    return f"{cell[1] + 1}{cell[0] + 1}"


def _drawing(made: Maze, shown: int) -> dict[str, Any]:
    return {"size": list(mazes.picture_size(made, shown)), "maze": mazes.to_json(made)}


def _traced(made: Maze, way: list[Cell], shown: int, view: View, gold: _Gold, thoughts: list[str]) -> tuple[Asked, ...]:
    """The calls that draw the way, on the picture that the call before gave back."""
    size = mazes.picture_size(made, shown)
    pieces = mazes.strokes(way) if gold.line == "straight" else list(itertools.pairwise(way))
    lines: list[dict[str, Any]] = []
    for number, (start, end) in enumerate(pieces, 1):
        ends = [point_for(mazes.middle(made, shown, cell), view.convention, size) for cell in (start, end)]
        lines.append({"index": 1, "start_point_2d": ends[0], "end_point_2d": ends[1], "label": str(number)})
    step = gold.lines_per_call or len(lines)
    calls: list[Asked] = []
    for first in range(0, len(lines), step):
        start, end = (way.index(cell) for cell in (pieces[first][0], pieces[min(first + step, len(pieces)) - 1][1]))
        said = _DRAWING if gold.aloud == "nothing" else "\n".join(thoughts[start:end])
        calls.append(("path_tracer", {"items": lines[first : first + step]}, said))
    return tuple(calls)


_DRAWN = ("green", "red", "blue", "black")
"""Colours of the start and of what is drawn: no exit has them."""
