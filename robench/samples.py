"""Labelled samples, sliced lazily so that a dataset never has to fit into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from robench.errors import DataError
from robench.regions import Regions
from robench.threat import Domain, Norm

__all__ = ["ArraySource", "Samples"]

IntArray = npt.NDArray[np.int64]


class ArraySource(Protocol):
    """What `Samples.x` must offer: an ndarray, a memory map, or anything that decodes on access."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, ...]."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of what indexing returns."""

    def __getitem__(self, rows: Any) -> npt.NDArray[Any]:
        """Rows by slice or int64 array."""

    def __len__(self) -> int:
        """N."""


@dataclass(frozen=True, eq=False)
class Samples:
    """One split of a dataset.

    Attributes:
        x: inputs [N, ...] in the domain; floats.
        y: labels [N], int64 in 0 … len(classes) − 1.
        index: original index of each sample in the split, int64 [N], without repetition.
        domain: the box that inputs live in.
        classes: class names in label order.
        thresholds: headline ε per norm, as written (`{"linf": ("8/255",)}`).
        regions: input sets and output conditions of the samples' own, where they come with the data.
        facts: figures that go into manifests (`{"variance_explained": 0.73}`); no part of the data's identity.
    """

    x: ArraySource
    y: IntArray
    index: IntArray
    domain: Domain
    classes: tuple[str, ...]
    thresholds: dict[Norm, tuple[str, ...]] | None = None
    regions: Regions | None = None
    facts: dict[str, float] | None = None

    def __post_init__(self) -> None:
        """Check shapes, labels and names. Raises DataError."""
        given: Any = self.classes  # a list or an array too
        named = isinstance(given, Iterable) and all(isinstance(name, str) for name in given)
        if isinstance(given, str) or not named:
            raise DataError(f"classes are {given!r}: give the classes' names, a text for each label")
        object.__setattr__(self, "classes", tuple(str(name) for name in given))
        n = len(self.y)
        if not (len(self.x) == n == len(self.index)):
            raise DataError(f"x, y and index differ in length: {len(self.x)}, {n}, {len(self.index)}")
        if n and (self.y.min() < 0 or self.y.max() >= len(self.classes)):
            bad = int(np.flatnonzero((self.y < 0) | (self.y >= len(self.classes)))[0])
            raise DataError(
                f"label {int(self.y[bad])} of sample {int(self.index[bad])} is outside 0 … {len(self.classes) - 1}"
            )
        if len(np.unique(self.index)) != n:
            raise DataError("sample indices repeat: every sample needs an index of its own")
        if self.regions is not None and self.regions.lower.shape != tuple(self.x.shape):
            raise DataError(f"regions {self.regions.lower.shape} are not of the shape of x {tuple(self.x.shape)}")

    def __len__(self) -> int:
        """N."""
        return len(self.y)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.x.shape[1:])

    def select(self, positions: slice | Sequence[int] | IntArray) -> Samples:
        """Return the samples at `positions`, lazily."""
        rows = np.arange(len(self))[positions]
        regions = None if self.regions is None else self.regions.select(rows)
        return replace(self, x=_Rows(self.x, rows), y=self.y[rows], index=self.index[rows], regions=regions)

    def batch(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return inputs [stop − start, ...]; raises DataError where one is outside the domain or not finite."""
        x = np.asarray(self.x[start:stop])
        inside = (x >= self.domain.lower) & (x <= self.domain.upper) & np.isfinite(x)
        if not inside.all():
            row = int(np.flatnonzero(~inside.reshape(len(x), -1).all(1))[0])
            bad = x[row][~inside[row]].flat[0]
            raise DataError(
                f"sample {int(self.index[start + row])} holds {bad}, outside the domain "
                f"[{self.domain.lower}, {self.domain.upper}]: rescale the data or give its domain"
            )
        return x

    def digest(self) -> str:
        """sha256 (hex) over x, y, the indices, the domain and the regions: the dataset's identity."""
        sha = hashlib.sha256(
            f"{self.x.shape}{np.dtype(self.x.dtype).str}{self.domain.lower!r}{self.domain.upper!r}".encode()
        )
        for start in range(0, len(self), 4096):
            sha.update(np.ascontiguousarray(self.x[start : start + 4096]).tobytes())
        sha.update(self.y.astype("<i8").tobytes())
        sha.update(self.index.astype("<i8").tobytes())
        if self.regions is not None:
            sha.update(self.regions.digest().encode())
        return sha.hexdigest()


class _Rows:
    """Rows of another source, looked up on access."""

    def __init__(self, source: ArraySource, rows: IntArray) -> None:
        self._source, self._rows = source, rows
        if isinstance(source, _Rows):
            self._source, self._rows = source._source, source._rows[rows]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._rows), *self._source.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._source.dtype

    def __getitem__(self, rows: Any) -> npt.NDArray[Any]:
        return np.asarray(self._source[self._rows[rows]])

    def __len__(self) -> int:
        return len(self._rows)
