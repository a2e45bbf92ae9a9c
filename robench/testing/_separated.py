"""Small sets of samples on which the best robust accuracy of any classifier is known exactly, by enumeration.

Closed balls of radius ε around two samples in a convex domain meet exactly where the samples are at most 2ε apart. A
classifier can be robust on a set of samples exactly if no two of them with different labels are so near: the nearest
neighbour among them is one. The best is therefore the largest such set (Bhagoji, Cullina and Mittal 2019, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from robench.samples import Samples
from robench.threat import Domain, Norm

__all__ = ["Separated", "cast_apart", "identical", "known_sets", "on_a_grid", "one_class"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Separated:
    """At most 14 samples [N, ...] with labels [N] and what the best classifier reaches on them."""

    name: str
    x: Array
    y: Array
    domain: Domain = field(default_factory=Domain)
    _gaps: dict[tuple[Norm, str], dict[tuple[int, int], Fraction]] = field(default_factory=dict, repr=False)
    _best: dict[tuple[Norm, float], int] = field(default_factory=dict, repr=False)

    def samples(self) -> Samples:
        """Return a copy of the samples, under indices of their own."""
        n = len(self.y)
        index = (7 * np.arange(n, dtype=np.int64) + 3) % 101
        classes = tuple("abcd"[: max(2, int(self.y.max()) + 1)])
        return Samples(self.x.copy(), self.y.astype(np.int64), index, self.domain, classes)

    def take(self, rows: list[int]) -> Separated:
        """Return the samples at `rows`."""
        return Separated(f"{self.name}, {len(rows)} of them", self.x[rows], self.y[rows], self.domain)

    def gaps(self, norm: Norm, dtype: str = "float64") -> dict[tuple[int, int], Fraction]:
        """Return the distance of each two samples of different classes, exactly; in l2 its square.

        `dtype` rounds the samples first, as a classifier in that precision does.
        """
        if (norm, dtype) not in self._gaps:
            points = [[Fraction(float(value)) for value in row.ravel()] for row in self.x.astype(dtype)]
            self._gaps[norm, dtype] = {
                (i, j): _gap(points[i], points[j], norm)
                for i, j in combinations(range(len(self.y)), 2)
                if self.y[i] != self.y[j]
            }
        return self._gaps[norm, dtype]

    def budgets(self, norm: Norm) -> list[float]:
        """Return ε between the half distances, ascending: far from where rounding could decide."""
        halves = sorted({_half(gap, norm) for gap in self.gaps(norm).values()} - {0.0}) or [0.25]
        edges = [halves[0] / 4, *halves, 2 * halves[-1]]
        middle = [(a + b) / 2 for a, b in pairwise(edges) if b - a > 1e-6 * b]
        return sorted({edges[0], *middle[:: max(1, len(middle) // 5)], edges[-1]})

    def touching(self, norm: Norm) -> list[float]:
        """Return ε at the half distances and one double below, ascending: where rounding decides."""
        halves = sorted({_half(gap, norm) for gap in self.gaps(norm).values()} - {0.0})
        chosen = halves[:: max(1, len(halves) // 6)]
        return sorted({float(np.nextafter(half, 0)) for half in chosen} | set(chosen))

    def best(self, norm: Norm, eps: float) -> int:
        """Return how many samples the best classifier is robustly right on, in either precision."""
        if (norm, eps) not in self._best:
            self._best[norm, eps] = max(self._most(norm, eps, "float64"), self._most(norm, eps, "float32"))
        return self._best[norm, eps]

    def _most(self, norm: Norm, eps: float, dtype: str) -> int:
        n, reach = len(self.y), 2 * Fraction(eps)
        reach = reach * reach if norm == "l2" else reach
        near = [0] * n
        for (i, j), gap in self.gaps(norm, dtype).items():
            if gap <= reach:
                near[i] |= 1 << j
                near[j] |= 1 << i
        sets = np.arange(1 << n)
        fits = np.ones(len(sets), dtype=bool)
        for i in range(n):
            fits &= ((sets >> i & 1) == 0) | (sets & near[i] == 0)
        return int(max(bits.bit_count() for bits in sets[fits].tolist()))


def _gap(a: Sequence[Fraction], b: Sequence[Fraction], norm: Norm) -> Fraction:
    steps = [abs(one - other) for one, other in zip(a, b, strict=True)]
    if norm == "linf":
        return max(steps)
    return sum(steps if norm == "l1" else [step * step for step in steps], Fraction(0))


def _half(gap: Fraction, norm: Norm) -> float:
    return float(gap) ** 0.5 / 2 if norm == "l2" else float(gap) / 2


def _draw(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).random(shape)


@lru_cache(maxsize=1)
def known_sets() -> tuple[Separated, ...]:
    """Return sets of two and of three classes, flat and as pictures, in the unit box and without a box."""
    y = np.arange(12) % 3
    return (
        Separated("two classes of vectors", _draw(5, 12, 3).astype(np.float32), np.arange(12) % 2),
        Separated("three classes of pictures", _draw(6, 11, 1, 2, 3).astype(np.float32), y[:11]),
        Separated("three classes without a box", (8 * _draw(7, 10, 2) - 4), y[:10], Domain.unbounded()),
        identical(),
    )


@lru_cache(maxsize=1)
def identical() -> Separated:
    """Return nine samples of four inputs: with labels a a b, a b c, b, and c c."""
    inputs = _draw(8, 4, 4).astype(np.float32)
    return Separated("identical inputs", inputs[[0, 1, 3, 0, 1, 2, 0, 1, 3]], np.array([0, 0, 2, 0, 1, 1, 1, 2, 2]))


@lru_cache(maxsize=1)
def on_a_grid() -> Separated:
    """Return two classes on multiples of 1/8, where many balls touch exactly."""
    x = np.random.default_rng(9).integers(0, 9, (10, 3)) / 8
    return Separated("a grid, where balls touch", x.astype(np.float32), np.arange(10) % 2)


@lru_cache(maxsize=1)
def cast_apart() -> Separated:
    """Return two classes in double precision that rounding to float32 moves apart, by a part in 10⁷."""
    below, above = 0.25 - 0.7 * 2.0**-26, 0.75 + 0.7 * 2.0**-24  # float32 takes a whole step of either
    return Separated("inputs that float32 moves apart", np.array([[below, 0.5], [above, 0.5]]), np.array([0, 1]))


@lru_cache(maxsize=1)
def one_class() -> Separated:
    """Return samples of one class only."""
    return Separated("one class", _draw(10, 6, 4).astype(np.float32), np.zeros(6, dtype=np.int64))
