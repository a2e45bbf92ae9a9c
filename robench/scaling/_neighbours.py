"""How near the nearest training sample is, and how fast it comes nearer: Prach & Lampert 2025, section 12.

If a point lies within r of another with probability c·r^d* (their d*, "something like an intrinsic dimension"), the
median distance to the nearest of n points falls like n^(−1/d*) (eq. 26). So −1/d* is the slope of log r over log n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torch import Tensor

from robench.metrics import LEVEL, Interval
from robench.samples import Samples

__all__ = ["Nearness", "intrinsic_dimension", "median_distances"]

_ROWS: Final = 512
_MOST_QUERIES: Final = 1000


@dataclass(frozen=True)
class Nearness:
    """The law of the nearest neighbour.

    Attributes:
        dimension: d*.
        interval: its interval; +inf where distances need not fall at all.
    """

    dimension: float
    interval: Interval


def median_distances(queries: Samples, parts: Sequence[Samples]) -> list[float]:
    """Return the median l2 distance of `queries` to the nearest sample of each of nested `parts`.

    Of more than 1,000 queries as many, at equal steps through all: they may lie class by class. `parts` are ascending
    subsets of one set: only what is new in each is compared. Distances are of float64.
    """
    if len(queries) > _MOST_QUERIES:
        queries = queries.select(np.linspace(0, len(queries) - 1, _MOST_QUERIES).astype(np.int64))
    x = _rows(queries, 0, len(queries))
    nearest = x.new_full((len(x),), math.inf)
    seen: npt.NDArray[np.int64] = np.empty(0, np.int64)
    medians = []
    for part in parts:
        new = part.select(np.flatnonzero(~np.isin(part.index, seen)))
        seen = np.union1d(seen, part.index)
        for start in range(0, len(new), _ROWS):
            block = _rows(new, start, min(start + _ROWS, len(new)))
            nearest = torch.minimum(nearest, _squares(x, block).amin(1))
        medians.append(float(nearest.clamp_min(0).sqrt().quantile(0.5)))
    return medians


def intrinsic_dimension(sizes: Sequence[int], medians: npt.ArrayLike) -> Nearness | None:
    """Return d* from median distances [sizes, seeds] at ascending `sizes`; None where one is 0, or sizes are few.

    Each seed's line of log r over log n is fitted by least squares; the interval is of the mean slope over the seeds
    (of one seed: of the scatter around its line), turned into dimensions.
    """
    r = np.asarray(medians, np.float64)
    if len(sizes) < 3 or not (np.isfinite(r) & (r > 0)).all():
        return None
    u = np.log(np.asarray(sizes, np.float64))
    u -= u.mean()
    logs = np.log(r)
    slopes = u @ logs / float(u @ u)
    seeds = r.shape[1]
    if seeds > 1:
        freedom, error = seeds - 1, float(slopes.std(ddof=1)) / math.sqrt(seeds)
    else:
        freedom = len(sizes) - 2
        left = logs - logs.mean(0) - np.outer(u, slopes)
        error = math.sqrt(float((left**2).sum()) / freedom / float(u @ u))
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    fall = -float(slopes.mean())
    return Nearness(_inverse(fall), Interval(_inverse(fall + half), _inverse(fall - half)))


def _inverse(fall: float) -> float:
    return 1 / fall if fall > 0 else math.inf


def _rows(samples: Samples, start: int, stop: int) -> Tensor:
    return torch.from_numpy(samples.batch(start, stop).astype(np.float64)).flatten(1)


def _squares(one: Tensor, other: Tensor) -> Tensor:
    """Return squared distances [len(one), len(other)]; cancellation leaves an error near 1e-15 of the squared norms."""
    return (one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T
