"""What a page of a claim concludes: intervals over seeds, and words that follow from them alone."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.claim_page import conclusion, sentence
from training.findings import minus, over_seeds, verdict


def test_students_interval_over_three_seeds_by_hand() -> None:
    """0.80, 0.85, 0.90: sd = sqrt((0.05^2 + 0 + 0.05^2) / 2) = 0.05; 4.302653 * 0.05 / sqrt(3) = 0.124207."""
    found = over_seeds([(0.80, 0.7, 0.9), (0.85, 0.7, 0.9), (0.90, 0.8, 1.0)])
    assert found.mean == pytest.approx(0.85)
    assert (found.low, found.high) == (pytest.approx(0.725793, abs=1e-6), pytest.approx(0.974207, abs=1e-6))
    assert verdict(over_seeds([(value, -1, 1) for value in (0.02, 0.03, 0.04)], bounds=(-1, 1))) == "as claimed"
    # half = 4.302653 * 0.02 / sqrt(3) = 0.049683 > 0.03
    assert verdict(over_seeds([(value, -1, 1) for value in (0.01, 0.03, 0.05)], bounds=(-1, 1))) == "not told apart"


SHARES = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda pair: tuple(count / 40 for count in pair))
OTHER = {
    "as claimed": "the other way round",
    "the other way round": "as claimed",
    "not told apart": "not told apart",
}


@given(st.lists(SHARES, min_size=1, max_size=5))
def test_the_verdict_turns_round_when_the_numbers_are_swapped(pairs: list[tuple[float, float]]) -> None:
    def measured(share: float) -> tuple[float, float, float]:
        return share, max(0.0, share - 0.1), min(1.0, share + 0.05)

    one = over_seeds([minus(measured(a), measured(b)) for a, b in pairs], bounds=(-1.0, 1.0))
    other = over_seeds([minus(measured(b), measured(a)) for a, b in pairs], bounds=(-1.0, 1.0))
    assert verdict(other) == OTHER[verdict(one)]
    assert -1 - 1e-9 <= one.low <= one.mean <= one.high <= 1 + 1e-9
    assert (other.low, other.high) == (pytest.approx(-one.high), pytest.approx(-one.low))
    told = {
        "higher": "with",
        "lower": "without",
        "metric": None,
        "share": True,
        "mean": one.mean,
        "ci95": [one.low, one.high],
    }
    said = sentence({**told, "verdict": verdict(one)})
    first, second = ("without", "with") if one.high < 0 else ("with", "without")
    assert re.match(rf"\*{first}\* (is above|and) \*{second}\*", said)


def test_the_conclusion_counts_the_verdicts() -> None:
    def of(*verdicts: str) -> str:
        return conclusion({"differences": [{"verdict": one} for one in verdicts], "seeds": [0, 1, 2]})

    assert of("not told apart") == "The difference is not told apart."
    assert of("not told apart", "not told apart") == "Neither difference is told apart."
    assert of(*["as claimed"] * 3) == "All differences are as claimed."
    assert of("the other way round", "as claimed", "as claimed") == (
        "Of 3 differences, 2 are as claimed and 1 is the other way round."
    )
