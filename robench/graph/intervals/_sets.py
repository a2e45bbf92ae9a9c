"""The sets that are pushed through a graph: boxes, and the scaled ball that the input starts as."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robench.numerics import per_sample, round_down, round_up
from robench.threat import Domain, Norm

__all__ = ["Ball", "Box", "input_set", "intersect", "sane", "widen"]


@dataclass(frozen=True, eq=False)
class Box:
    """All v with lower ≤ v ≤ upper, float64 [B, ...].

    `lower` is never +inf, `upper` never −inf and neither is NaN: what is not known is (−inf, inf). A single
    point is a box whose two bounds are one tensor.
    """

    lower: Tensor
    upper: Tensor

    @property
    def is_point(self) -> bool:
        """Whether both bounds are one tensor, so that there is no radius to compute."""
        return self.lower is self.upper

    def map(self, function: Callable[[Tensor], Tensor]) -> Box:
        """Apply a non-decreasing function to both bounds; its own rounding is for the caller."""
        lower = function(self.lower)
        return Box(lower, lower if self.is_point else function(self.upper))


@dataclass(frozen=True, eq=False)
class Ball:
    """{c + scale · δ : ‖δ‖ ≤ eps} within a box: the input set under elementwise affine operators.

    Attributes:
        box: contains the set.
        centre: contains the centre c.
        scale: magnitudes, float64 [1, ...] without NaN; signs do not matter, the ball is symmetric.
        eps: float64 [B].
        norm: `l2` or `l1`.
    """

    box: Box
    centre: Box
    scale: Tensor
    eps: Tensor
    norm: Norm


def sane(lower: Tensor, upper: Tensor) -> Box:
    """Return the box of freshly computed bounds (changed in place); one that is NaN or overflowed knows nothing."""
    inf = math.inf
    return Box(
        lower.nan_to_num_(nan=-inf, posinf=-inf, neginf=-inf), upper.nan_to_num_(nan=inf, posinf=inf, neginf=inf)
    )


def widen(box: Box, radius: Tensor) -> Box:
    """Return `box` grown by `radius` ≥ 0 (NaN: unknown) on every side."""
    radius = radius.nan_to_num(nan=math.inf, posinf=math.inf)
    return sane(round_down(box.lower - radius), round_up(box.upper + radius))


def intersect(first: Box, second: Box) -> Box:
    """Return the intersection of two boxes that have a point in common."""
    return Box(torch.maximum(first.lower, second.lower), torch.minimum(first.upper, second.upper))


def input_set(x: Tensor, norm: Norm, eps: float | Tensor, domain: Domain) -> Box | Ball:
    """Return the closed ball of radius `eps` ([B] or a number) around `x` [B, ...] float64, within `domain`.

    The domain is widened to hold `x` itself, as `Domain.box` does.
    """
    radius = torch.as_tensor(eps, dtype=torch.float64, device=x.device).expand(len(x))
    if not (radius >= 0).all():
        raise ValueError(f"ε must be a number from 0 up, not {eps}")
    step = per_sample(radius, x)
    box = sane(round_down(x - step), round_up(x + step))
    box = Box(torch.maximum(box.lower, x.clamp_max(domain.lower)), torch.minimum(box.upper, x.clamp_min(domain.upper)))
    if norm == "linf":
        return box
    return Ball(box, Box(x, x), torch.ones_like(x[:1]) if len(x) else x.new_ones(1, *x.shape[1:]), radius, norm)
