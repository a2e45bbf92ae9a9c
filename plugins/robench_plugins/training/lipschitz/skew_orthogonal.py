"""Exponentials of skew-symmetric layers: Singla & Feizi 2021, "Skew orthogonal convolutions"."""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robench_plugins.training.lipschitz.layers import Affine, Constrained, transposed
from robench_plugins.training.lipschitz.shapes import FirstChannels, ZeroChannels
from robench_plugins.training.lipschitz.spectral import NormEstimate, spectral_norm

__all__ = ["Exponential", "SkewConvolution", "SkewMatrix"]

_TRAINED_TERMS: Final = 5
_TERMS: Final = 12
_CORRECTION: Final = 0.7
_TINY: Final = 1e-12


def _exponential(x: Tensor, kernel: Tensor, terms: int) -> Tensor:
    """Return x + Ax + A²x/2 + … up to the power `terms`, A the zero-padded convolution with `kernel`."""
    around = (kernel.shape[2] // 2, kernel.shape[3] // 2)
    total = power = x
    for k in range(1, terms + 1):
        power = F.conv2d(power, kernel, padding=around) / k
        total = total + power
    return total


class Exponential(nn.Module):
    """The series of a fixed kernel to the 12th power: within ‖A‖¹³/13! of an orthogonal map (their theorem 3)."""

    def __init__(self, kernel: Tensor) -> None:
        """Keep a skew-symmetric kernel [c, c, k, k] with odd k."""
        super().__init__()
        self.kernel = nn.Parameter(kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, c, H, W] to the same shape."""
        return _exponential(x, self.kernel, _TERMS)


class _Bias(nn.Module):
    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias[:, None, None]


class SkewConvolution(Constrained):
    """exp(A)x + b for a convolution A = −Aᵀ; channels of zeros are appended, or the first ones kept, where they differ.

    A is 0.7 (W − Wᵀ)/2 over the smallest of the spectral norms of the kernel's four unfoldings, √(hw) of which bounds
    a convolution's norm (Singla & Feizi 2021, "Fantastic four"), so that ‖A‖ ≤ 2.1 for 3 × 3. The series
    ends with its 5th power in training and its 12th after it, as published. Truncated after
    the 5th it expands a little; after the 12th, at such norms, it expands nothing.
    """

    def __init__(self, out: int, inner: int, size: int, generator: torch.Generator) -> None:
        """Draw the kernel of a layer that keeps the size of images; bias 0."""
        super().__init__()
        channels = max(out, inner)
        drawn = torch.empty(channels, channels, size, size).normal_(0, 1 / math.sqrt(channels), generator=generator)
        self.weight = nn.Parameter(drawn)
        self.bias = nn.Parameter(drawn.new_zeros(out))
        self.more, self.out = channels - inner, out
        with torch.no_grad():
            unfolded = _unfoldings(self._skew())
        self.norms = nn.ModuleList(NormEstimate(matrix, (), generator) for matrix in unfolded)

    def _skew(self) -> Tensor:
        return (self.weight - transposed(self.weight)) / 2

    def effective(self) -> Tensor:
        """Return the kernel of A, its norms by their estimates."""
        skew = self._skew()
        norms = [norm(matrix) for norm, matrix in zip(self.norms, _unfoldings(skew), strict=True)]
        kernel: Tensor = _CORRECTION * skew / (torch.stack(norms).amin() + _TINY)
        return kernel

    def exact(self) -> Tensor:
        """Return the kernel of A in float64, with the norms themselves."""
        weight = self.weight.detach().double()
        skew = (weight - transposed(weight)) / 2
        norm = min(float(spectral_norm(matrix)) for matrix in _unfoldings(skew))
        return _CORRECTION * skew / (norm + _TINY)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in, H, W] to [B, out, H, W]."""
        terms = _TRAINED_TERMS if self.training else _TERMS
        x = F.pad(x, (0, 0, 0, 0, 0, self.more))
        return _exponential(x, self.effective(), terms)[:, : self.out] + self.bias[:, None, None]

    def frozen(self) -> nn.Sequential:
        """Return the layer with the exact kernel, rounded once: rounding keeps it skew-symmetric."""
        layers: list[nn.Module] = [ZeroChannels(self.more)] if self.more else []
        layers.append(Exponential(self.exact().to(self.weight.dtype)))
        if self.out < len(self.weight):
            layers.append(FirstChannels(self.out))
        return nn.Sequential(*layers, _Bias(self.bias.detach().clone()))


def _unfoldings(kernel: Tensor) -> list[Tensor]:
    """Return a kernel [o, i, h, w] as matrices [oh, iw], [ow, ih], [o, ihw] and [ohw, i]."""
    o, i, h, w = kernel.shape
    return [
        kernel.permute(0, 2, 1, 3).reshape(o * h, i * w),
        kernel.permute(0, 3, 1, 2).reshape(o * w, i * h),
        kernel.reshape(o, i * h * w),
        kernel.permute(0, 2, 3, 1).reshape(o * h * w, i),
    ]


class SkewMatrix(Affine):
    """exp(W − Wᵀ)x + b: an orthogonal matrix, or the first of its rows or columns; a kernel where it has four sizes."""

    def __init__(self, out: int, inner: int, generator: torch.Generator, kernel: bool = False) -> None:
        """Draw a layer [out, inner]; `kernel` makes it a 1 × 1 convolution."""
        size = max(out, inner)
        super().__init__(torch.empty(size, size).normal_(0, 1 / math.sqrt(size), generator=generator), out)
        self.shape = (out, inner, 1, 1) if kernel else (out, inner)

    def effective(self) -> Tensor:
        """Return the matrix."""
        whole: Tensor = torch.linalg.matrix_exp(self.weight - self.weight.T)
        return whole[: self.shape[0], : self.shape[1]].reshape(self.shape)
