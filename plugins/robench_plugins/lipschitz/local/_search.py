"""The greatest radius that slopes certify, by a bracket that closes from both sides.

With q(r) the least margin over slope where slopes hold in the ball of radius r, every point within min(r, q(r)) is
safe. Slopes grow with the ball, so that q falls, and the best radius is where q(r) = r: between r and q(r) for any r.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from robench.threat import Domain, Norm

__all__ = ["covering", "greatest"]

_MOST = 64
"""Turns at most: halving or doubling that often ends at everything or nothing."""


def greatest(
    quotient: Callable[[Tensor, Tensor], Tensor],
    known: Tensor,
    limit: Tensor,
    most: Tensor,
    tolerance: float,
) -> tuple[Tensor, Tensor]:
    """Return (radius, the r that proved it) [B]; +inf where all of `most` is safe, NaN as r where `known` was best.

    Args:
        quotient: for samples (bool [B]) and radii r for each of them [n], q(r) [n], rounded down.
        known: radii that are proven already [B], from 0 up.
        limit: q(0) [B], above which r need not be; 0 leaves a sample as it is.
        most: radii of balls that hold the whole domain [B].
        tolerance: the search ends where what may be left is this share of what is proven.
    """
    low, high, used = known.clone(), limit.clone(), torch.full_like(known, math.nan)
    active = (low < high) & (low < most)
    for _ in range(_MOST):
        middle = torch.where(low > 0, (low * high).sqrt(), high / 4)
        trial = torch.where(high == math.inf, torch.where(low > 0, low * 2, 1.0), middle)
        trial = torch.minimum(trial, most)
        active &= (low < most) & (high > low * (1 + tolerance)) & (trial > 0) & trial.isfinite()
        if not active.any():
            break
        found = torch.zeros_like(low).masked_scatter(active, quotient(active, trial[active]))
        proven = torch.minimum(trial, found)
        better = active & (proven > low)
        used = torch.where(better, trial, used)
        # Either end moves: what is left lies between the two.
        high = torch.where(active, torch.minimum(high, torch.maximum(trial, found)), high)
        low = torch.where(better, proven, low)
    return torch.where((low >= most) & (most > 0), math.inf, low), used


def covering(x: Tensor, norm: Norm, domain: Domain) -> Tensor:
    """Return radii [B] of balls around `x` float64 [B, ...] that hold the whole domain; +inf without bounds."""
    flat = x.flatten(1)
    away = torch.maximum((flat - domain.lower).abs(), (domain.upper - flat).abs())
    size: Tensor = torch.linalg.vector_norm(away, {"linf": math.inf, "l2": 2, "l1": 1}[norm], dim=1)
    return (size * (1 + 2.0**-40)).nan_to_num(nan=math.inf)
