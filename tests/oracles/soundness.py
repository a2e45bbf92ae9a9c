"""What a bound must never do: exclude a value that the network takes.

Candidates are searched in float64 (random points, corners, gradient descent on the margin); the worst of them is
evaluated in exact rational arithmetic, so a violation is a proof and needs no tolerance.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from oracles.random_graphs import evaluate
from oracles.rational import margin, rational_logits
from robench.graph import Graph
from robench.graph.intervals import ball_margin_lower, point_margins
from robench.threat import Domain, Norm

__all__ = ["ball_points", "excluded_at_point", "excluded_in_ball", "margins"]

INSIDE = 1 - 1e-12
"""Keeps points inside the ball although float64 rounds."""


def margins(graph: Graph, x: Tensor, y: int) -> Tensor:
    """Return float64 margins [B] of points `x` [B, ...] for one label."""
    logits = evaluate(graph, x)
    rest = torch.cat([logits[:, :y], logits[:, y + 1 :]], 1)
    return logits[:, y] - rest.amax(1)


def excluded_at_point(graph: Graph, x: Tensor, y: int) -> str | None:
    """Return None, or how the enclosure at `x` [...] misses the true margin."""
    lower, upper = (v.item() for v in point_margins(graph, x[None], torch.tensor([y])))
    exact = margin(rational_logits(graph, x), y)
    # Python compares floats, infinities included, with fractions exactly; NaN holds nothing.
    return None if lower <= exact <= upper else f"true margin {float(exact)} is outside [{lower}, {upper}]"


def excluded_in_ball(
    graph: Graph, x: Tensor, y: int, norm: Norm, eps: float, domain: Domain, generator: torch.Generator
) -> str | None:
    """Return None, or the margin of a point within the ball that is below the claimed bound."""
    bound = ball_margin_lower(graph, x[None], torch.tensor([y]), norm, eps, domain).item()
    points = ball_points(graph, x.double(), y, norm, eps, domain, generator)
    worst = points[margins(graph, points, y).argmin()]
    exact = margin(rational_logits(graph, worst), y)
    return None if bound <= exact else f"margin {float(exact)} within the ball, claimed at least {bound}"


def ball_points(
    graph: Graph, x: Tensor, y: int, norm: Norm, eps: float, domain: Domain, generator: torch.Generator
) -> Tensor:
    """Return points [n, ...] of the closed ball within the domain: random, corners, and descended from both."""
    noise = torch.randn(48, *x.shape, dtype=torch.float64, generator=generator)
    corner = noise.sign() if norm == "linf" else _vertices(x)
    starts = torch.cat([torch.zeros_like(noise[:1]), noise, noise * 1e-3, corner, -corner])
    points = _inside(starts * eps, x, norm, eps, domain)
    found = [points]
    for _ in range(8):
        points = points.detach().requires_grad_()
        slope = torch.autograd.grad(margins(graph, points, y).sum(), points)[0]
        points = _inside(points.detach() - x - _steepest(slope, norm) * eps / 2, x, norm, eps, domain)
        found.append(points)
    return torch.cat(found)


def _vertices(x: Tensor) -> Tensor:
    return torch.eye(x.numel(), dtype=torch.float64).reshape(-1, *x.shape)


def _steepest(slope: Tensor, norm: Norm) -> Tensor:
    if norm == "linf":
        return slope.sign()
    flat = slope.flatten(1)
    if norm == "l2":
        return slope / (_columns(flat.norm(dim=1), slope) + 1e-300)
    largest = flat.abs() == flat.abs().amax(1, keepdim=True)
    return (flat.sign() * largest).reshape(slope.shape)


def _inside(step: Tensor, x: Tensor, norm: Norm, eps: float, domain: Domain) -> Tensor:
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
    size = torch.linalg.vector_norm(step.flatten(1), order, dim=1)
    step = step * _columns((eps / size.clamp_min(1e-300)).clamp_max(1.0) * INSIDE, step)
    return (x + step).clamp(domain.lower, domain.upper)


def _columns(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))


def linear_ball_minimum(weight: Tensor, bias: Tensor, x: Tensor, y: int, eps: float) -> Fraction:
    """Return the exact least margin of W x' + b over the closed linf ball, without a box."""
    w = [[Fraction(float(v)) for v in row] for row in weight]
    b = [Fraction(float(v)) for v in bias]
    point = [Fraction(float(v)) for v in x]
    values = []
    for j in range(len(w)):
        if j != y:
            rows = [a - c for a, c in zip(w[y], w[j], strict=True)]
            offset = sum((r * v for r, v in zip(rows, point, strict=True)), b[y] - b[j])
            values.append(offset - Fraction(eps) * sum(map(abs, rows)))
    return min(values)
