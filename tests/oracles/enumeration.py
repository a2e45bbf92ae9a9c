"""The exact robust radius of a tiny ReLU network, by enumerating activation patterns.

On a polyhedron of inputs with one activation pattern the network is affine, so the nearest misclassified point
with that pattern is the solution of a linear program (linf, l1) or of a least distance problem (l2). Patterns are
fixed neuron by neuron; a branch whose polyhedron is empty, or farther away than the nearest error so far, is left.

Numpy and scipy only. Radii are exact up to the solvers' rounding: compare with `TOLERANCE`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog, nnls

__all__ = ["TOLERANCE", "exact_radius", "logits", "nearest_error", "random_net"]

TOLERANCE = 1e-7
"""Absolute error of a radius, for weights and inputs of order 1 (the LP solver's feasibility tolerance is 1e-10)."""

Array = npt.NDArray[np.float64]
_HIGHS = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
_FEASIBLE = 1e-9


def random_net(rng: np.random.Generator, sizes: Sequence[int]) -> tuple[list[Array], list[Array]]:
    """Return (weights [out, in], biases [out]) of a ReLU network of layer `sizes`; all are float32 numbers."""
    pairs = list(itertools.pairwise(sizes))
    weights = [rng.normal(size=(out, size)) * (2 / size) ** 0.5 for size, out in pairs]
    biases = [rng.normal(size=out) * 0.3 for _, out in pairs]
    return [w.astype(np.float32).astype(np.float64) for w in weights], [
        b.astype(np.float32).astype(np.float64) for b in biases
    ]


def logits(weights: Sequence[Array], biases: Sequence[Array], x: Array) -> Array:
    """Return the logits [classes] at one input [d]: a ReLU after every layer but the last."""
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        x = np.maximum(weight @ x + bias, 0.0)
    return weights[-1] @ x + biases[-1]


def exact_radius(
    weights: Sequence[Array],
    biases: Sequence[Array],
    x: Array,
    y: int,
    norm: str,
    lower: float | Array = 0.0,
    upper: float | Array = 1.0,
) -> float:
    """Return the distance from `x` [d] to the nearest error (ties included) in lower ≤ x' ≤ upper; inf where none."""
    return nearest_error(weights, biases, x, y, norm, lower, upper)[0]


def nearest_error(
    weights: Sequence[Array],
    biases: Sequence[Array],
    x: Array,
    y: int,
    norm: str,
    lower: float | Array = 0.0,
    upper: float | Array = 1.0,
) -> tuple[float, Array | None]:
    """Return (distance, point [d]) of the nearest x' with f_y(x') ≤ f_j(x') for some j ≠ y; (inf, None) if none."""
    x = np.asarray(x, dtype=np.float64)
    weights = [np.asarray(w, dtype=np.float64) for w in weights]
    biases = [np.asarray(b, dtype=np.float64) for b in biases]
    search = _Search(weights, biases, x, y, norm, np.broadcast_to(lower, x.shape), np.broadcast_to(upper, x.shape))
    search.layer(0, np.eye(len(x)), np.zeros(len(x)), np.empty((0, len(x))), np.empty(0))
    return search.best, search.point


class _Search:
    """Depth-first over activation patterns; `best` is the nearest error's distance so far."""

    def __init__(
        self, weights: list[Array], biases: list[Array], x: Array, y: int, norm: str, lower: Array, upper: Array
    ) -> None:
        self.weights, self.biases, self.x, self.y, self.norm = weights, biases, x, y, norm
        self.room = (lower - x, upper - x)
        self.best, self.point = np.inf, None

    def layer(self, depth: int, matrix: Array, offset: Array, rows: Array, limits: Array) -> None:
        """Enter layer `depth`, whose input is matrix @ x' + offset on {rows @ x' <= limits}."""
        weight, bias = self.weights[depth], self.biases[depth]
        matrix, offset = weight @ matrix, weight @ offset + bias
        if depth < len(self.weights) - 1:
            self.neuron(depth, 0, matrix, offset, np.zeros(len(matrix), dtype=bool), rows, limits)
            return
        for j in range(len(matrix)):
            if j != self.y:
                wrong, threshold = matrix[self.y] - matrix[j], offset[j] - offset[self.y]
                distance, step = self.distance(np.vstack([rows, wrong]), np.append(limits, threshold))
                if distance < self.best:
                    self.best, self.point = distance, self.x + step

    def neuron(
        self,
        depth: int,
        i: int,
        matrix: Array,
        offset: Array,
        active: npt.NDArray[np.bool_],
        rows: Array,
        limits: Array,
    ) -> None:
        """Fix neuron `i` of layer `depth` to inactive and active; the side that holds x's own sign comes first."""
        if i == len(matrix):
            self.layer(depth + 1, matrix * active[:, None], offset * active, rows, limits)
            return
        own = matrix[i] @ self.x + offset[i] > 0
        for on in (own, not own):
            sign = -1.0 if on else 1.0
            more_rows, more_limits = np.vstack([rows, sign * matrix[i]]), np.append(limits, -sign * offset[i])
            if on == own or self.distance(more_rows, more_limits)[0] < self.best:
                pattern = active.copy()
                pattern[i] = on
                self.neuron(depth, i + 1, matrix, offset, pattern, more_rows, more_limits)

    def distance(self, rows: Array, limits: Array) -> tuple[float, Array]:
        """Return the distance from x to {rows @ x' <= limits} within the box, and the step there; inf where empty."""
        limits = limits - rows @ self.x
        size = np.linalg.norm(rows, axis=1)
        if (limits[size == 0] < 0).any():
            return np.inf, np.zeros_like(self.x)
        rows, limits = rows[size > 0] / size[size > 0, None], limits[size > 0] / size[size > 0]
        solve = {"l2": _least_distance, "linf": _linf_distance, "l1": _l1_distance}[self.norm]
        distance, step = solve(rows, limits, *self.room)
        if np.isfinite(distance) and len(rows) and (rows @ step - limits).max() > _FEASIBLE:
            raise ArithmeticError("the solver's point violates a constraint: the oracle cannot be trusted here")
        return distance, step


def _linf_distance(rows: Array, limits: Array, low: Array, high: Array) -> tuple[float, Array]:
    d = len(low)
    one, eye = np.ones((d, 1)), np.eye(d)
    inequalities = np.block([[rows, np.zeros((len(rows), 1))], [eye, -one], [-eye, -one]])
    cost = np.append(np.zeros(d), 1.0)
    return _programme(cost, inequalities, np.append(limits, np.zeros(2 * d)), low, high)


def _l1_distance(rows: Array, limits: Array, low: Array, high: Array) -> tuple[float, Array]:
    d = len(low)
    eye = np.eye(d)
    inequalities = np.block([[rows, np.zeros((len(rows), d))], [eye, -eye], [-eye, -eye]])
    cost = np.append(np.zeros(d), np.ones(d))
    return _programme(cost, inequalities, np.append(limits, np.zeros(2 * d)), low, high)


def _programme(cost: Array, inequalities: Array, limits: Array, low: Array, high: Array) -> tuple[float, Array]:
    d = len(low)
    bounds = [*zip(low, high, strict=True), *[(0, None)] * (len(cost) - d)]
    found = linprog(cost, A_ub=inequalities, b_ub=limits, bounds=bounds, method="highs", options=_HIGHS)
    if found.status == 2:
        return np.inf, np.zeros(d)
    if found.status != 0:
        raise ArithmeticError(f"the LP solver gave up: {found.message}")
    return float(found.fun), found.x[:d]


def _least_distance(rows: Array, limits: Array, low: Array, high: Array) -> tuple[float, Array]:
    """Solve min ‖δ‖₂ with rows δ ≤ limits, low ≤ δ ≤ high (Lawson & Hanson 1974, chapter 23: LDP through NNLS)."""
    d, eye = len(low), np.eye(len(low))
    above, below = np.isfinite(high), np.isfinite(low)
    rows = np.vstack([rows, eye[above], -eye[below]])
    limits = np.concatenate([limits, high[above], -low[below]])
    if not len(rows):
        return 0.0, np.zeros(d)
    system = np.vstack([-rows.T, -limits])
    target = np.append(np.zeros(d), 1.0)
    multipliers, size = nnls(system, target, maxiter=100 * (d + len(rows)))
    if size < 1e-8:
        return np.inf, np.zeros(d)
    residual = system @ multipliers - target
    step = -residual[:d] / residual[d]
    return float(np.linalg.norm(step)), step
