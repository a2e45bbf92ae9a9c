"""Input sets that come with the data: a box per sample, and which outputs are unsafe there (VNN-LIB)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from robench.errors import DataError

if TYPE_CHECKING:
    import torch

__all__ = ["Condition", "Region", "RegionKind", "Regions", "about_labels"]

Floats = npt.NDArray[np.float64]

RegionKind = Literal["labels", "conditions"]
"""What the conditions of a dataset say: that no class reaches the label's logit, or anything else."""


@dataclass(frozen=True, eq=False)
class Condition:
    """Outputs that must not occur: a disjunction of conjunctions of linear inequalities.

    Attributes:
        disjuncts: each is (rows float64 [k, outputs], offsets float64 [k]); it holds where rows @ f + offsets ≤ 0 in
            every entry. The region is unsafe where any of them holds.
        strict: the same with offsets rounded up where the source's are no doubles (in `disjuncts` they are then rounded
            down, for proofs): what a witness must fulfil. None: `disjuncts` are exact.
    """

    disjuncts: tuple[tuple[Floats, Floats], ...]
    strict: tuple[tuple[Floats, Floats], ...] | None = None

    @classmethod
    def of_label(cls, label: int, classes: int) -> Condition:
        """Return "some class reaches the label's logit": f_label − f_j ≤ 0 for a j."""
        rows = []
        for other in range(classes):
            if other != label:
                row = np.zeros((1, classes))
                row[0, label], row[0, other] = 1.0, -1.0
                rows.append((row, np.zeros(1)))
        return cls(tuple(rows))

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return int(self.disjuncts[0][0].shape[1])

    @cached_property
    def label(self) -> int | None:
        """The label whose `of_label` this is, in any order; None where it is none's."""
        first = self.disjuncts[0][0]
        label = int(np.argmax(first[0]))
        return label if self.outputs > 1 and self.is_of_label(label) else None

    def is_of_label(self, label: int) -> bool:
        """Whether this is exactly `of_label(label, classes)`, in any order."""
        wanted = {_key(*one) for one in Condition.of_label(label, self.outputs).disjuncts}
        return self.strict is None and {_key(*one) for one in self.disjuncts} == wanted

    def occurs(self, lower: Sequence[float] | Floats, upper: Sequence[float] | Floats | None = None) -> bool:
        """Whether a disjunct of `strict` holds at all outputs between `lower` and `upper` [outputs].

        In rational arithmetic, at the one point `lower` where `upper` is None. False beside a bound that is not finite.
        """
        ends = [[float(value) for value in bound] for bound in (lower, lower if upper is None else upper)]
        if not all(map(math.isfinite, chain(*ends))):
            return False
        least, most = ([Fraction(value) for value in bound] for bound in ends)

        def largest(row: Sequence[float], offset: float) -> Fraction:
            sides = zip(row, least, most, strict=True)
            return sum((Fraction(a) * (high if a > 0 else low) for a, low, high in sides if a), Fraction(offset))

        return any(
            all(largest(row, offset) <= 0 for row, offset in zip(rows.tolist(), offsets.tolist(), strict=True))
            for rows, offsets in (self.disjuncts if self.strict is None else self.strict)
        )


def about_labels(conditions: Iterable[Condition], y: Iterable[int]) -> bool:
    """Whether each of the `conditions` [B] is `Condition.of_label` of its sample's label, `y` [B]."""
    return all(one.label == label for one, label in zip(conditions, y, strict=True))


def _key(rows: Floats, offsets: Floats) -> tuple[bytes, bytes]:
    return (rows + 0.0).tobytes(), (offsets + 0.0).tobytes()


