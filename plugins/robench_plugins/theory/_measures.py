"""Distances between blocks of float32 points, in float64 and with a bound on their error.

A *measure* orders pairs as the norm does: the distance in linf and l1, its square in l2. What a measure's error leaves
open is settled in integers (`exact`): every float32 number is one times a power of two. On grids (k/16, k/255 rounded
to float32) most measures have no error at all, because no sum that occurs needs more than 53 bits.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robench.numerics import gamma
from robench.threat import Norm

__all__ = ["Measure", "measure_of"]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int32]

_SPLITS: Final = 3  # places at which linf is screened
_FEW: Final = 0.3  # of all pairs: fewer are measured one by one
_BLOCK: Final = 4 << 20  # coordinates worked on together


class Measure(ABC):
    """Measures between the rows of `x` [n, d], float32, within `relative` · v + `absolute`[i] + `absolute`[j]."""

    power: int = 1

    def __init__(self, x: npt.NDArray[np.float32]) -> None:
        """Find out how large the rounding errors can be."""
        self.x = x
        self.relative = 0.0
        self.absolute = np.zeros(len(x))

    @abstractmethod
    def operand(self, rows: Rows) -> Tensor:
        """Return rows in the form that `values` takes, float64 [B, …]."""

    @abstractmethod
    def values(self, left: Tensor, right: Tensor, limit: Floats) -> Floats:
        """Return the measures [L, R]; in place of one above `limit` [R], anything above `limit` may stand."""

    @property
    def inexact(self) -> bool:
        """Whether there is any error."""
        return self.relative > 0 or bool(self.absolute.any())

    def error(self, i: Rows, j: Rows, value: Floats) -> Floats:
        """Return a bound on the error of `value`, the measures of the pairs (i, j); the rounding of v ± it included."""
        return self.relative * value + (self.absolute[i] + self.absolute[j])

    def limit(self, reach: float) -> float:
        """Return the largest double v such that a measure of v or less means a distance of `reach` or less."""
        exact = Fraction(reach) ** self.power
        if exact > Fraction(np.finfo(np.float64).max):
            return float(np.finfo(np.float64).max)
        value = float(exact)
        return value if Fraction(value) <= exact else math.nextafter(value, 0.0)

    def root(self, value: Floats) -> Floats:
        """Return the distances that belong to measures, rounded up."""
        return value if self.power == 1 else np.nextafter(np.sqrt(value), math.inf)

    def root_down(self, value: Floats) -> Floats:
        """Return the distances that belong to measures, rounded down."""
        if self.power == 1:
            return value
        root = np.sqrt(value)
        # The square of a number of 24 bits is exact.
        with np.errstate(over="ignore"):
            exact = (root.astype(np.float32) == root) & (root * root == value)
        return np.where(exact, root, np.nextafter(root, 0.0))

    def exact(self, i: int, j: int) -> Fraction:
        """Return the measure of a pair in rational arithmetic."""
        mantissas, exponents = np.frexp(self.x[[i, j]])
        whole, shift = (mantissas * 2.0**24).astype(np.int64), exponents.astype(np.int64) - 24
        low = int(shift[whole != 0].min(initial=0))
        shift = np.maximum(shift - low, 0)
        a, b = ([int(m) << int(s) for m, s in zip(*row, strict=True)] for row in zip(whole, shift, strict=True))
        return self._combine([abs(p - q) for p, q in zip(a, b, strict=True)]) * Fraction(2) ** (low * self.power)

    def direct(self, i: Rows, j: Rows) -> tuple[Floats, Floats]:
        """Return the measures of the pairs (i, j) from their differences, and a bound on the error of each."""
        value = np.empty(len(i))
        step = max(1, _BLOCK // max(1, self.x.shape[1]))
        for at in range(0, len(i), step):
            a, b = (self.x[rows[at : at + step]].astype(np.float64) for rows in (i, j))
            value[at : at + step] = self._reduce(np.abs(a - b))
        return value, 2 * gamma(self.x.shape[1] + 6) * value

    @abstractmethod
    def _reduce(self, steps: Floats) -> Floats:
        """Return the measures that belong to the coordinates' distances [B, d]."""

    @abstractmethod
    def _combine(self, steps: list[int]) -> Fraction:
        """Return `_reduce` of one pair in integers."""


class _Euclidean(Measure):
    """‖a − b‖² = −2 a·b + ‖a‖² + ‖b‖² as one matrix product of d + 2 terms.

    The terms' magnitudes add up to at most 2 (‖a‖² + ‖b‖²), and ‖a‖² itself has an error of γ_d: in all at most
    3 γ_{d+2} (‖a‖² + ‖b‖²) (Higham 2002, section 3.1). Nothing over- or underflows: float64 has room for the
    squares of float32 numbers.
    """

    power = 2

    def __init__(self, x: npt.NDArray[np.float32]) -> None:
        super().__init__(x)
        self.squares = np.concatenate([*(np.square(b).sum(1) for b in _blocks(x)), np.zeros(0)])
        # Multiples of q² up to 2**53 q² need no rounding, in whatever order they are added.
        if 4 * self.squares.max(initial=0.0) > 2.0**52 * _quantum(x) ** 2:
            self.absolute = 4 * gamma(x.shape[1] + 8) * self.squares

    def operand(self, rows: Rows) -> Tensor:
        block = np.empty((len(self.squares[rows]), self.x.shape[1] + 2))
        block[:, :-2], block[:, -2], block[:, -1] = self.x[rows], self.squares[rows], 1.0
        return torch.from_numpy(block)

    def values(self, left: Tensor, right: Tensor, limit: Floats) -> Floats:
        turned = torch.cat([-2 * left[:, :-2], left[:, -1:], left[:, -2:-1]], 1)
        return (turned @ right.T).numpy()

    def _reduce(self, steps: Floats) -> Floats:
        sums: Floats = np.square(steps).sum(1)
        return sums

    def _combine(self, steps: list[int]) -> Fraction:
        return Fraction(sum(step * step for step in steps))


