"""How many are there? Coloured shapes on white or on a pale photograph, and a pen to draw a box around each."""

from __future__ import annotations

import random
from typing import Any, Literal

from envs.rewards import correct
from envs.rewards.choice import rubric_of
from envs.rewards.visual import deepeyes_v2, reflections, vilasr
from envs.rubric import Rubric
from envs.scenes import shapes
from envs.scenes.drawn import (
    Scene,
    Split,
    Style,
    View,
    box_for,
    drawn_taskset,
    pens,
    scenes,
    view_of,
)
from envs.scenes.pens import COLOURS
from envs.scenes.photos import photos_of
from envs.scoring import same_number, tagged
from envs.task import Taskset
from tools.errors import ConfigError
from tools.image.coordinates import Convention
from tools.record import record

ABOUT = (
    "Count what is asked for. You may draw a box around each with object_mapper, and look at what you drew. End with"
    " <answer>...</answer>: a number."
)


@record
class _Dials:
    shown: int
    most: int
    others: int
    kinds: tuple[str, ...]
    colours: tuple[str, ...]
    photos: tuple[str, ...]
    view: View


def counting(
    split: Split = "train",
    n: int = 1000,
    seed: int = 0,
    most: int = 12,
    others: int = 12,
    kinds: int = 5,
    colours: int = 6,
    shown: int = 512,
    photos: str = "skimage",
    coordinates: Convention = "pixel",
    style: Style = "full",
    reward: Literal["correct", "vilasr", "deepeyes_v2"] = "correct",
) -> Taskset:
    """Count the shapes of one colour and kind among others, after drawing a box around each.

    Args:
        split: `train`, `val` or `test`; they share no scene, and no photograph.
        n: How many tasks. The first tasks are the same for every `n`.
        seed: Another seed gives other scenes of the same split.
        most: The largest number that is right; the smallest is 1.
        others: At most so many shapes that do not count.
        kinds: Kinds of shapes, 1 to 5: circle, square, triangle, star, cross.
        colours: Colours, 2 to 8.
        shown: Width of the picture in pixels; it is 3/4 as high.
        photos: What is behind them, as `visual_search` takes it; `none` is white.
        coordinates: How the drawing tool takes boxes: `pixel`, `unit`, `per_mille` or `unit_square_padded`.
        style: `full` sentences; `short` for a tiny model: no system message, two words, no captions.
        reward: 1 for the right number, ViLaSR's, or DeepEyesV2's.
    """
    if not 1 <= most <= 50 or not 0 <= others <= 60:
        raise ConfigError(f"most is {most} and others {others}; they go from 1 to 50 and from 0 to 60")
    if not 1 <= kinds <= len(shapes.KINDS) or not 2 <= colours <= len(COLOURS):
        raise ConfigError(f"there are {len(shapes.KINDS)} kinds and {len(COLOURS)} colours; asked: {kinds}, {colours}")
    view = view_of(shown, coordinates, style)
    dials = _Dials(
        shown=shown,
        most=most,
        others=others,
        kinds=shapes.KINDS[:kinds],
        colours=tuple(COLOURS)[:colours],
        photos=photos_of(photos, split),
        view=view,
    )
    stem = f"counting-{split}-{most}-{shown}-s{seed}"
    return drawn_taskset(
        "counting",
        stem,
        scenes(f"{stem}-{others}-{kinds}-{colours}-{photos}", split, n, lambda rng: _draw(rng, dials)),
        draw=shapes.scene,
        tools=lambda gallery: pens(gallery, view)[:1],
        view=view,
        about=ABOUT,
        rubric=_rubric(reward),
    )


def _draw(rng: random.Random, dials: _Dials) -> Scene | None:
    asked = rng.choice(dials.colours), rng.choice(dials.kinds)
    count = rng.randint(1, dials.most)
    rest = [(colour, kind) for colour in dials.colours for kind in dials.kinds if (colour, kind) != asked]
    what = [asked] * count + [rng.choice(rest) for _ in range(rng.randint(0, dials.others))]
    size = dials.shown, dials.shown * 3 // 4
    # As large as they may be for as many as there are to find room.
    largest = max(3, round(0.28 * (size[0] * size[1] / (dials.most + dials.others)) ** 0.5))
    placed = shapes.scatter(rng, what, size, (max(3, largest * 2 // 3), largest))
    if placed is None:
        return None
    counted = sorted(placed[:count], key=lambda one: (one.y, one.x))
    items: list[dict[str, Any]] = [
        {"index": 1, "bbox_2d": box_for(one.box, dials.view.convention, size), "label": str(number)}
        for number, one in enumerate(counted, 1)
    ]
    name = f"{asked[0]} {asked[1]}"
    return Scene(
        drawing={
            "size": list(size),
            "photo": rng.choice(dials.photos) if dials.photos else None,
            "shapes": shapes.to_json(rng.sample(placed, len(placed))),
        },
        question=f"How many {shapes.plural(name)} are there?" if dials.view.style == "full" else f"{name}?",
        answer=count,
        said=str(count),
        calls=(("object_mapper", {"items": items}, f"I mark every {name}."),),
        info={"kind": "number"},
    )


def _rubric(reward: str) -> Rubric:
    paid = {"vilasr": vilasr(same_number), "deepeyes_v2": deepeyes_v2(same_number)}
    return rubric_of(correct(tagged, same_number), tagged, reward, paid, reflections=reflections())
