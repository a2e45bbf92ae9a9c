"""The greatest radius that slopes certify, by a bracket that closes from both sides.

With q(r) the least margin over slope where slopes hold in the ball of radius r, every point within min(r, q(r)) is
safe. Slopes grow with the ball, so that q falls, and the best radius is where q(r) = r: between r and q(r) for any r.
The next r is where the chord between the nearest two on either side says, and every third the middle of what is left.
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


_Points = tuple[Tensor, ...]


def greatest(
    quotient: Callable[[Tensor, Tensor], Tensor],
    known: Tensor,
    limit: Tensor,
    most: Tensor,
    tolerance: float,
) -> Tensor:
    """Return a proven radius [B]; +inf where all of `most` is safe.

    Args:
        quotient: for samples (bool [B]) and radii r for each of them [n], q(r) [n], rounded down.
        known: radii that are proven already [B], from 0 up.
        limit: q(0) [B], above which r need not be; 0 leaves a sample as it is.
        most: radii of balls that hold the whole domain [B].
        tolerance: the search ends where what may be left is this share of what is proven.
    """
    low, high = known.clone(), limit.clone()
    left: _Points = (torch.zeros_like(low), limit.clone())
    right: _Points = (torch.full_like(low, math.nan),) * 2
    active = (low < high) & (low < most)
    for turn in range(_MOST):
        trial = torch.minimum(_next(low, high, left, right, limit, turn), most)
        active &= (low < most) & (high > low * (1 + tolerance)) & (trial > 0) & trial.isfinite()
        if not active.any():
            break
        found = torch.zeros_like(low).masked_scatter(active, quotient(active, trial[active]))
        safe = found >= trial
        left = tuple(torch.where(active & safe, new, old) for new, old in zip((trial, found), left, strict=True))
        right = tuple(torch.where(active & ~safe, new, old) for new, old in zip((trial, found), right, strict=True))
        # Either end moves: what is left lies between the two.
        high = torch.where(active, torch.minimum(high, torch.maximum(trial, found)), high)
        low = torch.where(active, torch.maximum(low, torch.minimum(trial, found)), low)
    return torch.where((low >= most) & (most > 0), math.inf, low)


def _next(low: Tensor, high: Tensor, left: _Points, right: _Points, limit: Tensor, turn: int) -> Tensor:
    """Return the r to try, in `low` … `high`; `left` are points (r, q) with q ≥ r, `right` with q < r, NaN at first."""
    (a, at_a), (b, at_b) = left, right
    middle = torch.where(low > 0, (low * high).sqrt(), high / 4)
    chord = (at_a * b - a * at_b) / ((b - a) + (at_a - at_b))
    chord = torch.minimum(torch.maximum(chord, low), high)
    level = (a > 0) & (at_a > 0.95 * limit)  # no neuron has opened yet
    trial = torch.where(b.isnan(), torch.where(level, high, middle), chord)
    trial = torch.where(trial.isfinite() & (trial > low), middle if turn % 3 == 2 else trial, middle)
    return torch.where(high == math.inf, torch.where(low > 0, low * 2, 1.0), trial)


def covering(x: Tensor, norm: Norm, domain: Domain) -> Tensor:
    """Return radii [B] of balls around `x` float64 [B, ...] that hold the whole domain; +inf without bounds."""
    flat = x.flatten(1)
    away = torch.maximum((flat - domain.lower).abs(), (domain.upper - flat).abs())
    size: Tensor = torch.linalg.vector_norm(away, {"linf": math.inf, "l2": 2, "l1": 1}[norm], dim=1)
    return (size * (1 + 2.0**-40)).nan_to_num(nan=math.inf)
