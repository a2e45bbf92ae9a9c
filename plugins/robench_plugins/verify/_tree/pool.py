"""Open pieces of the search: which signs are decided, what is proven there, and where the optimiser left off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

__all__ = ["Columns", "Pool"]


@dataclass(frozen=True, eq=False)
class Columns:
    """The neurons that a tree may split: those whose sign is open at a root, all activations' in one row.

    Attributes:
        units: flat positions within each activation, by its position.
        spans: the slice of columns of each activation.
        activation: the activation of each column, int64 [U].
    """

    units: dict[int, Tensor]
    spans: dict[int, slice]
    activation: Tensor

    @classmethod
    def of(cls, inputs: dict[int, tuple[Tensor, Tensor]], device: torch.device) -> Columns:
        """Return the columns for root bounds (lower, upper) [B, ...] by activation: open for some sample."""
        units, spans, owners, start = {}, {}, [], 0
        for position, (low, high) in inputs.items():
            units[position] = ((low < 0) & (high > 0)).flatten(1).any(0).nonzero()[:, 0]
            spans[position] = slice(start, start + len(units[position]))
            owners += [position] * len(units[position])
            start = spans[position].stop
        return cls(units, spans, torch.tensor(owners, dtype=torch.int64, device=device))

    def __len__(self) -> int:
        """How many neurons there are."""
        return len(self.activation)


@dataclass(eq=False)
class Pool:
    """Pieces, one per row of every tensor.

    Attributes:
        sample: int64 [N].
        low: proven lower bounds of the columns' inputs, float64 [N, U].
        high: upper bounds.
        sign: the decided sign of each column, int8 [N, U]; 0 is open.
        open: the rows of the query that are still to be shown, bool [N, S].
        slopes: where the optimiser left off, float32 [N, S, U].
        push: multipliers of the decided signs, float32 [N, S, U].
        bound: the bounds of the open rows, rounded to nearest, float32 [N, S]; +inf for the others.
        column: the sign decided last, int64 [N]; −1 at a root.
        before: the least bound of the piece that it was split from, float32 [N].
    """

    sample: Tensor
    low: Tensor
    high: Tensor
    sign: Tensor
    open: Tensor
    slopes: Tensor
    push: Tensor
    bound: Tensor
    column: Tensor
    before: Tensor

    def __len__(self) -> int:
        """How many pieces there are."""
        return len(self.sample)

    def take(self, chosen: Tensor) -> Pool:
        """Return some pieces, bool or int64."""
        return Pool(*(getattr(self, one.name)[chosen] for one in fields(self)))

    @property
    def depth(self) -> Tensor:
        """How many signs are decided, int64 [N]."""
        return (self.sign != 0).sum(1)

    @property
    def free(self) -> Tensor:
        """The signs that are open, bool [N, U]."""
        return (self.sign == 0) & (self.low < 0) & (self.high > 0)

    @property
    def bytes_each(self) -> int:
        """Bytes that a piece takes."""
        one = [getattr(self, field.name) for field in fields(self)]
        return sum(value[0].numel() * value.element_size() for value in one) if len(self) else 0

    @staticmethod
    def join(pools: Sequence[Pool]) -> Pool:
        """Return all pieces in one pool."""
        return Pool(*(torch.cat([getattr(pool, one.name) for pool in pools]) for one in fields(Pool)))
