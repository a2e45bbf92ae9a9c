"""Confidence intervals: of proportions (Clopper & Pearson 1934), of means (Hoeffding 1963, Student 1908)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, variance
from typing import NamedTuple

from scipy.stats import beta, t

__all__ = ["Interval", "bounded_mean", "clopper_pearson", "student_mean", "welch"]


class Interval(NamedTuple):
    """A confidence interval of a proportion."""

    lower: float
    upper: float


def clopper_pearson(count: int, n: int, level: float = 0.95) -> Interval:
    """Return the interval that covers the true proportion with probability at least `level`.

    Half of 1 − level on each side: the quantiles of Beta(k, n − k + 1) and Beta(k + 1, n − k). With no
    samples it is [0, 1].
    """
    if not 0 <= count <= n:
        raise ValueError(f"{count} of {n} is not a proportion")
    if not 0 < level < 1:
        raise ValueError(f"a confidence level lies between 0 and 1, not {level}")
    tail = (1 - level) / 2
    lower = 0.0 if count == 0 else float(beta.ppf(tail, count, n - count + 1))
    upper = 1.0 if count == n else float(beta.isf(tail, count + 1, n - count))
    return Interval(lower, upper)


def bounded_mean(mean: float, n: int, level: float = 0.95) -> Interval:
    """Return an interval that covers the expected mean of n independent numbers in [0, 1] with at least `level`.

    All μ with n · KL(mean ‖ μ) ≤ log(2 / (1 − level)) (Hoeffding 1963, "Probability inequalities for sums of bounded
    random variables", theorem 1, eq. 2.1): whatever the numbers' distributions are, which may differ.
    """
    if not (0 <= mean <= 1 and 0 < level < 1):
        raise ValueError(f"no interval at level {level} about a mean of {mean}")
    if n < 1:
        return Interval(0.0, 1.0)
    budget = math.log(2 / (1 - level)) / n

    def far(mu: float) -> bool:
        kl = 0.0
        for share, other in ((mean, mu), (1 - mean, 1 - mu)):
            if share > 0:
                kl += share * math.log(share / other) if other > 0 else math.inf
        return kl > budget

    ends = []
    for outside in (0.0, 1.0):
        inside = mean
        if not far(outside):
            ends.append(outside)
            continue
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if far(middle) else (middle, outside)
        ends.append(outside)
    return Interval(*ends)


def student_mean(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """Return Student's (1908) interval of the mean that `values`, independent and about normal, have; None of one."""
    if len(values) < 2:
        return None
    half = float(t.ppf((1 + level) / 2, len(values) - 1)) * math.sqrt(variance(values) / len(values))
    return Interval(fmean(values) - half, fmean(values) + half)


def welch(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Interval | None:
    """Return Welch's (1947) interval of mean(a) − mean(b), whose variances may differ; None where one is of one."""
    if min(len(a), len(b)) < 2:
        return None
    difference = fmean(a) - fmean(b)
    u, v = variance(a) / len(a), variance(b) / len(b)
    if u + v == 0:
        return Interval(difference, difference)
    freedom = (u + v) ** 2 / (u**2 / (len(a) - 1) + v**2 / (len(b) - 1))
    half = float(t.ppf((1 + level) / 2, freedom)) * math.sqrt(u + v)
    return Interval(difference - half, difference + half)
