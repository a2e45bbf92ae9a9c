"""The exact robust radius of a linear classifier inside a box, in linf, l2 and l1.

An oracle: float64 numpy, no robench code. For each rival class j the margin is linear,
m(δ) = margin + ⟨w, δ⟩ with w = w_y − w_j, and the nearest error solves min ‖δ‖ s.t. ⟨w, δ⟩ ≤ −margin,
low ≤ δ ≤ high, low ≤ 0 ≤ high. Every norm's optimum moves each coordinate against the sign of w, by at
most its room; the gain −⟨w, δ⟩ of the best perturbation is a monotone function of one variable:

    linf   δ_i = min(t, room_i)            piecewise linear in the radius t
    l2     δ_i = min(t |w_i|, room_i)      piecewise linear in the multiplier t
    l1     rooms filled in the order of |w_i|, the last one in part (a fractional knapsack)
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["exact_radius", "problem"]

Array = npt.NDArray[np.float64]


def exact_radius(
    W: Any, b: Any, x: Any, y: int, norm: str, lower: Any = -np.inf, upper: Any = np.inf
) -> tuple[float, Array]:
    """Return the smallest ‖x' − x‖ with x' in the box and another logit at least the label's, and such an x'.

    `W` [C, D], `b` [C], `x` [D] inside the box, `lower` and `upper` numbers or [D]. The radius is 0 where `x`
    itself is misclassified (a tie counts), +inf with the point `x` where no point of the box is.
    """
    W, b, x = (np.asarray(value, dtype=np.float64) for value in (W, b, x))
    low, high = (np.broadcast_to(np.asarray(value, dtype=np.float64), x.shape) - x for value in (lower, upper))
    if (low > 0).any() or (high < 0).any():
        raise ValueError("x is outside the box")
    logits = W @ x + b
    best, best_point = np.inf, x.copy()
    for rival in range(len(W)):
        if rival == y:
            continue
        w = W[y] - W[rival]
        room = np.where(w > 0, -low, high)
        radius, size = _SOLVERS[norm](np.abs(w), np.where(w == 0, 0.0, room), logits[y] - logits[rival])
        if radius < best:
            best, best_point = radius, x - np.sign(w) * size
    return float(best), best_point


@functools.cache
def problem(
    classes: int, norm: str, dim: int, count: int, spread: float = 1.0
) -> tuple[Array, Array, Array, npt.NDArray[np.int64], Array]:
    """Return a linear classifier W, b, correctly classified points mostly at the sides of [0, 1], and exact radii.

    `spread` is that of the logarithms of the features' scales.
    """
    rng = np.random.default_rng(classes)
    W, b = rng.normal(size=(classes, dim)) * rng.lognormal(sigma=spread, size=dim), rng.normal(size=classes) * 0.2
    x = rng.choice([0.0, 0.01, 0.3, 0.6, 0.98, 1.0], p=[0.35, 0.1, 0.1, 0.1, 0.1, 0.25], size=(count, dim))
    y = (x @ W.T + b).argmax(1)
    return W, b, x, y, np.array([exact_radius(W, b, x[i], y[i], norm, 0, 1)[0] for i in range(count)])


def _fill(rate: Array, reach: Array, cap: Array, need: float) -> float:
    """Return the smallest t with Σ rate_i min(t, reach_i) = need, where reach_i rate_i = cap_i; inf if none.

    The sum rises with slope Σ_{reach_i > t} rate_i: sort the reaches, find the piece, solve it.
    """
    if need <= 0:
        return 0.0
    order = np.argsort(reach, kind="stable")
    held = 0.0
    slopes = np.append(np.cumsum(rate[order][::-1])[::-1], 0.0)
    for position, i in enumerate(order):
        slope = slopes[position]
        if slope > 0 and held + slope * reach[i] >= need:
            return float((need - held) / slope)
        held += cap[i]
    return np.inf


def _linf(weight: Array, room: Array, margin: float) -> tuple[float, Array]:
    t = _fill(weight, room, weight * room, margin)
    return t, np.minimum(t, room)


def _l2(weight: Array, room: Array, margin: float) -> tuple[float, Array]:
    size = np.zeros_like(weight)
    moving = weight > 0
    w, r = weight[moving], room[moving]
    t = _fill(w * w, r / w, w * r, margin)
    size[moving] = r if np.isinf(t) else np.minimum(t * w, r)
    return np.inf if np.isinf(t) else float(np.linalg.norm(size)), size


def _l1(weight: Array, room: Array, margin: float) -> tuple[float, Array]:
    size = np.zeros_like(weight)
    if margin <= 0:
        return 0.0, size
    need = margin
    for i in np.argsort(-weight, kind="stable"):
        if weight[i] == 0:
            break
        if weight[i] * room[i] >= need:
            size[i] = need / weight[i]
            return float(size.sum()), size
        size[i] = room[i]
        need -= weight[i] * room[i]
    return np.inf, size


_SOLVERS = {"linf": _linf, "l2": _l2, "l1": _l1}
