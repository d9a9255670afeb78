"""Rewards of agents that look and draw, as formulas of what an episode did.

Whether a picture was looked at is read from the calls that ran, never from text: a policy can write a marker itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

from envs.env import Env
from envs.rewards.answers import Read, Same, final_text
from envs.rewards.search import deepeyes_v2_score, one_answer, ran
from envs.rubric import RewardFn
from envs.scoring import mean_relative_accuracy, tagged
from envs.scoring.routes import Leg, Lines, plain
from envs.scoring.routes import read as read_route
from envs.trajectory import Trajectory
from tools.content import Image

Bonus: TypeAlias = Literal["conditional", "unconditional", "none"]
"""When DeepEyes pays for a tool: for a right answer only, always, or never (the arms of its ablation)."""

Difficulty: TypeAlias = Literal["easy", "middle", "hard"]
"""How hard ReasonMap calls a map."""

Marks: TypeAlias = Callable[[str, Any], float]
"""(what was answered, `Task.answer`) -> how right it is, 0 to 1."""


def deepeyes_score(
    accuracy: float,
    well_formed: bool = True,
    looked: bool = False,
    bonus: Bonus = "conditional",
    weights: tuple[float, float, float] = (0.8, 0.2, 1.2),
) -> float:
    """DeepEyes' reward for perception and charts: w1 acc + w2 fmt + w3 [looked and right]; fmt is 0, or -1 in bad form.

    Arxiv 2505.14362, 3.3, has no weights, which is `weights=(1, 1, 1)`; 0.8, 0.2 and 1.2 are those of the released
    code (`vl_agent.py`). Right is an accuracy above one half.

    >>> deepeyes_score(1, looked=True), deepeyes_score(1), deepeyes_score(0, looked=True), deepeyes_score(0, False)
    (2.0, 0.8, 0.0, -0.2)
    >>> deepeyes_score(0, looked=True, bonus="unconditional"), deepeyes_score(1, looked=True, bonus="none")
    (1.2, 0.8)
    """
    paid = {"conditional": looked and accuracy > 0.5, "unconditional": looked, "none": False}[bonus]
    return weights[0] * accuracy - weights[1] * (not well_formed) + weights[2] * paid


def deepeyes_math_score(accuracy: float, well_formed: bool = True) -> float:
    """DeepEyes' reward for mathematics, without a tool (`vl_agent.py`): 1.2 acc + 0.4 fmt; fmt is 0, or -1.

    >>> deepeyes_math_score(1), round(deepeyes_math_score(1, False), 1)
    (1.2, 0.8)
    """
    return 1.2 * accuracy - 0.4 * (not well_formed)


def vilasr_score(accuracy: float, well_formed: bool, variant: Literal["paper", "code"] = "paper") -> float:
    """ViLaSR's reward: form counts only where the answer is at least partly right.

    `paper` is 1[acc > 0] (acc + fmt) (arXiv 2506.09965, 3.3); `code`, the released `gcot.py`, is half of it.

    >>> vilasr_score(0.7, True), vilasr_score(0.7, True, "code"), vilasr_score(1, False), vilasr_score(0, True)
    (1.7, 0.85, 1.0, 0.0)
    """
    total = accuracy + well_formed if accuracy > 0 else 0.0
    return float(total if variant == "paper" else total / 2)


def rewardmap_score(
    right: bool, detail: float = 0.0, form: float = 0.0, weight: float = 1.0, alpha: float = 0.5
) -> float:
    """RewardMap's reward, W (R_format + R_correct + alpha R_detail) (arXiv 2510.02240, 3.2), on the scale of its code.

    A right answer is 10, detail at most 10. The released `reason_map.py` has no format term, which is `form=0`.

    >>> rewardmap_score(True, 9, weight=1.7), rewardmap_score(False, 6, weight=1.5)
    (24.65, 4.5)
    """
    return weight * (form + 10.0 * right + alpha * detail)


def rewardmap_weight(difficulty: Difficulty, transfers: int | None = None) -> float:
    """W of `rewardmap_score`: 1, 1.2 or 1.5 by the map, and 0.5 more for a route that changes lines.

    `transfers` is None for a question that asks for no route.

    >>> rewardmap_weight("hard"), rewardmap_weight("middle", 0), rewardmap_weight("middle", 2)
    (1.5, 1.2, 1.7)
    """
    return {"easy": 1.0, "middle": 1.2, "hard": 1.5}[difficulty] + (0.5 if transfers else 0.0)


def rewardmap_detail(
    text: str, lines: Lines, start: str, end: str, transfers: int, variant: Literal["paper", "code"] = "paper"
) -> float:
    """RewardMap's detail of a route, at most 10.

    0 unless the route begins at `start` or ends at `end`, and then 2. Each leg adds 3 where its line exists (where
    `transfers` is 0: 4, where its line joins the two), 1 where the next leg begins at its end, and -5 where it is one
    leg too many. `code` is the released `reason_map.py`: both ends must be right, and as it compares the number of legs
    with the number of transfers, the last leg of every right route is one too many.

    >>> lines = {"Line 1": ["A", "B"], "Line 2": ["B", "C"]}
    >>> route = "Route Name: Line 1\\nDeparture Stop: A\\nArrival Stop: B\\n--\\n"
    >>> route += "Route Name: Line 2\\nDeparture Stop: B\\nArrival Stop: C"
    >>> rewardmap_detail(route, lines, "A", "C", 1), rewardmap_detail(route, lines, "A", "C", 1, "code")
    (9.0, 4.0)
    """
    legs = read_route(text)
    if not legs:
        return 0.0
    ends = plain(legs[0].start) == plain(start), plain(legs[-1].end) == plain(end)
    if not (any(ends) if variant == "paper" else all(ends)):
        return 0.0
    most = transfers + 1 if variant == "paper" else transfers
    stops = {plain(line): {plain(stop) for stop in names} for line, names in lines.items()}
    total = 2.0
    for number, leg in enumerate(legs, 1):
        if number > most:
            total -= 5
        served = stops.get(plain(leg.line))
        if served is None:
            continue
        if transfers:
            total += 3
        elif {plain(start), plain(end)} <= served:
            total += 4
        if {plain(leg.start), plain(leg.end)} <= served and number <= most and _joined(legs, number):
            total += 1
    return min(total, 10.0)


def deepeyes(
    same: Same,
    read: Read = tagged,
    bonus: Bonus = "conditional",
    weights: tuple[float, float, float] = (0.8, 0.2, 1.2),
) -> RewardFn:
    """`deepeyes_score` of an episode. An answer of 1,000 characters or more is wrong, and bad form, as in its code."""
    well_formed = one_answer(read)

    async def reward(env: Env, trajectory: Trajectory) -> float:
        answer = read(final_text(trajectory))
        long = answer is not None and len(answer) >= 1000
        right = answer is not None and not long and same(answer, trajectory.task.answer)
        form = well_formed(trajectory) and not long
        return deepeyes_score(float(right), form, looked(trajectory), bonus, weights)

    return reward


def deepeyes_v2(same: Same, read: Read = tagged, search_data: bool = False) -> RewardFn:
    """`deepeyes_v2_score` of an episode. An answer of 300 characters or more is wrong, as in its code."""
    well_formed = one_answer(read)

    async def reward(env: Env, trajectory: Trajectory) -> float:
        answer = read(final_text(trajectory))
        right = answer is not None and len(answer) < 300 and same(answer, trajectory.task.answer)
        return deepeyes_v2_score(right, well_formed(trajectory), ran(trajectory), search_data)

    return reward


def vilasr(
    marks: Marks, read: Read = tagged, thinks: bool = True, variant: Literal["paper", "code"] = "paper"
) -> RewardFn:
    """`vilasr_score` of an episode; `marks` says how right an answer is, `thinks` whether every turn must reason."""

    async def reward(env: Env, trajectory: Trajectory) -> float:
        answer = read(final_text(trajectory))
        accuracy = 0.0 if answer is None else marks(answer, trajectory.task.answer)
        return vilasr_score(accuracy, vilasr_form(trajectory, thinks), variant)

    return reward


def graded(marks: Marks, read: Read = tagged) -> RewardFn:
    """How right the last message's answer is, 0 to 1."""

    async def reward(env: Env, trajectory: Trajectory) -> float:
        answer = read(final_text(trajectory))
        return 0.0 if answer is None else float(marks(answer, trajectory.task.answer))

    return reward


