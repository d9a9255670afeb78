"""Every number is worked by hand or counted by brute force, never copied from the code under test."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist, fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.stats import bootstrap, estimate, mcnemar, student_t_cdf, student_t_quantile, wilson


def test_wilson_bounds_are_the_roots_of_the_score_equation() -> None:
    z = NormalDist().inv_cdf(0.975)
    for n in (1, 2, 7, 30, 200):
        for successes in range(1, n):
            share = successes / n
            for p in wilson(successes, n):
                assert abs(share - p) == pytest.approx(z * math.sqrt(p * (1 - p) / n), rel=1e-9)


def test_wilson_of_8_in_10_by_hand() -> None:
    # z = 1.96: centre (0.8 + 3.8416/20) / 1.38416 = 0.71674, half 1.96/1.38416 sqrt(0.016 + 0.009604) = 0.22658
    low, high = wilson(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (0, 50), (50, 50)])
def test_wilson_at_the_ends_stays_open_on_one_side(successes: int, n: int) -> None:
    low, high = wilson(successes, n)
    assert 0 <= low < high <= 1
    assert (low == 0) == (successes == 0) and (high == 1) == (successes == n)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes of"):
        wilson(successes, n)


def test_student_t_quantiles_are_those_of_printed_tables() -> None:
    table = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 29: 2.045, 30: 2.042, 120: 1.980}
    for df, t in table.items():
        assert student_t_quantile(0.975, df) == pytest.approx(t, abs=6e-4)
    assert student_t_quantile(0.95, 7) == pytest.approx(1.895, abs=6e-4)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 7, 20, 51])
@pytest.mark.parametrize("t", [-2.5, -0.3, 0.0, 0.7, 1.96, 4.0])
def test_student_t_cdf_is_the_integral_of_the_density(df: int, t: float) -> None:
    scale = math.gamma((df + 1) / 2) / (math.sqrt(df * math.pi) * math.gamma(df / 2))

    def density(x: float) -> float:
        return scale * (1 + x * x / df) ** (-(df + 1) / 2)

    steps = 4000
    width = t / steps
    area = fmean(density((i + 0.5) * width) for i in range(steps)) * t
    assert student_t_cdf(t, df) == pytest.approx(0.5 + area, abs=1e-6)


def test_clustered_error_of_two_attempts_by_hand() -> None:
    # Question means 1, 0.5, 0, 0.5: mean 0.5, sd sqrt(0.5/3) = 0.40825, SE = 0.20412, t(3) = 3.18245, half 0.64961
    found = estimate([[1, 1], [1, 0], [0, 0], [0, 1]])
    assert found.mean == 0.5
    assert found.stderr == pytest.approx(0.204124, abs=1e-6)
    assert found.method == "student-t"
    assert found.ci95 == (0.0, 1.0)  # 0.5 +- 0.65, cut to where scores can lie


def test_scores_beyond_one_are_not_cut() -> None:
    # means 2, 4, 6: mean 4, sd 2, SE 1.154701, t(2) = 4.302653, half 4.968276
    found = estimate([[2], [4], [6]])
    assert found.ci95 == (pytest.approx(4 - 4.968276, abs=1e-5), pytest.approx(4 + 4.968276, abs=1e-5))


def test_repeats_that_all_agree_do_not_shrink_the_interval() -> None:
    once = estimate([[1], [0], [1], [1]])
    eight_times = estimate([[1] * 8, [0] * 8, [1] * 8, [1] * 8])
    assert eight_times.ci95 == once.ci95 == wilson(3, 4)


def test_questions_weigh_the_same_however_often_they_were_tried() -> None:
    assert estimate([[1, 1, 1, 1], [0]]).mean == 0.5


def test_nothing_and_one_question_give_no_false_interval() -> None:
    assert math.isnan(estimate([]).mean) and math.isnan(estimate([[]]).mean)
    one = estimate([[0.5, 0.25]])
    assert one.mean == 0.375 and one.ci95 == wilson(0.375, 1)
    assert estimate([[1.0]]).ci95 == wilson(1, 1)
    assert all(map(math.isnan, estimate([[3.0, 4.0]]).ci95))


def test_questions_that_are_all_alike_claim_no_certainty() -> None:
    # z = 1.96 over 4 questions at 0.5: (0.5 + 3.8416/8) / 1.9604 = 0.5, half 1.96/1.9604 sqrt(0.0625 + 0.060025) = 0.35
    half_each = estimate([[1, 0], [0, 1], [1, 0], [0.5, 0.5]])
    assert half_each.method == "wilson" and half_each.stderr == 0
    assert half_each.ci95 == (pytest.approx(0.15, abs=1e-3), pytest.approx(0.85, abs=1e-3))
    assert estimate([[2.0], [2.0]]).method == "none" and all(map(math.isnan, estimate([[2.0], [2.0]]).ci95))


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=4), min_size=2, max_size=12))
def test_the_mean_lies_in_its_interval(attempts: list[list[float]]) -> None:
    found = estimate(attempts)
    low, high = found.ci95
    assert 0 <= low <= found.mean + 1e-12 and found.mean - 1e-12 <= high <= 1
    assert low < high


def test_mcnemar_counts_outcomes_of_fair_coins() -> None:
    for only_a, only_b in itertools.product(range(5), range(6)):
        n = only_a + only_b
        extreme = sum(abs(sum(flips) - n / 2) >= abs(only_a - n / 2) for flips in itertools.product((0, 1), repeat=n))
        assert mcnemar(only_a, only_b) == pytest.approx(extreme / 2**n)


def test_bootstrap_of_two_questions_by_enumeration() -> None:
    # Means of two draws from {0, 1}: 0 with 1/4, 1/2 with 1/2, 1 with 1/4; so the 2.5% and 97.5% points are 0 and 1.
    assert bootstrap([0.0, 1.0]) == (0.0, 1.0)


def test_bootstrap_is_the_same_for_a_seed_and_near_the_normal_interval() -> None:
    values = [float(i % 3 == 0) for i in range(150)]
    low, high = bootstrap(values, resamples=4000)
    assert (low, high) == bootstrap(values, resamples=4000)
    half = 1.96 * pstdev(values) / math.sqrt(len(values))
    assert low == pytest.approx(fmean(values) - half, abs=0.015)
    assert high == pytest.approx(fmean(values) + half, abs=0.015)
