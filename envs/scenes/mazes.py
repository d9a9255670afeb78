"""Mazes on a grid: making them, walking them, drawing them."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from envs.scenes.pens import COLOURS, centred, font_for_capitals
from tools.record import record

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

Cell: TypeAlias = tuple[int, int]
"""Column and row, from 0, the first row on top."""

MOVES: Mapping[str, Cell] = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1)}
_READ = {**{name: name for name in MOVES}, **{name[0]: name for name in MOVES}}


@record
class Maze:
    """A grid of cells, some neighbours joined by a door."""

    columns: int
    rows: int
    doors: frozenset[tuple[Cell, Cell]]
    """Both ways each."""
    start: Cell
    exits: Mapping[str, Cell]
    """What each is called on the picture, and where it is."""


def make(rng: random.Random, columns: int, rows: int, marks: Sequence[str], *, corridors: bool = False) -> Maze:
    """A maze in `len(marks)` parts without a way between them, an exit in each, and the start in one of them.

    With one mark any two cells are joined by exactly one way. The exit of the start's part is as far from the start as
    any cell of it, and each part has at least half its share of the cells. With `corridors` no way forks: each exit is
    at an end of its part, and the start at the other end of one.
    """
    cells = [(column, row) for row in range(rows) for column in range(columns)]
    least = len(cells) // (2 * len(marks))
    while True:
        doors = _tree(rng, columns, rows)
        for door in rng.sample(sorted(doors), len(marks) - 1):
            doors.discard(door)
        open_to = Counter(itertools.chain.from_iterable(doors))
        if corridors and max(open_to.values()) > 2:
            continue
        ends = [cell for cell in cells if open_to[cell] < 2]
        both = frozenset(doors | {(b, a) for a, b in doors})
        start = rng.choice(ends if corridors else cells)
        parts = [_reached(both, start)]
        while left := [cell for cell in cells if not any(cell in part for part in parts)]:
            parts.append(_reached(both, left[0]))
        if min(map(len, parts)) >= max(2, least):
            break
    others = (sorted(cell for cell in part if cell in ends or not corridors) for part in parts[1:])
    reached = [_farthest(parts[0]), *map(rng.choice, others)]
    called = rng.sample(list(marks), len(marks))
    exits = dict(sorted(zip(called, reached, strict=True)))
    return Maze(columns=columns, rows=rows, doors=both, start=start, exits=exits)


def cells_of(maze: Maze) -> list[Cell]:
    """Every cell, line by line."""
    return [(column, row) for row in range(maze.rows) for column in range(maze.columns)]


def open_moves(doors: frozenset[tuple[Cell, Cell]], cell: Cell) -> list[str]:
    """The directions in which one can leave a cell, in the order of `MOVES`.

    >>> open_moves(frozenset({((0, 0), (1, 0)), ((1, 0), (0, 0))}), (1, 0))
    ['left']
    """
    return [name for name, (x, y) in MOVES.items() if (cell, (cell[0] + x, cell[1] + y)) in doors]


def way(maze: Maze, end: Cell) -> list[Cell] | None:
    """The cells from the start to `end`, both included; None where no way leads there."""
    came = _reached(maze.doors, maze.start)
    if end not in came:
        return None
    cells = [end]
    while cells[-1] != maze.start:
        cells.append(came[cells[-1]][1])
    return cells[::-1]


def moves_of(cells: Sequence[Cell]) -> list[str]:
    """The direction of each step.

    >>> moves_of([(0, 0), (1, 0), (1, 1)])
    ['right', 'down']
    """
    names = {step: name for name, step in MOVES.items()}
    return [names[(b[0] - a[0], b[1] - a[1])] for a, b in itertools.pairwise(cells)]


def read_moves(text: str) -> list[str] | None:
    """Directions as words or first letters, with commas or spaces between; None for anything else.

    >>> read_moves("Right, down D"), read_moves("right 2")
    (['right', 'down', 'down'], None)
    """
    words = [part for part in re.split(r"[\s,;>-]+", text.strip().lower().rstrip(".")) if part]
    found = [_READ.get(one) for one in words]
    return [one for one in found if one is not None] if found and None not in found else None


def walk(maze: Maze, moves: Sequence[str]) -> Cell | None:
    """Where `moves` lead from the start; None where one runs into a wall."""
    at = maze.start
    for move in moves:
        step = MOVES[move]
        there = (at[0] + step[0], at[1] + step[1])
        if (at, there) not in maze.doors:
            return None
        at = there
    return at


def strokes(cells: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
    """The straight pieces of a way.

    >>> strokes([(0, 0), (1, 0), (2, 0), (2, 1)])
    [((0, 0), (2, 0)), ((2, 0), (2, 1))]
    """
    corners = [
        cells[index]
        for index in range(1, len(cells) - 1)
        if moves_of(cells[index - 1 : index + 1]) != moves_of(cells[index : index + 2])
    ]
    ends = [cells[0], *corners, cells[-1]]
    return list(itertools.pairwise(ends))


def joined(maze: Maze, lines: Iterable[tuple[Cell, Cell]]) -> bool:
    """Whether straight lines, in any order, lead from the start to an exit, and none of them through a wall.

    >>> way = frozenset({((0, 0), (1, 0)), ((1, 0), (0, 0))})
    >>> maze = Maze(columns=3, rows=1, doors=way, start=(0, 0), exits={"A": (1, 0)})
    >>> joined(maze, [((1, 0), (0, 0))]), joined(maze, []), joined(maze, [((0, 0), (2, 0))])
    (True, False, False)
    """
    found: set[tuple[Cell, Cell]] = set()
    for (x, y), end in lines:
        step = (end[0] > x) - (end[0] < x), (end[1] > y) - (end[1] < y)
        if step not in MOVES.values():
            return False
        while (x, y) != end:
            there = (x + step[0], y + step[1])
            if ((x, y), there) not in maze.doors:
                return False
            found |= {((x, y), there), (there, (x, y))}
            x, y = there
    return any(cell in _reached(frozenset(found), maze.start) for cell in maze.exits.values())


def to_json(maze: Maze) -> dict[str, Any]:
    """A maze as JSON values: each cell's doors to the right and down as digits, a row of them after the other."""

    def digit(cell: Cell) -> str:
        column, row = cell
        return str(((cell, (column + 1, row)) in maze.doors) + 2 * ((cell, (column, row + 1)) in maze.doors))

    doors = ["".join(digit((column, row)) for column in range(maze.columns)) for row in range(maze.rows)]
    return {"doors": doors, "start": list(maze.start), "exits": {name: list(cell) for name, cell in maze.exits.items()}}