def reflections() -> RewardFn:
    """How many marks an episode drew again otherwise (`redrawn`): ViLaSR selects by it and pays nothing for it."""

    async def reward(env: Env, trajectory: Trajectory) -> float:
        return float(len(redrawn(trajectory)))

    return reward


def choice_or_number(given: str, expected: Any) -> float:
    """ViLaSR's accuracy (`gcot.py`): of a number the mean relative accuracy, of anything else equality.

    >>> choice_or_number("B", "B"), choice_or_number("b", "B"), choice_or_number("9", 10)
    (1.0, 0.0, 0.9)
    """
    if isinstance(expected, int | float):
        return mean_relative_accuracy(given, expected)
    return float(given.strip() == str(expected).strip())


def looked(trajectory: Trajectory) -> bool:
    """Whether a call brought back a picture."""
    return any(
        call.outcome == "ok" and any(isinstance(part, Image) for part in call.result.content)
        for call in trajectory.calls
    )


def vilasr_form(trajectory: Trajectory, thinks: bool = True) -> bool:
    """ViLaSR's format: every turn reasons and acts, the answer is in the last turn alone, every mark can be read."""
    *before, last = trajectory.steps
    if thinks and not all(step.action.reasoning for step in trajectory.steps):
        return False
    if last.action.tool_calls or tagged(last.action.text) is None:
        return False
    if not all(step.action.tool_calls and tagged(step.action.text) is None for step in before):
        return False
    return all(call.outcome != "malformed" for call in trajectory.calls) and all(map(_is_mark, _marks_of(trajectory)))


def redrawn(trajectory: Trajectory) -> set[tuple[int, str]]:
    """The marks, by picture and label, that were drawn a second time elsewhere: ViLaSR's sign of reflection."""
    places: defaultdict[tuple[int, str], set[str]] = defaultdict(set)
    for mark in _marks_of(trajectory):
        if _is_mark(mark):
            where = [mark.get(key) for key in ("bbox_2d", "start_point_2d", "end_point_2d")]
            places[mark.get("index", 1), str(mark["label"])].add(repr(where))
    return {label for label, seen in places.items() if len(seen) > 1}


def _marks_of(trajectory: Trajectory) -> list[Mapping[str, Any]]:
    """What was drawn: the objects in every list of every call that could be read."""
    found: list[Mapping[str, Any]] = []
    for call in trajectory.calls:
        for value in (call.call.arguments or {}).values():
            items: Sequence[Any] = cast(Sequence[Any], value) if isinstance(value, list) else ()
            found += [cast(Mapping[str, Any], item) for item in items if isinstance(item, Mapping)]
    return found


def _is_mark(item: Mapping[str, Any]) -> bool:
    return "label" in item and ("bbox_2d" in item or {"start_point_2d", "end_point_2d"} <= item.keys())


def _joined(legs: Sequence[Leg], number: int) -> bool:
    return number < len(legs) and plain(legs[number - 1].end) == plain(legs[number].start)
