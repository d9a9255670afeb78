"""Sketches by script, as ChartSketcher (arXiv 2505.19076) draws: one command on each line, coordinates from 0 to 1.

    create_line top 0.1 0.4 0.9 0.4 red
    translate top 0 0.05

All commands of the episode are played again on the untouched image each time, so a sketch is what its script says.
The library's own rules hold: a radius is a share of the shorter side; `rotate` turns by degrees, clockwise as seen, in
the coordinates from 0 to 1; a turned rectangle is the upright one around its two turned corners; creating an id again
replaces it in its place; each shape has a border that contrasts with its colour. Other than in the library, a script
with a command that cannot be carried out draws nothing and says which, and no colour is chosen at random.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias, final

from tools.errors import nearest
from tools.image.coordinates import Point, Size, to_pixels
from tools.image.describe import described
from tools.image.drawing import Arrow, Circle, Dot, Line, Op, Rectangle, colour_problem, drawn, is_bright
from tools.image.gallery import Gallery
from tools.image.memory import off_loop
from tools.record import record
from tools.tool import Tool, ToolError, ToolResult

MOST_COMMANDS = 500
"""Of one episode: every one of them is played again at each call."""

Kind: TypeAlias = Literal["point", "line", "circle", "rectangle", "arrow"]

_CREATE: Mapping[str, tuple[Kind, int]] = MappingProxyType(
    {
        "create_point": ("point", 2),
        "create_line": ("line", 4),
        "create_circle": ("circle", 3),
        "create_rectangle": ("rectangle", 4),
        "create_arrow": ("arrow", 4),
    }
)
_CHANGE: Mapping[str, int] = MappingProxyType({"translate": 2, "rotate": 3, "delete": 0})
_FORMS = (
    "create_point id x y [color]; create_line, create_rectangle or create_arrow id x1 y1 x2 y2 [color]; "
    "create_circle id cx cy r [color]; translate id dx dy; rotate id angle cx cy; delete id"
)
_FAR = 100.0
"""Shapes that are moved again and again stay within so many sides of the picture."""


@record
class Command:
    """One line of a script, read."""

    verb: str
    id: str
    numbers: tuple[float, ...] = ()
    colour: str = "black"


@record
class Entity:
    """A shape that commands made; coordinates from 0 to 1."""

    kind: Kind
    points: tuple[Point, ...]
    radius: float = 0.0
    colour: str = "black"


Scene: TypeAlias = Mapping[str, Entity]


@final
class Sketch:
    """The script of one episode and what it draws on one image."""

    def __init__(self, gallery: Gallery, index: int = 1) -> None:
        self.gallery = gallery
        self.index = index
        self.commands: tuple[Command, ...] = ()

    @property
    def tool(self) -> Tool:
        """`sketch(script)`."""

        async def sketch(script: str) -> ToolResult:
            return await off_loop(lambda: self.draw(script))

        return described(
            sketch,
            "sketch",
            f"Sketch on the image. One command on each line, coordinates from 0 to 1: {_FORMS}. Earlier commands stay.",
            {"script": "The commands, one on each line."},
            self.gallery.slots(),
        )

    def draw(self, script: str) -> ToolResult:
        """Play all commands so far and those of `script`. Raises `ToolError` that names the line, and draws nothing."""
        commands = self.commands + parsed(script, len(self.commands))
        scene = played(commands)
        base = self.gallery.shown_pixels(self.index)
        made = self.gallery.add_all([drawn(base, scene_ops(scene, base.size))])
        self.commands = commands
        return self.gallery.result(*made, data={"of": self.index, "entities": list(scene)})


def parsed(script: str, before: int = 0) -> tuple[Command, ...]:
    """The commands of a script, `before` others having been given in the episode. Raises `ToolError`.

    >>> parsed("create_circle c 0.5 0.5 0.1 red")
    (Command(verb='create_circle', id='c', numbers=(0.5, 0.5, 0.1), colour='red'),)
    """
    lines = [(number, words) for number, line in enumerate(script.splitlines(), 1) if (words := line.split())]
    if not lines:
        raise ToolError(f"The script holds no command. Commands: {_FORMS}.")
    if before + len(lines) > MOST_COMMANDS:
        raise ToolError(
            f"The script has {len(lines)} commands after {before} earlier ones; at most {MOST_COMMANDS} are played. "
            "Nothing was drawn."
        )
    return tuple(_command(number, words) for number, words in lines)


def played(commands: Iterable[Command], scene: Scene | None = None) -> Scene:
    """The shapes there are after `commands`. Raises `ToolError` for an id that there is not."""
    entities = dict(scene or {})
    for command in commands:
        if command.verb in _CREATE:
            entities[command.id] = _created(command)
        elif command.id not in entities:
            raise ToolError(
                f"{command.verb} {command.id}: there is no shape {command.id!r} ({nearest(command.id, entities)}). "
                "Nothing was drawn."
            )
        elif command.verb == "delete":
            del entities[command.id]
        else:
            entities[command.id] = _moved(entities[command.id], command)
    return entities


def scene_ops(scene: Scene, size: Size) -> tuple[Op, ...]:
    """What draws the scene on a picture of `size`: each shape's border, then the shape."""
    return tuple(op for entity in scene.values() for op in _ops(entity, size))


