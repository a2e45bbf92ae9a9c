"""The least robust error on given samples, by matching samples of different classes that are too close together.

Bhagoji, Cullina & Mittal 2019 (arXiv:1909.12272, theorem 1 on an empirical distribution) for two classes; Dai et al.
2023 (arXiv:2302.10722), their linear program cut off at degree 2, for more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np

from robench.contracts import BoundCurve
from robench.errors import DataError, InputError
from robench.samples import Samples
from robench.threat import Norm
from robench_plugins.theory._conflicts import Conflicts
from robench_plugins.theory._matching import Matching
from robench_plugins.theory._points import Points, read_points

__all__ = ["Transport"]

_HELD: Final = 1 << 30  # bytes of conflicts, and of the graphs that they become
_BYTES: Final = {False: 32, True: 64}  # a conflict's share at the peak, in a bipartite graph and in a double cover
_MATRIX: Final = 100  # classes up to which their distances are told

_ASSUMPTIONS: Final = (
    "closed balls in a convex domain; exactly these samples, in float32 or float64; "
    "any classifier, a randomized one by its expected accuracy"
)
_SOURCE: Final = {
    False: "Bhagoji, Cullina & Mittal 2019, theorem 1: maximum matching",
    True: "Dai et al. 2023, linear program of degree 2: half a maximum matching of the double cover",
}


@dataclass(frozen=True)
class Transport:
    """No classifier is right on more of these samples, at every point within ε of each.

    Two samples of different classes conflict at ε when a point of the domain is within ε of both: every classifier errs
    there for one of them. Two classes: the least number of errors is the size of the maximum matching of conflicting
    samples, and some classifier makes no more. More classes: it is at least the minimum of Σ c_v such that c_u + c_v
    ≥ 1 for every conflict and c ≥ 0, which is half the size of the maximum matching of the double cover.

    Memory: the samples in float32, 1 GiB of conflicts, and blocks. Where more samples conflict than that, they are
    looked for again, where they can still matter.
    """

    def evaluate(
        self, samples: Samples, norm: Norm, epsilons: Sequence[float], progress: Callable[[int, int], None]
    ) -> BoundCurve:
        """Return the ceiling at every ε. Raises DataError without samples."""
        if not len(samples):
            raise DataError("no samples: a ceiling is about the samples that are evaluated")
        if not len(epsilons):
            raise InputError("no ε given: a ceiling is computed at every ε asked for")
        ascending = sorted(epsilons)
        points = read_points(samples, norm)
        several = int(np.count_nonzero(np.diff(points.starts))) > 2
        conflicts = Conflicts(points, norm, ascending, _HELD // _BYTES[several])
        steps = _Steps(progress, conflicts.steps() + len(ascending))
        conflicts.scan(steps.advance)
        sizes = _matchings(conflicts, several, steps)
        by_eps = dict(zip(ascending, zip(sizes, conflicts.counts.cumsum().tolist(), strict=True), strict=True))
        value, detail = [], []
        for eps in epsilons:
            size, edges = by_eps[eps]
            errors = Fraction(size, 2 if several else 1)
            value.append(_up(1 - errors / len(samples)))
            detail.append({"edges": edges, "matching": size, "errors": float(errors), "n": len(samples)})
        facts = _facts(samples.classes, points, conflicts)
        return BoundCurve(value, "ceiling", "samples", _ASSUMPTIONS, _SOURCE[several], detail, facts)


class _Steps:
    """Reports progress."""

    def __init__(self, progress: Callable[[int, int], None], total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def advance(self) -> None:
        self._done += 1
        self._progress(self._done, self._total)


def _matchings(conflicts: Conflicts, several: bool, steps: _Steps) -> list[int]:
    """Return the size of the maximum matching at every ε: of the two classes, or of the double cover of more."""
    sizes = np.diff(conflicts.points.starts)
    sizes = sizes[sizes > 0]
    if len(sizes) < 2:
        return [0 for _ in conflicts.reach]
    n = len(conflicts.points)
    if several:
        # One half everywhere is a solution, and so is 1 outside of the largest class.
        most, matching, shift = min(n, 2 * (n - int(sizes.max()))), Matching(n, n, double_cover=True), np.int32(0)
    else:
        most, matching, shift = int(sizes.min()), Matching(int(sizes[0]), int(sizes[1])), np.int32(sizes[0])
    found = []
    for k in range(len(conflicts.reach)):
        if k < conflicts.complete and len(matching) < most:
            edges = conflicts.take(k)
            matching.add(edges.i, edges.j - shift)
            matching.grow()
        while k >= conflicts.complete and len(matching) < most:
            left, right = matching.open()
            edges = conflicts.between(left, right + shift, k, max(16 * n, conflicts.capacity // 8))
            if not len(edges):
                break
            matching.add(edges.i, edges.j - shift)
            matching.grow()
        found.append(len(matching))
        steps.advance()
    return found


def _facts(classes: tuple[str, ...], points: Points, conflicts: Conflicts) -> dict[str, Any] | None:
    """Return the smallest distance between samples of any two classes, rounded down."""
    if len(classes) > _MATRIX:
        return None
    lower = np.minimum(conflicts.nearest, conflicts.nearest.T)
    rows = [[float(value) if math.isfinite(value) else None for value in row] for row in lower]
    return {"separation": {"classes": list(classes), "distance": rows}}


def _up(value: Fraction) -> float:
    """Return the smallest double that is not below `value`."""
    nearest = float(value)
    return nearest if Fraction(nearest) >= value else math.nextafter(nearest, math.inf)
