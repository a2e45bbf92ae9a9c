"""FAB's search over rows: steps onto linearised boundaries, drawn towards the clean input, and a final line search."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robench import Passes
from robench.classifier import Classifier, margins
from robench.numerics import per_sample
from robench.threat import Norm
from robench_plugins.attacks._fab_planes import Plane, aimed, nearest, onto, room
from robench_plugins.attacks._nearest import Nearest
from robench_plugins.attacks._runs import Noise, Rows
from robench_plugins.attacks.gradients import rounding

__all__ = ["Pace", "search"]

_FINAL = 3
"""Passes of the final search."""


@dataclass(frozen=True)
class Pace:
    """How to search: N_iter, α_max, η and β of the paper; a sample with an error within `enough` is left."""

    steps: int
    alpha_max: float
    eta: float
    beta: float
    enough: float


def search(pace: Pace, classifier: Classifier, norm: Norm, rows: Rows, noise: Noise) -> tuple[Nearest, Passes]:
    """Search from `rows.start`, towards `rows.target` where it is 0 or above; returns the nearest error of every row.

    Compacted by step number alone, so that the fate of a sample does not depend on the others: samples with an error
    within `pace.enough` leave, and rows without a gradient, which would stay where they are.
    """
    untargeted = bool((rows.target < 0).any())
    gradients = classifier.classes - 1 if untargeted else 1
    best, point, samples = Nearest.none(rows.x, norm), rows.start, int(rows.sample.max()) + 1
    out, cost = best.select(rows.id), torch.zeros(len(point), 2, dtype=torch.int64, device=point.device)
    for step in range(pace.steps):
        if untargeted:
            now = nearest(classifier, norm, point, rows.y, rows.lower, rows.upper)
        else:
            now = aimed(classifier, point, rows.y, rows.target)
        if step == 0:
            best.record(point, now.margin, now.scale, 0)
        if step < 4 or step % 4 == 0:
            lost = ~now.normal.any(1) & ~now.margin.isnan()
            gone = lost | _settled(best, rows, samples, pace.enough)
            if bool(gone.any()):
                cost[rows.id[gone]] = cost.new_tensor([2 * step + 1, (step + 1) * gradients])
                out.put(rows.id[gone], best.select(gone))
                stays = ~gone
                rows, best, now, point = rows.select(stays), best.select(stays), now.select(stays), point[stays]
                if not len(point):
                    return out, Passes(cost[:, 0], cost[:, 1])
        point = _step(norm, pace, rows, point, now)
        margin, _ = _look(classifier, rows, best, point, step + 1)
        # Errors go back towards the clean input; so do points where the logits are not finite, and faster.
        share = torch.where(margin.isnan(), 0.5, torch.where(margin > 0, 1.0, pace.beta)).to(point.dtype)
        point = rows.x + per_sample(share, point) * (point - rows.x)
    _polish(classifier, rows, best, pace)
    cost[rows.id] = cost.new_tensor([2 * pace.steps + _FINAL, pace.steps * gradients])
    out.put(rows.id, best)
    return out, Passes(cost[:, 0], cost[:, 1])


def _settled(best: Nearest, rows: Rows, samples: int, enough: float) -> Tensor:
    """Return which rows work for a sample that some row has met an error for within `enough` [R]."""
    near = torch.zeros(samples, dtype=torch.int64, device=rows.sample.device)
    near.index_add_(0, rows.sample, (best.sure <= enough).long())
    return near[rows.sample] > 0


def _step(norm: Norm, pace: Pace, rows: Rows, point: Tensor, now: Plane) -> Tensor:
    """Return (1 − α)(x_i + η δ_i) + α(x + η δ), clipped to the box: δ_i, δ lead from x_i and x onto the plane (eq. 9).

    α = ‖δ_i‖ / (‖δ_i‖ + ‖δ‖), at most α_max (eq. 8).
    """
    x, at, lower, upper = (part.flatten(1) for part in (rows.x, point, rows.lower, rows.upper))
    both = torch.stack([at, x])
    value = torch.stack([now.value, now.value + torch.linalg.vecdot(now.normal, at - x)])
    size, length = onto(norm, now.normal.abs(), value.abs(), room(now.normal, value, both, lower, upper))
    far, whole = length
    ahead, fresh = torch.addcmul(both, size * now.normal.sign(), pace.eta * value.sign()[..., None])
    alpha = (far / (far + whole).clamp_min(torch.finfo(far.dtype).tiny)).clamp_max(pace.alpha_max)
    alpha = torch.where(now.margin.isnan(), 0, alpha)[:, None]
    # Where the logits are not finite there is no plane: both projections are where they began.
    return torch.lerp(ahead, fresh, alpha).clamp(lower, upper).reshape(point.shape)


def _look(classifier: Classifier, rows: Rows, best: Nearest, point: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Return the margins at `point` and the largest |logits|, having kept what is nearer than the best so far."""
    with torch.no_grad():
        logits = classifier.logits(point)
    margin, scale = margins(logits, rows.y), logits.abs().amax(1)
    best.record(point, margin, scale, step)
    return margin, scale


def _polish(classifier: Classifier, rows: Rows, best: Nearest, pace: Pace) -> None:
    """Look for a nearer error between x and the best point: regula falsi on the margin (eq. 12).

    It begins between β and 1, where the boundary is when η is small, and so needs no margin at x.
    """
    way = best.point - rows.x
    high, below = torch.ones_like(best.margin), best.margin
    low, above, blur = torch.zeros_like(high), torch.full_like(high, torch.nan), torch.zeros_like(high)
    for _ in range(_FINAL):
        # Beyond the boundary by what rounding may take back.
        cut = low + (high - low) * ((above + 2 * blur) / (above - below)).clamp_max(1)
        share = torch.where(cut.isnan(), pace.beta * high, cut)
        margin, scale = _look(classifier, rows, best, rows.x + per_sample(share, way) * way, pace.steps)
        wrong, blur = margin <= 0, rounding(scale)
        high, below = torch.where(wrong, share, high), torch.where(wrong, margin, below)
        low, above = torch.where(wrong, low, share), torch.where(wrong, above, margin)