def _command(number: int, words: list[str]) -> Command:
    verb, rest = words[0], words[1:]
    if verb not in _CREATE and verb not in _CHANGE:
        said = verb[:40]
        raise ToolError(f"Line {number}: there is no command {said!r}. Commands: {_FORMS}. Nothing was drawn.")
    count = _CREATE[verb][1] if verb in _CREATE else _CHANGE[verb]
    most = count + 1 + (verb in _CREATE)
    if not count + 1 <= len(rest) <= most:
        raise ToolError(
            f"Line {number}: {verb} takes an id and {count} numbers{' and perhaps a color' * (verb in _CREATE)}; "
            f"{len(rest)} words follow it. Nothing was drawn."
        )
    numbers = tuple(_number(number, verb, place, word) for place, word in enumerate(rest[1 : count + 1]))
    colour = rest[count + 1] if len(rest) > count + 1 else "black"
    if problem := colour_problem(colour):
        raise ToolError(f"Line {number}: {problem}. Nothing was drawn.")
    return Command(verb=verb, id=rest[0][:40], numbers=numbers, colour=colour)


def _number(line: int, verb: str, place: int, word: str) -> float:
    low, high = _range(verb, place)
    try:
        value = float(word)
    except ValueError:
        raise ToolError(f"Line {line}: {word[:40]!r} is no number. Nothing was drawn.") from None
    if not low <= value <= high:
        raise ToolError(
            f"Line {line}: {word[:40]} is out of range; this number of {verb} goes from {low:g} to {high:g}, "
            f"{'in degrees' if verb == 'rotate' and place == 0 else 'as shares of the image'}. Nothing was drawn."
        )
    return value


def _range(verb: str, place: int) -> tuple[float, float]:
    if verb == "rotate" and place == 0:
        return -360, 360
    return (-1, 1) if verb == "translate" else (0, 1)


def _created(command: Command) -> Entity:
    kind, numbers = _CREATE[command.verb][0], command.numbers
    if kind == "circle":
        return Entity(kind=kind, points=((numbers[0], numbers[1]),), radius=numbers[2], colour=command.colour)
    points = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    return Entity(kind=kind, points=points, colour=command.colour)


def _moved(entity: Entity, command: Command) -> Entity:
    if command.verb == "translate":
        dx, dy = command.numbers
        points = tuple((x + dx, y + dy) for x, y in entity.points)
    else:
        angle, cx, cy = command.numbers
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        points = tuple(
            (cx + cos * (x - cx) - sin * (y - cy), cy + sin * (x - cx) + cos * (y - cy)) for x, y in entity.points
        )
    near = tuple((min(max(x, -_FAR), _FAR), min(max(y, -_FAR), _FAR)) for x, y in points)
    return Entity(kind=entity.kind, points=near, radius=entity.radius, colour=entity.colour)


def _ops(entity: Entity, size: Size) -> tuple[Op, ...]:
    """Lines are 0.5 % of the shorter side wide and their borders 0.9 %; points 2 % and 2.6 % in radius."""
    side = min(size)
    edge = "black" if is_bright(entity.colour) else "lightgray"
    points = [to_pixels(point, "unit", size) for point in entity.points]
    made: list[Op] = []
    for colour, line, dot in ((edge, 0.009, 0.026), (entity.colour, 0.005, 0.02)):
        width = max(1, int(side * line))
        match entity.kind:
            case "point":
                made.append(Dot(at=points[0], radius=max(3, int(side * dot)), colour=colour))
            case "line":
                made.append(Line(start=points[0], end=points[1], colour=colour, width=width))
            case "arrow":
                made.append(Arrow(start=points[0], end=points[1], colour=colour, width=width))
            case "circle":
                made.append(Circle(at=points[0], radius=int(entity.radius * side), colour=colour, width=width))
            case "rectangle":
                (x1, y1), (x2, y2) = points
                box = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
                made.append(Rectangle(box=box, colour=colour, width=width))
    return tuple(made)
