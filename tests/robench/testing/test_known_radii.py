"""The kit's closed forms, held against linear and quadratic programs solved by scipy, and against dense search."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from robench.testing._oracles import halfspace_radius, linear_radius, planar_radius
from robench.testing._subjects import linear, relu_net, tie
from robench.threat import NORMS, Domain, Norm


def by_program(w: np.ndarray, margin: float, x: np.ndarray, norm: Norm) -> float:
    """min ‖δ‖ with w·δ ≤ −margin, x + δ in [0, 1], as a mathematical program."""
    d = len(w)
    low, high = -x, 1 - x
    if norm == "linf":  # min t with |δ_i| ≤ t
        rows = np.block([[w, 0.0], [np.eye(d), -np.ones((d, 1))], [-np.eye(d), -np.ones((d, 1))]])
        found = linprog(
            [*[0.0] * d, 1.0],
            rows,
            [-margin, *[0.0] * (2 * d)],
            bounds=[*zip(low, high, strict=True), (0, None)],
        )
        return float(found.fun) if found.status == 0 else float("inf")
    if norm == "l1":  # δ = p − q
        both = np.concatenate([w, -w])
        bounds = [(0, h) for h in high] + [(0, -v) for v in low]
        found = linprog(np.ones(2 * d), both[None], [-margin], bounds=bounds)
        return float(found.fun) if found.status == 0 else float("inf")
    reach = np.where(w > 0, low, high)
    if float(w @ reach) > -margin:
        return float("inf")
    solved = minimize(
        lambda v: v @ v,
        reach,
        jac=lambda v: 2 * v,
        bounds=list(zip(low, high, strict=True)),
        constraints=[{"type": "ineq", "fun": lambda v: -margin - w @ v, "jac": lambda v: -w}],
        method="SLSQP",
        options={"ftol": 1e-16, "maxiter": 500},
    )
    return float(np.sqrt(solved.fun))


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 2**32 - 1), d=st.integers(1, 6), hardness=st.floats(0.05, 1.2))
def test_halfspace_radius_in_the_box(norm: Norm, seed: int, d: int, hardness: float) -> None:
    draw = np.random.default_rng(seed)
    w, x = draw.normal(size=d), draw.uniform(size=d)
    x[draw.uniform(size=d) < 0.2] = 0.0  # samples on the faces have no room on one side
    most = float(np.abs(w) @ np.where(w > 0, x, 1 - x))
    margin = hardness * most + 1e-3
    assert halfspace_radius(w, margin, x, norm, Domain()) == pytest.approx(by_program(w, margin, x, norm), rel=1e-5)


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2), ("l1", np.inf)])
def test_without_a_box_it_is_the_dual_norm(norm: Norm, dual: float) -> None:
    subject = linear(domain=Domain.unbounded())
    layer = subject.classifier.module[-1]
    weight, bias = layer.weight.detach(), layer.bias.detach()
    w = (weight[0] - weight[1]).numpy()
    expected = ((subject.x @ torch.from_numpy(w)) + bias[0] - bias[1]).abs().numpy() / np.linalg.norm(w, dual)
    assert np.allclose(
        linear_radius(weight, bias, subject.x, subject.y, norm, Domain.unbounded()), expected, rtol=1e-12
    )


@pytest.mark.parametrize("norm", NORMS)
def test_dense_search_meets_the_closed_form_from_above(norm: Norm) -> None:
    subject = linear(3, (2,))
    exact, found = subject.radius(norm), planar_radius(subject.classifier, subject.x, subject.y, norm)
    assert (found >= exact * (1 - 1e-12)).all()
    assert (found <= exact * 1.05).all()


@pytest.mark.parametrize("norm", NORMS)
def test_finer_grids_find_nothing_much_nearer(norm: Norm) -> None:
    subject = relu_net()
    finer = planar_radius(subject.classifier, subject.x, subject.y, norm, side=801)
    assert finer.numpy() == pytest.approx(subject.radius(norm).numpy(), rel=0.05)


def test_the_tie_is_exact() -> None:
    subject = tie()
    logits = subject.classifier.logits(torch.tensor([[0.5, 0.5]], dtype=torch.float64))
    assert logits[0, 0] == logits[0, 1]
    assert subject.radius("l2").tolist() == [0.25, 0.5, 0.125]
