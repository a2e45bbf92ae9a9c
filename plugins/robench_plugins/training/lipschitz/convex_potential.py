"""Residual layers that are a step down a convex function: Meunier, Delattre, Araujo & Allauzen 2022."""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robench_plugins.training.lipschitz.layers import Constrained, transposed
from robench_plugins.training.lipschitz.spectral import NormEstimate, spectral_norm

__all__ = ["ConvexPotential", "FrozenPotential"]

_MARGIN: Final = 1 + 1e-6  # more than what the rounding of an effective weight to float32 adds to its norm
_TINY: Final = 1e-12


def _potential_step(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x − Wᵀ relu(Wx + b)."""
    if weight.dim() == 2:
        return x - F.linear(F.relu(F.linear(x, weight, bias)), transposed(weight))
    around = (weight.shape[2] // 2, weight.shape[3] // 2)
    hidden = F.relu(F.conv2d(x, weight, bias, padding=around))
    return x - F.conv2d(hidden, transposed(weight), padding=around)


class FrozenPotential(nn.Module):
    """x − Wᵀ relu(Wx + b) with a fixed weight: the same numbers stand in both layers."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """Keep weight [c', c] or kernel [c', c, k, k] with odd k, and bias [c']."""
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, c, ...] to the same shape."""
        return _potential_step(x, self.weight, self.bias)


class ConvexPotential(Constrained):
    """x − W'ᵀ relu(W'x + b) with W' = √2 W / ‖W‖ ("A dynamical system perspective for Lipschitz neural networks").

    Theirs, x − 2/‖W‖² Wᵀ relu(Wx + b), with the factor in equal parts in both layers, and b in its units: a
    step against the gradient of a convex function whose second derivative is at most ‖W'‖² = 2, which expands
    no distance. Frozen, ‖W'‖² is less than 2 by so much that this can still be proven for rounded entries.
    """

    def __init__(self, weight: Tensor, spatial: tuple[int, ...], generator: torch.Generator) -> None:
        """Start from `weight` [c', c] or [c', c, k, k] with odd k, for inputs [c, *spatial], and bias 0."""
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(weight.new_zeros(len(weight)))
        self.spatial = spatial
        self.norm = NormEstimate(weight, spatial, generator)

    def effective(self) -> Tensor:
        """Return √2 W / estimate."""
        weight: Tensor = math.sqrt(2) * self.weight / (self.norm(self.weight) + _TINY)
        return weight

    def exact(self) -> Tensor:
        """Return √2 W / (‖W‖ (1 + 1e-6)) in float64, with the norm of `spectral_norm`."""
        norm = spectral_norm(self.weight, self.spatial) * _MARGIN
        return math.sqrt(2) * self.weight.detach().double() / (norm + _TINY)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, c, ...] to the same shape."""
        return _potential_step(x, self.effective(), self.bias)

    def frozen(self) -> FrozenPotential:
        """Return the layer with the exact effective weight, rounded once for both sides."""
        return FrozenPotential(self.exact().to(self.weight.dtype), self.bias.detach().clone())
