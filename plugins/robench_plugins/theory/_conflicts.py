"""Which samples of different classes conflict at which ε: one pass over all pairs, a block at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from robench.threat import Norm
from robench_plugins.theory._measures import measure_of
from robench_plugins.theory._points import Points

__all__ = ["Conflicts", "Edges"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

_ROWS: Final = 1024
_COLUMNS: Final = 4096
_OPERAND: Final = 4 << 20  # coordinates of one side of a block
_REFINED: Final = 4096  # pairs at the smallest distance that are measured again, more precisely
_SAMPLE: Final = 128  # points among which the first distances are measured
_LARGEST: Final = float(np.finfo(np.float64).max)


@dataclass(frozen=True, eq=False)
class Edges:
    """Conflicting pairs: rows i and j of the points, of different classes."""

    i: Ints
    j: Ints

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.i)

    def where(self, chosen: npt.NDArray[Any]) -> Edges:
        """Return some of them."""
        return Edges(self.i[chosen], self.j[chosen])

    @classmethod
    def join(cls, parts: Sequence[Edges]) -> Edges:
        """Return all pairs of `parts`."""
        none = np.empty(0, np.int32)
        return cls(np.concatenate([none, *(p.i for p in parts)]), np.concatenate([none, *(p.j for p in parts)]))


class Conflicts:
    """The pairs of samples that no classifier gets right together, for every ε of an ascending list.

    A pair conflicts at ε when a point of the domain lies in both closed ε-balls, whether classifiers get the samples as
    they are or cast to float32: ‖a − b‖ + what the casts moved ≤ 2ε. Where they moved nothing this is decided exactly.

    Attributes, after `scan`:
        counts: how many pairs conflict at ε_k but at no smaller ε, int64 [K].
        nearest: a lower bound on the distance of the classes c < e, float64 [classes, classes]; inf without samples.
        complete: for how many ε, from the smallest on, the pairs are held. All together are `capacity` at most.
    """

    def __init__(self, points: Points, norm: Norm, epsilons: Sequence[float], capacity: int) -> None:
        """Prepare; nothing is compared yet. `epsilons` ascend."""
        self.points, self.capacity = points, capacity
        self.measure = measure_of(points.x, norm)
        self.reach = np.array([min(2 * eps, _LARGEST) for eps in epsilons])
        self.limits = np.array([self.measure.limit(reach) for reach in self.reach])
        classes = len(points.starts) - 1
        self.labels = np.repeat(np.arange(classes), np.diff(points.starts))
        self.counts = np.zeros(len(self.reach), np.int64)
        self.complete = len(self.reach)
        self.nearest = np.full((classes, classes), math.inf)
        self._least = np.full((classes, classes), math.inf)  # smallest measure seen, of c < e
        self._moved = bool(points.moved.any())
        self._held: list[list[Edges]] = [[] for _ in self.reach]

    def steps(self) -> int:
        """Return how many steps `scan` has."""
        every = np.arange(len(self.points), dtype=np.int32)
        return sum(len(parts) for _, parts in self._blocks(every, every, later=True))

    def scan(self, advance: Callable[[], None]) -> None:
        """Compare all pairs once; `advance` is called after each step."""
        every = np.arange(len(self.points), dtype=np.int32)
        self._look_around()
        for columns, parts in self._blocks(every, every, later=True):
            right = self.measure.operand(columns)
            for rows in parts:
                label = int(self.labels[rows[0]])
                limit = np.maximum(self._reachable(rows, columns, -1), self._least[label, self.labels[columns]])
                values = self.measure.values(self.measure.operand(rows), right, limit)
                self._note(label, rows, columns, values)
                edges, first = self._sift(rows, columns, values, len(self.reach) - 1)
                self._hold(edges, first)
                advance()
        moved = [self.points.moved[start:stop].max(initial=0.0) for start, stop in pairwise(self.points.starts)]
        apart = np.add.outer(moved, moved).clip(max=1e300) * (1 + 2.0**-50)
        self.nearest = (self.measure.root_down(self.nearest.clip(0.0)) - apart).clip(0.0)

    def take(self, k: int) -> Edges:
        """Hand over the pairs that conflict at ε_k but at no smaller ε; once, and for k < `complete` alone."""
        held, self._held[k] = self._held[k], []
        return Edges.join(held)

    def between(self, left: Ints, right: Ints, k: int, count: int) -> Edges:
        """Return pairs (i from `left`, j from `right`) that conflict at ε_k, and none only if none does.

        All of them, or a random choice of about `count`. Both lists ascend.
        """
        draw = np.random.default_rng(0)
        found = []
        for columns, parts in self._blocks(left, right, later=False):
            operand = self.measure.operand(columns)
            for rows in parts:
                limit = np.full(len(columns), self._reachable(rows, columns, k))
                values = self.measure.values(self.measure.operand(rows), operand, limit)
                edges, _ = self._sift(rows, columns, values, k)
                share = 1 + count * len(rows) * len(columns) // max(1, len(left) * len(right))
                if len(edges) > share:
                    edges = edges.where(np.unique(draw.integers(0, len(edges), share)))
                found.append(edges)
        return Edges.join(found)

    def _blocks(self, left: Ints, right: Ints, *, later: bool) -> Iterator[tuple[Ints, list[Ints]]]:
        """Yield columns from `right` and lists of rows from `left`; each list's rows are of one class, no column is."""
        size = max(1, self.points.x.shape[1])
        width, height = (max(16, min(most, _OPERAND // size)) for most in (_COLUMNS, _ROWS))
        for start, stop in pairwise(self.points.starts):
            rows = left[np.searchsorted(left, start) : np.searchsorted(left, stop)]
            before, after = np.searchsorted(right, start), np.searchsorted(right, stop)
            columns = right[after:] if later else np.concatenate([right[:before], right[after:]])
            parts = [rows[at : at + height] for at in range(0, len(rows), height)]
            for at in range(0, len(columns) if len(rows) else 0, width):
                yield columns[at : at + width], parts

    def _reachable(self, rows: Ints, columns: Ints, k: int) -> float:
        """Return a measure above which no pair of the block conflicts at ε_k."""
        limit = float(self.limits[k])
        return min(limit + 2 * self._slack(rows, columns, limit), _LARGEST)

    def _sift(self, rows: Ints, columns: Ints, values: Floats, k: int) -> tuple[Edges, npt.NDArray[np.intp]]:
        """Return the pairs of a block that conflict at ε_k, and the first ε at which each does."""
        most = self._reachable(rows, columns, k)
        at = np.flatnonzero(values <= most)
        if not len(at):
            return Edges.join([]), at
        i, j = rows[at // len(columns)], columns[at % len(columns)]
        first = self._first(i, j, values.ravel()[at])
        kept = first <= k
        return (Edges(i, j), first) if kept.all() else (Edges(i[kept], j[kept]), first[kept])

    def _first(self, i: Ints, j: Ints, value: Floats) -> npt.NDArray[np.intp]:
        """Return the index of the first ε at which each pair conflicts; K where it never does."""
        if self.measure.inexact:
            error = self.measure.error(i, j, value)
            first = np.searchsorted(self.limits, value + error)
            unsure = np.searchsorted(self.limits, value - error) < first
        else:
            error, unsure = np.zeros(len(i)), np.zeros(len(i), bool)
            first = np.searchsorted(self.limits, value)
        if self._moved:
            moved = self.points.moved[i] + self.points.moved[j]
            unsure &= moved == 0
            far = self.measure.root(value + error) + moved
            # Each sample's own ball has to reach back to its point, too.
            far = np.maximum(far, 2 * np.maximum(self.points.moved[i], self.points.moved[j]))
            shifted = np.flatnonzero(moved)
            first[shifted] = np.searchsorted(self.reach, far[shifted] * (1 + 2.0**-50))
        open_ = np.flatnonzero(unsure)
        if len(open_):
            first[open_] = self._settle(i[open_], j[open_])
        return first

    def _settle(self, i: Ints, j: Ints) -> npt.NDArray[np.intp]:
        """Return what `_first` returns, exactly: from differences, and in integers where that is not enough."""
        value, error = self.measure.direct(i, j)
        first = np.searchsorted(self.limits, value + error)
        for at in np.flatnonzero(np.searchsorted(self.limits, value - error) < first):
            exact = self.measure.exact(int(i[at]), int(j[at]))
            first[at] = sum(Fraction(reach) ** self.measure.power < exact for reach in self.reach)
        return first

    def _hold(self, edges: Edges, first: npt.NDArray[np.intp]) -> None:
        self.counts += np.bincount(first, minlength=len(self.counts))
        for k in np.flatnonzero(np.bincount(first, minlength=1)):
            if k < self.complete:
                self._held[k].append(edges.where(first == k))
        while self.counts[: self.complete].sum() > self.capacity:
            self.complete -= 1
            self._held[self.complete] = []

    def _look_around(self) -> None:
        """Measure a few distances first: what is known to be farther than these need not be finished."""
        some = np.arange(0, len(self.points), max(1, len(self.points) // _SAMPLE), dtype=np.int32)
        operand = self.measure.operand(some)
        values = self.measure.values(operand, operand, np.full(len(some), math.inf))
        starts = np.flatnonzero(np.diff(self.labels[some], prepend=-1))
        there = self.labels[some[starts]]
        least = np.minimum.reduceat(np.minimum.reduceat(values, starts, 0), starts, 1)
        self._least[np.ix_(there, there)] = least

    def _note(self, label: int, rows: Ints, columns: Ints, values: Floats) -> None:
        """Keep the smallest measures between class `label` and the other classes of a block."""
        least = values.min(0)
        starts = np.flatnonzero(np.diff(self.labels[columns], prepend=-1))
        there, stops = self.labels[columns[starts]], [*starts[1:], len(columns)]
        for other, start, stop in zip(there, starts, stops, strict=True):
            seen = least[start:stop].min()
            if (
                seen <= self._least[label, other]
                or seen - self._slack(rows, columns, seen) < self.nearest[label, other]
            ):
                lower = self._lower(rows, columns[start:stop], values[:, start:stop], seen)
                self._least[label, other] = min(self._least[label, other], seen)
                self.nearest[label, other] = min(self.nearest[label, other], lower)

    def _lower(self, rows: Ints, columns: Ints, values: Floats, least: float) -> float:
        """Return a lower bound on the smallest measure of a block, whose smallest computed one is `least`."""
        if not self.measure.inexact:
            return least
        error = self.measure.error(rows[:, None], columns, values)
        # The smallest is one of those that may be below the smallest upper bound.
        i, j = np.nonzero(values - error <= (values + error).min())
        if len(i) > _REFINED:
            return float((values - error).min())
        value, error = self.measure.direct(rows[i], columns[j])
        return float((value - error).min())

    def _slack(self, rows: Ints, columns: Ints, value: float) -> float:
        """Return a bound on the error of every measure in a block that is about `value` or less."""
        absolute = self.measure.absolute
        return float(2 * self.measure.relative * value + absolute[rows].max() + absolute[columns].max())
