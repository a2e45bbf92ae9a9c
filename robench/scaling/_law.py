"""Accuracy against log2 n: levels, gains per doubling, a bend where there is one, and what a target would take.

Prach & Lampert 2025 ("Intriguing properties of robust classification") find certified robust accuracy to grow linearly
with log n over wide ranges, and give the argument for it in their section 12. The unit of chance is the seed: it draws
both the nested subsets and the weights, so values of one seed at several n depend on each other, and every interval
here is made of what differs between seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from robench.metrics import LEVEL, Interval, clopper_pearson, student_mean
from robench.scaling._stick import Bend, find_bend

__all__ = ["Gain", "Law", "Level", "Needed", "law"]

Array = npt.NDArray[np.float64]

_MOST: Final = 1e30  # samples


@dataclass(frozen=True)
class Level:
    """The accuracy that training on n samples gives, over `seeds` seeds.

    `interval` is about new training sets and seeds and new test samples. Of one seed it is that classifier's own
    (Clopper-Pearson).
    """

    n: int
    seeds: int
    mean: float
    interval: Interval


@dataclass(frozen=True)
class Gain:
    """What a doubling of n gains between two sizes; `interval` is None of one seed."""

    first: int
    last: int
    per_doubling: float
    interval: Interval | None


@dataclass(frozen=True)
class Needed:
    """How many samples a target accuracy takes if the law goes on.

    Attributes:
        target: the accuracy.
        n: by the line through the last segment; +inf where it does not rise.
        interval: Fieller's (1954) interval for n; +inf where the data do not exclude that it is never reached.
        beyond: n over the largest size measured.
        warning: why not to believe it.
    """

    target: float
    n: float
    interval: Interval
    beyond: float
    warning: str


@dataclass(frozen=True)
class Law:
    """What the accuracies over all sizes say.

    Attributes:
        levels: at each size, ascending.
        gains: between neighbouring sizes.
        overall: the line over all sizes.
        bend: where the line bends, and what a doubling gains before and after; None where one line explains the
            values as well.
    """

    levels: tuple[Level, ...]
    gains: tuple[Gain, ...]
    overall: Gain
    bend: Bend | None
    _last: _Line

    @property
    def saturates(self) -> bool:
        """Whether a doubling gains less than half as much after the bend as before it."""
        return self.bend is not None and self.bend.after.value < self.bend.before.value / 2

    def needed(self, target: float) -> Needed:
        """Return how many samples `target` would take. Raises ValueError outside 0 … 1."""
        if not 0 < target < 1:
            raise ValueError(f"a target accuracy lies between 0 and 1, not at {target:g}")
        return _needed(target, self._last, self.levels[-1].n)


def law(sizes: Sequence[int], values: npt.ArrayLike, samples: int) -> Law:
    """Return the law of `values` [sizes, seeds], fractions of `samples` test samples, at ascending `sizes`.

    Raises ValueError for fewer than two sizes or values that are no fractions.
    """
    y = np.asarray(values, np.float64)
    if len(sizes) < 2 or y.shape[:1] != (len(sizes),) or y.ndim != 2 or not y.size:
        raise ValueError(f"{y.shape} values at {len(sizes)} sizes: a law takes two sizes and a value for each seed")
    if not ((y >= 0) & (y <= 1)).all() or samples < 1 or any(a >= b for a, b in pairwise(sizes)):
        raise ValueError("accuracies are fractions of the test samples, at ascending sizes")
    x = np.log2(np.asarray(sizes, np.float64))
    bend = find_bend(x, y)
    tail = x >= (-math.inf if bend is None else math.log2(bend.n) - 1e-9)
    line = _Line.through(x[tail], y[tail], samples)
    whole = _Line.through(x, y, samples)
    return Law(
        tuple(_level(n, row, samples) for n, row in zip(sizes, y, strict=True)),
        tuple(_gain(pair, y[i : i + 2]) for i, pair in enumerate(pairwise(sizes))),
        Gain(sizes[0], sizes[-1], whole.slope, whole.slope_interval),
        bend,
        line,
    )


def _level(n: int, row: Array, samples: int) -> Level:
    mean = float(row.mean())
    if len(row) == 1:
        return Level(n, 1, mean, clopper_pearson(round(mean * samples), samples, LEVEL))
    spread = _quantile(len(row) - 1) ** 2 * float(row.var(ddof=1)) / len(row)
    half = math.sqrt(spread + stats.norm.ppf((1 + LEVEL) / 2) ** 2 * _sampling(mean, samples))
    return Level(n, len(row), mean, Interval(max(0.0, mean - half), min(1.0, mean + half)))


def _gain(pair: tuple[int, int], rows: Array) -> Gain:
    """The same seeds at both sizes: their subsets are nested, so that the differences are paired."""
    each = (rows[1] - rows[0]) / math.log2(pair[1] / pair[0])
    return Gain(*pair, float(each.mean()), student_mean(each.tolist(), LEVEL))


def _quantile(freedom: int) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom))


def _sampling(mean: float, samples: int) -> float:
    """Return the variance of a fraction of `samples`, which no seed changes; never 0 (Agresti & Coull 1998)."""
    p = (mean * samples + 2) / (samples + 4)
    return p * (1 - p) / (samples + 4)


@dataclass(frozen=True)
class _Line:
    """height + slope · (log2 n − centre), the mean of the seeds' least-squares lines, with its covariance."""

    centre: float
    height: float
    slope: float
    covariance: Array
    freedom: int

    @property
    def slope_interval(self) -> Interval | None:
        if self.freedom < 1:
            return None
        half = _quantile(self.freedom) * math.sqrt(float(self.covariance[1, 1]))
        return Interval(self.slope - half, self.slope + half)

    @classmethod
    def through(cls, x: Array, y: Array, samples: int) -> _Line:
        """Fit each seed; of one seed, the scatter around its line stands for what seeds would differ in."""
        centre = float(x.mean())
        u = x - centre
        heights, slopes = y.mean(0), u @ y / float(u @ u)
        seeds = y.shape[1]
        if seeds > 1:
            covariance, freedom = np.cov(heights, slopes, ddof=1) / seeds, seeds - 1
        else:
            freedom = len(x) - 2
            scatter = float(((y[:, 0] - heights[0] - slopes[0] * u) ** 2).sum()) / freedom if freedom else math.inf
            covariance = np.diag([scatter / len(x), scatter / float(u @ u)])
        covariance = covariance + np.diag([_sampling(float(heights.mean()), samples), 0.0])
        return cls(centre, float(heights.mean()), float(slopes.mean()), covariance, freedom)


