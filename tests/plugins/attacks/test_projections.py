"""Projections and maximisers over ball ∩ box: scalar root finding, solvers and random feasible points as truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds, brentq, linprog, minimize

from robench_plugins.attacks.projections import maximise, project

NORMS = ("linf", "l2", "l1")
ORD = {"linf": np.inf, "l2": 2, "l1": 1}


def instance(seed: int, decades: float = 0.0, size: int | None = None):
    """δ, eps and box sides [1, D] in float64; some sides are 0, some infinite, some entries of δ are 0."""
    rng = np.random.default_rng(seed)
    dim = int(rng.integers(1, 30)) if size is None else size
    spread = 10 ** (rng.random((3, dim)) * decades)
    delta = rng.normal(size=dim) * spread[0] * 2 * (rng.random(dim) > 0.1)
    low = -rng.random(dim) * spread[1] * (rng.random(dim) > 0.15)
    high = rng.random(dim) * spread[2] * (rng.random(dim) > 0.15)
    low[rng.random(dim) < 0.2], high[rng.random(dim) < 0.2] = -np.inf, np.inf
    eps = rng.random() ** 2 * np.linalg.norm(np.clip(delta, low, high), int(rng.integers(1, 3))) * 1.5 + 1e-3
    return delta, float(eps), low, high


def tensors(*arrays, dtype=torch.float64):
    return [torch.tensor(array, dtype=dtype)[None] for array in arrays]


def solve(solver, norm, delta, eps, low, high, dtype=torch.float64):
    vector, lo, hi = tensors(delta, low, high, dtype=dtype)
    return solver(norm, vector, eps, lo, hi)[0].double().numpy()


def assert_feasible(z, norm, eps, low, high, rounding=1e-13):
    assert np.linalg.norm(z, ORD[norm]) <= eps * (1 + rounding)
    assert ((z >= low) & (z <= high)).all()


def by_root(norm, delta, eps, low, high):
    """The KKT conditions' one unknown, by Brent's method."""
    size, room = np.abs(delta), np.where(delta > 0, high, -low)
    if norm == "l1":
        value = lambda t: np.minimum(np.maximum(size - t, 0), room)  # noqa: E731
        excess = lambda t: value(t).sum() - eps  # noqa: E731
        t = 0.0 if excess(0) <= 0 else brentq(excess, 0, size.max(), xtol=1e-300, rtol=1e-15, maxiter=1000)
    else:
        value = lambda t: np.minimum(t * size, room)  # noqa: E731
        excess = lambda t: np.linalg.norm(value(t)) - eps  # noqa: E731
        t = 1.0 if excess(1) <= 0 else brentq(excess, 0, 1, xtol=1e-300, rtol=1e-15, maxiter=1000)
    return np.sign(delta) * value(t)


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize(("decades", "size"), [(0, None), (3, None), (8, 200)])
def test_projection_solves_the_optimality_conditions(norm, decades, size):
    for seed in range(60):
        delta, eps, low, high = instance(seed, decades, size)
        z = solve(project, norm, delta, eps, low, high)
        assert_feasible(z, norm, eps, low, high)
        np.testing.assert_allclose(z, by_root(norm, delta, eps, low, high), rtol=0, atol=1e-12 * np.abs(delta).max())


def by_solver(norm, gradient, curvature, eps, low, high):
    """argmax ⟨g, z⟩ − curvature ‖z‖²/2 over ball ∩ box, by SLSQP on the positive and negative parts of z."""
    dim = len(gradient)

    def room_left(v):
        z = v[:dim] - v[dim:]
        return (eps - v.sum()) if norm == "l1" else (eps**2 - z @ z)

    def room_slope(v):
        z = v[:dim] - v[dim:]
        return -np.ones(2 * dim) if norm == "l1" else np.r_[-2 * z, 2 * z]

    def objective(v):
        z = v[:dim] - v[dim:]
        slope = curvature * z - gradient
        return curvature * z @ z / 2 - gradient @ z, np.r_[slope, -slope]

    found = minimize(
        objective,
        np.zeros(2 * dim),
        jac=True,
        method="SLSQP",
        bounds=Bounds(np.zeros(2 * dim), np.minimum(np.r_[high, -low], eps)),
        constraints=[] if norm == "linf" else [{"type": "ineq", "fun": room_left, "jac": room_slope}],
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    z = found.x[:dim] - found.x[dim:]
    # The solver may leave the ball by its tolerance; shrunk back, its point is a competitor.
    return z / max(1, np.linalg.norm(z, ORD[norm]) / eps)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_is_the_solvers_nearest_point(norm):
    for seed in range(25):
        delta, eps, low, high = instance(seed)
        z = solve(project, norm, delta, eps, low, high)
        assert_feasible(z, norm, eps, low, high)
        ours = ((z - delta) ** 2).sum()
        theirs = ((by_solver(norm, delta, 1, eps, low, high) - delta) ** 2).sum()
        assert theirs * (1 - 1e-4) - 1e-4 <= ours <= theirs * (1 + 1e-12) + 1e-12


@pytest.mark.parametrize("norm", NORMS)
def test_maximiser_is_the_solvers(norm):
    for seed in range(40):
        gradient, eps, low, high = instance(seed)
        z = solve(maximise, norm, gradient, eps, low, high)
        assert_feasible(z, norm, eps, low, high)
        assert (z[gradient == 0] == 0).all()
        if norm == "l2":
            theirs = gradient @ by_solver(norm, gradient, 0, eps, low, high)
            assert theirs * (1 - 1e-12) - 1e-12 <= gradient @ z <= theirs * (1 + 1e-4) + 1e-4
            continue
        parts, room = np.r_[gradient, -gradient], np.minimum(np.r_[high, -low], eps)
        ball = {"A_ub": np.ones((1, len(room))), "b_ub": [eps]} if norm == "l1" else {}
        best = -linprog(-parts, bounds=np.c_[np.zeros(len(room)), room], **ball).fun
        assert gradient @ z == pytest.approx(best, rel=1e-9, abs=1e-12)


def test_maximiser_without_an_active_box_is_the_textbook_step():
    g, far = np.array([3.0, -4.0, 0.0]), np.full(3, np.inf)
    np.testing.assert_allclose(solve(maximise, "linf", g, 2.0, -far, far), [2, -2, 0])
    np.testing.assert_allclose(solve(maximise, "l2", g, 2.0, -far, far), [1.2, -1.6, 0], rtol=1e-15)
    np.testing.assert_allclose(solve(maximise, "l1", g, 2.0, -far, far), [0, -2, 0])
    # A box that holds less than the ball: every coordinate goes to its side.
    np.testing.assert_allclose(solve(maximise, "l2", g, 9.0, -np.ones(3), np.ones(3)), [1, -1, 0])


@pytest.mark.parametrize("norm", NORMS)
def test_points_inside_stay_and_zero_is_a_fixed_point(norm):
    delta = np.array([0.1, -0.2, 0.0, 0.3])
    for dtype in (torch.float32, torch.float64):
        kept = solve(project, norm, delta, 0.7, np.full(4, -0.5), np.full(4, np.inf), dtype)
        np.testing.assert_allclose(kept, torch.tensor(delta, dtype=dtype).double(), rtol=0, atol=0)
        assert (solve(project, norm, np.zeros(4), 0.7, -np.ones(4), np.ones(4), dtype) == 0).all()
        assert (solve(maximise, norm, np.zeros(4), 0.7, -np.ones(4), np.ones(4), dtype) == 0).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("solver", [project, maximise])
def test_rows_are_independent_and_float32_keeps_its_dtype(norm, solver):
    rows = [instance(seed, size=12) for seed in range(20)]
    delta, low, high = (torch.tensor(np.stack([row[i] for row in rows]), dtype=torch.float32) for i in (0, 2, 3))
    together = solver(norm, delta, 1.3, low, high)
    assert together.dtype == torch.float32
    assert (together.double().norm(p=ORD[norm], dim=1) <= 1.3 * (1 + 1e-6)).all()
    for i in range(len(rows)):
        alone = solver(norm, delta[i : i + 1], 1.3, low[i : i + 1], high[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], rtol=1e-6, atol=1e-6)
    assert solver(norm, delta[:0], 1.3, low[:0], high[:0]).shape == (0, 12)


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e30])
def test_the_maximiser_does_not_depend_on_the_gradients_scale(scale):
    g, eps, low, high = instance(5, size=20)
    for norm in NORMS:
        np.testing.assert_allclose(
            solve(maximise, norm, g * scale, eps, low, high), solve(maximise, norm, g, eps, low, high), atol=1e-12
        )
