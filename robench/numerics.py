"""Directed rounding: the few helpers through which every bound in robench is rounded, and `per_sample`.

Round-to-nearest arithmetic (IEEE 754 binary64, unit roundoff u = 2**-53) errs by at most half a unit in
the last place, so one step outward encloses the exact result of a single operation.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor

__all__ = ["LIBRARY_ERROR", "UNIT_ROUNDOFF", "gamma", "open_to_closed", "per_sample", "round_down", "round_up"]

UNIT_ROUNDOFF = 2.0**-53

LIBRARY_ERROR = 2.0**-46
"""Relative error that exp and tanh of a mathematical library may have: 64 ulp, where published bounds are 1 to 4."""


def round_up(value: Tensor) -> Tensor:
    """Return the next double above each entry of `value` (float64); +inf and NaN stay."""
    return torch.nextafter(value, value.new_tensor(math.inf))


def round_down(value: Tensor) -> Tensor:
    """Return the next double below each entry of `value` (float64); −inf and NaN stay."""
    return torch.nextafter(value, value.new_tensor(-math.inf))


def gamma(n: int) -> float:
    """Return γ_n = n u / (1 − n u), rounded up (Higham 2002, Accuracy and Stability, section 3.1).

    A sum of n products, in any order and with or without fused operations, errs by at most γ_n times
    the sum of the products' absolute values (underflow aside). Raises ValueError unless 0 ≤ n < 2**52.
    """
    if not 0 <= n < 2**52:
        raise ValueError(f"γ_n needs 0 <= n < 2**52, not {n}")
    exact = Fraction(n, 2**53 - n)
    value = float(exact)
    return value if Fraction(value) >= exact else math.nextafter(value, math.inf)


def open_to_closed(radius: Tensor) -> Tensor:
    """Return radii (float64) of closed balls inside open ones: one double lower; 0 and +inf stay, NaN becomes 0."""
    lower = torch.where(radius == math.inf, radius, round_down(radius))
    return torch.nan_to_num(lower, nan=0.0, posinf=math.inf).clamp_min(0.0)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Return `values` [B] as [B, 1, …], to broadcast against `like` [B, ...]."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
