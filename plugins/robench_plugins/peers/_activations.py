"""Activations of other libraries, by operators that graphs have and whose Lipschitz constant is proven to be 1."""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robench.graph import group_sort

__all__ = ["HalfMaxMin", "Reflection", "ScaledGroupSort", "TwoSided"]

_MARGIN: Final = 1 + 1e-7  # so that ‖W‖² ≤ 2 is seen of entries that are rounded to float32


class ScaledGroupSort(nn.Module):
    """Neighbouring channels sorted in groups, times a factor: torchlip's GroupSort and FullSort."""

    def __init__(self, group: int | None, factor: float = 1.0) -> None:
        """Sort in groups of `group`; all channels where it is None, or more than there are."""
        super().__init__()
        self.group, self.factor = group, factor

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, ...] to the same shape."""
        channels = x.shape[1]
        out = group_sort(x, channels if self.group is None else min(self.group, channels))
        return out if self.factor == 1 else out * self.factor


class HalfMaxMin(nn.Module):
    """(max(a, b), min(a, b)) of the two halves a, b of the channels: orthogonium's MaxMin."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, 2C, ...] to the same shape."""
        return _halves(-group_sort(_pairs(-x), 2))


class TwoSided(nn.Module):
    """(relu(x), relu(−x)), times a factor: torchlip's MaxMin.

    As a sorting of the pairs (−x, 0), which gives (−relu(x), relu(−x)). The two ReLUs would count as √2.
    """

    signs: Tensor

    def __init__(self, factor: float = 1.0) -> None:
        """Multiply with `factor`."""
        super().__init__()
        self.register_buffer("signs", torch.tensor([-factor, factor]))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, ...] to [B, 2C, ...]."""
        channels = x.shape[1]
        both = F.pad(-x, (0, 0) * (x.dim() - 2) + (0, channels))
        signs = self.signs.repeat_interleave(channels).reshape(-1, *[1] * (x.dim() - 2))
        return _halves(group_sort(_pairs(both), 2)) * signs


class Reflection(nn.Module):
    """z − Wᵀ relu(Wz), times a factor: Householder activations (Singla, Singla & Feizi 2022) of both libraries.

    Row i of W is √2 v on the channels (i, i + C): where ⟨v, z⟩ > 0 they are reflected, z − 2 ⟨v, z⟩ v, with v =
    (sin θ/2, −cos θ/2). Written like this it is a step down a convex potential with ‖W‖² = 2, which is known to
    expand nothing.
    """

    def __init__(self, theta: Tensor, factor: float = 1.0) -> None:
        """Take the angles of C pairs, of any shape."""
        super().__init__()
        half = theta.detach().double().flatten() / 2
        sides = torch.cat((half.sin().diag(), -half.cos().diag()), 1) * (math.sqrt(2) / _MARGIN)
        self.weight, self.factor = nn.Parameter(sides.to(theta.dtype)), factor

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, 2C, ...] to the same shape."""
        if x.dim() == 2:
            out = x - F.linear(F.relu(F.linear(x, self.weight)), self.weight.T)
        else:
            kernel = self.weight[:, :, None, None]
            out = x - F.conv2d(F.relu(F.conv2d(x, kernel)), kernel.transpose(0, 1))
        return out if self.factor == 1 else out * self.factor


def _pairs(x: Tensor) -> Tensor:
    """Put channel i beside channel C + i of 2C: both halves interleaved."""
    return x.reshape(x.shape[0], 2, x.shape[1] // 2, *x.shape[2:]).transpose(1, 2).reshape(x.shape)


def _halves(x: Tensor) -> Tensor:
    """Undo `_pairs`."""
    return x.reshape(x.shape[0], x.shape[1] // 2, 2, *x.shape[2:]).transpose(1, 2).reshape(x.shape)