@dataclass(frozen=True, eq=False)
class Region:
    """The sets of one batch.

    Attributes:
        lower: float64 [B, ...]; the closed box, within the domain, rounded outward: what a proof must cover.
        upper: float64 [B, ...].
        conditions: one per sample [B].
        seconds: the source's own time limit for each [B], +inf without one; None: no limits.
        least: float64 [B, ...]; the box rounded inward, where witnesses must lie; None: `lower` is exact.
        most: float64 [B, ...]; likewise, None: `upper`.
    """

    lower: torch.Tensor
    upper: torch.Tensor
    conditions: Sequence[Condition]
    seconds: Sequence[float] | None = None
    least: torch.Tensor | None = None
    most: torch.Tensor | None = None

    def inside(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the bounds (lower, upper) [B, ...] of the numbers of `like`'s dtype that lie in the box.

        On the device of `like`, which holds points of these samples. The lower one is above the upper one where there
        is no such number. Raises ValueError for points of other samples, as far as the shape tells.
        """
        import torch

        if like.shape != self.lower.shape:
            raise ValueError(f"points {list(like.shape)} of regions {list(self.lower.shape)}: take Threat.select")

        def side(exact: torch.Tensor, inward: float) -> torch.Tensor:
            exact = exact.to(like.device, torch.float64)
            cast = exact.to(like.dtype)
            outside = (cast.double() - exact) * inward < 0
            return torch.where(outside, torch.nextafter(cast, torch.full_like(cast, inward * math.inf)), cast)

        least = self.lower if self.least is None else self.least
        most = self.upper if self.most is None else self.most
        return side(least, 1.0), side(most, -1.0)

    def select(self, rows: torch.Tensor) -> Region:
        """Return those at `rows`: a bool mask [B] or int64 positions."""
        import torch

        given = rows.to(self.lower.device)
        positions = (given.nonzero()[:, 0] if given.dtype == torch.bool else given).tolist()
        return Region(
            self.lower[given],
            self.upper[given],
            [self.conditions[position] for position in positions],
            None if self.seconds is None else [self.seconds[position] for position in positions],
            None if self.least is None else self.least[given],
            None if self.most is None else self.most[given],
        )


@dataclass(frozen=True, eq=False)
class Regions:
    """The sets of all samples, in their order.

    Attributes:
        lower: float64 [N, ...]; the closed boxes, rounded outward where the source's numbers are no doubles.
        upper: float64 [N, ...].
        conditions: [N].
        names: what the source calls each of them [N], for messages and exports.
        seconds: the source's own time limit for each, float64 [N]; +inf without one.
        least: float64 [N, ...]; the boxes rounded inward; None: `lower` is exact.
        most: float64 [N, ...]; likewise, None: `upper`.
    """

    lower: Floats
    upper: Floats
    conditions: tuple[Condition, ...]
    names: tuple[str, ...]
    seconds: Floats
    least: Floats | None = None
    most: Floats | None = None

    def __post_init__(self) -> None:
        """Check that all have one entry per sample and that no box is empty. Raises DataError."""
        counts = {len(self.lower), len(self.upper), len(self.conditions), len(self.names), len(self.seconds)}
        shapes = {self.lower.shape, self.upper.shape}
        shapes |= {one.shape for one in (self.least, self.most) if one is not None}
        if len(counts) != 1 or len(shapes) != 1:
            raise DataError("regions: bounds, conditions, names and time limits differ in length")
        if not bool((self.lower <= self.upper).all()):
            raise DataError("regions: a lower bound is above its upper bound, or not a number")

    def __len__(self) -> int:
        """N."""
        return len(self.names)

    def kind(self, y: npt.NDArray[np.int64]) -> RegionKind:
        """Return what the conditions say about samples with labels `y` [N]."""
        return "labels" if about_labels(self.conditions, y.tolist()) else "conditions"

    def select(self, rows: npt.NDArray[np.int64]) -> Regions:
        """Return those at `rows`."""
        return replace(
            self,
            lower=self.lower[rows],
            upper=self.upper[rows],
            conditions=tuple(self.conditions[row] for row in rows),
            names=tuple(self.names[row] for row in rows),
            seconds=self.seconds[rows],
            least=None if self.least is None else self.least[rows],
            most=None if self.most is None else self.most[rows],
        )

    def batch(self, rows: npt.NDArray[np.int64] | slice, device: torch.device | str = "cpu") -> Region:
        """Return the sets of the samples at `rows` as tensors on `device`."""
        import torch

        def tensor(array: Floats) -> torch.Tensor:
            return torch.from_numpy(np.array(array[rows], dtype=np.float64)).to(device)

        positions = np.arange(len(self))[rows]
        return Region(
            tensor(self.lower),
            tensor(self.upper),
            [self.conditions[row] for row in positions],
            self.seconds[positions].tolist(),
            None if self.least is None else tensor(self.least),
            None if self.most is None else tensor(self.most),
        )

    def digest(self) -> str:
        """sha256 (hex) over boxes and conditions; not over names and time limits."""
        sha = hashlib.sha256()
        for array in (self.lower, self.upper, self.least, self.most):
            sha.update(b"-" if array is None else np.ascontiguousarray(array, dtype="<f8").tobytes())
        for condition in self.conditions:
            for part in (condition.disjuncts, condition.strict or ()):
                sha.update(f"{len(part)}:".encode())
                for rows, offsets in part:
                    sha.update(f"{rows.shape}".encode())
                    sha.update((rows + 0.0).astype("<f8").tobytes() + (offsets + 0.0).astype("<f8").tobytes())
        return sha.hexdigest()
