"""Spectral norms: followed by the power method while weights are trained, and exact in the end."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robench_plugins.training.lipschitz.layers import Affine, transposed

__all__ = ["NormEstimate", "SpectralNorm", "spectral_norm"]

_TINY: Final = 1e-12  # a weight of zeros stays one


def spectral_norm(weight: Tensor, spatial: tuple[int, ...] = ()) -> Tensor:
    """Return the largest singular value of `weight` [out, in], in float64.

    Of a kernel [out, in, h, w]: that of its circular convolution on a torus which inputs [in, *spatial] and kernel fit
    into, the largest over the frequencies (Sedghi, Gupta & Long 2019). Zero-padded convolutions are a part of it.
    """
    weight = weight.detach().double()
    if weight.dim() == 2:
        values: Tensor = torch.linalg.svdvals(weight)
        return values[0]
    # A row of frequencies at a time; those of the other half are conjugate.
    rows = torch.fft.rfft2(weight, s=_torus(weight, spatial)).permute(2, 3, 0, 1)
    return torch.stack([torch.linalg.matrix_norm(row, 2).amax() for row in rows]).amax()


def _torus(weight: Tensor, spatial: tuple[int, ...]) -> list[int]:
    return [size + taps - 1 for size, taps in zip(spatial, weight.shape[2:], strict=True)]


class NormEstimate(nn.Module):
    """`spectral_norm` from below by the power method: one step per pass in training (Yoshida & Miyato 2017).

    Gradients flow to the weight, not to the vector.
    """

    vector: Tensor

    def __init__(self, weight: Tensor, spatial: tuple[int, ...], generator: torch.Generator) -> None:
        """Start from a random vector and 20 steps; inputs are [in, *spatial]."""
        super().__init__()
        start = torch.randn(1, weight.shape[1], *_torus(weight, spatial), generator=generator)
        self.register_buffer("vector", start)
        for _ in range(20):
            self._step(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the estimate for `weight`."""
        if self.training:
            self._step(weight)
        norm: Tensor = _circular(weight, self.vector).norm()
        return norm

    @torch.no_grad()
    def _step(self, weight: Tensor) -> None:
        vector = _circular(weight, self.vector)
        vector = _circular(transposed(weight), vector / (vector.norm() + _TINY), ahead=True)
        self.vector = vector / (vector.norm() + _TINY)


def _circular(weight: Tensor, x: Tensor, ahead: bool = False) -> Tensor:
    """Apply the operator to `x`: a circular convolution whose kernel begins, or ends, in front of each output."""
    if weight.dim() == 2:
        return F.linear(x, weight)
    high, wide = weight.shape[2] - 1, weight.shape[3] - 1
    return F.conv2d(F.pad(x, (0, wide, 0, high) if ahead else (wide, 0, high, 0), "circular"), weight)


class SpectralNorm(Affine):
    """W'x + b with W' = W / ‖W‖ (Miyato et al. 2018): by the estimate in training, by `spectral_norm` when frozen."""

    def __init__(
        self,
        weight: Tensor,
        spatial: tuple[int, ...],
        generator: torch.Generator,
        stride: int = 1,
        padding: int = 0,
    ) -> None:
        """Start from `weight`, for inputs [in, *spatial]."""
        super().__init__(weight, len(weight), stride, padding)
        self.spatial = spatial
        self.norm = NormEstimate(weight, spatial, generator)

    def effective(self) -> Tensor:
        """Return W / estimate."""
        weight: Tensor = self.weight / (self.norm(self.weight) + _TINY)
        return weight

    def exact(self) -> Tensor:
        """Return W / ‖W‖ in float64."""
        return self.weight.detach().double() / (spectral_norm(self.weight, self.spatial) + _TINY)
