"""A broken line through values at several sizes: one bend, found by least squares, kept only where it is real.

Continuous two-segment regression (Hinkley 1971, "Inference in two-phase regression"): for a bend at ψ the values are
linear in (x, max(0, x − ψ)), so that ψ is found by a search along a line. Its interval is the profile of the residual
sum of squares. The usual F test does not hold for a bend that is not there (Davies 1987); its distribution is drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from robench.metrics import LEVEL, Interval

__all__ = ["Bend", "Slope", "find_bend"]

Array = npt.NDArray[np.float64]

_GRID: Final = 129
_DRAWS: Final = 999
_FEWEST: Final = 5  # sizes: fewer leave nothing to tell a bend from scatter


@dataclass(frozen=True)
class Slope:
    """A gain per doubling; `interval` holds for every bend within the bend's own interval, None of one seed."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Bend:
    """Where accuracy bends.

    Attributes:
        n: samples at the bend.
        interval: its interval, in samples, within the second and the last size but one.
        before: gain per doubling up to the bend.
        after: gain per doubling from there.
        p: how often scatter around one line would look as bent.
    """

    n: float
    interval: Interval
    before: Slope
    after: Slope
    p: float


def find_bend(x: Array, y: Array) -> Bend | None:
    """Return the bend of `y` [sizes, seeds] over `x` = log2 n [sizes]; None where p > 1 − LEVEL or sizes are few."""
    sizes, seeds = y.shape
    freedom = sizes * seeds - seeds - 3  # every seed has a height of its own
    if sizes < _FEWEST or freedom < 1:
        return None
    centred = y - y.mean(0)
    mean = centred.mean(1)
    within = float(((centred - mean[:, None]) ** 2).sum())
    places = np.unique(np.concatenate([np.linspace(x[1], x[-2], _GRID), x[1:-1]]))
    bases = np.stack([_basis(x, place) for place in places])
    line = _basis(x, None)
    bent = seeds * _residual(mean[None], bases)[:, 0] + within
    straight = float(seeds * _residual(mean[None], line[None])[0, 0] + within)
    least = float(bent.min())
    p = _by_chance(straight, least, line, bases, seeds, freedom)
    if p > 1 - LEVEL:
        return None
    reach = 1 + float(stats.f.ppf(LEVEL, 1, freedom)) / freedom
    # A second look, between the places around those that may be it.
    maybe = np.flatnonzero(bent <= reach * least)
    places = np.linspace(places[max(0, maybe[0] - 1)], places[min(len(places) - 1, maybe[-1] + 1)], _GRID)
    bent = seeds * _residual(mean[None], np.stack([_basis(x, place) for place in places]))[:, 0] + within
    place = float(places[int(bent.argmin())])
    maybe = np.flatnonzero(bent <= reach * float(bent.min()))
    inside = places[max(0, maybe[0] - 1) : maybe[-1] + 2]
    before, after = (_slope(x, y, place, inside, side) for side in (0, 1))
    return Bend(2.0**place, Interval(2.0 ** float(inside.min()), 2.0 ** float(inside.max())), before, after, p)


def _basis(x: Array, place: float | None) -> Array:
    """Return an orthonormal basis [sizes, 2] of what a line (bent at `place`) can do after its mean is taken."""
    columns = [x - x.mean()]
    hinge = np.zeros_like(x) if place is None else np.maximum(0.0, x - place)
    columns.append(hinge - hinge.mean())
    basis, triangle = np.linalg.qr(np.stack(columns, 1))
    return np.where(np.abs(np.diag(triangle)) > 1e-9, basis, 0.0)


def _residual(means: Array, bases: Array) -> Array:
    """Return what each basis [places, sizes, 2] leaves of each mean [draws, sizes]: sums of squares [places, draws]."""
    left: Array = (means**2).sum(1) - (np.einsum("ds,psk->pdk", means, bases) ** 2).sum(2)
    return np.maximum(left, 0.0)


def _by_chance(straight: float, bent: float, line: Array, bases: Array, seeds: int, freedom: int) -> float:
    """Return how often values around one line give at least this improvement: draws from a fixed seed."""
    if bent <= 0:
        return 0.0 if straight > 0 else 1.0
    generator = np.random.default_rng(0)
    sizes = len(line)
    means = generator.standard_normal((_DRAWS, sizes)) / math.sqrt(seeds)
    means -= means.mean(1, keepdims=True)
    spread = (sizes - 1) * (seeds - 1)
    within = generator.chisquare(spread, _DRAWS) if spread else np.zeros(_DRAWS)
    one = seeds * _residual(means, line[None])[0] + within
    two = seeds * _residual(means, bases).min(0) + within
    seen = (straight - bent) / bent
    return float((1 + ((one - two) >= seen * two).sum()) / (1 + _DRAWS))


def _slope(x: Array, y: Array, place: float, places: Array, side: int) -> Slope:
    """Return the mean slope of a side over the seeds, and the hull of its intervals over `places`."""
    value = float(_slopes(x, y, place)[side].mean())
    seeds = y.shape[1]
    if seeds < 2:
        return Slope(value, None)
    t = float(stats.t.ppf((1 + LEVEL) / 2, seeds - 1))
    lows, highs = [], []
    for one in (place, *places.tolist()):
        each = _slopes(x, y, one)[side]
        half = t * float(each.std(ddof=1)) / math.sqrt(seeds)
        lows.append(float(each.mean()) - half)
        highs.append(float(each.mean()) + half)
    return Slope(value, Interval(min(lows), max(highs)))


def _slopes(x: Array, y: Array, place: float) -> Array:
    """Return the slopes [2, seeds] before and after a bend, by least squares for each seed."""
    design = np.stack([np.ones_like(x), x, np.maximum(0.0, x - place)], 1)
    coefficients = np.linalg.lstsq(design, y, rcond=None)[0]
    found: Array = np.stack([coefficients[1], coefficients[1] + coefficients[2]])
    return found
