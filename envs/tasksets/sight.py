"""What a small model learns to see before it is taught a tool: one skill a task, a short answer.

read    characters in one of many typefaces      count   how many shapes
digit   a digit that somebody wrote by hand      where   in which corner, or the middle, a shape is
colour  of the only shape                        shape   its kind
page    many characters, line by line            find    the box around the only shape, which is small
                                                 box     around the one of the colour asked for

Boxes are [left, top, right, bottom] in pixels, and right where they share half of their union with the true one.

A model that knows nothing learns from a `page` many times faster than from a character: one picture says much.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from envs.env import Env
from envs.rewards import correct, has_answer
from envs.rubric import Rubric
from envs.scenes import shapes, sights
from envs.scenes.drawn import Scene, Split, Style, drawn_taskset, scenes, view_of
from envs.scenes.pens import COLOURS, UNMISTAKABLE, word
from envs.scenes.photos import photos_of
from envs.scoring import tagged
from envs.scoring.places import box_iou
from envs.task import Taskset
from envs.tasksets.visual_search import same_writing
from envs.trajectory import Trajectory
from tools.errors import ConfigError, nearest
from tools.record import record

ABOUT = "Look at the picture and answer in one word: <answer>...</answer>."
PLACES = ("upper left", "upper right", "middle", "lower left", "lower right")
_AT = {"upper left": (0, 0), "upper right": (2, 0), "middle": (1, 1), "lower left": (0, 2), "lower right": (2, 2)}


@record
class _Dials:
    edge: int
    letters: str
    lengths: tuple[int, int]
    most: int
    share: float
    """Of pictures on a photograph."""
    photos: tuple[str, ...]
    grid: tuple[int, int]
    freedom: float
    full: bool


def sight(
    split: Split = "train",
    n: int = 1000,
    seed: int = 0,
    skills: str = "read,digit,colour,shape,count,where",
    edge: int = 64,
    letters: str = UNMISTAKABLE,
    length: str = "1-2",
    most: int = 5,
    grid: str = "4",
    freedom: float = 1.0,
    on_photos: float = 0.5,
    photos: str = "skimage",
    style: Style = "short",
) -> Taskset:
    """One thing to see on one small picture.

    Args:
        split: `train`, `val` or `test`; they share no scene, no photograph and no written digit.
        n: How many tasks. The first tasks are the same for every `n`.
        seed: Another seed gives other scenes of the same split.
        skills: Which, with commas; one named twice comes twice as often. Each task draws one.
        edge: Width and height of the picture in pixels.
        letters: The characters that `read` shows.
        length: How many of them, as `1-2` or `3`.
        most: The largest number `count` asks for; the smallest is 1.
        grid: How many rows and columns a `page` has, as `1-3` or `4`.
        freedom: 1 for writing anywhere, of any size and tilt, in any typeface and ink; towards 0 it is more alike.
        on_photos: The share of pictures on a pale photograph; the others are white.
        photos: Which photographs, as `visual_search` takes them; `none` for white alone.
        style: `short` for a tiny model; `full` sentences.
    """
    asked = _asked(skills)
    dials = _dials(split, edge, letters, length, most, grid, freedom, on_photos, photos, style)
    stem = f"sight-{split}-{edge}-s{seed}"

    def one(rng: random.Random) -> Scene | None:
        return _SKILLS[rng.choice(asked)](rng, dials, split)

    return drawn_taskset(
        "sight",
        stem,
        scenes(f"{stem}-{skills}-{letters}-{length}-{most}-{grid}-{freedom}-{on_photos}-{photos}", split, n, one),
        draw=sights.draw,
        tools=lambda gallery: (),
        view=view_of(edge, style=style),
        about=ABOUT,
        rubric=Rubric(
            rewards={
                "correct": (correct(tagged, _same), 1.0),
                "has_answer": (has_answer(tagged), 0.0),
                "chance": (_chance, 0.0),
            }
        ),
    )


def _asked(skills: str) -> tuple[str, ...]:
    asked = tuple(name.strip() for name in skills.split(",") if name.strip())
    for name in asked or ("",):
        if name not in _SKILLS:
            raise ConfigError(f"skills has {name!r}; there are {', '.join(_SKILLS)}", hint=nearest(name, _SKILLS))
    return asked


def _dials(
    split: Split,
    edge: int,
    letters: str,
    length: str,
    most: int,
    grid: str,
    freedom: float,
    on_photos: float,
    photos: str,
    style: Style,
) -> _Dials:
    if not 32 <= edge <= 1024 or not 1 <= most <= 9 or not 0 <= on_photos <= 1 or not 0 <= freedom <= 1 or not letters:
        raise ConfigError(
            f"edge={edge}, most={most}, freedom={freedom}, on_photos={on_photos}, letters={letters!r} do not fit",
            hint="edge from 32 to 1024, most from 1 to 9, freedom and on_photos from 0 to 1, at least one letter",
        )
    return _Dials(
        edge=edge,
        letters=letters,
        lengths=_span("length", length),
        most=most,
        share=0.0 if photos == "none" else on_photos,
        photos=photos_of(photos, split) if on_photos else (),
        grid=_span("grid", grid),
        freedom=freedom,
        full=style == "full",
    )


def _same(given: str, expected: Any) -> bool:
    """Whether an answer is right: the same writing, or a box that shares half of its union with the true one.

    >>> _same("k7", "K7"), _same("[10, 10, 20, 20]", [10, 10, 20, 21]), _same("[0, 0, 9, 9]", [10, 10, 20, 20])
    (True, True, False)
    """
    if isinstance(expected, str):
        return same_writing(given, expected)
    sides = re.findall(r"\d+(?:\.\d+)?", given)
    return len(sides) == 4 and box_iou([float(side) for side in sides], expected) >= 0.5


async def _chance(env: Env, trajectory: Trajectory) -> float:
    """How often a guess among the possible answers is right: what accuracy stands beside."""
    return float(trajectory.task.info["chance"])


def _read(rng: random.Random, dials: _Dials, split: str) -> Scene:
    text = word(rng, dials.letters, rng.randint(*dials.lengths))
    writing = _writing(rng, dials, text, (dials.edge, dials.edge), 0.5, _typeface(rng, dials))
    return _scene(rng, dials, "read", "What is written?", text, 1 / len(dials.letters) ** len(text), writings=[writing])


def _page(rng: random.Random, dials: _Dials, split: str) -> Scene:
    columns, rows = rng.randint(*dials.grid), rng.randint(*dials.grid)
    text = word(rng, dials.letters, columns * rows)
    wide, high = dials.edge / columns, dials.edge / rows
    typeface = _typeface(rng, dials)
    writings = [
        _writing(rng, dials, text[at], (wide, high), 0.75, typeface, (at % columns * wide, at // columns * high))
        for at in range(len(text))
    ]
    return _scene(rng, dials, "page", "What is written?", text, 1 / len(dials.letters) ** len(text), writings=writings)


def _typeface(rng: random.Random, dials: _Dials) -> str:
    known = sights.typefaces()
    return known[rng.randrange(max(1, round(len(known) * dials.freedom)))]


def _writing(
    rng: random.Random,
    dials: _Dials,
    text: str,
    field: tuple[float, float],
    least: float,
    typeface: str,
    corner: tuple[float, float] = (0.0, 0.0),
) -> dict[str, Any]:
    """`text` in a field of the picture, from `least` of the largest size that fits to that size."""
    # Four fifths of the width at most, whatever the typeface; a capital is hardly wider than high.
    largest = min(field[1] * 0.6, field[0] * 0.8 / len(text))
    height = round((1 - (1 - least) * dials.freedom * rng.random()) * largest)
    extent = height * len(text) * 1.1, height * 1.2
    x, y = (
        start + side / 2 + dials.freedom * rng.uniform(-0.5, 0.5) * max(0.0, side - taken)
        for start, side, taken in zip(corner, field, extent, strict=True)
    )
    return {
        "text": text,
        "typeface": typeface,
        "height": height,
        "x": round(x),
        "y": round(y),
        "ink": [round(rng.randrange(100) * dials.freedom) for _ in range(3)],
        "turn": round(rng.randint(-8, 8) * dials.freedom),
    }


def _digit(rng: random.Random, dials: _Dials, split: str) -> Scene:
    digits = sights.written_digits()
    # Of ten that were written, seven are for training, one to validate, two to test.
    places = {"train": (0, 1, 2, 3, 4, 5, 6), "val": (7,), "test": (8, 9)}[split]
    number = rng.randrange(len(digits) // 10) * 10 + rng.choice(places)
    edge = round(dials.edge * (2 - dials.freedom * rng.random()) / 3)
    left, top = (round((dials.edge - edge) * (0.5 + dials.freedom * rng.uniform(-0.5, 0.5))) for _ in range(2))
    written = {"number": number, "left": left, "top": top, "edge": edge}
    return _scene(rng, dials, "digit", "Which digit is it?", str(digits[number][0]), 0.1, digit=written)


def _colour(rng: random.Random, dials: _Dials, split: str) -> Scene | None:
    one = _shapes(rng, dials, 1)
    return (
        None
        if one is None
        else _scene(rng, dials, "colour", "Which colour is it?", one[0].colour, 1 / len(COLOURS), one)
    )


def _shape(rng: random.Random, dials: _Dials, split: str) -> Scene | None:
    one = _shapes(rng, dials, 1)
    return (
        None
        if one is None
        else _scene(rng, dials, "shape", "Which shape is it?", one[0].kind, 1 / len(shapes.KINDS), one)
    )


def _count(rng: random.Random, dials: _Dials, split: str) -> Scene | None:
    many = _shapes(rng, dials, rng.randint(1, dials.most))
    return (
        None
        if many is None
        else _scene(rng, dials, "count", "How many shapes are there?", str(len(many)), 1 / dials.most, many)
    )


def _where(rng: random.Random, dials: _Dials, split: str) -> Scene:
    place = rng.choice(PLACES)
    third = dials.edge / 3
    r = rng.randint(max(3, round(third * 0.25)), round(third * 0.42))
    column, row = _AT[place]
    x, y = (round(third * at + rng.uniform(r + 1, third - r - 1)) for at in (column, row))
    one = shapes.Shape(kind=rng.choice(shapes.KINDS), colour=rng.choice(tuple(COLOURS)), x=x, y=y, r=r)
    return _scene(rng, dials, "where", "Where is it?", place, 1 / len(PLACES), (one,))


def _box(rng: random.Random, dials: _Dials, split: str) -> Scene | None:
    colours = rng.sample(tuple(COLOURS), rng.randint(1, 3))
    what = [(colour, rng.choice(shapes.KINDS)) for colour in colours]
    some = shapes.scatter(rng, what, (dials.edge, dials.edge), (3, round(dials.edge * (0.3 / len(what)))))
    if some is None:
        return None
    asked = some[0]
    question = f"Where is the {asked.colour} one?" if dials.full else f"{asked.colour} box?"
    return _scene(rng, dials, "box", question, list(asked.box), 0.0, some)


def _find(rng: random.Random, dials: _Dials, split: str) -> Scene | None:
    what = [(rng.choice(tuple(COLOURS)), rng.choice(shapes.KINDS))]
    one = shapes.scatter(rng, what, (dials.edge, dials.edge), (3, dials.edge // 8))
    return None if one is None else _scene(rng, dials, "find", "Where is it, as a box?", list(one[0].box), 0.0, one)


def _shapes(rng: random.Random, dials: _Dials, count: int) -> tuple[shapes.Shape, ...] | None:
    what = [(rng.choice(tuple(COLOURS)), rng.choice(shapes.KINDS)) for _ in range(count)]
    largest = round(dials.edge * (0.3 if count == 1 else 0.16))
    return shapes.scatter(rng, what, (dials.edge, dials.edge), (largest // 2, largest))


def _scene(
    rng: random.Random,
    dials: _Dials,
    skill: str,
    question: str,
    answer: str | list[int],
    chance: float,
    placed: Sequence[shapes.Shape] = (),
    **drawn: Any,
) -> Scene:
    ground: dict[str, Any] = {"photo": None}
    if rng.random() < dials.share:
        ground = {
            "photo": rng.choice(dials.photos),
            "part": [rng.randint(0, dials.edge * (shapes.PARTS - 1)) for _ in range(2)],
        }
    return Scene(
        drawing={"size": [dials.edge, dials.edge], **ground, "shapes": shapes.to_json(placed), **drawn},
        question=question if dials.full or skill == "box" else f"{skill}?",
        answer=answer,
        said=str(answer),
        info={"category": skill, "chance": chance},
    )


def _span(name: str, text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    if not (low.isdecimal() and (high or low).isdecimal() and 1 <= int(low) <= int(high or low) <= 8):
        raise ConfigError(f"{name} is {text!r}", hint="how many, from 1 to 8: 2, or 1-3")
    return int(low), int(high or low)


_SKILLS: Mapping[str, Callable[[random.Random, _Dials, str], Scene | None]] = {
    "read": _read,
    "digit": _digit,
    "colour": _colour,
    "shape": _shape,
    "count": _count,
    "where": _where,
    "page": _page,
    "find": _find,
    "box": _box,
}
