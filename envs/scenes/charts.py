"""Bar and line charts whose every element stands where it is known to stand."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from envs.scenes.pens import COLOURS, centred, font
from tools.record import record

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

Kind: TypeAlias = Literal["bars", "lines"]
Point: TypeAlias = tuple[float, float]


@record
class Chart:
    """What is drawn: one value for each label."""

    kind: Kind
    labels: tuple[str, ...]
    values: tuple[int, ...]
    top: int
    """Where the axis of values ends; it begins at 0."""
    tick: int
    """A number is written at every multiple of it."""
    size: tuple[int, int]
    """Width and height in pixels."""
    colour: str


def make(rng: random.Random, kind: Kind, labels: Sequence[str], most: int, tick: int, size: tuple[int, int]) -> Chart:
    """A chart of values between 1 and `most`; the highest and the lowest are each higher and lower than any other."""
    while True:
        values = [rng.randint(1, most) for _ in labels]
        if values.count(max(values)) == values.count(min(values)) == 1:
            break
    top = -(-most // tick) * tick
    colour = rng.choice([name for name in COLOURS if name not in ("red", "black", "yellow")])
    return Chart(kind=kind, labels=tuple(labels), values=tuple(values), top=top, tick=tick, size=size, colour=colour)


def to_json(chart: Chart) -> dict[str, Any]:
    """A chart as JSON values."""
    return {
        "kind": chart.kind,
        "labels": list(chart.labels),
        "values": list(chart.values),
        "top": chart.top,
        "tick": chart.tick,
        "size": list(chart.size),
        "colour": chart.colour,
    }


def from_json(value: Mapping[str, Any]) -> Chart:
    """What `to_json` wrote."""
    return Chart(
        kind=value["kind"],
        labels=tuple(value["labels"]),
        values=tuple(value["values"]),
        top=value["top"],
        tick=value["tick"],
        size=(value["size"][0], value["size"][1]),
        colour=value["colour"],
    )


def plot_box(chart: Chart) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the area of the data, in pixels."""
    width, height = chart.size
    letters = _letters(chart)
    return letters * 2.2, letters, width - letters * 0.6, height - letters * 1.8


def height_of(chart: Chart, value: float) -> float:
    """Where a value lies, in pixels from the top of the picture."""
    _, top, _, bottom = plot_box(chart)
    return bottom - (bottom - top) * value / chart.top


def point_of(chart: Chart, index: int) -> Point:
    """The middle of a bar's upper edge, or a line's point, in pixels."""
    left, _, right, _ = plot_box(chart)
    step = (right - left) / len(chart.labels)
    return left + (index + 0.5) * step, height_of(chart, chart.values[index])


def bar_box(chart: Chart, index: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a bar, in pixels."""
    left, _, right, bottom = plot_box(chart)
    half = (right - left) / len(chart.labels) * 0.35
    x, y = point_of(chart, index)
    return x - half, y, x + half, bottom


def unit(chart: Chart, point: Point) -> Point:
    """A point of the picture in parts of its width and height, to 3 places."""
    return round(point[0] / chart.size[0], 3), round(point[1] / chart.size[1], 3)


def draw(chart: Chart) -> PILImage:
    """The chart, on white."""
    import PIL.Image
    import PIL.ImageDraw

    picture = PIL.Image.new("RGB", chart.size, "white")
    pen = PIL.ImageDraw.Draw(picture)
    left, top, right, bottom = plot_box(chart)
    letters = font(_letters(chart))
    line = max(1, min(chart.size) // 200)
    for value in range(0, chart.top + 1, chart.tick):
        y = height_of(chart, value)
        pen.line((left - 3 * line, y, left, y), fill="black", width=line)
        centred(pen, (left / 2 - line, y), str(value), letters, "black")
    fill = COLOURS[chart.colour]
    points = [point_of(chart, index) for index in range(len(chart.labels))]
    if chart.kind == "lines":
        pen.line(points, fill=fill, width=2 * line)
        for x, y in points:
            pen.ellipse((x - 3 * line, y - 3 * line, x + 3 * line, y + 3 * line), fill=fill)
    else:
        for index in range(len(chart.labels)):
            pen.rectangle(bar_box(chart, index), fill=fill)
    pen.line(((left, top), (left, bottom), (right, bottom)), fill="black", width=line)
    for label, (x, _) in zip(chart.labels, points, strict=True):
        centred(pen, (x, (bottom + chart.size[1]) / 2), label, letters, "black")
    return picture


def _letters(chart: Chart) -> int:
    """The size of the font: a label must fit under its bar."""
    width, height = chart.size
    longest = max(map(len, chart.labels))
    return max(8, round(min(height / 14, width * 0.85 / (len(chart.labels) * max(longest, 2) * 0.62))))
