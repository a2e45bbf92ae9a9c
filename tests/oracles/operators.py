"""The matrix of an affine layer, from its answers to basis vectors."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["largest", "matrix_of"]


def matrix_of(layer: nn.Module, shape: Sequence[int]) -> Tensor:
    """Return the matrix [outputs, inputs] of `layer` on inputs of `shape`, in float64."""
    layer = copy.deepcopy(layer).double()
    size = math.prod(shape)
    with torch.no_grad():
        basis = torch.cat([torch.zeros(1, size), torch.eye(size)]).double().reshape(-1, *shape)
        answers = layer(basis).flatten(1)
    return (answers[1:] - answers[0]).T


def largest(matrix: Tensor) -> float:
    """Return the largest singular value."""
    return float(torch.linalg.svdvals(matrix.detach().double())[0])
