"""Maps of transit networks: lines of stations on a grid, with stations where lines meet."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from envs.scenes.pens import COLOURS, centred, font, place_name
from tools.record import record

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

Point: TypeAlias = tuple[int, int]

LINE_COLOURS = ("red", "blue", "green", "orange", "purple", "black", "pink", "yellow")


@record
class Network:
    """Lines and where their stations are."""

    lines: Mapping[str, tuple[str, ...]]
    """The stations of each line, in order."""
    at: Mapping[str, Point]
    """Where each station is: column and row of the grid."""
    grid: tuple[int, int]
    """Columns and rows."""


def make(rng: random.Random, lines: int, grid: tuple[int, int] = (7, 6), least: int = 3) -> Network:
    """A network of `lines` lines, each of at least `least` stations, that hangs together.

    Lines run from one side of the grid to the other, a step aside now and then; where two share a grid point they
    share a station.
    """
    while True:
        paths = [_path(rng, grid, across=index % 2 == 0) for index in range(lines)]
        points = sorted({point for path in paths for point in path})
        if _hang_together(paths) and len({tuple(path) for path in paths}) == lines and _differ(paths):
            break
    names: list[str] = []
    while len(names) < len(points):
        name = place_name(rng)
        if name not in names:
            names.append(name)
    called = dict(zip(points, names, strict=True))
    found = {f"Line {number}": tuple(called[point] for point in path) for number, path in enumerate(paths, 1)}
    assert all(len(stops) >= least for stops in found.values())
    return Network(lines=found, at={name: point for point, name in called.items()}, grid=grid)


def to_json(network: Network) -> dict[str, Any]:
    """A network as JSON values; `lines` is as ReasonMap's column `json`."""
    return {
        "lines": {line: list(stops) for line, stops in network.lines.items()},
        "at": {name: list(point) for name, point in network.at.items()},
        "grid": list(network.grid),
    }


def from_json(value: Mapping[str, Any]) -> Network:
    """What `to_json` wrote."""
    return Network(
        lines={line: tuple(stops) for line, stops in value["lines"].items()},
        at={name: (point[0], point[1]) for name, point in value["at"].items()},
        grid=(value["grid"][0], value["grid"][1]),
    )


def where(network: Network, station: str, size: tuple[int, int]) -> Point:
    """The middle of a station in pixels of the picture."""
    column, row = network.at[station]
    columns, rows = network.grid
    return round((column + 0.5) * size[0] / columns), round((row + 0.6) * size[1] / (rows + 0.5))


def badge_box(network: Network, line: str, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the badge with a line's number, in the legend on top."""
    index, step = list(network.lines).index(line), size[0] / len(network.lines)
    letters = _letters(network, size)
    left = round(index * step + step * 0.1)
    return left, round(letters * 0.3), round(left + letters * 3.4), round(letters * 1.7)


def draw(network: Network, size: tuple[int, int]) -> PILImage:
    """The map, on white: lines in their colours, stations as rings with their names below, a legend on top."""
    import PIL.Image
    import PIL.ImageDraw

    picture = PIL.Image.new("RGB", size, "white")
    pen = PIL.ImageDraw.Draw(picture)
    letters = font(_letters(network, size))
    thick = max(2, min(size) // 100)
    for index, (line, stops) in enumerate(network.lines.items()):
        colour = COLOURS[LINE_COLOURS[index]]
        aside = (index - len(network.lines) / 2) * thick * 0.5  # lines that share a stretch lie beside each other
        points = [(x + aside, y + aside) for x, y in (where(network, stop, size) for stop in stops)]
        pen.line(points, fill=colour, width=thick, joint="curve")
        box = badge_box(network, line, size)
        pen.rectangle(box, fill=colour)
        fill = "black" if LINE_COLOURS[index] in ("yellow", "pink", "orange") else "white"
        centred(pen, ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), line, letters, fill)
    for station in network.at:
        x, y = where(network, station, size)
        r = thick * 1.3
        pen.ellipse((x - r, y - r, x + r, y + r), fill="white", outline="black", width=max(1, thick // 3))
        centred(pen, (x, y + r + _letters(network, size) * 0.75), station, letters, "black", halo=max(1, thick // 3))
    return picture


def _letters(network: Network, size: tuple[int, int]) -> int:
    """The size of the font: the longest name must fit between two columns."""
    longest = max(map(len, network.at))
    return max(8, round(min(size[0] / network.grid[0] / (longest * 0.6), size[1] / network.grid[1] / 4)))


def _path(rng: random.Random, grid: tuple[int, int], across: bool) -> list[Point]:
    """A way through the grid, across it or down it, one step ahead each time and aside in a third of the steps."""
    columns, rows = grid if across else grid[::-1]
    side = rng.randrange(rows)
    found: list[Point] = []
    for ahead in range(columns):
        if ahead and rng.random() < 1 / 3:
            side = min(rows - 1, max(0, side + rng.choice((-1, 1))))
        found.append((ahead, side) if across else (side, ahead))
    return found


def _hang_together(paths: list[list[Point]]) -> bool:
    joined, left = set(paths[0]), [set(path) for path in paths[1:]]
    while left:
        near = [path for path in left if path & joined]
        if not near:
            return False
        joined |= set().union(*near)
        left = [path for path in left if path not in near]
    return True


def _differ(paths: list[list[Point]]) -> bool:
    """Whether no two lines share more than two stations: on a map such lines could not be told apart."""
    sets = [set(path) for path in paths]
    return all(len(a & b) <= 2 for i, a in enumerate(sets) for b in sets[:i])
