"""The greatest radius that a test passes, by bisection: every sample at an ε of its own in each pass."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from robench.graph import Graph
from robench.threat import Domain, Norm
from robench_plugins.verify._engine.lower import lower

__all__ = ["covering", "first_guess", "greatest"]

_MOST = 64
"""Passes of doubling or halving at most: 2^±64 times the first guess is as good as everything or nothing."""


def greatest(
    passes: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    most: Tensor,
    tolerance: float,
    known: Tensor | None = None,
) -> Tensor:
    """Return a radius [B] that passes, or 0; +inf where `most` passes.

    Args:
        passes: for samples (bool [B]) and a radius for each of them [n], whether it passes, bool [n].
        start: where to look first, float64 [B], positive and finite.
        most: a radius beyond which there is nothing more [B]; +inf where there is no such radius.
        tolerance: bisection ends when the radius that failed is at most 1 + `tolerance` times the one that passed.
        known: radii known to be proven [B], from 0 up.
    """
    low = torch.zeros_like(start) if known is None else known.clone()
    high = torch.full_like(start, math.inf)
    trial = torch.minimum(start, most)
    active = (low < most) & (trial > low)
    for turn in range(2 * _MOST):
        if not active.any():
            break
        passed = torch.zeros_like(active).masked_scatter(active, passes(active, trial[active]))
        low = torch.where(active & passed, trial, low)
        high = torch.where(active & ~passed, trial, high)
        active &= (low < most) & (high > low * (1 + tolerance))
        if turn >= _MOST:  # no end in sight: what passed is kept
            active &= (low > 0) & (high < math.inf)
        trial = torch.where(high == math.inf, low * 2, torch.where(low == 0, high / 2, (low * high).sqrt()))
        trial = torch.minimum(trial, most)
        # Neighbouring numbers have no middle.
        active &= (trial > low) & (trial < high) & trial.isfinite()
    return torch.where(low >= most, math.inf, low)


def covering(x: Tensor, norm: Norm, domain: Domain) -> Tensor:
    """Return a radius [B] whose ball around `x` float64 [B, ...] holds the whole domain; +inf without bounds."""
    flat = x.flatten(1)
    away = torch.maximum((flat - domain.lower).abs(), (domain.upper - flat).abs())
    size: Tensor = torch.linalg.vector_norm(away, {"linf": math.inf, "l2": 2, "l1": 1}[norm], dim=1)
    return (size * (1 + 2.0**-40)).nan_to_num(nan=math.inf)


def first_guess(graph: Graph, x: Tensor, y: Tensor, norm: Norm) -> Tensor:
    """Return half the distance at which the linearised margin reaches 0, float64 [B]; 1 where that is no number.

    A starting point, nothing more: computed in float64 without any care for rounding.
    """
    program = lower(graph).to(torch.float64, x.device)
    with torch.enable_grad():
        points = x.detach().double().requires_grad_()
        logits = program.forward(points)
        margin = logits.gather(1, y[:, None])[:, 0] - logits.scatter(1, y[:, None], -math.inf).amax(1)
        # A zero times the inputs: the gradient exists where the logits are constants.
        margin = margin + 0.0 * points.flatten(1).sum(1)
        (slope,) = torch.autograd.grad(margin, points, torch.ones_like(margin))
    dual = torch.linalg.vector_norm(slope.flatten(1), {"linf": 1, "l2": 2, "l1": math.inf}[norm], dim=1)
    guess = margin.detach().abs() / dual / 2
    return torch.where(guess.isfinite() & (guess > 0), guess, 1.0)
