"""The distributions of the noise that smoothed classifiers vote over, and what each of them proves.

The theorems are about real numbers. What is drawn are floating point numbers, in float32 from 24 random bits each, and
the sum with the input is rounded: this is taken for the noise itself, here as everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robench import param
from robench.binomial import Floats
from robench.contracts import Noise, TwoSidedNoise
from robench.streams import Stream
from robench.threat import Norm
from robench_plugins.smoothing._radii import (
    gaussian_radius,
    gaussian_threshold,
    linf_from_l2,
    two_sided_radius,
    uniform_radius,
    uniform_threshold,
)

__all__ = ["Gaussian", "Uniform"]

_SIGMA = "standard deviation of each coordinate, in the domain's units"


@dataclass(frozen=True)
class Gaussian(TwoSidedNoise):
    """N(0, σ²I): certifies in l2 (Cohen et al. 2019), and in linf through the l2 ball around the linf ball."""

    sigma: float = param(0.25, _SIGMA, positional=True, above=0)

    norms: ClassVar[tuple[Norm, ...]] = ("l2", "linf")

    def fill(self, out: Tensor, generator: torch.Generator) -> None:
        """Overwrite `out` with draws."""
        out.normal_(0.0, self.sigma, generator=generator)

    def draw(self, stream: Stream, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return one draw [B, *shape] per row of `stream`."""
        return stream.normal(shape, dtype).mul_(self.sigma)

    def radius(self, p_low: npt.ArrayLike, norm: Norm, dimension: int) -> Floats:
        """Return σ Φ⁻¹(p_low), over √d in linf, rounded down."""
        _known(self, norm)
        radius = gaussian_radius(p_low, self.sigma)
        return radius if norm == "l2" else linf_from_l2(radius, dimension)

    def two_sided_radius(self, p_low: npt.ArrayLike, p_up: npt.ArrayLike, norm: Norm, dimension: int) -> Floats:
        """Return σ/2 (Φ⁻¹(p_low) − Φ⁻¹(p_up)), over √d in linf, rounded down (Cohen et al. 2019, theorem 1)."""
        _known(self, norm)
        radius = two_sided_radius(p_low, p_up, self.sigma)
        return radius if norm == "l2" else linf_from_l2(radius, dimension)

    def threshold(self, eps: float, norm: Norm, dimension: int) -> float:
        """Return Φ(ε/σ), with ε√d for ε in linf, rounded up."""
        _known(self, norm)
        return gaussian_threshold(eps if norm == "l2" else _times_root(eps, dimension), self.sigma)


@dataclass(frozen=True)
class Uniform(Noise):
    """Uniform on [−λ, λ]^d with λ = √3 σ: certifies in l1 (Yang et al. 2020)."""

    sigma: float = param(0.25, _SIGMA, positional=True, above=0)

    norms: ClassVar[tuple[Norm, ...]] = ("l1",)

    @property
    def half_width(self) -> float:
        """Return λ, in the domain's units."""
        return math.sqrt(3) * self.sigma

    def fill(self, out: Tensor, generator: torch.Generator) -> None:
        """Overwrite `out` with draws."""
        out.uniform_(-self.half_width, self.half_width, generator=generator)

    def draw(self, stream: Stream, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return one draw [B, *shape] per row of `stream`."""
        # As double: float32 has another number of random bits, and would be another draw.
        return stream.uniform(shape, -self.half_width, self.half_width, torch.float64).to(dtype)

    def radius(self, p_low: npt.ArrayLike, norm: Norm, dimension: int) -> Floats:
        """Return 2λ (p_low − 1/2), rounded down."""
        _known(self, norm)
        return uniform_radius(p_low, self.half_width)

    def threshold(self, eps: float, norm: Norm, dimension: int) -> float:
        """Return 1/2 + ε/(2λ), rounded up."""
        _known(self, norm)
        return uniform_threshold(eps, self.half_width)


def _known(noise: Noise, norm: Norm) -> None:
    if norm not in noise.norms:
        raise ValueError(f"{type(noise).__name__} noise certifies in {', '.join(noise.norms)}, not in {norm}")


def _times_root(eps: float, dimension: int) -> float:
    """Return an l2 radius whose ball holds the linf ball of radius `eps`: ε√d, rounded up."""
    root = math.isqrt(dimension)
    if root * root != dimension:
        return float(np.nextafter(eps * math.nextafter(math.sqrt(dimension), math.inf), np.inf)) if eps else 0.0
    return math.nextafter(eps * root, math.inf) if eps and root > 1 else eps
