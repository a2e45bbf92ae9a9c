"""A proven upper bound of a matrix's largest singular value, from float64 arithmetic with its error included.

With G = WᵀW (W turned so that G is small), an approximate eigendecomposition Q Λ Qᵀ of G from LAPACK and its residual
R = G − Q Λ Qᵀ, nothing about Q and Λ needs to be believed: for every x of length 1

    ‖Wx‖² = xᵀQΛQᵀx + xᵀRx ≤ λ_max ‖Q‖₂² + ‖R‖₂,     ‖Q‖₂² = ‖QᵀQ‖₂ ≤ 1 + ‖QᵀQ − I‖_F,

in which every computed product errs by at most γ_t |A||B| in each entry (Higham 2002, section 3.5). Rump (2011,
"Verified bounds for singular values, in particular for the spectral norm of a matrix and its inverse", BIT 51) compares
bounds of this kind. A Cholesky factorisation of s²I − WᵀW (Rump 2006, BIT 46) is cheaper, but it answers yes or no for
one s, and its error is relative to the trace of WᵀW; this bound is found in one pass.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robench.graph.intervals import ieee_arithmetic
from robench.numerics import UNIT_ROUNDOFF, gamma
from robench_plugins.lipschitz._up import TINY, scale_up

__all__ = ["MAX_ELEMENTS", "normalised", "seconds", "spectral_norm_upper"]

MAX_ELEMENTS = 2**27
"""Entries of a matrix (1 GiB). Keeps every γ_n that is used to compute an error term below `_SLACK`."""

_SLACK = 2.0**-20
"""Relative error of the small terms, which are computed to first order only."""

_LEAF = 64
"""Products that are added in one go. Sums of sums then err like γ of this plus the depth of the tree."""

_LEAVES = 4096


def spectral_norm_upper(matrix: Tensor, roundings: int = 0) -> float:
    """Return an upper bound of the largest singular value of `matrix` [m, n]; +inf where one is not known.

    By a factor of about 1 + 4e-12 above the true value for 1000 x 1000, and closer for smaller ones. `roundings` says
    through how many rounded multiplications with numbers of at most 2 each entry went: the bound is about the exact
    products. Raises ValueError for more than `MAX_ELEMENTS` entries.
    """
    if matrix.dim() != 2 or matrix.numel() > MAX_ELEMENTS:
        raise ValueError(f"spectral_norm_upper takes a matrix of at most {MAX_ELEMENTS} entries")
    with ieee_arithmetic(torch.device("cpu")):
        exact = matrix.detach().to("cpu", torch.float64)
        largest = max(abs(float(extreme)) for extreme in exact.aminmax()) if exact.numel() else 0.0
        if largest == 0:
            return TINY if roundings else 0.0
        if not math.isfinite(largest):
            return math.inf
        scaled, exponent = normalised(exact, largest)
        value = _bound(scaled if len(scaled) >= scaled.shape[1] else scaled.T, roundings)
    bound = scale_up(value, exponent)
    return bound + TINY if roundings else bound


def normalised(values: Tensor, largest: float) -> tuple[Tensor, int]:
    """Return (values · 2**−e, e) with the largest magnitude in 1 … 2; exact but for entries that become subnormal.

    Squares then neither overflow nor, to any effect, underflow.
    """
    exponent = math.frexp(largest)[1] - 1
    half = exponent // 2  # 2**−e itself may be out of range
    return (values * 2.0**-half).mul_(2.0 ** (half - exponent)), exponent


def seconds(rows: int, columns: int) -> float:
    """Return about how long `spectral_norm_upper` of a matrix takes on one core, as measured."""
    long, short = max(rows, columns), min(rows, columns)
    return (3.0 * long * short**2 + 14.0 * short**3) / 2.5e10 + (20.0 * long * short) / 1e9 + 2e-4


def _bound(w: Tensor, roundings: int) -> float:
    """Return the bound for `w` [long, short] with a largest entry of 1 … 2, so that the norm is at least 1."""
    gram, error = _product(w.T, w)
    size = _largest_row(w.T, w)  # ≥ ‖|W|ᵀ|W|‖₂ ≥ ‖W‖₂²
    squared = min(size * (1 + _SLACK), _from_eigenvectors(gram, error * size))
    # Rounding of the few operations here and there, and everything that underflowed.
    value = math.sqrt(squared) * (1 + 2.0**-49)
    return value + gamma(roundings) * math.sqrt(size) * (1 + _SLACK) if roundings else value


def _from_eigenvectors(gram: Tensor, gram_error: float) -> float:
    """Return the bound λ_max ‖Q‖² + ‖R‖ of ‖G‖₂, where `gram` is within `gram_error` of G; +inf where LAPACK fails."""
    try:
        values, vectors = torch.linalg.eigh(gram)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        return math.inf
    weighted = vectors * values
    product, error = _product(weighted, vectors.T)
    residual = _frobenius(gram - product) + (error + 2 * UNIT_ROUNDOFF) * _largest_row(weighted, vectors.T)
    product, error = _product(vectors.T, vectors)
    product.diagonal().sub_(1.0)
    skew = _frobenius(product) + (error + 2 * UNIT_ROUNDOFF) * _largest_row(vectors.T, vectors)
    top = max(float(values.max()), 0.0)
    small = top * skew + residual + gram_error
    total = top + small * (1 + _SLACK)
    return total if math.isfinite(total) else math.inf


def _product(a: Tensor, b: Tensor) -> tuple[Tensor, float]:
    """Return a b, summed pairwise over blocks, and γ: entries err by at most γ |a||b| (Higham 2002, section 4.2)."""
    terms = a.shape[1]
    leaf = max(_LEAF, -(-terms // _LEAVES))
    depth = math.ceil(math.log2(-(-terms // leaf))) if terms > leaf else 0
    return _pairwise(a, b, leaf, depth), gamma(leaf + depth)


def _pairwise(a: Tensor, b: Tensor, leaf: int, depth: int) -> Tensor:
    if depth == 0:
        return a @ b
    half = min(leaf * 2 ** (depth - 1), a.shape[1])
    first = _pairwise(a[:, :half], b[:half], leaf, depth - 1)
    return first if half == a.shape[1] else first.add_(_pairwise(a[:, half:], b[half:], leaf, depth - 1))


def _largest_row(a: Tensor, b: Tensor) -> float:
    """Return the largest row sum of |a||b|, which bounds the norm of that product where it is symmetric."""
    return float(_abs_product(a, _abs_product(b, torch.ones(b.shape[1], dtype=b.dtype))).amax())


def _abs_product(matrix: Tensor, vector: Tensor) -> Tensor:
    """Return |matrix| vector, without a copy of the whole matrix."""
    rows = max(1, 2**22 // matrix.shape[1])
    return torch.cat([block.abs() @ vector for block in torch.split(matrix, rows)])


def _frobenius(matrix: Tensor) -> float:
    return math.sqrt(float(matrix.square().sum()))
