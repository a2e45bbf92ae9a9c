"""Robust radii known without any attack or certifier.

Closed forms for linear classifiers, in a box or not; dense search for networks on the unit square.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robench.classifier import Classifier, margins
from robench.distances import distance
from robench.numerics import per_sample
from robench.threat import Domain, Norm

__all__ = ["halfspace_radius", "linear_radius", "planar_radius"]

Vector = npt.NDArray[np.float64]


def halfspace_radius(w: Vector, margin: float, x: Vector, norm: Norm, domain: Domain) -> float:
    """Return min ‖δ‖ with w·δ ≤ −margin and x + δ in the box, or inf where the box holds no such point.

    Coordinate i can lower the value by |w_i| per unit, for at most `room_i` units. In linf all move by the same
    ε, in l2 in proportion to |w_i| (the box multiplies by a scalar t), in l1 the steepest move first; each gain is a
    piecewise linear, concave, increasing function of ε, t or the amount spent, and is inverted at its break points.
    """
    if margin <= 0:
        return 0.0
    slope = np.abs(w)
    room = np.where(w > 0, x - domain.lower, domain.upper - x)
    room, slope = room[slope > 0], slope[slope > 0]
    if slope.size == 0 or float(slope @ room) < margin:
        return float("inf")
    if norm == "l1":
        return _spend(slope[np.argsort(-slope)], room[np.argsort(-slope)], margin)
    # linf: rate 1 per unit of ε until room_i; l2: rate |w_i| per unit of t until room_i.
    rate = np.ones_like(slope) if norm == "linf" else slope
    breaks = room / rate
    order = np.argsort(breaks)
    gained, pace, at = 0.0, float(slope @ rate), 0.0
    for i in order:
        if gained + pace * (breaks[i] - at) >= margin:
            break
        gained += pace * (breaks[i] - at)
        at = float(breaks[i])
        pace -= float(slope[i] * rate[i])
    t = at + (margin - gained) / pace
    return t if norm == "linf" else float(np.linalg.norm(np.minimum(rate * t, room)))


def _spend(slope: Vector, room: Vector, margin: float) -> float:
    spent = 0.0
    for steepness, space in zip(slope, room, strict=True):
        if steepness * space >= margin:
            return float(spent + margin / steepness)
        margin -= steepness * space
        spent += space
    return float("inf")


def linear_radius(weight: Tensor, bias: Tensor, x: Tensor, y: Tensor, norm: Norm, domain: Domain) -> Tensor:
    """Return r* [B] of the linear classifier `weight` [K, d] x + `bias` [K]: the nearest of its K − 1 half-spaces."""
    w, b = weight.double().numpy(), bias.double().numpy()
    radii = []
    for point, label in zip(x.double().flatten(1).numpy(), y.tolist(), strict=True):
        scores = w @ point + b
        radii.append(
            min(
                halfspace_radius(w[label] - w[other], float(scores[label] - scores[other]), point, norm, domain)
                for other in range(len(w))
                if other != label
            )
        )
    return torch.tensor(radii, dtype=torch.float64)


def planar_radius(classifier: Classifier, x: Tensor, y: Tensor, norm: Norm, side: int = 201) -> Tensor:
    """Return the distance [B] of the nearest misclassified point found in [0, 1]²: never below r*, nearly equal to it.

    Every point of a dense grid is asked; from the 32 nearest misclassified ones, bisection walks back to x.
    """
    axis = torch.linspace(0, 1, side, dtype=x.dtype)
    grid = torch.cartesian_prod(axis, axis).reshape(-1, *x.shape[1:])
    with torch.no_grad():
        logits = classifier.logits(grid)
        found = []
        for i in range(len(x)):
            here, label = x[i : i + 1], y[i : i + 1]
            wrong = grid[margins(logits, label.expand(len(grid))) <= 0]
            wrong = wrong[distance(wrong, here.expand_as(wrong), norm).argsort()[:32]]
            near, far = torch.zeros(len(wrong), dtype=torch.float64), torch.ones(len(wrong), dtype=torch.float64)
            best = torch.full((), float("inf"), dtype=torch.float64)
            for _ in range(40):
                middle = (near + far) / 2
                points = here + (wrong - here) * per_sample(middle.to(x.dtype), x)
                broken = margins(classifier.logits(points), label.expand(len(points))) <= 0
                far, near = torch.where(broken, middle, far), torch.where(broken, near, middle)
                if broken.any():
                    best = torch.minimum(best, distance(points, here.expand_as(points), norm)[broken].min())
            found.append(best)
    return torch.stack(found)
