"""Routes on transit maps, with RewardMap's questions and reward (arXiv 2510.02240), on networks that are made up.

Four kinds, from easy to hard as RewardMap's curriculum orders them: yes or no, how many lines, how many stops, a route.
A route is written in ReasonMap's form, and any that is correct counts.
"""

from __future__ import annotations

import itertools
import random
from typing import Any, Literal, TypeAlias, cast

from envs.env import Env
from envs.rewards import correct
from envs.rewards.answers import final_text
from envs.rewards.choice import rubric_of
from envs.rewards.visual import Difficulty, rewardmap_detail, rewardmap_score, rewardmap_weight
from envs.rubric import RewardFn, Rubric
from envs.scenes import transit
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
from envs.scenes.transit import Network
from envs.scoring import routes, same_number, tagged
from envs.task import Taskset
from envs.trajectory import Trajectory
from tools.errors import ConfigError
from tools.image.coordinates import Box, Convention

Kind: TypeAlias = Literal["yes_no", "lines", "stops", "route"]
"""RewardMap's TorF, Counting2 and 3, Counting1, and planning."""

KINDS: tuple[Kind, ...] = ("yes_no", "lines", "stops", "route")

ABOUT = (
    "Answer the question about the transit map. You may draw on it with object_mapper and path_tracer, and look at what"
    " you drew. End with <answer>...</answer>."
)
ROUTE_FORM = """Answer with one block for each line you ride, blocks parted by a line `--`:
Route Name: <line>
Departure Stop: <stop>
Arrival Stop: <stop>"""
_HARDNESS: dict[int, Difficulty] = {2: "easy", 3: "easy", 4: "middle", 5: "hard", 6: "hard"}


