"""Norms of rows, rounded up."""

from __future__ import annotations

import torch
from torch import Tensor

from robench.numerics import UNIT_ROUNDOFF, gamma, round_up
from robench.threat import Norm

__all__ = ["dual_norm_up"]


def dual_norm_up(rows: Tensor, norm: Norm) -> Tensor:
    """Return an upper bound [...] of the norm dual to `norm` of each row of magnitudes [..., n] float64.

    Dual to linf is l1, to l2 is l2, to l1 is linf. An all-zero row has norm exactly 0.
    """
    size = rows.shape[-1]
    rows = rows.abs()
    if size == 0:
        return rows.new_zeros(rows.shape[:-1])
    if norm == "l1":
        value = rows.amax(-1)
    elif norm == "linf":
        value = rows.sum(-1)
    else:
        # Scaled by the largest entry, squares neither overflow nor, to any effect, underflow.
        largest = rows.amax(-1, keepdim=True)
        scaled = rows / torch.where(largest > 0, largest, 1.0)
        value = scaled.square().sum(-1).sqrt() * largest[..., 0]
    # Squares and terms that underflowed are below size * 2**-1074 of a sum of at least 1, or of the result.
    inflated = value * (1 + 2 * gamma(size + 12)) + size * 2.0**-1070
    return torch.where(value == 0, 0.0, round_up(inflated + UNIT_ROUNDOFF * inflated))
