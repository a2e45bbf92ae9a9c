"""Interval bounds that can be differentiated: what a network is trained on, not what it is certified with.

Gowal et al. 2018, "On the effectiveness of interval bound propagation". Plain float arithmetic,
without outward rounding: `robench.graph.intervals` is the rigorous counterpart.
"""

from __future__ import annotations

from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robench_plugins.training.networks import Normalise

__all__ = ["Box", "difference", "imbalance", "layer_inputs", "propagate", "worst_margins"]

Box = tuple[Tensor, Tensor]
"""Lower and upper ends [B, ...]."""


@singledispatch
def propagate(layer: nn.Module, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Return bounds on layer(x) over lower ≤ x ≤ upper, elementwise. Register a rule per type of layer."""
    raise TypeError(f"no interval rule for {type(layer).__name__}")


@propagate.register(nn.ReLU)
@propagate.register(nn.Flatten)
@propagate.register(Normalise)
def _monotone(layer: nn.Module, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Layers that increase in every coordinate map ends to ends."""
    return layer(lower), layer(upper)


@propagate.register
def _linear(layer: nn.Linear, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Centre W c + b and radius |W| r."""
    radius = F.linear((upper - lower) / 2, layer.weight.abs())
    centre = layer((upper + lower) / 2)
    return centre - radius, centre + radius


@propagate.register
def _conv2d(layer: nn.Conv2d, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    if layer.padding_mode != "zeros":
        raise TypeError(f"no interval rule for a convolution with {layer.padding_mode} padding")
    radius = F.conv2d(
        (upper - lower) / 2, layer.weight.abs(), None, layer.stride, layer.padding, layer.dilation, layer.groups
    )
    centre = layer((upper + lower) / 2)
    return centre - radius, centre + radius


@propagate.register
def _sequential(layers: nn.Sequential, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    for layer in layers:
        lower, upper = propagate(layer, lower, upper)
    return lower, upper


def layer_inputs(network: nn.Sequential, lower: Tensor, upper: Tensor) -> list[Box]:
    """Return bounds on what enters each layer of `network`; the first are `lower` and `upper` themselves."""
    boxes = [(lower, upper)]
    for layer in list(network)[:-1]:
        boxes.append(propagate(layer, *boxes[-1]))
    return boxes


def worst_margins(last: nn.Module, box: Box, y: Tensor) -> Tensor:
    """Return upper bounds on f_j − f_y [B, classes] where the network's last layer reads from `box`; 0 at j = y.

    The last layer is linear and merged with the difference (Gowal et al. 2018, "elision of the last layer"):
    its rows are subtracted before they are bounded. All below 0 except at y: certified.
    """
    rows, shift = difference(last, y)
    lower, upper = box
    centre, radius = (upper + lower) / 2, (upper - lower) / 2
    return torch.einsum("bjf,bf->bj", rows, centre) + torch.einsum("bjf,bf->bj", rows.abs(), radius) + shift


def difference(last: nn.Module, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows [B, classes, features] and constants [B, classes] of f_j − f_y. Raises TypeError."""
    if not isinstance(last, nn.Linear):
        raise TypeError(f"the last layer must be linear, not {type(last).__name__}")
    rows = last.weight - last.weight[y][:, None]
    shift = rows.new_zeros(rows.shape[:2])
    if last.bias is not None:
        shift = last.bias - last.bias[y][:, None]
    return rows, shift


def imbalance(network: nn.Sequential, boxes: list[Box], tolerance: float = 0.5) -> Tensor:
    """Return the regularisers of Shi et al. 2021, L_tightness + L_ReLU (eqs. 12 and 13), for `boxes` of positive width.

    Over the m ReLU layers, the mean of: how far bounds have widened from the input, beyond a factor 1/τ; and by how
    much the means and the variances of the centres of active and of inactive units differ, beyond a factor τ. A layer
    without active, or without inactive, units adds nothing to the second.
    """
    width = _width(boxes[1])
    total, layers = width.new_zeros(()), 0
    for layer, box in zip(network, boxes, strict=True):
        if isinstance(layer, nn.ReLU):
            total = total + F.relu(tolerance - width / _width(box).clamp_min(1e-12)) + _lopsided(box, tolerance)
            layers += 1
    return total / (tolerance * max(1, layers))


def _width(box: Box) -> Tensor:
    return (box[1] - box[0]).mean()


def _lopsided(box: Box, tolerance: float) -> Tensor:
    lower, upper = box
    centre, active, inactive = (lower + upper) / 2, lower > 0, upper < 0
    spread = (centre - centre.mean()).square()
    mean = (centre * active).sum(), -(centre * inactive).sum()
    variance = (spread * active).sum(), (spread * inactive).sum()
    total = centre.new_zeros(())
    for one, other in (mean, variance):
        if one > 0 and other > 0:
            total = total + F.relu(tolerance - torch.minimum(one / other, other / one))
    return total
