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

__all__ = ["propagate", "worst_margins"]


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


def worst_margins(network: nn.Sequential, lower: Tensor, upper: Tensor, y: Tensor) -> Tensor:
    """Return upper bounds on f_j − f_y over lower ≤ x ≤ upper, [B, classes]; 0 at j = y.

    The last layer is linear and merged with the difference (Gowal et al. 2018, "elision of the last layer"):
    its rows are subtracted before they are bounded. All below 0 except at y: certified.
    """
    last = network[-1]
    if not isinstance(last, nn.Linear):
        raise TypeError(f"the last layer must be linear, not {type(last).__name__}")
    lower, upper = propagate(network[:-1], lower, upper)
    centre, radius = (upper + lower) / 2, (upper - lower) / 2
    rows = last.weight - last.weight[y][:, None]  # [B, classes, features]
    worst = torch.einsum("bjf,bf->bj", rows, centre) + torch.einsum("bjf,bf->bj", rows.abs(), radius)
    if last.bias is not None:
        worst = worst + last.bias - last.bias[y][:, None]
    return worst
