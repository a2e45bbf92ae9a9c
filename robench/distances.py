"""Distances rounded up and the projection into a budget: the only code that decides who is within ε.

Points and samples are in the model's input dtype; distances are float64 and never below the true one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robench.numerics import gamma, round_up
from robench.threat import NORMS, Norm, Threat

__all__ = ["distance", "distances", "project"]


def distance(points: Tensor, x: Tensor, norm: Norm) -> Tensor:
    """Return ‖points − x‖ in `norm`, float64 [B], rounded up (NaN where a coordinate is NaN)."""
    a, b = points.detach().double().flatten(1), x.detach().double().flatten(1)
    difference = a - b
    # Knuth's TwoSum: the exact error of the subtraction. It is 0 for nearby float32 numbers.
    virtual = difference - a
    error = (a - (difference - virtual)) + (-b - virtual)
    step = difference.abs()
    step = torch.where(error * difference.sign() > 0, round_up(step), step)
    if a.shape[1] == 0:
        return step.new_zeros(len(a))
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
    is at most ε. A point that is within both already comes back unchanged.
    """
    lower, upper = threat.domain.box(x)
    if threat.eps is None:
        return points.clamp(lower, upper)
    eps = threat.eps
    if threat.norm == "linf":
        lower, upper = torch.maximum(lower, _inward(x, -eps)), torch.minimum(upper, _inward(x, eps))
    inside = points.clamp(lower, upper)
    unit = torch.finfo(x.dtype).eps
    column = (-1, *[1] * (x.ndim - 1))
    slack = 0.0
    for _ in range(12):
        far = distance(inside, x, threat.norm)
        over = far > eps
        if not over.any():
            return inside
        factor = (eps * (1 - slack) / far).to(x.dtype).reshape(column)
        shrunk = (x + (inside - x) * factor).clamp(lower, upper)
        inside = torch.where(over.reshape(column), shrunk, inside)
        slack = max(2 * slack, unit)
    # Budgets below one rounding of x leave no other point.
    return torch.where((distance(inside, x, threat.norm) > eps).reshape(column), x, inside)


def _inward(x: Tensor, shift: float) -> Tensor:
    """Return x + shift in x's dtype, rounded towards x: never further from x than |shift|."""
    exact = x.double() + shift
    bound = exact.to(x.dtype)
    beyond = (bound.double() - x.double()).abs() > abs(shift)
    return torch.where(beyond, torch.nextafter(bound, x), bound)
