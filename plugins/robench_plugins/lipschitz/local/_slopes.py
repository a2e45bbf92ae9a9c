"""Slopes of elementwise activations: intervals around (φ(v) − φ(z)) / (v − z) for v in [l, u] and z in [z_l, z_u].

For a convex φ that quotient does not decrease in v or z, so that it is least at (l, z_l) and greatest at (u, z_u). Of
relu it is 1 above 0, 0 below, and across 0 the positive end's share of the way. With z anywhere in [l, u] these are
the intervals of derivatives: dead, alive, or in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robench.graph import Node
from robench.numerics import LIBRARY_ERROR, UNIT_ROUNDOFF

__all__ = ["SLOPES", "Reach"]

_ROUNDED = 16 * UNIT_ROUNDOFF
"""Above the relative error of a share: two shifts, a sum and a quotient, and of widening it."""

_TINY = 2.0**-900

Interval = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Reach:
    """What a node's value may be, float64 [B, ...] each: over the ball in `low` … `high`, at x in `least` … `most`."""

    low: Tensor
    high: Tensor
    least: Tensor
    most: Tensor

    @property
    def anywhere(self) -> Reach:
        """The same for slopes between any two points of the ball."""
        return Reach(self.low, self.high, self.low, self.high)


def _share(positive: Tensor, negative: Tensor) -> Tensor:
    """Return p / (p − n), rounded to nearest, for p > 0 > n; nonsense elsewhere."""
    return positive / (positive - negative)


def _least_of_relu(low: Tensor, least: Tensor) -> Tensor:
    share = _share(least, low) * (1 - _ROUNDED) - _TINY
    share = torch.where((least > 0) & (low < 0), share, 0.0).nan_to_num(nan=0.0).clamp(0, 1)
    return torch.where(low >= 0, 1.0, share)


def _most_of_relu(high: Tensor, most: Tensor) -> Tensor:
    share = _share(high, most) * (1 + _ROUNDED) + _TINY
    share = torch.where(most < 0, share, 1.0).nan_to_num(nan=1.0).clamp(0, 1)
    return torch.where(high <= 0, 0.0, share)


def _relu(node: Node, reach: Reach) -> Interval:
    low = _least_of_relu(reach.low, torch.maximum(reach.least, reach.low))
    high = _most_of_relu(reach.high, torch.minimum(reach.most, reach.high))
    return low, torch.maximum(low, high)


def _leaky_relu(node: Node, reach: Reach) -> Interval:
    """With slope s: s x + (1 − s) relu(x)."""
    slope = node.attributes["slope"]
    assert isinstance(slope, float)
    ends = [slope + (1 - slope) * share for share in _relu(node, reach)]
    error = _ROUNDED * (1 + 2 * abs(slope))
    return torch.minimum(*ends) - error, torch.maximum(*ends) + error


def _clip(node: Node, reach: Reach) -> Interval:
    """With z inside, the less of relu(x − a)'s least slope and relu(b − x)'s, each mirrored to fit; else at least 0.

    At most the slope of either, as clip(x) = a + relu(x − a) − relu(x − b).
    """
    a, b = node.attributes["min"], node.attributes["max"]
    assert isinstance(a, float) and isinstance(b, float)
    sides = (
        Reach(reach.low - a, reach.high - a, reach.least - a, reach.most - a),
        Reach(b - reach.high, b - reach.low, b - reach.most, b - reach.least),
    )
    (first_low, first_high), (second_low, second_high) = (_relu(node, side) for side in sides)
    low, high = torch.minimum(first_low, second_low), torch.minimum(first_high, second_high)
    return torch.minimum(low, high), high


def _bell(steepness: float, top: float) -> Callable[[Node, Reach], Interval]:
    """Derivatives of sigmoid and tanh, `top` times 4 σ(s v) σ(−s v): greatest where v is nearest to 0."""

    def slopes(node: Node, reach: Reach) -> Interval:
        near = torch.where(reach.low > 0, reach.low, torch.where(reach.high < 0, -reach.high, 0.0))
        far = torch.maximum(-reach.low, reach.high)
        least, most = (4 * top * torch.sigmoid(steepness * v) * torch.sigmoid(-steepness * v) for v in (far, near))
        error = 4 * LIBRARY_ERROR
        low = (least * (1 - error) - _TINY).nan_to_num(nan=0.0).clamp_min(0.0)
        high = (most * (1 + error) + _TINY).nan_to_num(nan=top).clamp_max(top)
        return low, torch.maximum(low, high)

    return slopes


SLOPES: Mapping[str, Callable[[Node, Reach], Interval]] = {
    "clip": _clip,
    "leaky_relu": _leaky_relu,
    "relu": _relu,
    "sigmoid": _bell(1.0, 0.25),
    "tanh": _bell(2.0, 1.0),
}
"""Operator to (low, high) [B, ...] of its slopes."""