def from_json(value: Mapping[str, Any]) -> Maze:
    """What `to_json` wrote."""
    doors: set[tuple[Cell, Cell]] = set()
    for row, line in enumerate(value["doors"]):
        for column, digit in enumerate(line):
            for bit, there in ((1, (column + 1, row)), (2, (column, row + 1))):
                if int(digit) & bit:
                    doors |= {((column, row), there), (there, (column, row))}
    return Maze(
        columns=len(value["doors"][0]),
        rows=len(value["doors"]),
        doors=frozenset(doors),
        start=(value["start"][0], value["start"][1]),
        exits={name: (cell[0], cell[1]) for name, cell in value["exits"].items()},
    )


def middle(maze: Maze, size: int, cell: Cell) -> tuple[int, int]:
    """The middle of a cell in pixels of the picture `draw` makes."""
    side = _side(maze, size)
    return round((cell[0] + 0.5) * side), round((cell[1] + 0.5) * side)


def cell_at(maze: Maze, size: int, point: tuple[float, float]) -> Cell:
    """The cell in which a point of the picture lies, in pixels."""
    side = _side(maze, size)
    return min(int(point[0] / side), maze.columns - 1), min(int(point[1] / side), maze.rows - 1)


def picture_size(maze: Maze, size: int) -> tuple[int, int]:
    """Width and height of the picture whose longer side is `size`."""
    side = _side(maze, size)
    return round(maze.columns * side), round(maze.rows * side)


def draw(maze: Maze, size: int) -> PILImage:
    """The maze: grey walls on white, a green disc at the start, each exit its letter, or a square of its colour."""
    import PIL.Image
    import PIL.ImageDraw

    side, wall = _side(maze, size), max(1, round(_side(maze, size) / 8))
    width, height = picture_size(maze, size)
    picture = PIL.Image.new("RGB", (width, height), "white")
    pen = PIL.ImageDraw.Draw(picture)
    half = (wall - 1) / 2
    for row in range(maze.rows):
        for column in range(maze.columns):
            left, top = column * side, row * side
            right, bottom = left + side, top + side
            if column + 1 < maze.columns and ((column, row), (column + 1, row)) not in maze.doors:
                pen.rectangle((right - half - 0.5, top - half, right + half, bottom + half), fill=_WALL)
            if row + 1 < maze.rows and ((column, row), (column, row + 1)) not in maze.doors:
                pen.rectangle((left - half, bottom - half - 0.5, right + half, bottom + half), fill=_WALL)
    pen.rectangle((0, 0, width - 1, height - 1), outline=_WALL, width=wall)
    x, y = middle(maze, size, maze.start)
    pen.ellipse((x - side / 5, y - side / 5, x + side / 5, y + side / 5), fill=COLOURS["green"])
    for name, cell in maze.exits.items():
        x, y = middle(maze, size, cell)
        if name in COLOURS:
            half = side * 0.36  # the dot of a pen that is put there must not hide the colour
            pen.rectangle((x - half, y - half, x + half, y + half), fill=COLOURS[name])
        else:
            centred(pen, (x, y), name, font_for_capitals(side * 0.45), COLOURS["red"])
    return picture


_WALL = (125, 125, 140)


def _side(maze: Maze, size: int) -> float:
    return size / max(maze.columns, maze.rows)


def _tree(rng: random.Random, columns: int, rows: int) -> set[tuple[Cell, Cell]]:
    """Doors, one way each, that join all cells by exactly one way: a depth-first walk, which makes long corridors."""
    at = (rng.randrange(columns), rng.randrange(rows))
    path, seen = [at], {at}
    doors: set[tuple[Cell, Cell]] = set()
    while path:
        column, row = path[-1]
        around = [(column + x, row + y) for x, y in MOVES.values()]
        free = [cell for cell in around if 0 <= cell[0] < columns and 0 <= cell[1] < rows and cell not in seen]
        if not free:
            path.pop()
            continue
        there = rng.choice(free)
        doors.add((path[-1], there))
        seen.add(there)
        path.append(there)
    return doors


def _reached(doors: frozenset[tuple[Cell, Cell]], start: Cell) -> dict[Cell, tuple[int, Cell]]:
    """Every cell that can be reached: how far it is, and the cell before it."""
    found = {start: (0, start)}
    waiting = deque([start])
    while waiting:
        cell = waiting.popleft()
        for x, y in MOVES.values():
            there = (cell[0] + x, cell[1] + y)
            if (cell, there) in doors and there not in found:
                found[there] = (found[cell][0] + 1, cell)
                waiting.append(there)
    return found


def _farthest(part: Mapping[Cell, tuple[int, Cell]]) -> Cell:
    return max(sorted(part), key=lambda cell: part[cell][0])
