"""Rewards of search agents, as formulas of what an episode did: was it right, well-formed, and what did it call?

Whether a tool was used is counted from executed calls, never from text: a policy can write a closing tag itself.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

from envs.env import Env
from envs.rewards.answers import Read, final_text
from envs.rubric import RewardFn
from envs.scoring import exact_match, normalized, tagged, token_f1
from envs.trajectory import Trajectory

Score: TypeAlias = Callable[[str, str], float]
"""(what was answered, a right answer) -> how right it is, 0 to 1."""

Form: TypeAlias = Callable[[Trajectory], bool]
"""Whether an episode keeps to the format that was asked for."""


def search_r1_score(right: bool, well_formed: bool = True, retrieved: bool = False, variant: str = "v0.2") -> float:
    """Search-R1's reward of one episode.

    `v0.2` is the paper's exact match (arXiv 2503.09516, eq. 4): 1 if right, else 0. `v0.3` is the format reward of the
    follow-up (arXiv 2505.15117) and of `qa_em_format.py`: right 1 or, in bad form, 0.8; wrong 0.2 or, in bad form, 0.1;
    `retrieved` (a passage that was found holds the answer) adds 0.1 to a well-formed wrong one. An episode without an
    answer is neither: 0.2 for its form, or 0.

    >>> [search_r1_score(right, form, variant="v0.3") for right in (True, False) for form in (True, False)]
    [1.0, 0.8, 0.2, 0.1]
    """
    if variant == "v0.2":
        return float(right)
    if right:
        return 1.0 if well_formed else 0.8
    if well_formed:
        return 0.2 + (0.1 if retrieved else 0.0)
    return 0.1


def tool_star_score(f1: float, well_formed: bool, searched: bool, computed: bool) -> float:
    """Tool-Star's hierarchical reward (arXiv 2505.16410, eq. 6).

    Bad form -1; else 0 for an answer that shares no word with the right one; else its token F1, and 0.1 more where the
    episode both searched and ran code.

    >>> tool_star_score(0.5, True, True, True), tool_star_score(0.0, True, True, True), tool_star_score(1, False, True, True)
    (0.6, 0.0, -1.0)
    """  # noqa: E501 - one example, one line
    if not well_formed:
        return -1.0
    return f1 + (0.1 if searched and computed else 0.0) if f1 > 0 else 0.0


def mmsearch_r1_score(right: bool, well_formed: bool, searched: bool) -> float:
    """MMSearch-R1's reward with its search penalty (arXiv 2506.20670, eq. 2; `mmsearch_r1_score.py`).

    0.9 EM (1 - 0.1 [searched]) + 0.1 format: a right answer is worth 0.09 less when it was searched for.

    >>> round(mmsearch_r1_score(True, True, True), 2), round(mmsearch_r1_score(True, True, False), 2)
    (0.91, 1.0)
    """
    return 0.9 * right * (0.9 if searched else 1.0) + 0.1 * well_formed


def deepmmsearch_r1_score(right: bool, well_formed: bool) -> float:
    """DeepMMSearch-R1's reward (arXiv 2510.12801, 3.3): 0.9 s + 0.1 s_fmt.

    >>> deepmmsearch_r1_score(True, False), deepmmsearch_r1_score(False, True)
    (0.9, 0.1)
    """
    return 0.9 * right + 0.1 * well_formed


def deepeyes_v2_score(right: bool, well_formed: bool, called: bool = False, search_data: bool = False) -> float:
    """DeepEyesV2's reward (arXiv 2511.05271, 3.4; `deepeyesv2.py`): 0.8 acc + 0.2 format, and no bonus for tools.

    `search_data` is the released code's variant for search tasks, which the paper does not state: accuracy is worth a
    tenth less where any tool was called.

    >>> deepeyes_v2_score(True, True, called=True), round(deepeyes_v2_score(True, True, called=True, search_data=True), 2)
    (1.0, 0.92)
    """  # noqa: E501 - one example, one line
    return 0.8 * right * (0.9 if called and search_data else 1.0) + 0.2 * well_formed


Place: TypeAlias = Mapping[str, str]
"""`city`, `state` and `country`."""


def geovista_score(given: Place, right: Place, levels: Literal["hierarchical", "city"] = "hierarchical") -> float:
    """GeoVista's reward (arXiv 2511.15705, eq. 4, with beta = 2): 4 for the city, 2 the state, 1 the country, else 0.

    A finer level counts only within the coarser ones that are given: Paris, Texas is not Paris, France. `city` is the
    flat control of its ablation: 1 for the city, else 0.

    >>> here = {"city": "Lyon", "state": "Auvergne-Rhône-Alpes", "country": "France"}
    >>> geovista_score(here, here), geovista_score({"country": "france"}, here), geovista_score({"city": "Lyon"}, here)
    (4.0, 1.0, 4.0)
    >>> geovista_score({"city": "Lyon", "country": "Canada"}, here)
    0.0
    """
    agrees = {level: _same_name(given.get(level, ""), right.get(level, "")) for level in ("city", "state", "country")}
    wrong = {level for level in agrees if given.get(level) and right.get(level) and not agrees[level]}
    city = agrees["city"] and not wrong
    if levels == "city":
        return float(city)
    if city:
        return 4.0
    if agrees["state"] and "country" not in wrong:
        return 2.0
    return float(agrees["country"])


def _same_name(given: str, right: str) -> bool:
    """Equal in SQuAD's normal form, accents left out; nothing equals no name."""
    plain = [
        normalized("".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c)))
        for name in (given, right)
    ]
    return plain[0] == plain[1] != ""


