"""The enumeration oracle against closed forms, dense grids and another solver."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from oracles.enumeration import TOLERANCE, exact_radius, logits, nearest_error, random_net

NORMS = ["linf", "l2", "l1"]
ORDER = {"linf": math.inf, "l2": 2, "l1": 1}
DUAL = {"linf": 1, "l2": 2, "l1": math.inf}


def correct_sample(rng, weights, biases):
    x = rng.random(weights[0].shape[1])
    return x, int(logits(weights, biases, x).argmax())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(5))
def test_linear_classifiers_have_the_dual_norm_radius(norm, seed):
    rng = np.random.default_rng(seed)
    (weight,), (bias,) = random_net(rng, (4, 3))
    x, y = correct_sample(rng, [weight], [bias])
    values = weight @ x + bias
    closed = min(
        (values[y] - values[j]) / np.linalg.norm(weight[y] - weight[j], DUAL[norm]) for j in range(3) if j != y
    )
    assert abs(exact_radius([weight], [bias], x, y, norm, -math.inf, math.inf) - closed) < TOLERANCE


@pytest.mark.parametrize("norm", NORMS)
def test_a_pixel_at_the_wall_cannot_help(norm):
    """f_0 − f_1 = x_0 + x_1 at (0.1, 0.9) with bias −0.7: in the box x_0 gives 0.1 and x_1 the other 0.2."""
    net = [np.array([[1.0, 1.0], [0.0, 0.0]])], [np.array([-0.7, 0.0])]
    x = np.array([0.1, 0.9])
    boxed = exact_radius(*net, x, 0, norm)
    assert abs(boxed - {"linf": 0.2, "l2": math.hypot(0.1, 0.2), "l1": 0.3}[norm]) < TOLERANCE


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("sizes", [(2, 6, 3), (2, 3, 3, 2)])
def test_no_point_of_a_dense_grid_is_nearer(norm, sizes):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        weights, biases = random_net(rng, sizes)
        x, y = correct_sample(rng, weights, biases)
        radius, point = nearest_error(weights, biases, x, y, norm)
        axis = np.linspace(0, 1, 401)
        grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
        hidden = grid
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            hidden = np.maximum(hidden @ weight.T + bias, 0)
        values = hidden @ weights[-1].T + biases[-1]
        wrong = np.delete(values, y, 1).max(1) >= values[:, y]
        nearest = np.linalg.norm(grid[wrong] - x, ORDER[norm], axis=1).min() if wrong.any() else math.inf
        assert radius <= nearest + TOLERANCE
        if point is None:
            assert not wrong.any()
            continue
        # The point is an error where it says it is.
        at = logits(weights, biases, point)
        assert np.delete(at, y).max() >= at[y] - 1e-8
        assert abs(np.linalg.norm(point - x, ORDER[norm]) - radius) < TOLERANCE
        assert (point >= -1e-9).all() and (point <= 1 + 1e-9).all()


def test_another_solver_finds_nothing_nearer_in_l2():
    """SLSQP from many starts, on the margin itself, never beats the enumeration and often meets it."""
    met = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        weights, biases = random_net(rng, (3, 5, 2))
        x, y = correct_sample(rng, weights, biases)
        radius = exact_radius(weights, biases, x, y, "l2")
        best = math.inf
        for _ in range(12):
            found = minimize(
                lambda p: ((p - x) ** 2).sum(),  # noqa: B023
                rng.random(3),
                bounds=[(0, 1)] * 3,
                constraints={"type": "ineq", "fun": lambda p: np.diff(logits(weights, biases, p))[0] * (1 - 2 * y)},  # noqa: B023
                method="SLSQP",
                options={"ftol": 1e-14},
            )
            if found.success:
                best = min(best, float(found.fun) ** 0.5)
        assert radius <= best + 1e-6
        met += abs(radius - best) < 1e-5
    assert met >= 2


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_wrong_has_radius_zero_and_what_cannot_be_wrong_none(norm):
    weights, biases = random_net(np.random.default_rng(0), (2, 4, 3))
    x, y = correct_sample(np.random.default_rng(1), weights, biases)
    assert exact_radius(weights, biases, x, (y + 1) % 3, norm) < 1e-8
    constant = [np.zeros((3, 2)), np.zeros((2, 3))], [np.zeros(3), np.array([1.0, 0.0])]
    assert exact_radius(*constant, x, 0, norm) == math.inf
    assert exact_radius(*constant, x, 1, norm) == 0.0


@pytest.mark.parametrize("norm", NORMS)
def test_dead_and_tied_neurons_change_nothing(norm):
    finite = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        weights, biases = random_net(rng, (2, 3, 2))
        x, y = correct_sample(rng, weights, biases)
        padded = [np.vstack([weights[0], np.zeros((2, 2))]), np.hstack([weights[1], np.ones((2, 2))])]
        offsets = [np.append(biases[0], [0.0, -1.0]), biases[1]]
        plain = exact_radius(weights, biases, x, y, norm, -3.0, 3.0)
        wider = exact_radius(padded, offsets, x, y, norm, -3.0, 3.0)
        assert wider == plain or abs(wider - plain) < TOLERANCE
        finite += plain < math.inf
    assert finite >= 3
