"""Rows of intervals on their way back through a graph, rounded outward; an exact zero stays one.

A result that may have underflowed is widened by `TINY`, far above the smallest doubles, unless a factor of it is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robench.numerics import UNIT_ROUNDOFF

__all__ = ["TINY", "Rows", "added", "sane", "scaled"]

TINY = 2.0**-900

_WIDER = 8 * UNIT_ROUNDOFF
"""Above the relative error of one product or sum, and of widening it."""


@dataclass(frozen=True, eq=False)
class Rows:
    """All rows a with lower ≤ a ≤ upper, float64 [B, K, ...]: K of them for each sample; never NaN."""

    lower: Tensor
    upper: Tensor

    def __neg__(self) -> Rows:
        """Return the rows with the other sign, exactly."""
        return Rows(-self.upper, -self.lower)


def sane(lower: Tensor, upper: Tensor) -> Rows:
    """Return rows of freshly computed bounds; one that is no number knows nothing."""
    inf = math.inf
    return Rows(lower.nan_to_num(nan=-inf, posinf=-inf, neginf=-inf), upper.nan_to_num(nan=inf, posinf=inf, neginf=inf))


def added(a: Rows, b: Rows) -> Rows:
    """Return the sums. Additions do not underflow: those of subnormal numbers are exact."""
    lower, upper = a.lower + b.lower, a.upper + b.upper
    return sane(lower - lower.abs() * _WIDER, upper + upper.abs() * _WIDER)


def scaled(rows: Rows, low: Tensor, high: Tensor) -> Rows:
    """Return the rows times factors in `low` … `high` [B, ...], entry by entry."""
    low, high = low[:, None], high[:, None]
    ends = [rows.lower * low, rows.lower * high], [rows.upper * low, rows.upper * high]
    if bool((low >= 0).all()):
        lower, upper = torch.minimum(*ends[0]), torch.maximum(*ends[1])
    else:
        lower = torch.minimum(torch.minimum(*ends[0]), torch.minimum(*ends[1]))
        upper = torch.maximum(torch.maximum(*ends[0]), torch.maximum(*ends[1]))
    lower = lower - (lower.abs() * _WIDER + TINY)
    upper = upper + (upper.abs() * _WIDER + TINY)
    zero = ((rows.lower == 0) & (rows.upper == 0)) | ((low == 0) & (high == 0))
    found = sane(lower, upper)
    return Rows(found.lower.masked_fill_(zero, 0.0), found.upper.masked_fill_(zero, 0.0))
