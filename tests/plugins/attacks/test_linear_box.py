"""The oracle of the attack tests, itself held against general-purpose solvers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, linprog, minimize

from oracles.linear_box import exact_radius

NORM = {"linf": np.inf, "l2": 2, "l1": 1}


def instance(seed: int):
    """A classifier, a correctly classified point and a box whose sides are near it in many coordinates."""
    rng = np.random.default_rng(seed)
    dim, classes = int(rng.integers(2, 9)), int(rng.choice([2, 3, 5]))
    W, b = rng.normal(size=(classes, dim)), rng.normal(size=classes) * 0.3
    x = rng.choice([0.0, 0.02, 0.5, 0.97, 1.0], size=dim)
    lower = np.where(rng.random(dim) < 0.15, -np.inf, 0.0)
    upper = np.where(rng.random(dim) < 0.15, np.inf, 1.0)
    return W, b, x, int((W @ x + b).argmax()), lower, upper


def solve(W, b, x, y, norm, lower, upper):
    """The same minimum from scipy: linear programs in linf and l1, a quadratic program in l2."""
    dim, best = len(x), np.inf
    for j in set(range(len(W))) - {y}:
        w, margin = W[y] - W[j], (W[y] - W[j]) @ x + b[y] - b[j]
        sides = list(zip(lower - x, upper - x, strict=True))
        if norm == "l2":
            feasible = linprog(np.zeros(dim), A_ub=w[None], b_ub=[-margin], bounds=sides)
            if feasible.status == 0:
                found = minimize(
                    lambda d: d @ d,
                    feasible.x,
                    jac=lambda d: 2 * d,
                    method="SLSQP",
                    bounds=Bounds(lower - x, upper - x),
                    constraints=LinearConstraint(w, -np.inf, -margin),
                    options={"ftol": 1e-15, "maxiter": 500},
                )
                best = min(best, found.fun**0.5)
            continue
        # Variables δ and t (linf: one bound on all, l1: one bound each), |δ_i| ≤ t.
        count = 1 if norm == "linf" else dim
        spread = np.ones((dim, 1)) if norm == "linf" else np.eye(dim)
        rows = np.block([[w[None], np.zeros((1, count))], [np.eye(dim), -spread], [-np.eye(dim), -spread]])
        found = linprog(
            np.r_[np.zeros(dim), np.ones(count)],
            A_ub=rows,
            b_ub=np.r_[-margin, np.zeros(2 * dim)],
            bounds=sides + [(0, None)] * count,
        )
        if found.status == 0:
            best = min(best, found.fun)
    return best


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_radius_is_the_solvers_minimum_and_the_point_attains_it(norm):
    infinite = 0
    for seed in range(60):
        W, b, x, y, lower, upper = instance(seed)
        radius, point = exact_radius(W, b, x, y, norm, lower, upper)
        assert radius == pytest.approx(solve(W, b, x, y, norm, lower, upper), rel=1e-6, abs=1e-9)
        if np.isinf(radius):
            infinite += 1
            assert (point == x).all()
            continue
        assert ((point >= lower - 1e-12) & (point <= upper + 1e-12)).all()
        assert np.linalg.norm(point - x, NORM[norm]) == pytest.approx(radius, rel=1e-12)
        logits = W @ point + b
        assert np.delete(logits, y).max() - logits[y] == pytest.approx(0, abs=1e-9)
    assert 0 < infinite < 30


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2), ("l1", np.inf)])
def test_without_a_box_the_radius_is_margin_over_the_dual_norm(norm, dual):
    W, b, x, y, _, _ = instance(3)
    expected = min(
        ((W[y] - W[j]) @ x + b[y] - b[j]) / np.linalg.norm(W[y] - W[j], dual) for j in range(len(W)) if j != y
    )
    assert exact_radius(W, b, x, y, norm)[0] == pytest.approx(expected, rel=1e-12)


def test_misclassified_points_and_ties_have_radius_zero():
    W, b = np.array([[1.0, 0.0], [0.0, 1.0]]), np.zeros(2)
    for x in ([0.2, 0.4], [0.3, 0.3]):
        assert exact_radius(W, b, x, 0, "l2", 0, 1)[0] == 0
    with pytest.raises(ValueError, match="outside the box"):
        exact_radius(W, b, [1.5, 0.0], 0, "l2", 0, 1)