def transit_map(
    split: Split = "train",
    n: int = 1000,
    seed: int = 0,
    ask: Literal["all", "yes_no", "lines", "stops", "route", "curriculum"] = "route",
    lines: int = 4,
    grid: str = "7x6",
    shown: int = 800,
    coordinates: Convention = "pixel",
    style: Style = "full",
    reward: Literal["correct", "rewardmap", "rewardmap_code"] = "correct",
) -> Taskset:
    """Transit maps: yes or no, counts, and routes with transfers, after drawing the route.

    Args:
        split: `train`, `val` or `test`; they share no map.
        n: How many tasks. The first tasks are the same for every `n`, other than with `curriculum`.
        seed: Another seed gives other maps of the same split.
        ask: `yes_no`, `lines`, `stops`, `route`, `all` of them mixed, or `curriculum`: a quarter of each, in order.
        lines: Lines of a map, 2 to 6; RewardMap's weight calls up to 3 easy, 4 middle and more hard.
        grid: Columns and rows that stations may stand in, as `7x6`.
        shown: Width of the picture in pixels; it is 3/4 as high.
        coordinates: How the drawing tools take coordinates: `pixel`, `unit`, `per_mille` or `unit_square_padded`.
        style: `full` sentences; `short`: no system message, a few words, no captions.
        reward: 1 for a right answer, RewardMap's as its paper has it, or as its code has it.
    """
    columns, _, rows = grid.lower().partition("x")
    if not (columns.isdecimal() and rows.isdecimal() and 3 <= int(columns) <= 20 and 3 <= int(rows) <= 20):
        raise ConfigError(f"grid is {grid!r}", hint="columns and rows from 3 to 20 each: 7x6")
    wide, high = int(columns), int(rows)
    if not 2 <= lines <= min(6, (wide + high) // 2):
        raise ConfigError(f"lines is {lines}; on a grid of {grid} it goes from 2 to {min(6, (wide + high) // 2)}")
    view = view_of(shown, coordinates, style)
    size = shown, shown * 3 // 4
    stem = f"transit_map-{split}-{ask}-{lines}-{shown}-s{seed}"

    def drawn(kinds: tuple[Kind, ...], count: int) -> list[Scene]:
        def draw_one(rng: random.Random) -> Scene | None:
            network = transit.make(rng, lines, (wide, high))
            return _scene(rng, network, rng.choice(kinds), size, view)

        return scenes(f"{stem}-{grid}-{'-'.join(kinds)}", split, count, draw_one)

    if ask == "curriculum":
        shares = [n // 4 + (place < n % 4) for place in range(4)]
        found = [one for kind, share in zip(KINDS, shares, strict=True) if share for one in drawn((kind,), share)]
    else:
        found = drawn(KINDS if ask == "all" else (ask,), n)
    return drawn_taskset(
        "transit_map",
        stem,
        found,
        draw=lambda scene: transit.draw(transit.from_json(scene), (scene["size"][0], scene["size"][1])),
        tools=lambda gallery: pens(gallery, view),
        view=view,
        about=ABOUT,
        rubric=_rubric(reward),
    )


def is_right(given: str, expected: Any) -> bool:
    """Whether an answer is right: a route that leads there, a number, yes or no."""
    if isinstance(expected, dict):
        asked = cast(dict[str, Any], expected)
        return routes.is_right(given, asked["lines"], asked["from"], asked["to"])
    if isinstance(expected, int):
        return same_number(given, expected)
    return given.strip().strip(".").casefold() == expected


def rewardmap(variant: Literal["paper", "code"] = "paper") -> RewardFn:
    """`rewardmap_score` of an episode of this taskset. An answer outside its tags is no answer; form pays nothing."""

    async def reward(env: Env, trajectory: Trajectory) -> float:
        task, answer = trajectory.task, tagged(final_text(trajectory))
        right = answer is not None and is_right(answer, task.answer)
        transfers: int | None = task.info["transfers"]
        detail = 0.0
        if answer is not None and transfers is not None:
            asked = task.answer
            detail = rewardmap_detail(answer, asked["lines"], asked["from"], asked["to"], transfers, variant)
        return rewardmap_score(right, detail, weight=rewardmap_weight(task.info["difficulty"], transfers))

    return reward


def _scene(rng: random.Random, network: Network, kind: Kind, size: tuple[int, int], view: View) -> Scene | None:
    asked = _QUESTIONS[kind](rng, network)
    if asked is None:
        return None
    question, short, answer, said, marked = asked
    info: dict[str, Any] = {"kind": kind, "difficulty": _HARDNESS[len(network.lines)], "transfers": None}
    if kind == "route":
        legs = routes.read(said)
        info["transfers"] = len(legs) - 1
        calls = _traced(network, legs, size, view)
    else:
        calls = _marked(network, marked, size, view)
    full = view.style == "full"
    return Scene(
        drawing={**transit.to_json(network), "size": list(size), "photo": None},
        question=(f"{question}\n{ROUTE_FORM}" if kind == "route" else question) if full else short,
        answer=answer,
        said=said,
        calls=calls,
        info=info,
    )


Question: TypeAlias = tuple[str, str, Any, str, list[str]]
"""In full, in short, the answer, how it is said, and the stations (or lines) to mark."""


def _yes_no(rng: random.Random, network: Network) -> Question:
    yes = rng.random() < 0.5
    while True:
        a, b = rng.sample(sorted(network.at), 2)
        if any(a in stops and b in stops for stops in network.lines.values()) == yes:
            said = "yes" if yes else "no"
            return f"Are {a} and {b} on one line? Answer yes or no.", f"{a} {b}?", said, said, [a, b]


def _lines(rng: random.Random, network: Network) -> Question:
    if rng.random() < 0.5:
        count = len(network.lines)
        return "How many lines does the map show?", "lines?", count, str(count), list(network.lines)
    served = {name: sum(name in stops for stops in network.lines.values()) for name in network.at}
    count = rng.choice(sorted(set(served.values())))
    name = rng.choice(sorted(one for one, number in served.items() if number == count))
    return f"How many lines stop at {name}?", f"{name} lines?", count, str(count), [name]


def _stops(rng: random.Random, network: Network) -> Question | None:
    line, stops = rng.choice(list(network.lines.items()))
    first, last = sorted(rng.sample(range(len(stops)), 2))
    between = list(stops[first + 1 : last])
    if not between:
        return None
    a, b = rng.sample((stops[first], stops[last]), 2)
    question = f"Riding {line} from {a} to {b}, how many stops lie between them?"
    return question, f"{line} {a} {b}?", len(between), str(len(between)), between


def _route(rng: random.Random, network: Network) -> Question | None:
    start, end = rng.sample(sorted(network.at), 2)
    legs = routes.shortest(network.lines, start, end)
    if legs is None or (len(legs) == 1 and rng.random() < 0.7):  # most routes change lines
        return None
    lines = {line: list(stops) for line, stops in network.lines.items()}
    answer = {"lines": lines, "from": start, "to": end}
    return f"How do I get from {start} to {end}?", f"{start} to {end}?", answer, routes.write(legs), []


_QUESTIONS = {"yes_no": _yes_no, "lines": _lines, "stops": _stops, "route": _route}


def _marked(network: Network, marked: list[str], size: tuple[int, int], view: View) -> tuple[Asked, ...]:
    """A box around each station, or line's badge, that the answer rests on."""
    items: list[dict[str, Any]] = []
    reach = max(4, size[0] // 50)
    for name in marked:
        if name in network.lines:
            box: Box = transit.badge_box(network, name, size)
        else:
            x, y = transit.where(network, name, size)
            box = (x - reach, y - reach, x + reach, y + reach)
        items.append({"index": 1, "bbox_2d": box_for(box, view.convention, size), "label": name})
    return (("object_mapper", {"items": items}, "I mark what the question is about."),)


def _traced(network: Network, legs: list[routes.Leg], size: tuple[int, int], view: View) -> tuple[Asked, ...]:
    """The route drawn from stop to stop, one call for each line that is ridden."""
    calls: list[Asked] = []
    number = itertools.count(1)
    for leg in legs:
        stops = network.lines[leg.line]
        first, last = stops.index(leg.start), stops.index(leg.end)
        ridden = stops[first : last + 1] if first < last else stops[last : first + 1][::-1]
        items = [
            {
                "index": 1,
                "start_point_2d": point_for(transit.where(network, a, size), view.convention, size),
                "end_point_2d": point_for(transit.where(network, b, size), view.convention, size),
                "label": str(next(number)),
            }
            for a, b in itertools.pairwise(ridden)
        ]
        calls.append(("path_tracer", {"items": items}, f"I follow {leg.line} from {leg.start} to {leg.end}."))
    return tuple(calls)


def _rubric(reward: str) -> Rubric:
    paid = {"rewardmap": rewardmap(), "rewardmap_code": rewardmap("code")}
    return rubric_of(correct(tagged, is_right), tagged, reward, paid)
