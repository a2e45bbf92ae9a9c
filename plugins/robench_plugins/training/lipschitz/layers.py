"""What layers with a trained constraint share: an effective weight, and a plain layer that holds it in the end.

A weight is [out, in] for a dense layer and [out, in, height, width] for a convolution with zero padding. The matrix of
such a convolution, whatever its stride and padding, is a part of that of the same kernel on an unbounded grid: some of
the rows and columns. So a bound of the norm on the unbounded grid, or on a torus that input and kernel fit into, is
a bound for all of them.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Affine", "Constrained", "centred_orthogonal", "transposed", "uniform"]


class Constrained(nn.Module):
    """A layer whose weight follows from what is trained."""

    def effective(self) -> Tensor:
        """Return the weight that the layer has now, in the precision of its parameters."""
        raise NotImplementedError

    def exact(self) -> Tensor:
        """Return the effective weight, computed in float64 and without its gradient."""
        with torch.no_grad():
            return copy.deepcopy(self).double().effective()

    def frozen(self) -> nn.Module:
        """Return a plain layer with the exact effective weight, rounded once."""
        raise NotImplementedError


class Affine(Constrained):
    """W'x + b with an effective weight W'."""

    def __init__(self, weight: Tensor, outputs: int, stride: int = 1, padding: int = 0) -> None:
        """Train `weight`, and a bias [outputs] that is 0 at first. Stride and zero padding are a convolution's."""
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(weight.new_zeros(outputs))
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in, ...] to [B, out, ...]."""
        weight = self.effective()
        if weight.dim() == 2:
            return F.linear(x, weight, self.bias)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)

    def frozen(self, shift: Tensor | None = None) -> nn.Linear | nn.Conv2d:
        """Return the plain layer; of a dense one, on inputs that `shift` [in] (float64) is taken away from before."""
        weight, bias = self.exact(), self.bias.detach().double()
        assert shift is None or weight.dim() == 2
        layer: nn.Linear | nn.Conv2d
        if weight.dim() == 2:
            bias = bias if shift is None else bias - weight @ shift
            layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # draws nothing
        else:
            size = weight.shape[2:]
            layer = nn.Conv2d(
                weight.shape[1], weight.shape[0], (size[0], size[1]), self.stride, self.padding, device="meta"
            )
        layer.weight, layer.bias = (nn.Parameter(part.to(self.bias.dtype)) for part in (weight, bias))
        return layer


def transposed(weight: Tensor) -> Tensor:
    """Return the weight of the transposed layer; a kernel k × k with stride 1 has padding k − 1 − p there."""
    return weight.T if weight.dim() == 2 else weight.transpose(0, 1).flip(2, 3)


def centred_orthogonal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return an orthogonal matrix [out, in], as the central entry of a kernel where `shape` has four sizes.

    It has the first sizes of `shape`; where they differ, its rows or columns are orthonormal.
    """
    matrix = nn.init.orthogonal_(torch.empty(shape[:2]), generator=generator)
    if len(shape) == 2:
        return matrix
    kernel = torch.zeros(shape)
    kernel[:, :, shape[2] // 2, shape[3] // 2] = matrix
    return kernel


def uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return entries between ±1/√fan-in, as torch starts its layers."""
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