class _Screened(Measure):
    """Distances coordinate by coordinate, for those pairs alone whose cheaper lower bound does not exceed the limit."""

    p: float

    def values(self, left: Tensor, right: Tensor, limit: Floats) -> Floats:
        size = self.x.shape[1]
        a, b = left[:, :size].contiguous(), right[:, :size].contiguous()
        most = float(limit.max(initial=0.0))
        found = self.floor(left, right, most) if most < math.inf else np.zeros((len(left), len(right)))
        i, j = np.nonzero(found <= limit)
        if len(i) > _FEW * found.size:
            return torch.cdist(a, b, p=self.p).numpy()
        ends = np.searchsorted(i, np.arange(len(a) + 1))
        for row, (start, stop) in enumerate(pairwise(ends)):
            if start == stop:
                continue
            near = j[start:stop]
            found[row, near] = self._reduce(np.abs(b.numpy()[near] - a.numpy()[row]))
        return found

    @abstractmethod
    def floor(self, left: Tensor, right: Tensor, limit: float) -> Floats:
        """Return lower bounds on the measures, [L, R]. Whether they exceed `limit` is all that matters."""


class _Maximum(_Screened):
    """linf. Where one point is at most s and the other s + t or more, they are t apart or more.

    Which pairs are so, at any coordinate and for a few s, is a matrix product of zeros and ones.
    """

    p = math.inf

    def __init__(self, x: npt.NDArray[np.float32]) -> None:
        super().__init__(x)
        self._least, self._most = float(x.min(initial=0.0)), float(x.max(initial=0.0))
        if 2 * max(-self._least, self._most) > 2.0**52 * _quantum(x):
            self.relative = 2.0**-50

    def operand(self, rows: Rows) -> Tensor:
        return torch.from_numpy(self.x[rows].astype(np.float64))

    def floor(self, left: Tensor, right: Tensor, limit: float) -> Floats:
        apart = limit * (1 + 2.0**-20)
        room = self._most - self._least - apart
        if room <= 2.0**-20 * (self._most - self._least):
            return np.zeros((len(left), len(right)))
        low = [self._least + room * (part + 0.5) / _SPLITS for part in range(_SPLITS)]
        high = [side + apart for side in low]
        # Sides rounded so that they are more than `limit` apart, or the screen is not to be trusted.
        if min(Fraction(b) - Fraction(a) for a, b in zip(low, high, strict=True)) <= Fraction(limit):
            return np.zeros((len(left), len(right)))
        below, above = [(right <= side).float() for side in low], [(right >= side).float() for side in high]
        others = torch.cat([*below, *above], 1)
        below, above = [(left <= side).float() for side in low], [(left >= side).float() for side in high]
        found = (torch.cat([*above, *below], 1) @ others.T).numpy()
        return np.where(found > 0, math.nextafter(limit, math.inf), 0.0)

    def _reduce(self, steps: Floats) -> Floats:
        largest: Floats = steps.max(1, initial=0.0)
        return largest

    def _combine(self, steps: list[int]) -> Fraction:
        return Fraction(max(steps, default=0))


class _Sum(_Screened):
    """l1. With no coordinate further apart than w, ‖a − b‖₁ ≥ ‖a − b‖₂² / w: a matrix product, and close for images."""

    p = 1.0

    def __init__(self, x: npt.NDArray[np.float32]) -> None:
        super().__init__(x)
        if 2 * max((b.sum(1).max() for b in map(np.abs, _blocks(x))), default=0.0) > 2.0**52 * _quantum(x):
            self.relative = 2 * gamma(x.shape[1] + 4)
        self._squared = _Euclidean(x)
        self._slack = 2 * self._squared.absolute.max(initial=0.0)
        widest = x.max(0).astype(np.float64) - x.min(0) if len(x) else np.zeros(1)
        self._width = widest.max(initial=0.0) * (1 + 2.0**-48) or 1.0

    def operand(self, rows: Rows) -> Tensor:
        return self._squared.operand(rows)

    def floor(self, left: Tensor, right: Tensor, limit: float) -> Floats:
        lower: Floats = (self._squared.values(left, right, np.empty(0)) - self._slack) / self._width
        return lower

    def _reduce(self, steps: Floats) -> Floats:
        total: Floats = steps.sum(1)
        return total

    def _combine(self, steps: list[int]) -> Fraction:
        return Fraction(sum(steps))


def measure_of(x: npt.NDArray[np.float32], norm: Norm) -> Measure:
    """Return the measure of a norm on the rows of `x` [n, d]."""
    kinds: dict[Norm, type[Measure]] = {"linf": _Maximum, "l2": _Euclidean, "l1": _Sum}
    return kinds[norm](x)


def _blocks(x: npt.NDArray[np.float32]) -> Iterator[Floats]:
    step = max(1, _BLOCK // max(1, x.shape[1]))
    for start in range(0, len(x), step):
        yield x[start : start + step].astype(np.float64)


def _quantum(x: npt.NDArray[np.float32]) -> float:
    """Return a power of two (1 at most) of which every entry of `x` is a multiple; 1 where all are 0."""
    lowest = 0
    for block in _blocks(x):
        mantissas, exponents = np.frexp(block[block != 0])
        whole = (mantissas * 2.0**24).astype(np.int64)
        bits = np.frexp((whole & -whole).astype(np.float64))[1]
        lowest = min(lowest, int((exponents + bits).min(initial=25)) - 25)
    return 2.0**lowest
