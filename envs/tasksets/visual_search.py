"""A small sign on a large picture: unreadable where the model first sees it, readable after the right zoom.

The picture is scaled down on entry, so that the letters of a sign are `capital` pixels high, less than any reader can
make out; the zoom cuts from the picture as it was. The form of V* (arXiv 2312.14135) and DeepEyes (arXiv 2505.14362),
with an answer that is exact.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Literal

from envs.env import Env
from envs.rewards import correct
from envs.rewards.choice import rubric_of
from envs.rewards.visual import Bonus, deepeyes, deepeyes_v2
from envs.rubric import RewardFn, Rubric
from envs.scenes import signs as sign_boards
from envs.scenes.drawn import Scene, Split, Style, View, box_for, drawn_taskset, scenes, view_of
from envs.scenes.pens import UNMISTAKABLE, word
from envs.scenes.photos import photos_of
from envs.scoring import tagged
from envs.task import Taskset
from envs.trajectory import Trajectory
from tools.errors import ConfigError
from tools.image import Gallery, ImageBudget, ZoomRule, image_tools
from tools.image.coordinates import Convention
from tools.record import record
from tools.tool import Tool

ABOUT = (
    "Answer the question about the picture. What is too small to read can be zoomed into with image_zoom_in_tool, as"
    " often as needed. End with <answer>...</answer>: exactly what is written, without further words."
)

ABOUT_ALONE = "Answer the question about the picture. End with <answer>...</answer>: exactly what is written."


@record
class _Dials:
    size: tuple[int, int]
    view: View
    letters: str
    length: int
    signs: int
    needs_tool: float
    margin: float
    careful: float
    """Of those: whose gold looks."""
    capitals: tuple[int, int]
    """How high the capitals of an unreadable and of a readable sign are, in pixels of the picture."""
    photos: tuple[str, ...]
    """Empty: a ground is drawn."""


def visual_search(
    split: Split = "train",
    n: int = 1000,
    seed: int = 0,
    size: str = "2560x1920",
    shown: int = 512,
    capital: float = 2.5,
    letters: str = UNMISTAKABLE,
    length: int = 4,
    signs: int = 1,
    needs_tool: float = 1.0,
    careful: float = 1.0,
    readable: float | None = None,
    margin: float = 0.4,
    tools: bool = True,
    photos: str = "skimage",
    coordinates: Convention = "pixel",
    style: Style = "full",
    reward: Literal["correct", "deepeyes", "deepeyes_v2"] = "correct",
    bonus: Bonus = "conditional",
) -> Taskset:
    """What is written on a tiny sign on a large photograph: zoom in, and read it.

    Args:
        split: `train`, `val` or `test`; they share no photograph and no scene.
        n: How many tasks. The first tasks are the same for every `n`.
        seed: Another seed gives other scenes of the same split.
        size: Width and height of the picture, as `2560x1920`.
        shown: The model sees a picture at most so many pixels wide or high, and a zoomed part enlarged to it.
        capital: How high the capitals of a sign are where the model first sees it, in pixels.
        letters: The characters that are written, `length` of them on a sign.
        signs: How many signs there are, each with a frame of another colour; the question names one.
        needs_tool: The share of tasks whose sign is too small to be read; in the others it is large enough.
        careful: The share of such tasks whose gold zooms in; the others' guesses: RL finds out what looking is worth.
        readable: How high the capitals are that are large enough, where the model first sees them; 14 or 10 by default.
        margin: How much the gold leaves around a sign, in heights of it: with less, letters come out larger.
        tools: False leaves the zoom out, and the gold answers at once: the control.
        photos: `skimage`, `sklearn`, `matplotlib` or `packages` (what they ship), a folder, or `none`: drawn grounds.
        coordinates: How the zoom tool takes boxes: `pixel`, `unit`, `per_mille` or `unit_square_padded`.
        style: `full` sentences; `short` for a tiny model: no system message, one word, no captions.
        reward: 1 for the right answer, DeepEyes', or DeepEyesV2's.
        bonus: When DeepEyes' reward pays for a look: `conditional` (for a right answer), `unconditional`, `none`.
    """
    view = view_of(shown, coordinates, style)
    shares = needs_tool, careful if tools else 0.0
    sizes = capital, readable, margin
    dials = _dials(view, size_of(size), sizes, (letters, length, signs), shares, photos_of(photos, split))
    stem = f"visual_search-{split}-{size}-{shown}-s{seed}"
    more = f"{letters}{length}-{signs}-{needs_tool}-{capital}-{photos}"  # not `careful`: the same scenes either way
    return drawn_taskset(
        "visual_search",
        stem,
        scenes(f"{stem}-{more}", split, n, lambda rng: _draw(rng, dials)),
        draw=sign_boards.draw,
        tools=_zoom(view) if tools else lambda gallery: (),
        view=view,
        about=ABOUT if tools else ABOUT_ALONE,
        rubric=_rubric(reward, bonus),
    )


def _rubric(reward: str, bonus: Bonus) -> Rubric:
    paid = {"deepeyes": deepeyes(same_writing, bonus=bonus), "deepeyes_v2": deepeyes_v2(same_writing)}
    return rubric_of(correct(tagged, same_writing), tagged, reward, paid, useful_calls=_useful_calls())


def _zoom(view: View) -> Callable[[Gallery], tuple[Tool, ...]]:
    """The zoom of an episode. A part is shown as large as a picture may be, whatever its proportions."""
    most = view.budget.max_pixels
    rule = ZoomRule(size=ImageBudget(min_pixels=most, max_pixels=most, max_side=view.budget.max_side))
    return lambda gallery: image_tools(gallery, "image_zoom_in_tool", convention=view.convention, zoom=rule)


def _capitals(size: tuple[int, int], view: View, capital: float, readable: float | None) -> tuple[int, int]:
    """How high the capitals of an unreadable and of a readable sign are drawn, from how high they are shown."""
    shown = max(view.budget.shown_size(*size))
    large = (14 if shown >= 256 else 10) if readable is None else readable
    return max(4, round(capital * max(size) / shown)), max(4, round(large * max(size) / shown))


def _dials(
    view: View,
    size: tuple[int, int],
    sizes: tuple[float, float | None, float],
    writing: tuple[str, int, int],
    shares: tuple[float, float],
    photos: tuple[str, ...],
) -> _Dials:
    """Raises `ConfigError` for dials that cannot be."""
    (capital, readable, margin), (letters, length, signs) = sizes, writing
    if not 1 <= length <= 40 or not letters:
        raise ConfigError(f"a sign of {length} of the characters {letters!r} cannot be written")
    if not 1 <= signs <= len(_FRAMES) or not all(0 <= share <= 1 for share in shares) or not 0.2 <= capital <= 64:
        raise ConfigError(
            f"signs={signs}, needs_tool={shares[0]}, careful={shares[1]}, capital={capital} do not fit",
            hint=f"signs goes from 1 to {len(_FRAMES)}, needs_tool and careful from 0 to 1, capital from 0.2 to 64",
        )
    if not 0 <= margin <= 10 or not 0.2 <= (readable or 1) <= 64:
        raise ConfigError(f"margin={margin}, readable={readable} do not fit; 0 to 10 and 0.2 to 64")
    return _Dials(
        size=size,
        view=view,
        margin=margin,
        letters=letters,
        length=length,
        signs=signs,
        needs_tool=shares[0],
        careful=shares[1],
        capitals=_capitals(size, view, capital, readable),
        photos=photos,
    )


def size_of(text: str) -> tuple[int, int]:
    """A size as it is written.

    >>> size_of("2560x1920")
    (2560, 1920)
    """
    wide, cross, high = text.lower().partition("x")
    sides = (int(wide), int(high)) if cross and wide.isdecimal() and high.isdecimal() else (0, 0)
    if not (min(sides) >= 16 and max(sides) <= 8000 and sides[0] * sides[1] <= _MOST):
        raise ConfigError(
            f"size is {text!r}", hint="width and height in pixels, 16 to 8000 each and 48 megapixels at most: 2560x1920"
        )
    return sides


def same_writing(given: str, expected: Any) -> bool:
    """Whether two writings are the same but for case, spaces and punctuation.

    >>> same_writing(" k 4-x7.", "K4X7"), same_writing("K4X", "K4X7"), same_writing("", "")
    (True, False, False)
    """
    plain = ["".join(c for c in text.casefold() if c.isalnum()) for text in (given, str(expected))]
    return plain[0] == plain[1] != ""


def _useful_calls() -> RewardFn:
    """How many zooms show the sign that was asked for, well enough to be read.

    Well enough: at least half of the gold's part is in it, and it is at most nine times as large. A call that failed
    shows nothing.
    """

    async def reward(env: Env, trajectory: Trajectory) -> float:
        box = trajectory.task.info["box"]
        good = _area(box)

        def useful(part: Sequence[float]) -> bool:
            shared = _area([*map(max, box[:2], part[:2]), *map(min, box[2:], part[2:])])
            return 2 * shared >= good and _area(part) <= 9 * good

        calls = [call for call in trajectory.calls if call.outcome == "ok" and call.call.arguments]
        return float(sum(useful(call.call.arguments["bbox_2d"]) for call in calls if call.call.arguments))

    return reward


def _area(box: Sequence[float]) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _draw(rng: random.Random, dials: _Dials) -> Scene | None:
    hidden, looks = rng.random() < dials.needs_tool, rng.random() < dials.careful
    capital = dials.capitals[0 if hidden else 1]
    frames = rng.sample(_FRAMES, dials.signs)
    placed: list[sign_boards.Sign] = []
    for frame in frames:
        text = word(rng, dials.letters, dials.length)
        sign = sign_boards.place(rng, text, frame, capital, dials.size, placed)
        if sign is None or any(sign.text == other.text for other in placed):
            return None
        placed.append(sign)
    asked = placed[0]
    scale = dials.view.budget.shown_size(*dials.size)[0] / dials.size[0]
    margin = (asked.box[3] - asked.box[1]) * dials.margin
    around = (asked.box[0] - margin, asked.box[1] - margin, asked.box[2] + margin, asked.box[3] + margin)
    box = box_for(
        tuple(at * scale for at in around),  # pyright: ignore[reportArgumentType] - four of four
        dials.view.convention,
        dials.view.budget.shown_size(*dials.size),
    )
    which = f"the sign with the {asked.frame} frame" if dials.signs > 1 else "the sign"
    short = asked.frame if dials.signs > 1 else "sign"
    look = ("image_zoom_in_tool", {"bbox_2d": box, "label": "sign"}, f"I cannot read {which}, so I zoom in.")
    return Scene(
        drawing={
            "size": list(dials.size),
            "photo": rng.choice(dials.photos) if dials.photos else None,
            "seed": rng.randrange(2**31),
            "signs": [sign_boards.to_json(sign) for sign in placed],
        },
        question=f"What is written on {which}?" if dials.view.style == "full" else f"{short}?",
        answer=asked.text,
        said=asked.text,
        calls=(look,) if hidden and looks else (),
        info={"needs_tool": hidden, "written": True, "box": box},
    )


_FRAMES = sign_boards.BRIGHT
_MOST = 48_000_000
"""Pixels of a picture that a gallery takes in."""
