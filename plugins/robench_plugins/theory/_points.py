"""Samples as the float32 points that classifiers see, sorted by class, and how far the cast moved each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from robench.distances import distance
from robench.samples import Samples
from robench.threat import Norm

__all__ = ["Points", "read_points"]

_BLOCK: Final = 4 << 20  # coordinates read together

_LARGEST: Final = np.finfo(np.float32).max


@dataclass(frozen=True, eq=False)
class Points:
    """The samples of all classes, one class after the other.

    Attributes:
        x: float32 [n, d], every point in the domain.
        moved: float64 [n], how far at most the sample as a classifier gets it, in float32 or in float64, lies from
            its point; 0 where a sample is in float32 already.
        starts: int64 [classes + 1]; class c has the rows starts[c] … starts[c + 1] − 1.
    """

    x: npt.NDArray[np.float32]
    moved: npt.NDArray[np.float64]
    starts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Return n."""
        return len(self.x)

    def label(self, row: int) -> int:
        """Return the class of a row."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1


def read_points(samples: Samples, norm: Norm) -> Points:
    """Read all samples once, a block at a time; 4 bytes per coordinate stay in memory. Raises DataError for NaN."""
    size = math.prod(samples.shape)
    place = np.empty(len(samples), np.int64)
    place[np.argsort(samples.y, kind="stable")] = np.arange(len(samples))
    x, moved = np.empty((len(samples), size), np.float32), np.empty(len(samples))
    lower, upper = _sides(samples.domain.lower, samples.domain.upper)
    step = max(1, _BLOCK // max(1, size))
    for start in range(0, len(samples), step):
        stop = min(start + step, len(samples))
        given = samples.batch(start, stop).reshape(stop - start, size)
        with np.errstate(over="ignore"):
            cast = given.astype(np.float32)
        rows = place[start:stop]
        x[rows] = cast.clip(lower, upper)
        moved[rows] = np.maximum(_apart(x[rows], cast, norm), _apart(x[rows], given, norm))
    if lower > upper:  # no float32 number lies in the domain
        moved[:] = math.inf
    starts = np.searchsorted(np.sort(samples.y), np.arange(len(samples.classes) + 1))
    return Points(x, moved, starts.astype(np.int64))


def _sides(lower: float, upper: float) -> tuple[np.float32, np.float32]:
    """Return the outermost finite float32 numbers in the domain: a point there lies in it at any precision."""
    with np.errstate(over="ignore"):
        low, high = np.float32(lower), np.float32(upper)
    if float(low) < lower:
        low = np.nextafter(low, np.float32(math.inf))
    if float(high) > upper:
        high = np.nextafter(high, np.float32(-math.inf))
    return max(low, -_LARGEST), min(high, _LARGEST)


def _apart(a: npt.NDArray[np.float32], b: npt.NDArray[np.floating], norm: Norm) -> npt.NDArray[np.float64]:
    if np.array_equal(a, b):
        return np.zeros(len(a))
    far = distance(torch.from_numpy(a).double(), torch.from_numpy(b.astype(np.float64)), norm)
    return np.where(np.isnan(far.numpy()), math.inf, far.numpy())
