"""Carlini & Wagner's attack against exact l2 radii, its variables and its search for c."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oracles import minimum_norm
from oracles.known_radii import LINEAR, RELU, known
from robench_plugins.attacks._variables import Variables
from robench_plugins.attacks.cw import CW

SHORT = CW(steps=30, search=3, targets=2, starts=1)
QUICK = CW(steps=200, search=5)


@pytest.mark.parametrize(
    ("attack", "name"),
    [(QUICK, name) for name in ("relu-3", "linear-3", "linear-unbounded")]
    + [pytest.param(CW(), name, marks=pytest.mark.slow) for name in [*RELU, *LINEAR]],
    ids=lambda value: value if isinstance(value, str) else f"{value.steps}",
)
def test_close_to_the_exact_radius(attack, name):
    ratios = minimum_norm.ratios(attack, known(name), "l2")
    assert np.median(ratios) <= 1.02
    assert np.quantile(ratios, 0.95) <= 1.2


@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_float32_and_the_scale_of_the_logits(scale):
    ratios = minimum_norm.ratios(
        CW(steps=200, search=4, targets=2, starts=0), known("linear-3"), "l2", scale, torch.float32
    )
    assert np.median(ratios) <= 1.02
    assert np.quantile(ratios, 0.95) <= 1.2


@pytest.mark.parametrize("change", ["sine", "tanh", "direct"])
def test_variables_stay_in_the_box_and_their_gradients_are_right(change):
    generator = torch.Generator().manual_seed(0)
    lower, upper = torch.full((6, 5), -0.5, dtype=torch.float64), torch.full((6, 5), 2.0, dtype=torch.float64)
    x = lower + (upper - lower) * torch.rand(6, 5, generator=generator, dtype=torch.float64)
    x[0, :2] = torch.tensor([-0.5, 2.0])
    variables = Variables(change, lower, upper)
    w = variables.of(x)
    torch.testing.assert_close(variables.point(w), x, rtol=0, atol=2e-6)
    inside = w[1:].clone().requires_grad_()
    part = variables.select(torch.arange(1, 6))
    g = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad(part.point(inside), inside, g)
    torch.testing.assert_close(part.gradient(inside.detach(), g), expected)
    far = variables.point(w + 10 * torch.randn(6, 5, generator=generator, dtype=torch.float64))
    assert ((far >= lower) & (far <= upper)).all()


def test_the_sine_leaves_the_sides_where_tanh_does_not():
    """Pixels at 0 and 1, few steps: the published change of variables has not let go of them yet."""
    case = known("linear-2")
    settings = {"steps": 200, "search": 3, "targets": 0, "starts": 0}
    sine, tanh = (minimum_norm.ratios(CW(variable=change, **settings), case, "l2") for change in ("sine", "tanh"))
    assert np.median(sine) <= 1.05
    assert np.isfinite(sine).all()
    assert np.isinf(tanh).sum() > 10


def test_c_is_found_from_far_above_and_below():
    case = known("linear-unbounded")
    for first in (1e-3, 1e3):
        ratios = minimum_norm.ratios(CW(c=first, steps=150, search=8, targets=2, starts=0), case, "l2")
        assert np.median(ratios) <= 1.03


def test_aborting_early_saves_passes_and_little_else():
    case = known("relu-3")
    results = []
    for abort in (True, False):
        attack = CW(steps=200, search=3, targets=0, starts=0, abort_early=abort)
        proposal = minimum_norm.propose(attack, case.classifier, case.x, case.y, "l2")
        results.append((proposal.passes.forwards, minimum_norm.distance(proposal.points, case.x, "l2")))
    (fewer, near), (all_, nearest) = results
    assert (all_ == 3 * 200 + 1).all()
    assert fewer.double().mean() < 0.9 * 601
    assert near.median() <= 1.02 * nearest.median()


def test_promises():
    minimum_norm.batches_agree(SHORT, "l2")
    minimum_norm.passes_are_counted(SHORT, "l2", 4 * (3 * 30 + 1))
    minimum_norm.misclassified_inputs_cost_one_pass(SHORT, "l2")
    minimum_norm.keeps_to_shapes_and_domains(CW(steps=300, search=2, targets=0, starts=0), "l2")
    minimum_norm.leaves_everything_as_it_was(SHORT, "l2")
    minimum_norm.not_finite_is_reported(SHORT, "l2")
    minimum_norm.classifiers_without_gradients_are_refused(SHORT, "l2")
    assert "l2" in SHORT.applies(known("relu-3").classifier, "linf")
