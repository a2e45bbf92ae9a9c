"""A vote whose robust radius is known: a linear classifier behind Gaussian noise, with exact shares of the votes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ndtr, ndtri
from torch import Tensor

from robench.contracts import TwoSidedNoise
from robench.graph import Graph
from robench.streams import Stream
from robench.threat import Norm

__all__ = ["SIGMA", "LinearVote", "exact_radius"]

SIGMA = 0.5
# What Φ and its inverse may err by, and much more.
_MARGIN = 1e-12


@dataclass(frozen=True)
class Gaussian(TwoSidedNoise):
    """N(0, σ²I) (Cohen et al. 2019): certifies in l2, and in linf through the ball around."""

    sigma: float = SIGMA

    norms: ClassVar[tuple[Norm, ...]] = ("l2", "linf")

    def fill(self, out: Tensor, generator: torch.Generator) -> None:
        """Overwrite `out` with draws."""
        out.normal_(0.0, self.sigma, generator=generator)

    def draw(self, stream: Stream, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return one draw [B, *shape] per row of `stream`."""
        return stream.normal(shape, dtype) * self.sigma

    def radius(self, p_low: npt.ArrayLike, norm: Norm, dimension: int) -> npt.NDArray[np.float64]:
        """Return σ Φ⁻¹(p_low), over √d in linf, rounded down."""
        p = np.asarray(p_low, dtype=np.float64)
        found = np.asarray(self.sigma * ndtri(np.maximum(p, 0.5)), dtype=np.float64)
        return found * (1 - _MARGIN) / (math.sqrt(dimension) if norm == "linf" else 1.0)

    def two_sided_radius(
        self, p_low: npt.ArrayLike, p_up: npt.ArrayLike, norm: Norm, dimension: int
    ) -> npt.NDArray[np.float64]:
        """Return σ/2 (Φ⁻¹(p_low) − Φ⁻¹(p_up)), likewise."""
        low = np.asarray(p_low, dtype=np.float64)
        up = np.minimum(p_up, 1 - low)
        found = np.asarray(self.sigma / 2 * np.maximum(ndtri(low) - ndtri(up), 0.0), dtype=np.float64)
        return found * (1 - _MARGIN) / (math.sqrt(dimension) if norm == "linf" else 1.0)

    def threshold(self, eps: float, norm: Norm, dimension: int) -> float:
        """Return Φ(ε/σ), with ε√d for ε in linf, rounded up."""
        wide = eps * math.sqrt(dimension) if norm == "linf" else eps
        return min(float(ndtr(wide / self.sigma)) * (1 + _MARGIN), 1.0)


class Linear:
    """Class 1 where w·x > 0 and class 0 where it is below, for the mean w of all coordinates."""

    classes = 2
    dtype = torch.float64
    graph: Graph | None = None
    fingerprint = "d" * 64

    def __init__(self, size: int, device: torch.device) -> None:
        """Take inputs of `size` numbers."""
        self.input_shape, self.device = (size,), device

    def margin(self, x: Tensor) -> Tensor:
        """Return the signed l2 distance [B] from the boundary."""
        return x.sum(1) / math.sqrt(self.input_shape[0])

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits [B, 2]."""
        margin = self.margin(x)
        return torch.stack([-margin, margin], 1)


class LinearVote:
    """The vote of `Linear` behind Gaussian noise.

    By symmetry the vote has the same boundary, and class 1 wins Φ(m/σ) of the draws at distance m in front of it. Votes
    are binomial counts with this probability; only `sample` passes anything through a network.
    """

    classes = 2
    dtype = torch.float64
    graph: Graph | None = None
    fingerprint = "e" * 64
    n, alpha = 1000, 0.001

    def __init__(self, size: int = 16, device: torch.device | None = None) -> None:
        """Take inputs of `size` numbers."""
        self.input_shape = (size,)
        self.device = device or torch.device("cpu")
        self.base = Linear(size, self.device)
        self.noise = Gaussian()

    def at(self, margins: Sequence[float]) -> Tensor:
        """Return inputs [B, size] at these signed l2 distances from the boundary."""
        size = self.input_shape[0]
        flat = torch.tensor(margins, dtype=self.dtype, device=self.device)[:, None]
        return (flat / math.sqrt(size)).expand(-1, size).contiguous()

    def margin(self, x: Tensor) -> Tensor:
        """Return the signed l2 distance [B] from the boundary."""
        return self.base.margin(x)

    def sample(self, x: Tensor, stream: Stream) -> Tensor:
        """Return the logits [B, 2] of one draw."""
        return self.base.logits(x + self.noise.draw(stream, self.input_shape, self.dtype))

    def draws(self, x: Tensor, stream: Stream) -> _Draws:
        """Return the draws around `x`."""
        return _Draws(ndtr(self.margin(x).cpu().numpy() / SIGMA), stream, self.device)


class _Draws:
    """Votes with these probabilities [B] for class 1, from a generator for each sample."""

    def __init__(self, p: npt.NDArray[np.float64], stream: Stream, device: torch.device) -> None:
        words = stream.child("votes").integers((2,), 2**31).tolist()
        self._p, self._device = p, device
        self._generators = [np.random.default_rng(seed) for seed in (low | high << 31 for low, high in words)]

    def count(self, samples: Sequence[int], draws: Sequence[int]) -> Tensor:
        """Return the votes [A, 3] of fresh draws."""
        hits = [self._generators[i].binomial(n, self._p[i]) for i, n in zip(samples, draws, strict=True)]
        rows = [[n - k, k, 0] for k, n in zip(hits, draws, strict=True)]
        return torch.tensor(rows, dtype=torch.int64, device=self._device).reshape(-1, 3)


def exact_radius(margin: float, norm: Norm, size: int) -> float:
    """Return the distance of the boundary in `norm`, for a positive l2 distance of `margin`."""
    # w has equal entries: the dual norms of a unit vector w are √d (linf), 1 (l2) and 1/√d (l1).
    root = math.sqrt(size)
    return {"linf": margin / root, "l2": margin, "l1": margin * root}[norm]
