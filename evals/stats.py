"""How sure a score is. Pure functions over plain numbers, checked against brute force in the tests.

Questions are the unit: the attempts at one question are not independent, so they are averaged first, and every error
and interval is taken over questions.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev

from tools.record import record


@record
class Estimate:
    """A mean over questions and how far it can be trusted."""

    mean: float
    """nan when there is nothing to average."""
    stderr: float
    """Clustered by question; nan for fewer than two questions."""
    ci95: tuple[float, float]
    """nan, nan where the questions give none."""
    questions: int
    method: str
    """`wilson`, `student-t` or `none`."""


def estimate(attempts: Sequence[Sequence[float]]) -> Estimate:
    """The mean of a score with a 95% interval, from each question's attempts (one or more).

    mean = mean over questions of the question's own mean; standard error = sd(question means) / sqrt(questions).
    Student's t, cut to [0, 1] where all scores lie in it. Wilson's interval over questions where every question's mean
    is 0 or 1, as with a single attempt at a right-or-wrong score, and where all questions have the same mean: there a
    standard error of 0 would claim a certainty that n questions cannot give. No score in [0, 1] varies more than a
    right-or-wrong one of its mean, so that interval is wide enough. Equal questions of a score that goes beyond [0, 1]
    give none.

    >>> e = estimate([[1.0], [0.0], [1.0], [1.0]])
    >>> e.mean, e.method, [round(x, 3) for x in e.ci95]
    (0.75, 'wilson', [0.301, 0.954])
    >>> e = estimate([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    >>> e.mean, round(e.stderr, 4), e.method
    (0.5, 0.2887, 'student-t')
    """
    means = [fmean(scores) for scores in attempts if scores]
    n = len(means)
    if n == 0:
        return Estimate(mean=math.nan, stderr=math.nan, ci95=(math.nan, math.nan), questions=0, method="none")
    mean = fmean(means)
    stderr = stdev(means) / math.sqrt(n) if n > 1 else math.nan
    bounded = all(0.0 <= score <= 1.0 for scores in attempts for score in scores)
    equal = max(means) - min(means) < 1e-9
    if bounded and (equal or all(m in (0.0, 1.0) for m in means)):
        return Estimate(mean=mean, stderr=stderr, ci95=wilson(sum(means), n), questions=n, method="wilson")
    if equal:
        return Estimate(mean=mean, stderr=stderr, ci95=(math.nan, math.nan), questions=n, method="none")
    half = student_t_quantile(0.975, n - 1) * stderr
    low, high = mean - half, mean + half
    if bounded:
        low, high = max(0.0, low), min(1.0, high)
    return Estimate(mean=mean, stderr=stderr, ci95=(low, high), questions=n, method="student-t")


def wilson(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share (Wilson 1927): the p with |successes/n - p| <= z sqrt(p (1 - p) / n).

    `successes` need not be whole: parts of questions count as parts.

    >>> [round(x, 4) for x in wilson(8, 10)]
    [0.4902, 0.9433]
    >>> wilson(0, 10)[0], wilson(10, 10)[1]
    (0.0, 1.0)
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} successes of {n}: need 0 <= successes <= n and n >= 1")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = successes / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)  # exact at the ends, where rounding would leave 1e-17
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def student_t_cdf(t: float, df: int) -> float:
    """P(T <= t) for a whole number of degrees of freedom, by the finite sums of Abramowitz & Stegun 26.7.3-4.

    Written out because the base install has no scipy, and one quantile does not warrant it.

    >>> student_t_cdf(0.0, 5), round(student_t_cdf(1.0, 1), 12)
    (0.5, 0.75)
    """
    if df < 1:
        raise ValueError(f"degrees of freedom is {df}; it must be 1 or more")
    theta = math.atan(t / math.sqrt(df))
    cos, sin = math.cos(theta), math.sin(theta)
    odd = df % 2 == 1
    term = cos if odd else 1.0
    total = term if df > 1 else 0.0
    for k in range(3 if odd else 2, df - 1, 2):
        term *= cos * cos * (k - 1) / k
        total += term
    inside = 2 / math.pi * (theta + sin * total) if odd else sin * total
    return 0.5 + inside / 2


def student_t_quantile(p: float, df: int) -> float:
    """The t with P(T <= t) = p, for p in (0.5, 1).

    >>> round(student_t_quantile(0.975, 2), 3), round(student_t_quantile(0.975, 29), 3)
    (4.303, 2.045)
    """
    if not 0.5 < p < 1:
        raise ValueError(f"p is {p}; it must lie between 0.5 and 1")
    high = 1.0
    while student_t_cdf(high, df) < p:
        high *= 2
    low = 0.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if student_t_cdf(middle, df) < p else (low, middle)
    return (low + high) / 2


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that at least one of k attempts is right, from c right ones in n (Chen et al. 2021, arXiv 2107.03374).

    1 - C(n - c, k) / C(n, k): over all ways to draw k of the n attempts, the share with a right one. Undefined, so
    nan, for k > n: k attempts cannot be drawn.

    >>> pass_at_k(4, 1, 2), pass_at_k(2, 1, 4)
    (0.5, nan)
    """
    _check_counts(n, c, k)
    return 1.0 - math.comb(n - c, k) / math.comb(n, k) if k <= n else math.nan


def pass_hat_k(n: int, c: int, k: int) -> float:
    """pass^k: the chance that all of k attempts are right, C(c, k) / C(n, k) (tau-bench, arXiv 2406.12045).

    nan for k > n.

    >>> pass_hat_k(4, 3, 2), pass_hat_k(1, 1, 2)
    (0.5, nan)
    """
    _check_counts(n, c, k)
    return math.comb(c, k) / math.comb(n, k) if k <= n else math.nan


def maj_at_k(answers: Sequence[str | None], right: Sequence[bool], k: int) -> float:
    """The chance that the most frequent answer of k attempts is right (self-consistency, arXiv 2203.11171).

    Over all ways to draw k of the n attempts, exactly; a tie is drawn by lot. An attempt without an answer (None) does
    not vote; where nobody votes the question is lost. Answers that are equal are one candidate, right as often as its
    attempts are. nan for k > n.

    >>> maj_at_k(["7", "7", "8"], [True, True, False], 3)
    1.0
    >>> maj_at_k(["7", "8"], [True, False], 2)
    0.5
    """
    n = len(answers)
    _check_counts(n, sum(right), k)
    if k > n:
        return math.nan
    groups: dict[str, list[bool]] = {}
    for answer, is_right in zip(answers, right, strict=True):
        if answer is not None:
            groups.setdefault(answer, []).append(is_right)
    silent = n - sum(map(len, groups.values()))
    total = 0.0
    for answer, votes in groups.items():
        others = [len(group) for name, group in groups.items() if name != answer]
        total += fmean(votes) * sum(
            math.comb(len(votes), m) * _ways_to_win(others, silent, k - m, m) for m in range(1, min(k, len(votes)) + 1)
        )
    return total / math.comb(n, k)


def _ways_to_win(others: Sequence[int], silent: int, draws: int, m: int) -> float:
    """Ways to draw so that no other answer has more than m votes; a way with t of them at m counts 1 / (t + 1)."""
    ways = {(0, 0): 1}  # (drawn, answers that have m votes) -> ways
    for size in others:
        more: dict[tuple[int, int], int] = {}
        for (drawn, tied), count in ways.items():
            for votes in range(min(size, m, draws - drawn) + 1):
                key = drawn + votes, tied + (votes == m)
                more[key] = more.get(key, 0) + count * math.comb(size, votes)
        ways = more
    return sum(
        count * math.comb(silent, draws - drawn) / (tied + 1)
        for (drawn, tied), count in ways.items()
        if draws - drawn <= silent
    )


def _check_counts(n: int, c: int, k: int) -> None:
    if not 0 <= c <= n or k < 1:
        raise ValueError(f"{c} right of {n} attempts, k = {k}: need 0 <= right <= attempts and k >= 1")


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar test: how likely so uneven a split of the discordant questions is if A and B are equal.

    >>> mcnemar(0, 5), mcnemar(3, 3)
    (0.0625, 1.0)
    """
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, i) for i in range(fewer + 1))
    return min(1.0, 2 * tail / 2**n)


def paired_stderr(differences: Sequence[float]) -> float:
    """Standard error of a mean difference, from each question's own difference; nan for fewer than two questions.

    >>> paired_stderr([1.0, 0.0, -1.0, 0.0])
    0.408248290463863
    """
    return stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan


def bootstrap(values: Sequence[float], *, resamples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """95% percentile bootstrap interval of the mean; the same for the same seed.

    >>> bootstrap([1.0, 1.0, 1.0])
    (1.0, 1.0)
    """
    if not values:
        return math.nan, math.nan
    chance, n = random.Random(seed), len(values)
    means = sorted(sum(chance.choices(values, k=n)) / n for _ in range(resamples))
    return means[int(0.025 * resamples)], means[min(resamples - 1, int(0.975 * resamples))]
