"""Laplace noise for randomized smoothing: certificates in l1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robench import Noise, Norm, Stream, param

__all__ = ["Laplace"]

# What the functions below may err by, relative to their values, and more.
_MARGIN = 1e-12


@dataclass(frozen=True)
class Laplace(Noise):
    """Independent Laplace noise of scale b = σ/√2 on every coordinate (Teng et al. 2020, theorem 1).

    A class of probability p wins the vote in the l1 ball of radius −b ln(2 (1 − p)). Radii are rounded down, thresholds
    up: a certificate must hold for real numbers.
    """

    sigma: float = param(0.25, "standard deviation of each coordinate, in the domain's units", positional=True, above=0)

    norms: ClassVar[tuple[Norm, ...]] = ("l1",)

    @property
    def scale(self) -> float:
        """Return b, in the domain's units."""
        return self.sigma / math.sqrt(2)

    def fill(self, out: Tensor, generator: torch.Generator) -> None:
        """Overwrite `out` with draws: differences of two exponential ones."""
        out.exponential_(1 / self.scale, generator=generator)
        out.sub_(torch.empty_like(out).exponential_(1 / self.scale, generator=generator))

    def draw(self, stream: Stream, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return one draw [B, *shape] per row of `stream`."""
        one, other = (torch.log1p(-stream.uniform(shape, dtype=torch.float64)) for _ in range(2))
        return (self.scale * (one - other)).to(dtype)

    def radius(self, p_low: npt.ArrayLike, norm: Norm, dimension: int) -> npt.NDArray[np.float64]:
        """Return −b ln(2 (1 − p_low)), rounded down; 0 for p_low ≤ 1/2."""
        p = np.asarray(p_low, dtype=np.float64)
        with np.errstate(divide="ignore"):
            exact = -self.scale * np.log(np.minimum(2 * (1 - p), 1.0))
        return np.where(p > 0.5, exact * (1 - _MARGIN), 0.0)

    def threshold(self, eps: float, norm: Norm, dimension: int) -> float:
        """Return 1 − exp(−ε/b)/2, rounded up."""
        return min((1 - math.exp(-eps / self.scale) / 2) * (1 + _MARGIN), 1.0) if eps > 0 else 0.5
