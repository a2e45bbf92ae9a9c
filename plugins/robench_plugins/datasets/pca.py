"""Keep some of the principal components of a dataset, in the space that inputs had before."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from robench import param
from robench.contracts import Dataset
from robench.errors import DataError
from robench.samples import Samples
from robench.threat import Domain
from robench_plugins.datasets._members import Rows

__all__ = ["Pca"]

_RANGE: Final = re.compile(r"([1-9][0-9]{0,6})(?:-([1-9][0-9]{0,6}))?")
_LARGEST: Final = 1 << 14  # coordinates: their covariance then takes 2 GiB
_BLOCK: Final = 32 << 20  # bytes in float64 that are projected together


@dataclass(frozen=True)
class Pca:
    """Project onto principal components, counted from 1, and back: x becomes μ + V Vᵀ(x − μ) for the kept columns of V.

    `pca:keep=1-16+513-3072` keeps two ranges, as in Prach & Lampert's Table 1 (section 4.4). Mean μ and components are
    those of the training split, in float64; every split is projected, rounded to float32 and keeps its shape and its
    norms. Projections leave the box that inputs came from, so the result's domain is unbounded. The fraction of the
    training split's variance that is kept is recorded as `variance_explained`. Ranges must end where the variance of
    the components falls: which basis an eigenvalue that repeats gets is up to the library.
    """

    selects: ClassVar[bool] = False
    fits: ClassVar[bool] = True

    keep: tuple[str, ...] = param(..., "ranges of components, counted from 1 and joined by +", positional=True)

    def __post_init__(self) -> None:
        """Refuse what is no list of ranges, ascending and apart."""
        self.ranges()

    def ranges(self) -> list[tuple[int, int]]:
        """Return (first, last), counted from 1. Raises ValueError."""
        found, end = [], 0
        for item in self.keep:
            match = _RANGE.fullmatch(item)
            if match is None:
                raise ValueError(f"{item!r} is no range of components: write 1-16, or 1-16+513-3072")
            first, last = int(match[1]), int(match[2] or match[1])
            if not end < first <= last:
                raise ValueError(f"keep={'+'.join(self.keep)}: write ascending ranges that do not overlap")
            found.append((first, last))
            end = last
        if not found:
            raise ValueError("keep needs a range of components, like 1-16")
        return found

    def apply(self, dataset: Dataset) -> Dataset:
        """Return the projected dataset."""
        return _Projected(dataset, self)


@dataclass(frozen=True)
class _Fit:
    """Mean [D], orthonormal columns `basis` [D, k], whether they are what stays or what goes, and the variance kept."""

    mean: npt.NDArray[np.float64]
    basis: npt.NDArray[np.float64]
    stays: bool
    explained: float

    def __call__(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        flat = x.reshape(len(x), -1).astype(np.float64) - self.mean
        part = (flat @ self.basis) @ self.basis.T
        projected = self.mean + (part if self.stays else flat - part)
        return projected.astype(np.float32).reshape(x.shape)


@dataclass(frozen=True)
class _Projected:
    dataset: Dataset
    pca: Pca

    def load(self, split: str) -> Samples:
        samples = self.dataset.load(split)
        if samples.regions is not None:
            raise DataError("pca: sets of their own come with these samples, which a projection would not keep")
        fit = self._fit
        if prod(samples.shape) != len(fit.mean):
            raise DataError(f"pca: split {split} has inputs of another size than train: it cannot be projected")
        facts = {**(samples.facts or {}), "variance_explained": fit.explained}
        x = _stored(fit, samples)
        return replace(samples, x=x, domain=Domain.unbounded(), facts=facts)

    @cached_property
    def _fit(self) -> _Fit:
        """Mean and components of the training split. Raises DataError where the ranges do not fit them."""
        train = self.dataset.load("train")
        size, ranges = prod(train.shape), self.pca.ranges()
        if size > _LARGEST:
            raise DataError(
                f"pca: inputs have {size} coordinates: principal components are found for {_LARGEST} at most"
            )
        if ranges[-1][1] > size:
            raise DataError(f"pca: there are {size} components, but keep asks for number {ranges[-1][1]}")
        if len(train) < 2:
            raise DataError("pca: one sample has no variance: take a larger training split")
        mean = sum(block.sum(0) for block in _blocks(train)) / len(train)
        scatter = np.zeros((size, size))
        for block in _blocks(train):
            block -= mean
            scatter += block.T @ block
        variances, vectors = np.linalg.eigh(scatter)  # ascending
        variances, vectors = np.maximum(variances[::-1], 0.0), vectors[:, ::-1]
        kept = np.zeros(size, bool)
        for first, last in ranges:
            kept[first - 1 : last] = True
        _refuse_ties(variances, kept)
        stays = int(kept.sum()) <= size // 2
        basis = np.ascontiguousarray(vectors[:, kept == stays])
        return _Fit(mean, basis, stays, float(variances[kept].sum() / variances.sum()))


def _refuse_ties(variances: npt.NDArray[np.float64], kept: npt.NDArray[np.bool_]) -> None:
    """Raise DataError where a range ends between components whose variances cannot be told apart in float64."""
    if not variances[0] > 0:
        raise DataError("pca: all training samples are equal: there are no principal components")
    resolution = len(variances) * np.finfo(np.float64).eps * variances[0]
    for cut in np.flatnonzero(np.diff(kept.astype(np.int8))):
        if variances[cut] - variances[cut + 1] <= resolution:
            alike = np.flatnonzero(np.abs(variances - variances[cut]) <= resolution) + 1
            raise DataError(
                f"pca: components {alike[0]} to {max(alike[-1], cut + 2)} have the same variance, so which is number "
                f"{cut + 1} is arbitrary: keep all of them or none"
            )


def _blocks(samples: Samples) -> Iterator[npt.NDArray[np.float64]]:
    """Yield the inputs as rows [B, D] in float64."""
    step = max(1, _BLOCK // (8 * prod(samples.shape)))
    for start in range(0, len(samples), step):
        yield samples.batch(start, start + step).reshape(-1, prod(samples.shape)).astype(np.float64)


def _stored(fit: _Fit, samples: Samples) -> Rows:
    """Project once, in blocks that are always the same, to a temporary file: rows read later agree to the bit."""
    step = max(1, _BLOCK // (8 * prod(samples.shape)))
    with tempfile.TemporaryFile(prefix="robench-") as file:
        try:
            for start in range(0, len(samples), step):
                file.write(fit(samples.batch(start, start + step)).tobytes())
            file.flush()
        except OSError as error:
            raise DataError(f"pca: no room for the projected inputs ({error.strerror}): set TMPDIR") from None
        return Rows(file, 0, (len(samples), *samples.shape), np.dtype(np.float32), "the projected inputs")
