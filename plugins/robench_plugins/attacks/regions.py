"""Where an attack may go: the ball around each sample, intersected with the domain."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from robench.distances import linf_box
from robench.streams import Stream
from robench.threat import Norm, Threat
from robench_plugins.attacks import projections

__all__ = ["Region"]


@dataclass(frozen=True, eq=False)
class Region:
    """{x + δ : ‖δ‖ ≤ eps} ∩ [lower, upper], one per row.

    In linf `lower` and `upper` are the sides of the intersection itself, each rounded towards x.
    """

    norm: Norm
    eps: float
    x: Tensor
    lower: Tensor
    upper: Tensor

    @classmethod
    def around(cls, x: Tensor, threat: Threat) -> Region:
        """Return the region that `threat` allows around `x` [B, ...]; `threat.eps` must be given."""
        if threat.eps is None:
            raise ValueError("this attack searches at a given ε: the threat model has none")
        lower, upper = linf_box(x, threat) if threat.norm == "linf" else threat.domain.box(x)
        return cls(threat.norm, threat.eps, x, lower, upper)

    def select(self, rows: Tensor) -> Region:
        """Return the region of some rows (bool mask or int64 positions)."""
        return Region(self.norm, self.eps, self.x[rows], self.lower[rows], self.upper[rows])

    def project(self, points: Tensor) -> Tensor:
        """Return the nearest point of the region to each of `points`."""
        if self.norm == "linf":
            return points.clamp(self.lower, self.upper)
        return self._place(projections.project(self.norm, (points - self.x).flatten(1), self.eps, *self._sides))

    def maximise(self, gradient: Tensor) -> Tensor:
        """Return the point of the region that is furthest along `gradient`: the best point if the loss were linear."""
        return self._place(projections.maximise(self.norm, gradient.flatten(1), self.eps, *self._sides))

    def steepest(self, point: Tensor, gradient: Tensor, size: float) -> Tensor:
        """Return the step d with ‖d‖ ≤ size·eps that goes furthest along `gradient` without leaving the box."""
        low, high = (self.lower - point).flatten(1), (self.upper - point).flatten(1)
        return projections.maximise(self.norm, gradient.flatten(1), size * self.eps, low, high).reshape(point.shape)

    def start(self, stream: Stream) -> Tensor:
        """Return a random point per row.

        linf: uniform in the region. l2: uniform in the ball, then projected. l1: normal draws far outside the
        ball, projected, which changes few coordinates (Croce & Hein 2021, there with deviation 1, here eps so that
        units do not matter): a uniform point of the ball spreads its budget thinly and hardly moves the classifier.
        """
        shape, dtype = self.x.shape[1:], self.x.dtype
        if self.norm == "linf":
            return self.project(self.lower + (self.upper - self.lower) * stream.uniform(shape, dtype=dtype))
        noise = stream.normal(shape, dtype).flatten(1)
        if self.norm == "l2":
            radius = stream.uniform((1,), dtype=dtype) ** (1 / max(noise.shape[1], 1)) * self.eps
            noise = noise * (radius / noise.norm(dim=1, keepdim=True).clamp_min(torch.finfo(dtype).tiny))
        else:
            noise = noise * self.eps
        return self.project(self.x + noise.reshape(self.x.shape))

    @cached_property
    def _sides(self) -> tuple[Tensor, Tensor]:
        return (self.lower - self.x).flatten(1), (self.upper - self.x).flatten(1)

    def _place(self, delta: Tensor) -> Tensor:
        # x + (upper − x) may round to the other side of upper.
        return (self.x + delta.reshape(self.x.shape)).clamp_(self.lower, self.upper)