def one_answer(read: Read = tagged) -> Form:
    """The form asked of most search agents: the last message answers, and no call before it was malformed."""

    def form(trajectory: Trajectory) -> bool:
        return read(final_text(trajectory)) is not None and all(
            call.outcome != "malformed" for call in trajectory.calls
        )

    return form


def search_r1(read: Read = tagged, variant: str = "v0.2", form: Form | None = None) -> RewardFn:
    """`search_r1_score` of an episode; right is SQuAD's normalised exact match against any gold answer."""
    well_formed = form or one_answer(read)

    async def reward(env: Env, trajectory: Trajectory) -> float:
        answer = read(final_text(trajectory))
        if answer is None and variant != "v0.2":
            return 0.2 if well_formed(trajectory) else 0.0
        right = answer is not None and _best(exact_match, answer, trajectory.task.answer) == 1.0
        return search_r1_score(right, well_formed(trajectory), variant=variant)

    return reward


def tool_star(
    read: Read = tagged,
    score: Score = token_f1,
    form: Form | None = None,
    names: tuple[str, str] = ("search", "python"),
) -> RewardFn:
    """`tool_star_score` of an episode; `names` are the two tools it should combine."""
    well_formed = form or one_answer(read)

    async def reward(env: Env, trajectory: Trajectory) -> float:
        answer = read(final_text(trajectory))
        f1 = 0.0 if answer is None else await asyncio.to_thread(_best, score, answer, trajectory.task.answer)
        searched, computed = (ran(trajectory, name) for name in names)
        return tool_star_score(f1, well_formed(trajectory), searched, computed)

    return reward


def mmsearch_r1(read: Read = tagged, form: Form | None = None) -> RewardFn:
    """`mmsearch_r1_score` of an episode."""
    well_formed = form or one_answer(read)

    async def reward(env: Env, trajectory: Trajectory) -> float:
        answer = read(final_text(trajectory))
        right = answer is not None and _best(exact_match, answer, trajectory.task.answer) == 1.0
        return mmsearch_r1_score(right, well_formed(trajectory), ran(trajectory))

    return reward


def geovista(
    read: Callable[[str], Place | None], levels: Literal["hierarchical", "city"] = "hierarchical", least: float = 0.0
) -> RewardFn:
    """`geovista_score` of an episode, whose task has the right place in `info["place"]`.

    With `least`, whether it is at least so much: 4 for the city, 2 for the state, 1 for the country.
    """

    async def reward(env: Env, trajectory: Trajectory) -> float:
        given = read(final_text(trajectory))
        score = 0.0 if given is None else geovista_score(given, trajectory.task.info["place"], levels)
        return float(score >= least) if least else score

    return reward


def ran(trajectory: Trajectory, name: str | None = None) -> bool:
    """Whether a call (of the tool `name`, or of any) was carried out."""
    return any(name in (None, call.call.name) and call.outcome != "malformed" for call in trajectory.calls)


def _best(score: Score, given: str, expected: Any) -> float:
    """The best score against any of the gold answers, which may be one or a list of them."""
    golds: list[Any] = [*expected] if isinstance(expected, list | tuple) else [expected]
    return max(score(given, str(gold)) for gold in golds)
