"""Orthogonal layers: matrices by the Cayley transform, convolutions composed of projectors."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robench_plugins.training.lipschitz.layers import Affine

__all__ = ["Bcop", "Cayley", "cayley", "compose", "orthogonal_kernel"]


def cayley(weight: Tensor) -> Tensor:
    """Return an orthogonal matrix for each of `weight` [..., out, in]; where sizes differ, the fewer vectors are so.

    Of the tall W = (U; V) it is ((I + A)⁻¹ (I − A); −2 V (I + A)⁻¹) with A = U − Uᵀ + VᵀV (Trockman & Kolter
    2021, "Orthogonalizing convolutional layers with the Cayley transform"). I + A has an inverse
    whatever W is: A's symmetric part is not negative.
    """
    rows, columns = weight.shape[-2:]
    if columns > rows:
        return cayley(weight.mT).mT
    upper, lower = weight[..., :columns, :], weight[..., columns:, :]
    one = torch.eye(columns, dtype=weight.dtype, device=weight.device)
    inverse = torch.linalg.inv(one + upper - upper.mT + lower.mT @ lower)
    return torch.cat((2 * inverse - one, -2 * lower @ inverse), -2)  # (I + A)⁻¹ (I − A) = 2 (I + A)⁻¹ − I


class Cayley(Affine):
    """Qx + b with Q = `cayley`(s · W / ‖W‖_F): an isometry, or its transpose where the layer narrows.

    The scale s is trained too, from ‖W‖_F at the start, as in the authors' code.
    """

    def __init__(self, weight: Tensor) -> None:
        """Start from `weight` [out, in]."""
        super().__init__(weight, len(weight))
        self.scale = nn.Parameter(weight.norm())

    def effective(self) -> Tensor:
        """Return Q."""
        return cayley(self.scale * self.weight / (self.weight.norm() + 1e-12))


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Return the kernel of one stride-1 convolution after another: [o, m, h, w] after [m, i, h', w'] on any grid."""
    around = (outer.shape[2] - 1, outer.shape[3] - 1)
    return F.conv2d(inner.transpose(0, 1), outer.flip(2, 3), padding=around).transpose(0, 1)


def orthogonal_kernel(bases: Tensor, out: int, inner: int) -> Tensor:
    """Return a kernel [out, inner, k, k] that is orthogonal on every torus, from 2k − 1 orthogonal matrices.

    Li et al. 2019, "Preventing gradient attenuation in Lipschitz constrained convolutional networks": a
    matrix H, and k − 1 pairs of convolutions of size 2, P·δ₀ + (I − P)·δ₁ down and across, with symmetric projectors P
    = BBᵀ of half the rank, B the first half of a base's columns. Where `out` > `inner`, H is in front of
    them and spreads its inputs; otherwise it stands behind them. `bases` is [2k − 1, c, c] with c the larger size.
    """
    channels = bases.shape[-1]
    mixing = bases[0, :out, :inner][..., None, None]
    half = bases[1:, :, : max(1, channels // 2)]
    projectors = half @ half.mT
    rest = torch.eye(channels, dtype=bases.dtype, device=bases.device) - projectors
    kernel: Tensor | None = mixing if out > inner else None
    for number, pair in enumerate(zip(projectors, rest, strict=True)):
        factor = torch.stack(pair, -1).unsqueeze(2 + number % 2)
        kernel = factor if kernel is None else compose(factor, kernel)
    if out > inner:
        assert kernel is not None
        return kernel
    return mixing if kernel is None else compose(mixing, kernel)


class Bcop(Affine):
    """A convolution with an `orthogonal_kernel`, zero-padded: it loses what leaves the image, and expands nothing.

    The bases are `cayley` of what is trained, where the authors iterate Björck's polynomial: exact in every step.
    """

    def __init__(
        self, out: int, inner: int, size: int, generator: torch.Generator, stride: int = 1, padding: int = 0
    ) -> None:
        """Draw the bases of a kernel [out, inner, size, size]."""
        channels = max(out, inner)
        drawn = torch.empty(2 * size - 1, channels, channels).normal_(0, 1 / math.sqrt(channels), generator=generator)
        super().__init__(drawn, out, stride, padding)
        self.out, self.inner = out, inner

    def effective(self) -> Tensor:
        """Return the kernel."""
        return orthogonal_kernel(cayley(self.weight), self.out, self.inner)
