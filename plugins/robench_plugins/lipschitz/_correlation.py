"""A kernel's correlation with itself, and what its absolute row sums say about the norm.

For taps W_k, [rows, columns] each, the operator C*C is the convolution with A_δ = Σ_k W_kᵀ W_{k+δ}, and A_{−δ} = A_δᵀ,
so that half of the offsets δ is enough. Computed sums of t products err by at most γ_t times the sums of magnitudes
(Higham 2002, section 3.5), which together make the matrix S = (Σ|W_k|)ᵀ(Σ|W_k|).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robench.numerics import gamma

__all__ = ["Correlation", "correlate", "offsets", "row_sums", "sums"]

_SLACK = 1 + 2.0**-20

_STEPS = 200

_SMALLEST = 1e-9


@dataclass(frozen=True, eq=False)
class Correlation:
    """The self-correlation of `kernel` in groups.

    Attributes:
        offsets: half of the offsets δ, the first being 0, int64 [D, 2].
        entries: the computed A_δ, float64 [D, groups, columns, columns].
        terms: the most products in one sum.
        size: an upper bound of ‖S‖₂ in every group.
    """

    offsets: Tensor
    entries: Tensor
    terms: int
    size: float


def sums(kernel: Tensor) -> float:
    """Return ‖Σ|W_k|‖₁ ‖Σ|W_k|‖_∞, rounded up, of `kernel` [groups, rows, columns, taps, taps].

    An upper bound of the squared norm of the convolution with |W_k| (the test of Schur), and so with W_k.
    """
    total = kernel.abs().sum((3, 4))
    return float(total.sum(1).amax()) * float(total.sum(2).amax()) * (1 + 4 * gamma(kernel[0].numel() + 4))


def offsets(taps: tuple[int, int]) -> list[tuple[int, int]]:
    """Return 0 and one of each pair ±δ between two of `taps`."""
    (first, second) = taps
    return [(a, b) for a in range(first) for b in range(1 - second if a else 0, second)]


def correlate(kernel: Tensor) -> Correlation:
    """Return the self-correlation of `kernel`, float64 [groups, rows, columns, taps, taps]."""
    groups, rows, columns, first, second = kernel.shape
    half = offsets((first, second))
    entries = kernel.new_empty(len(half), groups, columns, columns)
    taps = kernel.permute(0, 3, 4, 1, 2)
    for position, (a, b) in enumerate(half):
        left = taps[:, : first - a, max(0, -b) : second - max(0, b)]
        right = taps[:, a:, max(0, b) : second - max(0, -b)]
        entries[position] = left.reshape(groups, -1, columns).mT @ right.reshape(groups, -1, columns)
    return Correlation(torch.tensor(half), entries, rows * first * second, sums(kernel))


def row_sums(correlation: Correlation) -> float:
    """Return max_i Σ_j B_ij d_j / d_i ≥ ‖C‖₂², for B = Σ_δ |A_δ| and the best d > 0 found.

    |C*C| acts as the convolution with |A_δ| ≥ 0, whose norm is that of B; B is symmetric, so that this is its spectral
    radius, at most such a quotient for any d > 0 (Collatz and Wielandt). d = 1 is the bound of Prach & Lampert
    (2022, "Almost-orthogonal layers"), and a layer that they rescaled to 1 with D^−½ has d = D^½.
    """
    magnitude = correlation.entries.abs()
    half = magnitude[1:].sum(0)
    total = torch.maximum(magnitude[0], magnitude[0].mT) + half + half.mT
    d = total.new_ones(*total.shape[:2], 1)
    best = math.inf
    for _ in range(_STEPS):
        product = total @ d
        value = float((product / d).amax())
        if value > best * (1 - 1e-12):
            break
        best = value
        d = (product / product.amax((1, 2), keepdim=True).clamp_min(_SMALLEST)).clamp_min(_SMALLEST)
    rounding = 2 * gamma(len(correlation.offsets) + total.shape[1] + 8)
    return best * (1 + rounding) + gamma(correlation.terms + 2) * correlation.size * _SLACK
