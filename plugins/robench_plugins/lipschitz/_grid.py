"""The largest singular value of a symbol over all frequencies, from those on a grid.

Let Ŵ(θ) = Σ_k W_k e^{ik·θ} with n_a + 1 taps along axis a, and G = Ŵ*Ŵ. For the unit vector v and the frequency at
which v*G(θ)v takes its largest value M = sup_θ ‖Ŵ(θ)‖₂², p(θ) = v*G(θ)v is a real trigonometric polynomial of degree
n_a. For one of degree n with a largest absolute value of 1, taken at 0, M. Riesz (1914) showed q(t) ≥ cos(nt) for |t|
≤ π/n. The nearest of N > 2n equidistant points lies within π/N, so that (Ehlich & Zeller 1964)

    sup |q| ≤ max_grid |q| / cos(πn/N),

and one axis after the other gives the product P of these factors. With q = p − a for a = (t + b)/2, where the
eigenvalues of G lie in [b, t] on the whole grid and b ≥ 0, |q| is at most (t − b)/2 there and

    sup ‖Ŵ‖₂² ≤ (t + b)/2 + P (t − b)/2.

P − 1 is about Σ_a (πn_a/N_a)²/2. Bernstein's inequality gives a correction of the first order in n/N (Pfister &
Bresler 2018; Delattre et al. 2024). The bounds t and b are proven frequency by frequency: where Cholesky's algorithm
runs to its end on an m x m matrix A, A + Δ is positive semidefinite with ‖Δ‖₂ ≤ γ_{m+1}/(1 − γ_{m+1}) trace(A) (Higham
2002, theorem 10.3; Rump 2006). It is asked for tI − G and G − bI. G is written as the real [[Re, −Im], [Im, Re]], of
which only the lower half is read. Its entries are sums of A_δ with cosines and sines: with those within τ = 2⁻⁴⁶, they
err by at most (τ + γ_{D+T+4}) S, for D offsets and sums of T products in A_δ, and the norm of that is at most twice
‖S‖₂.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robench.numerics import UNIT_ROUNDOFF, gamma
from robench_plugins.lipschitz._correlation import Correlation

__all__ = ["cells", "grid_maximum"]

_TABLE = 2.0**-46
"""Absolute error of a cosine or sine of 2πr/N: 4u · 2π of the angle, and 64 ulp for the library."""

_LEAST = 2.0**-1000
"""Above what underflowed."""

_CHUNK = 2**22

_SAMPLES = 16

_SLACK = 1 + 2.0**-20


def cells(counts: tuple[int, int]) -> int:
    """Return how many frequencies of the grid are looked at: G(−θ) has the eigenvalues of G(θ)."""
    return (counts[0] // 2 + 1) * counts[1]


def grid_maximum(correlation: Correlation, counts: tuple[int, int], between: bool = True) -> float:
    """Return an upper bound of sup_θ ‖Ŵ(θ)‖₂² from a grid of `counts` frequencies; +inf where LAPACK fails.

    Of those on the grid alone where not `between`. The kernel's largest entry must be in 1 … 2.
    """
    degrees = correlation.offsets.amax(0).tolist()
    factor = 1.0
    if between:
        assert all(count > 2 * degree for count, degree in zip(counts, degrees, strict=True))
        factor = math.prod(1 / math.cos(math.pi * n / count) for n, count in zip(degrees, counts, strict=True))
    size = (2 if len(correlation.offsets) > 1 else 1) * correlation.entries.shape[-1]
    top, bottom = 0.0, math.inf if between else 0.0
    grid = torch.cartesian_prod(torch.arange(counts[0] // 2 + 1), torch.arange(counts[1]))
    for chunk in torch.split(grid, max(1, _CHUNK // (correlation.entries.shape[1] * size**2))):
        symbols = _symbols(correlation, chunk, counts)
        top = _above(symbols, top, math.inf)
        bottom = -_above(-symbols, -bottom, -top / 2) if bottom > 0 else 0.0
    if top == math.inf:
        return math.inf
    table = 2 * (_TABLE + gamma(len(correlation.offsets) + correlation.terms + 4)) * correlation.size
    error = (table + 2 * gamma(size + 2) * size * top + 4 * UNIT_ROUNDOFF * (top + correlation.size)) * _SLACK
    top, bottom = top + error, max(bottom - error, 0.0)
    corrected = (top + bottom) / 2 + factor * (1 + 2.0**-48) * (top - bottom) / 2 if between else top
    return corrected * (1 + 2.0**-49) + _LEAST


def _symbols(correlation: Correlation, points: Tensor, counts: tuple[int, int]) -> Tensor:
    """Return [[Re G, −Im G], [Im G, Re G]] [points · groups, 2m, 2m]; of one tap G alone, which is real."""
    entries = correlation.entries
    even, odd = entries + entries.mT, entries - entries.mT
    even[0] = entries[0]
    turns = torch.zeros(len(points), len(entries), dtype=torch.float64)
    for axis, count in enumerate(counts):
        turns += ((points[:, axis, None] * correlation.offsets[:, axis]) % count).double() / count
    angles = turns.remainder_(1.0).mul_(2 * math.pi)
    shape = (-1, *entries.shape[2:])
    real = (angles.cos() @ even.flatten(1)).reshape(shape)
    if len(entries) == 1:
        return real
    imaginary = (angles.sin() @ odd.flatten(1)).reshape(shape)
    return torch.cat((torch.cat((real, -imaginary), 2), torch.cat((imaginary, real), 2)), 1)


def _above(matrices: Tensor, bound: float, hopeless: float) -> float:
    """Return at least `bound`, such that Cholesky's algorithm succeeds for it minus each of `matrices` [n, m, m].

    +inf beyond `hopeless` and where LAPACK finds no eigenvalues. Eigenvalues are candidates alone.
    """
    identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype)
    slack = 1e-11 * float(matrices.diagonal(dim1=1, dim2=2).abs().amax())
    while True:
        if bound > -math.inf:
            matrices = matrices[~_is_positive(bound * identity - matrices)]
        if not len(matrices):
            return bound
        largest = matrices.square().sum((1, 2)).argsort(descending=True)[:_SAMPLES]
        try:
            bound = max(bound, float(torch.linalg.eigvalsh(matrices[largest]).amax())) + slack
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            return math.inf
        slack *= 2
        if not bound <= hopeless or bound == math.inf:
            return math.inf


def _is_positive(matrices: Tensor) -> Tensor:
    factors, info = torch.linalg.cholesky_ex(matrices)
    succeeded: Tensor = (info == 0) & factors.isfinite().all(2).all(1)
    return succeeded
