"""Charts to read a value from, with a pen to sketch on them: ChartSketcher's (arXiv 2505.19076), on charts whose every
element stands where it is known to stand.

Numbers count within 5%, as ChartQA's relaxed accuracy takes them; names must be equal.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from envs.rewards import correct
from envs.rewards.choice import rubric_of
from envs.rewards.visual import deepeyes
from envs.scenes import charts as drawings
from envs.scenes.charts import Chart
from envs.scenes.drawn import Asked, Scene, Split, Style, View, drawn_taskset, scenes, view_of
from envs.scoring import relaxed_equal, tagged
from envs.task import Taskset
from tools.errors import ConfigError
from tools.image import image_tools

Ask: TypeAlias = Literal["all", "value", "highest", "lowest", "difference", "above"]

ABOUT = (
    "Answer the question about the chart. You may sketch on it to compare heights or to find a value on the axis, and"
    " look at what you drew. End with <answer>...</answer>: a name or a number."
)
NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gia", "Hugo", "Ida", "Jon", "Kim", "Leo")


def charts(
    split: Split = "train",
    n: int = 1000,
    seed: int = 0,
    ask: Ask = "all",
    kind: Literal["any", "bars", "lines"] = "any",
    items: int = 6,
    most: int = 100,
    tick: int = 20,
    shown: int = 512,
    style: Style = "full",
    reward: Literal["correct", "deepeyes"] = "correct",
) -> Taskset:
    """Bar and line charts: read a value, compare, count, after sketching lines to the axis.

    Args:
        split: `train`, `val` or `test`; they share no chart.
        n: How many tasks. The first tasks are the same for every `n`.
        seed: Another seed gives other charts of the same split.
        ask: `value` of one, name of the `highest` or `lowest`, `difference` of two, how many are `above`, or `all`.
        kind: `bars`, `lines`, or `any` of them.
        items: Bars or points, 2 to 12.
        most: The largest value.
        tick: A number stands on the axis at every multiple of it; between them a value must be estimated, to 5%.
        shown: Width of the picture in pixels; it is 3/4 as high.
        style: `full` sentences and names; `short` for a tiny model: no system message, a word or two, letters.
        reward: 1 for a right answer, or DeepEyes', which it trains on charts with as well.
    """
    if not 2 <= items <= len(NAMES) or not 1 <= tick <= most or most < items:
        raise ConfigError(
            f"items={items}, most={most}, tick={tick} do not fit",
            hint=f"items goes from 2 to {len(NAMES)}, tick from 1 to most, and most is items or more",
        )
    view = view_of(shown, "unit", style)
    asks = ("value", "highest", "lowest", "difference", "above") if ask == "all" else (ask,)
    names = NAMES if style == "full" else tuple(string.ascii_uppercase)

    def draw_one(rng: random.Random) -> Scene | None:
        drawn = rng.choice(("bars", "lines")) if kind == "any" else kind
        labels = sorted(rng.sample(names[:12], items))
        chart = drawings.make(rng, drawn, labels, most, tick, (shown, shown * 3 // 4))
        return _scene(rng, chart, rng.choice(asks), view)

    stem = f"charts-{split}-{ask}-{kind}-{shown}-s{seed}"
    return drawn_taskset(
        "charts",
        stem,
        scenes(f"{stem}-{items}-{most}-{tick}", split, n, draw_one),
        draw=lambda scene: drawings.draw(drawings.from_json(scene)),
        tools=lambda gallery: image_tools(gallery, "sketch"),
        view=view,
        about=ABOUT,
        rubric=rubric_of(correct(tagged, same_value), tagged, reward, {"deepeyes": deepeyes(same_value)}),
    )


def same_value(given: str, expected: Any) -> bool:
    """Equal as a name, or within 5% as a number."""
    return relaxed_equal(given, str(expected))


def _scene(rng: random.Random, chart: Chart, ask: str, view: View) -> Scene | None:
    labels, values = chart.labels, chart.values
    first, second = rng.sample(range(len(labels)), 2)
    level = rng.randrange(1, chart.top // chart.tick + 1) * chart.tick
    if ask == "value":
        question, short, answer, touched = (
            f"What is the value of {labels[first]}?",
            labels[first],
            values[first],
            [first],
        )
    elif ask in ("highest", "lowest"):
        index = values.index(max(values) if ask == "highest" else min(values))
        question, short, answer, touched = f"Which has the {ask} value?", ask, labels[index], [index]
    elif ask == "difference":
        question = f"What is the difference between {labels[first]} and {labels[second]}?"
        short, answer, touched = (
            f"{labels[first]} {labels[second]}",
            abs(values[first] - values[second]),
            [first, second],
        )
    else:
        # None so near the level that it takes a ruler to tell.
        if any(abs(value - level) < chart.top * 0.03 for value in values):
            return None
        question = f"How many have a value above {level}?"
        short, answer, touched = f"above {level}", sum(value > level for value in values), []
    if answer == 0:  # no part of zero is a tolerance
        return None
    return Scene(
        drawing=drawings.to_json(chart) | {"photo": None},
        question=question if view.style == "full" else f"{short}?",
        answer=answer,
        said=str(answer),
        calls=(_sketched(chart, touched, level),),
        info={"category": ask},
    )


def _sketched(chart: Chart, touched: Sequence[int], level: int) -> Asked:
    """Lines from the values to the axis, or one at the level that is asked for."""
    left, _, right, _ = drawings.plot_box(chart)
    ends = [(drawings.point_of(chart, index)[0], drawings.point_of(chart, index)[1]) for index in touched]
    ends = ends or [(right, drawings.height_of(chart, level))]
    lines: list[str] = []
    for number, (x, y) in enumerate(ends, 1):
        (x1, y1), (x2, y2) = drawings.unit(chart, (left, y)), drawings.unit(chart, (x, y))
        lines.append(f"create_line level{number} {x1} {y1} {x2} {y2} red")
    return "sketch", {"script": "\n".join(lines)}, "I draw a line to the axis."
