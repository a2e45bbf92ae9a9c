"""Sets of inputs, one per sample, and the least value of a linear form over them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robench.graph.intervals import Ball, Box, input_set
from robench.numerics import gamma, per_sample, round_down
from robench.threat import Norm, Threat
from robench_plugins.verify._engine.balls import greatest
from robench_plugins.verify._engine.owners import Owners

__all__ = ["Region", "region_of"]


@dataclass(frozen=True, eq=False)
class Region:
    """The closed box of a sample, intersected with a closed l2 or l1 ball where there is one.

    Attributes:
        lower: float64 [B, ...], rounded outward.
        upper: float64 [B, ...].
        centre: float64 [B, ...], the ball's; the box's where there is no ball.
        eps: the ball's radius, float64 [B], or None.
        norm: the ball's norm.
    """

    lower: Tensor
    upper: Tensor
    centre: Tensor
    eps: Tensor | None = None
    norm: Norm = "linf"

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.lower)

    @property
    def start(self) -> Box | Ball:
        """The same set, for interval arithmetic."""
        box = Box(self.lower, self.upper)
        if self.eps is None:
            return box
        ones = self.lower.new_ones(1, *self.lower.shape[1:])
        return Ball(box, Box(self.centre, self.centre), ones, self.eps, self.norm)

    def select(self, index: Tensor | slice) -> Region:
        """Return the samples at `index` [N]."""
        eps = None if self.eps is None else self.eps[index]
        return Region(self.lower[index], self.upper[index], self.centre[index], eps, self.norm)

    def at(self, index: Tensor | slice) -> Region:
        """Return the sets at `index` [N]; one set alone stands for all, and stays one."""
        return self if len(self) == 1 else self.select(index)

    def to(self, dtype: torch.dtype) -> Region:
        """Return the region rounded to nearest in `dtype`, for searching."""
        eps = None if self.eps is None else self.eps.to(dtype)
        return Region(self.lower.to(dtype), self.upper.to(dtype), self.centre.to(dtype), eps, self.norm)

    def least(self, rows: Tensor, owners: Owners) -> Tensor:
        """Return min a·x [R] over the sets, or less, for rows a [R, ...] in the region's dtype; rounds to nearest."""
        inside = owners.dot(rows.clamp_min(0), self.lower) + owners.dot(rows.clamp_max(0), self.upper)
        if self.eps is None:
            return inside
        fall, _ = self._fall(rows, owners)
        return torch.maximum(inside, owners.dot(rows, self.centre) - fall)

    def _fall(self, rows: Tensor, owners: Owners) -> tuple[Tensor, Tensor]:
        """Return how far a·x falls from the centre within ball and box [R], or more, and the way there [R, n] ≥ 0."""
        assert self.eps is not None
        tiny = torch.finfo(rows.dtype).tiny
        radius, size = self.eps.clamp_min(tiny), rows.flatten(1).abs()
        down, up = (
            (side / per_sample(radius, side)).clamp(0, 1)
            for side in (self.centre - self.lower, self.upper - self.centre)
        )
        room = torch.where(rows > 0, owners.fit(down), owners.fit(up)).flatten(1)
        largest = size.detach().amax(1).clamp_min(tiny)
        value, way = greatest(size / largest[:, None], room, self.norm)
        return value * largest * owners.of(radius), way * owners.of(radius)[:, None]

    def error(self, rows: Tensor, owners: Owners) -> Tensor:
        """Return how far `least` may be above the minimum in float64 [R]."""
        reach = torch.maximum(self.lower.abs(), self.upper.abs())
        size = rows[0].numel()
        rounding = 4 * gamma(size + 8)
        error = owners.dot(rows.abs(), reach) * rounding
        if self.eps is None:
            return error
        flat = rows.flatten(1).abs()
        # Squares of entries below 2**-511 lose digits or vanish. The norm misses at most √n 2**-511 for those, which,
        # multiplied by `rounding` ≤ n 2**-50, is below 2**-500 for any n up to 2**40.
        dual = flat.amax(1) if self.norm == "l1" else torch.linalg.vector_norm(flat, dim=1)
        return error + owners.of(self.eps) * dual * rounding + owners.of(self.eps) * 2.0**-500

    def minimiser(self, rows: Tensor, owners: Owners) -> Tensor:
        """Return points [R, ...] of the sets at which a·x is about least."""
        lower, upper = owners.of(self.lower), owners.of(self.upper)
        if self.eps is None:
            return torch.where(rows >= 0, lower, upper)
        _, way = self._fall(rows, owners)
        moved = owners.of(self.centre) - rows.sign() * way.reshape(rows.shape)
        return torch.minimum(torch.maximum(moved, lower), upper)


def region_of(x: Tensor, threat: Threat, eps: float | Tensor | None = None) -> Region:
    """Return the set of `threat` around `x` [B, ...]: the closed ball within the domain, or the data's own box.

    `eps` ([B] or a number) stands in for the threat's own. Raises ValueError where there is neither.
    """
    points = x.detach().double()
    if threat.region is not None and eps is None:
        lower, upper = threat.region.lower.to(points), threat.region.upper.to(points)
        return Region(lower, upper, (lower / 2 + upper / 2).clamp(lower, upper))
    radius = threat.eps if eps is None else eps
    if radius is None:
        raise ValueError("a budget is needed: one ε is certified at a time")
    found = input_set(points, threat.norm, radius, threat.domain)
    if isinstance(found, Ball):
        return Region(found.box.lower, found.box.upper, points, found.eps, threat.norm)
    return Region(found.lower, found.upper, points)


def bounded(region: Region) -> Tensor:
    """Bool [B]: whether all sides are finite numbers."""
    return (region.lower.isfinite() & region.upper.isfinite()).flatten(1).all(1)


def below(value: Tensor, error: Tensor) -> Tensor:
    """Return value − error rounded down, −inf where either is not a number."""
    safe = round_down(round_down(value - round_down(error * 1.01 + value.abs() * 2.0**-50)))
    return torch.where(safe.isnan() | (safe == math.inf), -math.inf, safe)
