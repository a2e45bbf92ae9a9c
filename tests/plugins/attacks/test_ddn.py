"""DDN against exact l2 radii, and what every attack promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from oracles import minimum_norm
from oracles.known_radii import LINEAR, RELU, known
from robench_plugins.attacks._radii import Moment
from robench_plugins.attacks.ddn import DDN

SHORT = DDN(steps=20, targets=2, starts=1)


@pytest.mark.parametrize("name", [*RELU, *LINEAR])
def test_close_to_the_exact_radius(name):
    ratios = minimum_norm.ratios(DDN(), known(name), "l2")
    assert np.median(ratios) <= 1.02
    assert np.quantile(ratios, 0.95) <= 1.2


@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_float32_and_the_scale_of_the_logits(scale):
    ratios = minimum_norm.ratios(DDN(), known("linear-10"), "l2", scale, torch.float32)
    assert np.median(ratios) <= 1.02
    assert np.quantile(ratios, 0.95) <= 1.2


def test_the_published_run_alone_is_exact_on_two_classes_at_the_sides_of_the_box():
    ratios = minimum_norm.ratios(DDN(targets=0, starts=0), known("linear-2"), "l2")
    assert np.quantile(ratios, 0.95) <= 1.02


def test_the_published_rule_of_the_radius_and_the_steps():
    """Algorithm 1: ε (1 − γ) where the point is an error, else ε (1 + γ); α from 1 to 0.01 along half a cosine."""
    met = torch.tensor([True, False])
    same = torch.tensor([0.4, 0.4])
    now = Moment(7, same, same, torch.full((2,), math.inf), met, same)
    torch.testing.assert_close(DDN(gamma=0.1).radius(now), torch.tensor([0.36, 0.44]))
    assert [DDN().length(step) for step in (0, 50)] == pytest.approx([1.0, 0.505])


def test_points_lie_on_the_sphere_although_the_box_cuts_it():
    delta = torch.tensor([[3.0, 4.0, 0.0]])
    low, high = torch.tensor([[-1.0, -1.0, -1.0]]), torch.tensor([[0.3, 2.0, 1.0]])
    point = DDN().place("l2", delta, torch.tensor([[1.0]]), low, high)
    torch.testing.assert_close(point, torch.tensor([[0.3, math.sqrt(1 - 0.09), 0.0]]))


def test_other_norms_are_refused():
    case = known("relu-3")
    assert DDN().applies(case.classifier, "l2") is None
    for norm in ("linf", "l1"):
        assert "l2" in DDN().applies(case.classifier, norm)


def test_promises():
    minimum_norm.batches_agree(SHORT, "l2")
    minimum_norm.passes_are_counted(SHORT, "l2", 4 * 20)
    minimum_norm.misclassified_inputs_cost_one_pass(SHORT, "l2")
    minimum_norm.keeps_to_shapes_and_domains(SHORT, "l2")
    minimum_norm.leaves_everything_as_it_was(SHORT, "l2")
    minimum_norm.not_finite_is_reported(SHORT, "l2")
    minimum_norm.classifiers_without_gradients_are_refused(SHORT, "l2")
    assert minimum_norm.flat_logits_are_left_alone_or_searched(DDN(steps=60), "l2") > 0.9
