"""Which sample each row is about, and arithmetic between rows [R, ...] and samples [B, ...]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Owners"]


@dataclass(frozen=True, eq=False)
class Owners:
    """The sample of each row.

    Attributes:
        index: int64 [R].
        each: rows per sample, where all samples have equally many, one sample's behind the other's; 0 elsewhere. Then
            products are broadcast instead of gathered.
    """

    index: Tensor
    each: int = 0

    @classmethod
    def uniform(cls, samples: int, each: int, device: torch.device) -> Owners:
        """Return `each` rows for each of `samples`."""
        return cls(torch.arange(samples, device=device).repeat_interleave(each), each)

    def of(self, values: Tensor) -> Tensor:
        """Return what belongs to each row [R, ...] of `values` [B, ...]."""
        if len(values) == 1:
            return values.expand(len(self.index), *values.shape[1:])
        return values if self.each == 1 else values.index_select(0, self.index)

    def fit(self, values: Tensor) -> Tensor:
        """Return `values` [B, ...] so that they broadcast against rows [R, ...]: one sample's as they are."""
        return values if len(values) == 1 else self.of(values)

    def dot(self, rows: Tensor, values: Tensor) -> Tensor:
        """Return the inner product of each row with its sample's values, [R]."""
        flat, other = rows.flatten(1), values.flatten(1)
        if len(other) == 1:
            return flat @ other[0]
        if not self.each:
            return (flat * self.of(other)).sum(1)
        if self.each == 1:
            return (flat * other).sum(1)
        return torch.bmm(flat.reshape(len(other), self.each, -1), other[:, :, None]).flatten()

    def take(self, rows: Tensor) -> Owners:
        """Return the owners of some rows, bool or int64."""
        return Owners(self.index[rows])
