"""Linear layers that expand no distance: Prach & Lampert 2022, "Almost-orthogonal layers"."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robench.graph import GroupSort

__all__ = ["AolLinear", "Centre", "almost_orthogonal", "build", "frozen"]


def almost_orthogonal(weight: Tensor) -> Tensor:
    """Return `weight` [out, in] rescaled so that its largest singular value is at most 1.

    Their theorem 1, with the 1e-6 of their code: column i is divided by √(Σ_j |WᵀW|_ij + 1e-6), which changes
    nothing where columns are orthonormal. No more than `out` of them can be, so a layer that narrows is rescaled
    through its transpose (`TransposeAOLLinear` in the code of Prach & Lampert 2025): rows, by |WWᵀ|.
    """
    rows, columns = weight.shape
    if columns > rows:
        return weight / _lengths(weight @ weight.T)[:, None]
    return weight / _lengths(weight.T @ weight)


def _lengths(gram: Tensor) -> Tensor:
    return (gram.abs().sum(1) + 1e-6).sqrt()


class AolLinear(nn.Module):
    """W'x + b with W' = `almost_orthogonal`(W): 1-Lipschitz in l2 whatever W is."""

    def __init__(self, weight: Tensor) -> None:
        """Start from `weight` [out, in] and bias 0."""
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(weight.new_zeros(len(weight)))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in] to [B, out]."""
        return F.linear(x, almost_orthogonal(self.weight), self.bias)


class Centre(nn.Module):
    """x − mean, broadcast against one input: division by a standard deviation would expand distances."""

    mean: Tensor

    def __init__(self, mean: Tensor) -> None:
        """Keep the mean as a buffer: it moves with the network and is not trained."""
        super().__init__()
        self.register_buffer("mean", mean)

    def forward(self, x: Tensor) -> Tensor:
        """Return the centred inputs [B, ...]."""
        return x - self.mean


def build(
    mean: Tensor, shape: tuple[int, ...], classes: int, width: int, depth: int, generator: torch.Generator
) -> nn.Sequential:
    """Return a 1-Lipschitz MLP of `depth` layers, `width` (even) units in each but the last, with MaxMin in between.

    Weights are orthogonal, drawn from `generator`; `mean` broadcasts against an input of `shape`.
    """
    sizes = [math.prod(shape), *[width] * (depth - 1), classes]
    layers: list[nn.Module] = [Centre(mean), nn.Flatten()]
    for inputs, outputs in pairwise(sizes):
        layers += [AolLinear(nn.init.orthogonal_(torch.empty(outputs, inputs), generator=generator)), GroupSort()]
    return nn.Sequential(*layers[:-1])


def frozen(network: nn.Sequential, shape: tuple[int, ...]) -> nn.Sequential:
    """Return what `build` made for inputs of `shape` as plain linear layers and MaxMin, in evaluation mode.

    Effective weights are computed in float64 and rounded once; the mean goes into the first bias.
    """
    return nn.Sequential(*_frozen(network, shape)).eval()


def _frozen(network: nn.Sequential, shape: tuple[int, ...]) -> Iterator[nn.Module]:
    shift: Tensor | None = None
    for layer in network:
        if isinstance(layer, Centre):
            shift = layer.mean.detach().double().expand(shape).flatten()
        elif isinstance(layer, AolLinear):
            weight, bias = almost_orthogonal(layer.weight.detach().double()), layer.bias.detach().double()
            bias = bias if shift is None else bias - weight @ shift
            yield _linear(weight.to(layer.weight.dtype), bias.to(layer.weight.dtype))
            shift = None
        else:
            yield layer


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # draws nothing
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer
