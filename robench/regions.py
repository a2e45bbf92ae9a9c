"""Input sets that come with the data: a box per sample, and which outputs are unsafe there (VNN-LIB)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robench.errors import DataError

if TYPE_CHECKING:
    import torch

__all__ = ["Condition", "Region", "Regions"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Condition:
    """Outputs that must not occur: a disjunction of conjunctions of linear inequalities.

    Attributes:
        disjuncts: each is (rows float64 [k, outputs], offsets float64 [k]); it holds where rows @ f + offsets ≤ 0 in
            every entry. The region is unsafe where any of them holds.
    """

    disjuncts: tuple[tuple[Floats, Floats], ...]

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

    def is_of_label(self, label: int) -> bool:
        """Whether this is exactly `of_label(label, classes)`, in any order."""
        classes = self.disjuncts[0][0].shape[1]
        wanted = {_key(*one) for one in Condition.of_label(label, classes).disjuncts}
        return {_key(*one) for one in self.disjuncts} == wanted


def _key(rows: Floats, offsets: Floats) -> tuple[bytes, bytes]:
    return (rows + 0.0).tobytes(), (offsets + 0.0).tobytes()


@dataclass(frozen=True, eq=False)
class Region:
    """The sets of one batch.

    Attributes:
        lower: float64 [B, ...]; the closed box, within the domain.
        upper: float64 [B, ...].
        conditions: one per sample [B].
    """

    lower: torch.Tensor
    upper: torch.Tensor
    conditions: Sequence[Condition]


@dataclass(frozen=True, eq=False)
class Regions:
    """The sets of all samples, in their order.

    Attributes:
        lower: float64 [N, ...]; the closed boxes.
        upper: float64 [N, ...].
        conditions: [N].
        names: what the source calls each of them [N], for messages and exports.
        seconds: the source's own time limit for each, float64 [N]; +inf without one.
    """

    lower: Floats
    upper: Floats
    conditions: tuple[Condition, ...]
    names: tuple[str, ...]
    seconds: Floats

    def __post_init__(self) -> None:
        """Check that all have one entry per sample and that no box is empty. Raises DataError."""
        counts = {len(self.lower), len(self.upper), len(self.conditions), len(self.names), len(self.seconds)}
        if len(counts) != 1 or self.lower.shape != self.upper.shape:
            raise DataError("regions: bounds, conditions, names and time limits differ in length")
        if not bool((self.lower <= self.upper).all()):
            raise DataError("regions: a lower bound is above its upper bound, or not a number")

    def select(self, rows: npt.NDArray[np.int64]) -> Regions:
        """Return those at `rows`."""
        return Regions(
            self.lower[rows],
            self.upper[rows],
            tuple(self.conditions[row] for row in rows),
            tuple(self.names[row] for row in rows),
            self.seconds[rows],
        )
