"""Linear bounds that can be differentiated: the backward pass of CROWN-IBP (Zhang et al. 2020, section 3).

Margins are bounded by linear functions of the input, from the last layer back to the first; a ReLU whose input may have
either sign lies between two lines, chosen by interval bounds. Plain float arithmetic, for training alone:
`robench_plugins.verify` has the rigorous counterpart.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robench_plugins.training.intervals import Box, difference
from robench_plugins.training.networks import Normalise

__all__ = ["Slope", "linear_margins"]

Slope = Literal["adaptive", "zero"]
"""The line below a ReLU on [l, u], l < 0 < u: `adaptive` is z where u > −l and 0 elsewhere (Zhang et al. 2018), which
has the smaller area; `zero` is 0, with which bounds are never looser than intervals'."""


def linear_margins(network: nn.Sequential, boxes: list[Box], y: Tensor, slope: Slope = "adaptive") -> Tensor:
    """Return upper bounds on f_j − f_y [B, classes]; 0 at j = y.

    `boxes` are `intervals.layer_inputs`: the input's box, and bounds on what enters each layer.
    """
    rows, shift = difference(network[-1], y)
    for layer, box in list(zip(network, boxes, strict=True))[-2::-1]:
        if isinstance(layer, nn.ReLU):
            rows, shift = _relu(rows, shift, box, slope)
        else:
            rows, shift = pull(layer, rows, shift, box[0].shape[1:])
    lower, upper = (side.flatten(1) for side in boxes[0])
    rows = rows.flatten(2)
    centre, radius = (upper + lower) / 2, (upper - lower) / 2
    return torch.einsum("bkf,bf->bk", rows, centre) + torch.einsum("bkf,bf->bk", rows.abs(), radius) + shift


@singledispatch
def pull(layer: nn.Module, rows: Tensor, shift: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Return ⟨rows, layer(x)⟩ + shift as a linear function of x: rows [B, K, *shape] and shift [B, K]."""
    raise TypeError(f"no linear rule for {type(layer).__name__}")


@pull.register
def _flatten(layer: nn.Flatten, rows: Tensor, shift: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    return rows.reshape(*rows.shape[:2], *shape), shift


@pull.register
def _normalise(layer: Normalise, rows: Tensor, shift: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    rows = rows / layer.std
    return rows, shift - (rows * layer.mean).flatten(2).sum(2)


@pull.register
def _linear(layer: nn.Linear, rows: Tensor, shift: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    if layer.bias is not None:
        shift = shift + rows @ layer.bias
    return rows @ layer.weight, shift


@pull.register
def _conv2d(layer: nn.Conv2d, rows: Tensor, shift: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Transpose the convolution; what a stride leaves over at the end is the output padding."""
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise TypeError(f"no linear rule for a convolution with {layer.padding_mode} padding {layer.padding}")
    if layer.bias is not None:
        shift = shift + rows.sum((3, 4)) @ layer.bias
    left = [
        shape[axis + 1]
        - ((rows.shape[axis + 3] - 1) * layer.stride[axis] - 2 * layer.padding[axis])
        - layer.dilation[axis] * (layer.kernel_size[axis] - 1)
        - 1
        for axis in range(2)
    ]
    flat = F.conv_transpose2d(
        rows.flatten(0, 1), layer.weight, None, layer.stride, layer.padding, left, layer.groups, layer.dilation
    )
    return flat.reshape(*rows.shape[:2], *shape), shift


def _relu(rows: Tensor, shift: Tensor, box: Box, slope: Slope) -> tuple[Tensor, Tensor]:
    """Replace ReLU(z) by the chord from (l, 0) to (u, u) where rows are positive, by the line below elsewhere."""
    lower, upper = box
    unstable = (lower < 0) & (upper > 0)
    above = torch.where(unstable, upper / torch.where(unstable, upper - lower, 1), (lower >= 0).to(lower.dtype))
    height = torch.where(unstable, -lower * above, 0)
    below = (lower >= 0) if slope == "zero" else (upper > -lower) & (upper > 0)
    positive, negative = rows.clamp_min(0), rows.clamp_max(0)
    return (
        positive * above[:, None] + negative * below[:, None],
        shift + (positive * height[:, None]).flatten(2).sum(2),
    )