def _needed(target: float, line: _Line, largest: int) -> Needed:
    rise = target - line.height
    n = _samples(line.centre + rise / line.slope) if line.slope > 0 else math.inf
    interval = _fieller(rise, line) if line.freedom else Interval(1.0, math.inf)
    beyond = n / largest
    if not math.isfinite(interval[1]):
        warning = "the data do not exclude that more samples never reach it"
    elif beyond > 1:
        warning = f"{beyond:.3g} times the largest size measured, and no line rises for ever"
    else:
        warning = ""
    return Needed(target, n, interval, beyond, warning)


def _fieller(rise: float, line: _Line) -> Interval:
    """The u with (rise − slope·u)² ≤ t² Var(height + slope·u), as samples (Fieller 1954); the part on the right."""
    t = _quantile(line.freedom) ** 2
    (vaa, vab), (_, vbb) = line.covariance.tolist()
    a, b, c = line.slope**2 - t * vbb, rise * line.slope + t * vab, rise**2 - t * vaa
    inside = b * b - a * c
    if a > 0 and line.slope > 0:
        half = math.sqrt(max(0.0, inside))
        return Interval(_samples(line.centre + (b - half) / a), _samples(line.centre + (b + half) / a))
    if inside < 0 or line.slope <= 0 or a == 0:
        return Interval(1.0, math.inf)
    return Interval(_samples(line.centre + (b - math.sqrt(inside)) / a), math.inf)


def _samples(doublings: float) -> float:
    if not math.isfinite(doublings) or doublings > math.log2(_MOST):
        return math.inf
    return max(1.0, float(2.0**doublings))
