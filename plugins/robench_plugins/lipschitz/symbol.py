"""A proven upper bound of a convolution's norm from its kernel alone, for maps of any size.

Zero padding is a restriction. A convolution on a finite map embeds it into an infinite grid (an isometry), convolves
there, and keeps some of the results (of norm 1), so that its norm is at most that of the convolution C on ℓ²(Z²),
whatever the size of the map and the padding. The norm of C is the supremum over all frequencies of ‖Ŵ(θ)‖₂, Ŵ the
symbol Σ_k W_k e^{ik·θ}. Values on the frequencies of the map itself (Sedghi et al. 2019) belong to circular padding
and bound nothing here: [−4, 3, 4] with padding 1 on two pixels has the norm 5, and on its grid the symbol is ±3.

Dilation and stride are exact on the infinite grid. With stride s and dilation d along an axis and g = gcd(s, d), C
reads x[si + dk]: only multiples of g occur together, and on those the stride is s/g and the dilation d/g, prime to
each other. Outputs i ≡ ρ (mod d/g) then read only the class of (s/g)ρ, another one for each ρ, with stride s/g and
dilation 1: a direct sum of equal operators. So the norm is that of stride s/g and dilation 1. Writing k = (s/g) q + r
turns the phases r of the input into channels, an isometry, and q into the taps of a convolution of stride 1.

The convolution on one map is a part of that on a torus as well, which need only be so large that nothing wraps around
into the map: of M pixels, M a multiple of s, at least n + p (p zeros in front), sm (m windows), and more than the last
position that a window reads. Its norm is the largest ‖Ŵ(2πj/N)‖₂ for N = M/s, at exactly those frequencies.
With dilation d and stride 1, its frequencies are the d-fold ones, some of the same set.

Four bounds of the squared norm, of which the smallest counts:

    sums     ‖Σ|W_k|‖₁ ‖Σ|W_k|‖_∞                     Schur's test
    rows     max_i Σ_j B_ij d_j / d_i                 `_correlation`: Prach & Lampert (2022), scaled
    grid     grid maximum of ‖Ŵ‖₂², corrected         `_grid`: Ehlich & Zeller (1964)
    torus    maximum over the torus' frequencies      for one size of the map, not above the supremum

Gram iterates (Delattre et al. 2023) would approach the
same supremum, but keep a factor of n^(1/2^t) of the worst case where all singular values are equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from robench.graph.intervals import ieee_arithmetic
from robench.numerics import gamma
from robench_plugins.lipschitz._correlation import correlate, offsets, row_sums, sums
from robench_plugins.lipschitz._grid import cells, grid_maximum
from robench_plugins.lipschitz._up import TINY, scale_up
from robench_plugins.lipschitz.spectral import normalised

__all__ = ["Plan", "convolution_norm_upper", "plan", "torus_of", "unfolded"]

_FINENESS = (64, 32, 16, 8)
"""Frequencies for each degree of the symbol along an axis; 8 corrects by 4 % in two dimensions, 64 by 0.06 %."""

_MAX_ENTRIES = 2**26
"""Of a self-correlation (512 MiB)."""


@dataclass(frozen=True)
class Plan:
    """How a bound is found: its source, the frequencies along both axes, seconds on one core."""

    source: str
    counts: tuple[int, int]
    seconds: float

    @property
    def is_tight(self) -> bool:
        """Whether it is within about 1 % of the supremum, or of the torus."""
        return self.source in ("torus", "grid")


def convolution_norm_upper(
    weight: Tensor,
    stride: Sequence[int] = (),
    dilation: Sequence[int] = (),
    groups: int = 1,
    seconds: float = 10.0,
    roundings: int = 0,
    torus: tuple[int, int] | None = None,
) -> tuple[float, str]:
    """Return (bound, source) of the norm of a convolution of `weight` [out, in/groups, k] or [out, in/groups, k, k].

    For any size of the map and any zero padding, or for what lies in a torus of `torus` frequencies (`torus_of`); +inf
    where a weight is not finite. `stride` and `dilation` are 1 where not given. `seconds` chooses between the ways and
    how fine a grid is, from estimates alone. `roundings` as for `spectral_norm_upper`.
    """
    with ieee_arithmetic(torch.device("cpu")):
        kernel = unfolded(weight.detach().to("cpu", torch.float64), stride, dilation, groups)
        largest = float(kernel.abs().amax())
        if largest == 0:
            return (TINY if roundings else 0.0), "sums"
        if not math.isfinite(largest):
            return math.inf, "sums"
        scaled, exponent = normalised(kernel, largest)
        size = sums(scaled)
        squared, source = _squared(scaled, size, plan(tuple(kernel.shape), seconds, torus))
        value = math.sqrt(squared) * (1 + 2.0**-49) + gamma(roundings) * math.sqrt(size) * (1 + 2.0**-20)
    bound = scale_up(value, exponent)
    return (bound + TINY if roundings else bound), source


def _squared(kernel: Tensor, size: float, chosen: Plan) -> tuple[float, str]:
    """Return the smallest bound that `chosen` allows, of a kernel with a largest entry of 1 … 2."""
    found = [(size, "sums")]
    if chosen.source != "sums":
        correlation = correlate(kernel)
        found.append((row_sums(correlation), "rows"))
        if chosen.is_tight:
            bound = grid_maximum(correlation, chosen.counts, chosen.source == "grid")
            found.append((bound, chosen.source))
        if kernel.shape[1] == kernel.shape[2]:  # rescaled columns are seen on their own side alone
            found.append((row_sums(correlate(kernel.transpose(1, 2))), "rows"))
    return min(found)


def unfolded(weight: Tensor, stride: Sequence[int], dilation: Sequence[int], groups: int) -> Tensor:
    """Return a kernel [groups, rows, columns, taps, taps], rows ≥ columns, of the same norm with stride 1.

    Transposing every tap changes no singular value of the symbol.
    """
    rank = weight.dim() - 2
    kernel = weight.reshape(groups, -1, *weight.shape[1:])
    stride, dilation = tuple(stride) or (1,) * rank, tuple(dilation) or (1,) * rank
    if rank == 1:
        kernel, stride, dilation = kernel[..., None], (*stride, 1), (*dilation, 1)
    for axis, (s, d) in enumerate(zip(stride, dilation, strict=True)):
        step = s // math.gcd(s, d)
        taps = kernel.shape[3 + axis]
        kernel = F.pad(kernel, (*[0] * 2 * (1 - axis), 0, -taps % step))
        split = (*kernel.shape[: 3 + axis], -1, step, *kernel.shape[4 + axis :])
        kernel = kernel.reshape(split).movedim(4 + axis, 3).flatten(2, 3)
    return kernel if kernel.shape[1] >= kernel.shape[2] else kernel.transpose(1, 2)


def torus_of(size: int, windows: int, taps: int, stride: int, dilation: int, padding: tuple[int, int]) -> int | None:
    """Return N for one axis: the frequencies of a torus that a map of `size` lies in; None where there is none."""
    if stride > 1 and dilation > 1:
        return None
    reach = dilation * (taps - 1)
    pixels = max(size + max(reach, *padding), stride * windows, stride * (windows - 1) + reach - padding[0] + 1)
    return -(-pixels // stride)


def plan(shape: tuple[int, ...], seconds: float, torus: tuple[int, int] | None = None) -> Plan:
    """Return the best bound of a kernel [groups, rows, columns, taps, taps] that takes at most about `seconds`."""
    groups, rows, columns, *taps = shape
    first, second = taps
    half = len(offsets((first, second))) if math.prod(taps) * 2 < _MAX_ENTRIES else _MAX_ENTRIES
    correlation = groups * half * (columns**2 * (rows * math.prod(taps) / 3.0 + 40) / 1e10 + 1e-5)
    if half * groups * columns**2 > _MAX_ENTRIES or correlation > seconds:
        return Plan("sums", (1, 1), 1e-8 * math.prod(shape))
    size = columns * (2 if half > 1 else 1)
    each = groups * (size**3 / 1e10 + 1.8e-8 * size**2 + 4 * half * columns**2 / 1e10 + 1e-5) + 2.5e-8 * half
    if torus is not None and correlation + cells(torus) * each <= seconds:
        return Plan("torus", torus, correlation + cells(torus) * each)
    for fineness in _FINENESS:
        counts = (max(1, fineness * (first - 1)), max(1, fineness * (second - 1)))
        if correlation + cells(counts) * each <= seconds:
            return Plan("grid", counts, correlation + cells(counts) * each)
    return Plan("rows", (1, 1), correlation)
