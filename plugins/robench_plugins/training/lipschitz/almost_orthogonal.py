"""Layers that expand no distance by rescaling: Prach & Lampert 2022, "Almost-orthogonal layers"."""

from __future__ import annotations

from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from robench_plugins.training.lipschitz.layers import Affine

__all__ = ["Aol", "almost_orthogonal"]

_WIDE: Final = 512  # vectors from which the half of the Gram matrix that the other mirrors is worth its while
_BLOCK: Final = 128


def almost_orthogonal(weight: Tensor) -> Tensor:
    """Return `weight` [out, in] or [out, in, height, width] rescaled so that its operator norm is at most 1.

    Their theorem 1, with the 1e-6 of their code: column i is divided by √(Σ_j |WᵀW|_ij + 1e-6), which changes
    nothing where columns are orthonormal. Of a kernel, input channel i is, where the sum runs over all entries of its
    correlations with every channel. No more than `out` columns can be orthonormal, so a layer that
    narrows is rescaled through its transpose (`TransposeAOLLinear` in the code of Prach & Lampert 2025): rows, by
    |WWᵀ|.
    """
    axis = int(weight.shape[1] <= weight.shape[0])
    lengths = (_overlaps(weight, axis) + 1e-6).sqrt()
    return weight / lengths.reshape([-1 if place == axis else 1 for place in range(weight.dim())])


def _overlaps(weight: Tensor, axis: int) -> Tensor:
    """Return Σ_j |v_i · v_j| for the rows (axis 0) or columns (1) v of `weight`; of kernels, over all shifts of v_j."""
    vectors = weight.transpose(0, axis)
    if weight.dim() == 4:
        around = (weight.shape[2] - 1, weight.shape[3] - 1)
        return F.conv2d(vectors, vectors, padding=around).abs().sum((1, 2, 3))
    if len(vectors) >= _WIDE:
        return cast(Tensor, _WideOverlaps.apply(vectors))  # type: ignore[no-untyped-call]
    gram = weight.T @ weight if axis else weight @ weight.T
    return gram.abs().sum(1)


class _WideOverlaps(torch.autograd.Function):
    """Σ_j |v_i · v_j|, of which each product is made once, and a gradient of one matrix product instead of two."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        """Return the sums [n] of vectors [n, m]."""
        count = len(vectors)
        signs, sums = vectors.new_empty(count, count), vectors.new_zeros(count)
        for start in range(0, count, _BLOCK):
            stop = min(start + _BLOCK, count)
            products = vectors[start:stop] @ vectors[start:].T
            sign = products.sign()
            signs[start:stop, start:], signs[start:, start:stop] = sign, sign.T
            sizes = products.abs_()
            sums[start:stop] += sizes.sum(1)
            sums[stop:] += sizes[:, stop - start :].sum(0)
        ctx.save_for_backward(vectors, signs)
        return sums

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        """Return Σ_j (g_i + g_j) sign(v_i · v_j) v_j."""
        vectors, signs = ctx.saved_tensors
        (grad,) = grads
        return cast(Tensor, (signs * (grad[:, None] + grad)) @ vectors)


class Aol(Affine):
    """W'x + b with W' = `almost_orthogonal`(W): 1-Lipschitz in l2 whatever W, stride and padding are."""

    def __init__(self, weight: Tensor, stride: int = 1, padding: int = 0) -> None:
        """Start from `weight` and bias 0."""
        super().__init__(weight, len(weight), stride, padding)

    def effective(self) -> Tensor:
        """Return W'."""
        return almost_orthogonal(self.weight)
