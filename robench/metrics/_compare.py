"""Every comparison of a radius with a budget or another radius, in one place.

Balls are closed (DESIGN 1): `lower = l` says that the ball of radius l holds no misclassified point,
`upper = u` that a misclassified point lies at distance u. All arguments are float64.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["above", "certified_at", "contradicts", "falsified_at", "searched_at", "within"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def certified_at(lower: Floats, eps: float | Floats) -> Bools:
    """Whether nothing misclassified lies within ε: lower ≥ ε."""
    return np.asarray(lower >= eps)


def falsified_at(upper: Floats, eps: float | Floats) -> Bools:
    """Whether something misclassified lies within ε: upper ≤ ε. Robust in the empirical sense is the rest."""
    return np.asarray(upper <= eps)


def contradicts(lower: Floats, upper: Floats) -> Bools:
    """Whether a certificate reaches a witness: lower ≥ upper, except where both are 0 (an incorrect sample)."""
    return np.asarray((lower >= upper) & (lower > 0))


def searched_at(searched: Floats, eps: float) -> Bools:
    """Whether a row answers the question at ε: made at exactly that ε, or for a whole radius (NaN)."""
    return np.asarray((searched == eps) | np.isnan(searched))


def within(distance: Floats, eps: Floats) -> Bools:
    """Whether a point lies in the closed ball that it was searched in; NaN is an unbounded search."""
    return np.asarray((distance <= eps) | np.isnan(eps))


def above(count: int, n: int, ceiling: float) -> int:
    """Return how many of `count` samples out of `n` are more than an accuracy of at most `ceiling` allows.

    A classifier gets a whole number of samples right: the largest k with k / n ≤ ceiling, as doubles, is allowed.
    """
    most = min(n, int(ceiling * n) + 1)
    while most and most / n > ceiling:
        most -= 1
    return max(0, count - most)
