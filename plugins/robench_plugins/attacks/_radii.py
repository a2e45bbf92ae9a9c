"""Searches on a ball that shrinks where its point is misclassified and grows where it is not: DDN and FMN."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from robench import Passes
from robench.classifier import Classifier, margins
from robench.numerics import per_sample
from robench.threat import Norm
from robench_plugins.attacks._nearest import Nearest, Slope, slope
from robench_plugins.attacks._runs import Noise, Rows
from robench_plugins.attacks.losses import Loss

__all__ = ["Moment", "Rule", "annealed", "descend"]

_FARTHEST = 1e6
"""No point is tried further away than this many times the length of the input, where the domain sets no limit."""


@dataclass(frozen=True, eq=False)
class Moment:
    """Where the rows stand; tensors [R].

    Attributes:
        step: from 0.
        radius: of the ball that the point was placed on; at step 0 that of the start.
        distance: of the point.
        nearest: of the nearest misclassified point that the row has met, inf before.
        met: the row's aim is reached at the point.
        boundary: how far off that would change if the loss were linear.
    """

    step: int
    radius: Tensor
    distance: Tensor
    nearest: Tensor
    met: Tensor
    boundary: Tensor


class Rule(Protocol):
    """How a method chooses the next ball and the next point on it."""

    @property
    def loss(self) -> Loss:
        """The loss of untargeted runs; the others use the margin."""

    @property
    def steps(self) -> int:
        """Gradient steps per run."""

    def radius(self, now: Moment) -> Tensor:
        """Return the radii of the next balls [R]."""

    def length(self, step: int) -> float:
        """Return the length of a gradient step, in units of the ball's Euclidean radius."""

    def place(self, norm: Norm, delta: Tensor, radius: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Return perturbations [R, D] in the balls of `radius` [R, 1], within low ≤ δ ≤ high, from `delta`."""


def annealed(first: float, last: float, step: int, steps: int) -> float:
    """Return the value at `step` on the way from `first` down to `last` along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * step / steps)) / 2


def descend(classifier: Classifier, norm: Norm, rows: Rows, noise: Noise, rule: Rule) -> tuple[Nearest, Passes]:
    """Search from `rows.start` by `rule`; returns the nearest point of every row and the passes spent.

    Steps go along ∇L/‖∇L‖₂ and are as long as a share of the Euclidean radius of the current ball (√d times its own in
    linf), so that neither the units of the inputs nor those of the logits matter. A row goes no further away than the
    nearest misclassified point that any row of its sample has met.
    """
    count = len(rows.id)
    best, cost = Nearest.none(rows.x, norm), torch.zeros(count, 2, dtype=torch.int64, device=rows.x.device)
    out, point = best.select(rows.id), rows.start
    stretch = math.sqrt(max(1, rows.x[0].numel())) if norm == "linf" else 1.0
    samples = int(rows.sample.max()) + 1
    radius = best.far(point)
    wander: Tensor | None = None
    for step in range(rule.steps):
        now = slope(classifier, point, rows.y, rows.target, rule.loss)
        distance = best.record(point, now.margin, now.scale, step)
        if step == 0:
            # Nothing is nearer than the clean input.
            stays = best.sure > 0
            if not bool(stays.all()):
                cost[~stays] = 1
                out.put(rows.id, best)
                rows, best, now = rows.select(stays), best.select(stays), _select(now, stays)
                point, radius, distance = point[stays], radius[stays], distance[stays]
                if not len(point):
                    return out, Passes(cost[:, 0], cost[:, 1])
        flat = now.peak == 0
        if step % 4 == 0 and bool(flat.any()):
            wander = torch.zeros_like(point) if wander is None else wander.clone()
            wander[flat] = noise(rows.id[flat], step)
        radius = _radius(rule, now, rows, best, step, radius, distance, samples)
        point = _advance(rule, now, rows, norm, step, point, radius, wander, stretch)
    with torch.no_grad():
        logits = classifier.logits(point)
    best.record(point, margins(logits, rows.y), logits.abs().amax(1), rule.steps)
    cost[rows.id, 0], cost[rows.id, 1] = rule.steps + 1, rule.steps
    out.put(rows.id, best)
    return out, Passes(cost[:, 0], cost[:, 1])


def _radius(
    rule: Rule, now: Slope, rows: Rows, best: Nearest, step: int, radius: Tensor, distance: Tensor, samples: int
) -> Tensor:
    furthest = torch.minimum(rows.reach, _FARTHEST * rows.length)
    unknown = now.value.isnan()
    boundary = now.boundary(best.norm)
    boundary = torch.where(boundary.isfinite(), boundary, torch.minimum(rows.reach, rows.length))
    chosen = rule.radius(Moment(step, radius, distance, best.sure, now.value <= 0, boundary))
    # Too far out for finite logits: half way back.
    chosen = torch.where(unknown, distance / 2, chosen)
    known = torch.full((samples,), torch.inf, dtype=radius.dtype, device=radius.device)
    known = known.scatter_reduce(0, rows.sample, best.sure, "amin")[rows.sample]
    return torch.minimum(torch.minimum(chosen, furthest), torch.minimum(known, rows.limit))


def _advance(
    rule: Rule,
    now: Slope,
    rows: Rows,
    norm: Norm,
    step: int,
    point: Tensor,
    radius: Tensor,
    wander: Tensor | None,
    stretch: float,
) -> Tensor:
    way = now.steepest
    if wander is not None:
        way = torch.where(per_sample(now.peak == 0, way), wander, way)
    size = way.flatten(1).norm(dim=1).clamp_min(torch.finfo(way.dtype).tiny)
    moved = point + way * per_sample(rule.length(step) * stretch * radius / size, way)
    low, high = (rows.lower - rows.x).flatten(1), (rows.upper - rows.x).flatten(1)
    delta = rule.place(norm, (moved - rows.x).flatten(1), radius[:, None], low, high)
    # x + (upper − x) may round to the other side of upper.
    return (rows.x + delta.reshape(point.shape)).clamp(rows.lower, rows.upper)


def _select(now: Slope, rows: Tensor) -> Slope:
    return Slope(now.margin[rows], now.value[rows], now.scale[rows], now.steepest[rows], now.peak[rows])
