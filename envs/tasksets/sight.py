"""What a small model learns to see before it is taught a tool: one skill a task, one word an answer.

read    characters in one of many typefaces      count   how many shapes
digit   a digit that somebody wrote by hand      where   in which corner, or the middle, a shape is
colour  of the only shape                        shape   its kind
"""

from __future__ import annotations

import random
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
    on_photos: float = 0.5,
    photos: str = "skimage",
    style: Style = "short",
) -> Taskset:
    """One thing to see on one small picture.

    Args:
        split: `train`, `val` or `test`; they share no scene, no photograph and no written digit.
        n: How many tasks. The first tasks are the same for every `n`.
        seed: Another seed gives other scenes of the same split.
        skills: Which, with commas; one named twice comes twice as often. Tasks take them in turn.
        edge: Width and height of the picture in pixels.
        letters: The characters that `read` shows.
        length: How many of them, as `1-2` or `3`.
        most: The largest number `count` asks for; the smallest is 1.
        on_photos: The share of pictures on a pale photograph; the others are white.
        photos: Which photographs, as `visual_search` takes them; `none` for white alone.
        style: `short` for a tiny model; `full` sentences.
    """
    asked = _asked(skills)
    dials = _dials(split, edge, letters, length, most, on_photos, photos, style)
    stem = f"sight-{split}-{edge}-s{seed}"

    def one(rng: random.Random) -> Scene | None:
        return _SKILLS[rng.choice(asked)](rng, dials, split)

    return drawn_taskset(
        "sight",
        stem,
        scenes(f"{stem}-{skills}-{letters}-{length}-{most}-{on_photos}-{photos}", split, n, one),
        draw=sights.draw,
        tools=lambda gallery: (),
        view=view_of(edge, style=style),
        about=ABOUT,
        rubric=Rubric(
            rewards={
                "correct": (correct(tagged, same_writing), 1.0),
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
    split: Split, edge: int, letters: str, length: str, most: int, on_photos: float, photos: str, style: Style
) -> _Dials:
    if not 32 <= edge <= 1024 or not 1 <= most <= 9 or not 0 <= on_photos <= 1 or not letters:
        raise ConfigError(
            f"edge={edge}, most={most}, on_photos={on_photos}, letters={letters!r} do not fit",
            hint="edge goes from 32 to 1024, most from 1 to 9, on_photos from 0 to 1; letters are one or more",
        )
    return _Dials(
        edge=edge,
        letters=letters,
        lengths=_lengths(length),
        most=most,
        share=0.0 if photos == "none" else on_photos,
        photos=photos_of(photos, split) if on_photos else (),
        full=style == "full",
    )


async def _chance(env: Env, trajectory: Trajectory) -> float:
    """How often a guess among the possible answers is right: what accuracy stands beside."""
    return float(trajectory.task.info["chance"])


def _read(rng: random.Random, dials: _Dials, split: str) -> Scene:
    text = word(rng, dials.letters, rng.randint(*dials.lengths))
    # Four fifths of the width at most, whatever the typeface; a capital is hardly wider than high.
    largest = min(dials.edge * 0.5, dials.edge * 0.8 / len(text))
    height = round(rng.uniform(0.5, 1.0) * largest)
    half = height * len(text) * 0.55, height * 0.6
    writing = {
        "text": text,
        "typeface": rng.choice(sights.typefaces()),
        "height": height,
        "x": round(rng.uniform(half[0], dials.edge - half[0])),
        "y": round(rng.uniform(half[1], dials.edge - half[1])),
        "ink": [rng.randrange(100) for _ in range(3)],
        "turn": rng.randint(-8, 8),
    }
    return _scene(rng, dials, "read", "What is written?", text, 1 / len(dials.letters) ** len(text), writing=writing)


def _digit(rng: random.Random, dials: _Dials, split: str) -> Scene:
    digits = sights.written_digits()
    # Of ten that were written, seven are for training, one to validate, two to test.
    places = {"train": (0, 1, 2, 3, 4, 5, 6), "val": (7,), "test": (8, 9)}[split]
    number = rng.randrange(len(digits) // 10) * 10 + rng.choice(places)
    edge = rng.randint(dials.edge // 3, dials.edge * 2 // 3)
    left, top = rng.randint(0, dials.edge - edge), rng.randint(0, dials.edge - edge)
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


def _shapes(rng: random.Random, dials: _Dials, count: int) -> tuple[shapes.Shape, ...] | None:
    what = [(rng.choice(tuple(COLOURS)), rng.choice(shapes.KINDS)) for _ in range(count)]
    largest = round(dials.edge * (0.3 if count == 1 else 0.16))
    return shapes.scatter(rng, what, (dials.edge, dials.edge), (largest // 2, largest))


def _scene(
    rng: random.Random,
    dials: _Dials,
    skill: str,
    question: str,
    answer: str,
    chance: float,
    placed: Sequence[shapes.Shape] = (),
    **drawn: Mapping[str, Any],
) -> Scene:
    ground: dict[str, Any] = {"photo": None}
    if rng.random() < dials.share:
        ground = {
            "photo": rng.choice(dials.photos),
            "part": [rng.randint(0, dials.edge * (shapes.PARTS - 1)) for _ in range(2)],
        }
    return Scene(
        drawing={"size": [dials.edge, dials.edge], **ground, "shapes": shapes.to_json(placed), **drawn},
        question=question if dials.full else f"{skill}?",
        answer=answer,
        said=answer,
        info={"skill": skill, "chance": chance},
    )


def _lengths(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    if not (low.isdecimal() and (high or low).isdecimal() and 1 <= int(low) <= int(high or low) <= 8):
        raise ConfigError(f"length is {text!r}", hint="how many characters, from 1 to 8: 2, or 1-3")
    return int(low), int(high or low)


_SKILLS: Mapping[str, Callable[[random.Random, _Dials, str], Scene | None]] = {
    "read": _read,
    "digit": _digit,
    "colour": _colour,
    "shape": _shape,
    "count": _count,
    "where": _where,
}
