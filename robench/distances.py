"""Distances rounded up and the projection into a budget: the only code that decides who is within ε.

Points and samples are in the model's input dtype; distances are float64 and never below the true one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robench.numerics import gamma, per_sample, round_down, round_up
from robench.regions import Region
from robench.threat import NORMS, Domain, Norm, Threat

__all__ = ["distance", "distances", "inner_radius", "linf_box", "outer_radius", "project"]


def distance(points: Tensor, x: Tensor, norm: Norm) -> Tensor:
    """Return ‖points − x‖ in `norm`, float64 [B], rounded up (NaN where a coordinate is NaN)."""
    step = _apart(points.detach().flatten(1), x.detach().flatten(1))
    if step.shape[1] == 0:
        return step.new_zeros(len(step))
    largest = step.amax(1)
    if norm == "linf":
        return largest
    size = step.shape[1]
    if norm == "l1":
        total = round_up(step.sum(1) * (1 + 2 * gamma(size + 2)))
    else:
        # Scaled, so that squares neither overflow nor vanish.
        scale = largest.clamp_min(torch.finfo(torch.float64).tiny)
        root = (step / scale[:, None]).square().sum(1).sqrt() * scale
        total = round_up(root * (1 + 2 * gamma(size + 6)))
    return torch.where(largest == 0, largest, total)


def distances(points: Tensor, x: Tensor) -> dict[Norm, Tensor]:
    """Return the distance in every norm, float64 [B] each, rounded up."""
    return {norm: distance(points, x, norm) for norm in NORMS}


def project(points: Tensor, x: Tensor, threat: Threat) -> Tensor:
    """Move `points` [B, ...] into the domain and, where `threat.eps` is given, into the closed ball around `x`.

    Clips to the domain; in linf clips to the ball, else shrinks towards `x`, until the distance rounded up
    is at most ε. A point that is within both already comes back unchanged. With `threat.region` it is clipped to the
    numbers of x's dtype that lie in the box.
    """
    eps = threat.eps
    if threat.region is not None:
        return points.clamp(*threat.region.inside(x))
    lower, upper = threat.domain.box(x) if eps is None or threat.norm != "linf" else linf_box(x, threat)
    if eps is None:
        return points.clamp(lower, upper)
    inside = points.clamp(lower, upper)
    unit = torch.finfo(x.dtype).eps
    slack = 0.0
    for _ in range(12):
        far = distance(inside, x, threat.norm)
        over = far > eps
        if not over.any():
            return inside
        factor = (eps * (1 - slack) / far).to(x.dtype)
        shrunk = (x + (inside - x) * per_sample(factor, x)).clamp(lower, upper)
        inside = torch.where(per_sample(over, x), shrunk, inside)
        slack = max(2 * slack, unit)
    # Budgets below one rounding of x leave no other point.
    return torch.where(per_sample(distance(inside, x, threat.norm) > eps, x), x, inside)


def linf_box(x: Tensor, threat: Threat) -> tuple[Tensor, Tensor]:
    """Return the sides (lower, upper) of the linf ball of radius `threat.eps` around `x` [B, ...] within the domain.

    In x's dtype, each rounded towards `x`: the last numbers that are within ε. With `threat.region` the sides of its
    box, rounded inward. Raises ValueError without an ε.
    """
    if threat.region is not None:
        return threat.region.inside(x)
    if threat.eps is None:
        raise ValueError("a ball needs a radius: the threat model has no ε")
    lower, upper = threat.domain.box(x)
    return torch.maximum(lower, _inward(x, -threat.eps)), torch.minimum(upper, _inward(x, threat.eps))


def outer_radius(x: Tensor, region: Region) -> Tensor:
    """Return the least linf radius around `x` [B, ...] whose closed ball holds the box, float64 [B], rounded up."""
    sides = torch.maximum(_apart(region.upper.to(x.device), x), _apart(region.lower.to(x.device), x))
    return sides.flatten(1).amax(1)


def inner_radius(x: Tensor, region: Region, domain: Domain) -> Tensor:
    """Return the greatest linf radius whose closed ball around `x` within the domain lies in the box.

    Float64 [B], rounded down; 0 where there is none, +inf where the box is the whole domain.
    """
    lower, upper = region.lower.to(x.device), region.upper.to(x.device)
    least, most = domain.box(x.double())
    below = torch.where(lower <= least, torch.inf, round_down(x.double() - lower))
    above = torch.where(upper >= most, torch.inf, round_down(upper - x.double()))
    return torch.minimum(below, above).flatten(1).amin(1).clamp_min(0.0)


def _inward(x: Tensor, shift: float) -> Tensor:
    """Return x + shift in x's dtype, rounded towards x: never further from x than |shift|."""
    bound = (x.double() + shift).to(x.dtype)
    # Rounded up to the next double, a distance is above |shift| exactly where the true one is.
    return torch.where(_apart(bound, x) > abs(shift), torch.nextafter(bound, x), bound)


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """Return |a − b| entry by entry in float64: the smallest double that is not below it."""
    a, b = a.double(), b.double()
    difference = a - b
    # Knuth's TwoSum: the exact error of the subtraction. It is 0 for nearby float32 numbers.
    virtual = difference - a
    error = (a - (difference - virtual)) + (-b - virtual)
    apart = difference.abs()
    return torch.where(error * difference.sign() > 0, round_up(apart), apart)
