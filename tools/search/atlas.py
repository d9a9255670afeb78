"""Maps of a part of the earth, drawn from the outlines of countries as TopoJSON keeps them.

The offline world has Natural Earth's (public domain), out of the npm package world-atlas.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, final

from tools.errors import ConfigError
from tools.record import record

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from PIL.ImageDraw import ImageDraw

Point: TypeAlias = tuple[float, float]
"""Degrees: latitude, longitude; north and east are positive."""

SEA, LAND, BORDER, GRID, MARK, INK = "#d6e6f2", "#f4efdf", "#8c7b64", "#b7c8d6", "#c81e1e", "#1f2d3a"


@record
class Ring:
    """One closed line around land."""

    points: tuple[tuple[float, float], ...]
    """Degrees: longitude, latitude."""
    box: tuple[float, float, float, float]
    """West, south, east, north."""


@final
class Atlas:
    """The outlines of all countries. Raises `ConfigError` where the file does not hold them."""

    def __init__(self, path: Path) -> None:
        try:
            topology: dict[str, Any] = json.loads(path.read_bytes())
            self.rings = tuple(_rings(topology))
        except OSError as error:
            raise ConfigError(
                f"there are no outlines of countries at {path}", hint="build them: python -m tools.search world"
            ) from error
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ConfigError(f"{path} is not TopoJSON with the outlines of countries: {error!r}") from error

    def drawn(self, centre: Point, mark: Point, *, size: tuple[int, int] = (480, 360), span: float = 16.0) -> PILImage:
        """A map of `span` degrees from north to south, with a labelled grid and a cross at `mark`.

        Longitudes are narrowed by the cosine of the centre's latitude (equirectangular projection), so that shapes
        near the centre are true.
        """
        import PIL.Image
        import PIL.ImageDraw

        view = _View(centre, size, span)
        picture = PIL.Image.new("RGB", size, SEA)
        pen = PIL.ImageDraw.Draw(picture)
        for ring in self.rings:
            for shift in view.shifts(ring.box):
                pen.polygon([view.at(lat, lon + shift) for lon, lat in ring.points], fill=LAND, outline=BORDER)
        _draw_grid(pen, view)
        x, y = view.at(mark[0], view.near(mark[1]))
        for dx, dy in ((9, 9), (9, -9)):
            pen.line((x - dx, y - dy, x + dx, y + dy), fill=MARK, width=4)
        return picture


@final
class _View:
    """From degrees to the pixels of one map."""

    def __init__(self, centre: Point, size: tuple[int, int], span: float) -> None:
        self.lat, self.lon = centre
        self.size, self.scale = size, size[1] / span
        self.narrow = max(0.2, math.cos(math.radians(self.lat)))
        across = size[0] / self.scale / self.narrow
        self.west, self.east = self.lon - across / 2, self.lon + across / 2
        self.south, self.north = self.lat - span / 2, self.lat + span / 2

    def at(self, lat: float, lon: float) -> tuple[float, float]:
        x = self.size[0] / 2 + (lon - self.lon) * self.narrow * self.scale
        return x, self.size[1] / 2 - (lat - self.lat) * self.scale

    def near(self, lon: float) -> float:
        """The same meridian, within half a turn of the centre."""
        return self.lon + (lon - self.lon + 180) % 360 - 180

    def shifts(self, box: tuple[float, float, float, float]) -> Iterator[float]:
        """By how many degrees a ring is turned to be seen: the map may reach over the date line."""
        west, south, east, north = box
        if south <= self.north and north >= self.south:
            yield from (turn for turn in (-360.0, 0.0, 360.0) if west + turn <= self.east and east + turn >= self.west)


def _draw_grid(pen: ImageDraw, view: _View) -> None:
    """Meridians and parallels every two degrees or more, each with its name at the edge."""
    across = next(step for step in (2, 5, 10, 20, 30, 60) if (view.east - view.west) / step <= 12)
    for lon in _multiples(view.west, view.east, across):
        x, _ = view.at(view.lat, lon)
        pen.line((x, 0, x, view.size[1]), fill=GRID)
        pen.text((x + 2, view.size[1] - 13), _named((lon + 180) % 360 - 180, "E", "W"), fill=INK)
    for lat in _multiples(max(view.south, -90), min(view.north, 90), 2):
        _, y = view.at(lat, view.lon)
        pen.line((0, y, view.size[0], y), fill=GRID)
        pen.text((2, y - 12), _named(lat, "N", "S"), fill=INK)


def _multiples(low: float, high: float, step: int) -> Iterator[int]:
    return iter(range(math.ceil(low / step) * step, math.floor(high / step) * step + 1, step))


def _named(degrees: float, positive: str, negative: str) -> str:
    return f"{abs(degrees):g}" + ("" if degrees % 180 == 0 else positive if degrees > 0 else negative)


def _rings(topology: dict[str, Any]) -> Iterator[Ring]:
    """The rings of every country; one inside a country is another country, and land too.

    Of TopoJSON (its specification, 2.1): arcs are lines that neighbours share, their points differences in whole steps
    of `transform`; a ring names its arcs, and `~n` is arc `n` backwards.
    """
    (step_x, step_y), (left, low) = topology["transform"]["scale"], topology["transform"]["translate"]
    arcs: list[list[tuple[float, float]]] = []
    for arc in topology["arcs"]:
        xs, ys = accumulate(point[0] for point in arc), accumulate(point[1] for point in arc)
        arcs.append([(left + x * step_x, low + y * step_y) for x, y in zip(xs, ys, strict=True)])
    for country in topology["objects"]["countries"]["geometries"]:
        shapes: list[Any] = [country["arcs"]] if country["type"] == "Polygon" else country.get("arcs", [])
        yield from (_ring(ring, arcs) for shape in shapes for ring in shape)


def _ring(numbers: Sequence[int], arcs: Sequence[list[tuple[float, float]]]) -> Ring:
    points: list[tuple[float, float]] = []
    for number in numbers:
        line = arcs[number] if number >= 0 else arcs[~number][::-1]
        points.extend(line[1:] if points else line)
    points = _unrolled(points)
    lons, lats = [lon for lon, _ in points], [lat for _, lat in points]
    return Ring(points=tuple(points), box=(min(lons), min(lats), max(lons), max(lats)))


def _unrolled(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without jumps at the date line: longitudes run on beyond 180. What goes round the pole is closed over it."""
    turn, before, out = 0.0, points[0][0], list[tuple[float, float]]()
    for lon, lat in points:
        turn += -360.0 if lon - before > 180 else 360.0 if before - lon > 180 else 0.0
        before = lon
        out.append((lon + turn, lat))
    if turn:
        pole = math.copysign(90.0, out[0][1])
        out += [(out[-1][0], pole), (out[0][0], pole)]
    return out
