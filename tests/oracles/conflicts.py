"""Conflicts and the errors that they force, from the definitions alone: exact distances, every classifier tried."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np

from robench.samples import Samples
from robench.threat import Domain

__all__ = ["exact_power", "fewest_errors", "is_conflict", "make", "smallest_epsilon"]

LINE = Domain.unbounded()


def make(x, y, domain=LINE, dtype=np.float32) -> Samples:
    """Samples of points (numbers or lists) and labels."""
    x = np.asarray(x, dtype)
    x = x[:, None] if x.ndim == 1 else x
    y = np.asarray(y, np.int64)
    return Samples(x, y, np.arange(len(y)), domain, tuple("abcdefgh"[: y.max(initial=0) + 1]))


def exact_power(a, b, norm) -> Fraction:
    """The distance in linf and l1, its square in l2, in rational arithmetic."""
    steps = [abs(Fraction(float(p)) - Fraction(float(q))) for p, q in zip(np.ravel(a), np.ravel(b), strict=True)]
    return {"linf": max(steps), "l1": sum(steps), "l2": sum(s * s for s in steps)}[norm]


def is_conflict(a, b, norm, eps) -> bool:
    """Whether the closed balls of radius `eps` around a and b meet."""
    return exact_power(a, b, norm) <= (2 * Fraction(eps)) ** (2 if norm == "l2" else 1)


def smallest_epsilon(a, b, norm) -> float:
    """The smallest double at which a and b conflict."""
    power = exact_power(a, b, norm)
    eps = (math.sqrt(power) if norm == "l2" else float(power)) / 2
    while is_conflict(a, b, norm, eps):
        eps = math.nextafter(eps, -math.inf)
    while not is_conflict(a, b, norm, eps):
        eps = math.nextafter(eps, math.inf)
    return eps


def fewest_errors(samples: Samples, norm, eps) -> int:
    """The errors of the best deterministic classifier whose only limits are pairs: the largest conflict-free set."""
    n, x, y = len(samples), np.asarray(samples.x[:]), samples.y
    pairs = [
        (i, j) for i, j in itertools.combinations(range(n), 2) if y[i] != y[j] and is_conflict(x[i], x[j], norm, eps)
    ]
    sets = (set(s) for k in range(n, -1, -1) for s in itertools.combinations(range(n), k))
    return n - next(len(s) for s in sets if not any(i in s and j in s for i, j in pairs))
