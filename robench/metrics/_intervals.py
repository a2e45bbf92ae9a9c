"""Exact binomial confidence intervals (Clopper & Pearson 1934)."""

from __future__ import annotations

from typing import NamedTuple

from scipy.stats import beta

__all__ = ["Interval", "clopper_pearson"]


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
