"""Where is what, and how far? ViLaSR's kinds of questions (arXiv 2506.09965).

The scenes are made up, so the truth is known. Choices are scored by their letter, numbers by mean relative accuracy, as
VSI-Bench and ViLaSR score them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from envs.rewards.choice import rubric_of
from envs.rewards.visual import choice_or_number, graded, reflections, vilasr
from envs.scenes import shapes
from envs.scenes.drawn import (
    Asked,
    Scene,
    Split,
    Style,
    View,
    box_for,
    drawn_taskset,
    pens,
    point_for,
    scenes,
    view_of,
)
from envs.scenes.pens import COLOURS
from envs.scenes.photos import photos_of
from envs.scenes.shapes import Shape
from envs.scoring import tagged
from envs.scoring.reading import LETTERS
from envs.task import Taskset
from tools.errors import ConfigError
from tools.image.coordinates import Convention

Ask: TypeAlias = Literal["all", "side", "nearest", "distance"]

ABOUT = (
    "Answer the question about the picture. You may draw boxes on it with object_mapper and lines with path_tracer, and"
    " look at what you drew. End with <answer>...</answer>: the letter of an option, or a number."
)
_SIDES = ("left of", "right of", "above", "below")
_CLEAR = 1.6
"""How many times further the longer of two distances is: what is asked for can be seen."""


def spatial(
    split: Split = "train",
    n: int = 1000,
    seed: int = 0,
    ask: Ask = "all",
    objects: int = 6,
    shown: int = 512,
    photos: str = "none",
    coordinates: Convention = "pixel",
    style: Style = "full",
    reward: Literal["correct", "vilasr", "vilasr_code"] = "correct",
) -> Taskset:
    """Relations and distances between shapes, after marking them: choices, and numbers scored by how near they are.

    Args:
        split: `train`, `val` or `test`; they share no scene, and no photograph.
        n: How many tasks. The first tasks are the same for every `n`.
        seed: Another seed gives other scenes of the same split.
        ask: `side` (left of, right of, above, below), `nearest`, `distance` (a number), or `all` of them.
        objects: Shapes in a scene, 3 to 12, no two of a name.
        shown: Width of the picture in pixels; it is 3/4 as high.
        photos: What is behind them, as `visual_search` takes it; `none` is white.
        coordinates: How the drawing tools take coordinates: `pixel`, `unit`, `per_mille` or `unit_square_padded`.
        style: `full` sentences; `short` for a tiny model: no system message, a few words, no captions.
        reward: The accuracy, ViLaSR's reward as its paper has it, or as its code has it.
    """
    if not 3 <= objects <= 12:
        raise ConfigError(f"objects is {objects}; it goes from 3 to 12")
    view = view_of(shown, coordinates, style)
    grounds = photos_of(photos, split)
    asks: tuple[Ask, ...] = ("side", "nearest", "distance") if ask == "all" else (ask,)

    def draw_one(rng: random.Random) -> Scene | None:
        return _draw(rng, rng.choice(asks), objects, (shown, shown * 3 // 4), grounds, view)

    stem = f"spatial-{split}-{ask}-{shown}-s{seed}"
    return drawn_taskset(
        "spatial",
        stem,
        scenes(f"{stem}-{objects}-{photos}", split, n, draw_one),
        draw=shapes.scene,
        tools=lambda gallery: pens(gallery, view),
        view=view,
        about=ABOUT,
        rubric=rubric_of(
            graded(choice_or_number),
            tagged,
            reward,
            {"vilasr": vilasr(choice_or_number), "vilasr_code": vilasr(choice_or_number, variant="code")},
            reflections=reflections(),
        ),
    )


def _draw(
    rng: random.Random, ask: str, objects: int, size: tuple[int, int], grounds: Sequence[str], view: View
) -> Scene | None:
    names = [(colour, kind) for colour in COLOURS for kind in shapes.KINDS]
    largest = max(4, size[0] // 20)
    placed = shapes.scatter(rng, rng.sample(names, objects), size, (largest * 2 // 3, largest), foot=largest + 4)
    if placed is None:
        return None
    ruler = {"x": largest // 2, "y": size[1] - largest // 2, "length": size[0] // 5, "metres": rng.choice((1, 2, 5))}
    found = _QUESTIONS[ask](rng, placed, ruler)
    if found is None:
        return None
    question, short, answer, marked = found
    return Scene(
        drawing={
            "size": list(size),
            "photo": rng.choice(grounds) if grounds else None,
            "shapes": shapes.to_json(placed),
            **({"ruler": ruler} if ask == "distance" else {}),
        },
        question=question if view.style == "full" else short,
        answer=answer,
        said=str(answer),
        calls=_marking(marked, size, view),
        info={"kind": "number" if ask == "distance" else "choice", "category": ask},
    )


Question: TypeAlias = tuple[str, str, Any, list[Shape]]
"""In full, in short, the answer, and which shapes it is about."""


def _side(rng: random.Random, placed: Sequence[Shape], ruler: dict[str, Any]) -> Question | None:
    a, b = rng.sample(list(placed), 2)
    x, y = a.x - b.x, a.y - b.y
    if max(abs(x), abs(y)) < _CLEAR * min(abs(x), abs(y)):
        return None
    right = ("right of" if x > 0 else "left of") if abs(x) > abs(y) else ("below" if y > 0 else "above")
    answer = LETTERS[_SIDES.index(right)]
    return f"Where is the {a.name}? It is {_options(_SIDES)} the {b.name}.", f"{a.name}, {b.name}?", answer, [a, b]


def _nearest(rng: random.Random, placed: Sequence[Shape], ruler: dict[str, Any]) -> Question | None:
    asked, *others = rng.sample(list(placed), min(len(placed), 5))
    by_distance = sorted(others, key=lambda one: shapes.distance(asked, one))
    if shapes.distance(asked, by_distance[1]) < _CLEAR * shapes.distance(asked, by_distance[0]):
        return None
    names = [one.name for one in others]
    answer = LETTERS[others.index(by_distance[0])]
    question = f"Which of these is nearest to the {asked.name}: {_options(names)}?"
    return question, f"{asked.name}: {_options(names)}?", answer, [asked, by_distance[0]]


def _distance(rng: random.Random, placed: Sequence[Shape], ruler: dict[str, Any]) -> Question | None:
    a, b = rng.sample(list(placed), 2)
    metres = round(shapes.distance(a, b) / ruler["length"] * ruler["metres"], 1)
    question = (
        f"The bar below is {ruler['metres']} m long. How many metres lie between the middles of the {a.name} and the"
        f" {b.name}?"
    )
    return question, f"{a.name} to {b.name}, bar {ruler['metres']}?", metres, [a, b]


_QUESTIONS = {"side": _side, "nearest": _nearest, "distance": _distance}


def _options(names: Sequence[str]) -> str:
    return ", ".join(f"({letter}) {name}" for letter, name in zip(LETTERS, names, strict=False))


def _marking(marked: list[Shape], size: tuple[int, int], view: View) -> tuple[Asked, ...]:
    """A box around each shape the question is about, then a line between them."""
    boxes = [{"index": 1, "bbox_2d": box_for(one.box, view.convention, size), "label": one.name} for one in marked]
    ends = [point_for((one.x, one.y), view.convention, size) for one in marked]
    line = {"index": 1, "start_point_2d": ends[0], "end_point_2d": ends[1], "label": "between"}
    return (
        ("object_mapper", {"items": boxes}, "I mark what the question is about."),
        ("path_tracer", {"items": [line]}, "I draw a line between them."),
    )
