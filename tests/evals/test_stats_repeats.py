"""Measures over repeated attempts, against every possible draw; and intervals and tests against scipy."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from statistics import fmean

import pytest
import scipy.stats as scipy_stats
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.stats import (
    bootstrap,
    estimate,
    maj_at_k,
    mcnemar,
    paired_stderr,
    pass_at_k,
    pass_hat_k,
    student_t_cdf,
    student_t_quantile,
    wilson,
)


def every_draw(n: int, k: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations(range(n), k))


def test_pass_at_k_and_pass_hat_k_are_shares_of_all_draws() -> None:
    for n in range(1, 8):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            draws = [[i < c for i in draw] for draw in every_draw(n, k)]
            assert pass_at_k(n, c, k) == pytest.approx(fmean(any(draw) for draw in draws))
            assert pass_hat_k(n, c, k) == pytest.approx(fmean(all(draw) for draw in draws))


def test_one_attempt_is_the_mean_whatever_the_measure() -> None:
    assert pass_at_k(8, 3, 1) == pass_hat_k(8, 3, 1) == 3 / 8
    assert maj_at_k(list("aaabbbbb"), [True] * 3 + [False] * 5, 1) == pytest.approx(3 / 8)


def test_more_attempts_than_there_are_is_undefined() -> None:
    assert math.isnan(pass_at_k(4, 2, 5)) and math.isnan(pass_hat_k(4, 4, 5))
    assert math.isnan(maj_at_k(["a"] * 4, [True] * 4, 5))


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 0)])
def test_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    for measure in (pass_at_k, pass_hat_k):
        with pytest.raises(ValueError, match="need 0 <= right"):
            measure(n, c, k)


def drawn_majority(answers: list[str | None], right: list[bool], k: int) -> float:
    """The definition, draw by draw."""
    shares = {a: fmean(r for b, r in zip(answers, right, strict=True) if b == a) for a in set(answers) - {None}}
    values: list[float] = []
    for draw in every_draw(len(answers), k):
        votes = Counter(answers[i] for i in draw if answers[i] is not None)
        most = max(votes.values(), default=0)
        values.append(fmean(shares[a] for a, count in votes.items() if count == most) if votes else 0.0)
    return fmean(values)


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.booleans()), min_size=1, max_size=7), st.data())
def test_maj_at_k_is_the_mean_over_all_draws(attempts: list[tuple[str | None, bool]], data: st.DataObject) -> None:
    answers, right = [a for a, _ in attempts], [r for _, r in attempts]
    k = data.draw(st.integers(1, len(attempts)))
    assert maj_at_k(answers, right, k) == pytest.approx(drawn_majority(answers, right, k))


def test_a_tie_is_drawn_by_lot_and_silence_does_not_vote() -> None:
    assert maj_at_k(["7", "8", None], [True, False, False], 3) == 0.5
    assert maj_at_k([None, None], [False, False], 2) == 0.0
    assert maj_at_k(["7", None, None], [True, False, False], 3) == 1.0


def test_sixty_four_attempts_with_sixty_four_answers_are_counted_exactly() -> None:
    answers: list[str | None] = [str(i) for i in range(64)]
    assert maj_at_k(answers, [i == 0 for i in range(64)], 64) == pytest.approx(1 / 64)


# ---- scipy says the same


def test_student_t_is_scipys() -> None:
    for df in (1, 2, 3, 7, 29, 99, 499):
        for p in (0.6, 0.9, 0.975, 0.9995):
            assert student_t_quantile(p, df) == pytest.approx(scipy_stats.t.ppf(p, df), rel=1e-7)
        assert student_t_cdf(-1.3, df) == pytest.approx(scipy_stats.t.cdf(-1.3, df), rel=1e-9)


def test_wilson_is_scipys() -> None:
    for successes, n in ((0, 9), (1, 3), (7, 10), (250, 500), (500, 500)):
        theirs = scipy_stats.binomtest(successes, n).proportion_ci(method="wilson")
        assert wilson(successes, n) == (pytest.approx(theirs.low, abs=1e-12), pytest.approx(theirs.high, abs=1e-12))


def test_mcnemar_is_the_exact_binomial_test() -> None:
    for only_a, only_b in itertools.product(range(0, 40, 3), range(1, 40, 4)):
        theirs = scipy_stats.binomtest(only_a, only_a + only_b, 0.5).pvalue
        assert mcnemar(only_a, only_b) == pytest.approx(theirs, rel=1e-12)


def test_the_interval_of_question_means_is_scipys() -> None:
    attempts = [[1.0, 0.0], [0.5, 0.25], [1.0, 1.0], [0.0, 0.1], [0.3, 0.9]]
    means = [fmean(scores) for scores in attempts]
    theirs = scipy_stats.t.interval(0.95, len(means) - 1, loc=fmean(means), scale=scipy_stats.sem(means))
    found = estimate(attempts)
    assert found.stderr == pytest.approx(scipy_stats.sem(means))
    assert found.ci95 == (pytest.approx(max(0, theirs[0])), pytest.approx(min(1, theirs[1])))


def test_the_paired_error_is_that_of_the_differences() -> None:
    differences = [1.0, 0.0, -1.0, 0.0, 0.5, 1.0]
    assert paired_stderr(differences) == pytest.approx(scipy_stats.sem(differences))
    assert math.isnan(paired_stderr([1.0]))


def test_the_bootstrap_is_near_scipys() -> None:
    values = [float(i % 5 == 0) - float(i % 7 == 0) for i in range(120)]
    theirs = scipy_stats.bootstrap(
        (values,), lambda x, axis: x.mean(axis=axis), n_resamples=10_000, method="percentile", rng=1
    ).confidence_interval
    low, high = bootstrap(values)
    assert (low, high) == (pytest.approx(theirs.low, abs=0.01), pytest.approx(theirs.high, abs=0.01))
