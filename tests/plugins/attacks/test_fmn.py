"""FMN against exact radii in three norms, and what every attack promises."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from oracles import minimum_norm
from oracles.known_radii import LINEAR, RELU, known
from robench_plugins.attacks._radii import Moment
from robench_plugins.attacks.fmn import FMN

NORMS = ("linf", "l2", "l1")
BOUND = {"linf": 1.05, "l2": 1.02, "l1": 1.05}
SHORT = FMN(steps=15, targets=2, starts=1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", [*RELU, *LINEAR])
def test_close_to_the_exact_radius(name, norm):
    ratios = minimum_norm.ratios(FMN(), known(name), norm)
    assert np.median(ratios) <= BOUND[norm]
    assert np.quantile(ratios, 0.95) <= 1.2


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_float32_and_the_scale_of_the_logits(norm, scale):
    ratios = minimum_norm.ratios(FMN(steps=60), known("linear-10"), norm, scale, torch.float32)
    assert np.median(ratios) <= BOUND[norm]
    assert np.quantile(ratios, 0.95) <= 1.2


@pytest.mark.parametrize("norm", NORMS)
def test_the_units_of_the_inputs_do_not_matter(norm):
    """The same samples in a domain a thousand times as wide, on a classifier that takes them back."""
    case = known("relu-3")
    inner = case.classifier.function
    wide = dataclasses.replace(case.classifier, function=lambda rows: inner(rows / 1024))
    plain = minimum_norm.propose(SHORT, case.classifier, case.x, case.y, norm).points
    domain = minimum_norm.Domain(0, 1024)
    scaled = minimum_norm.propose(SHORT, wide, case.x * 1024, case.y, norm, domain).points
    torch.testing.assert_close(scaled / 1024, plain, rtol=0, atol=1e-6)


def test_projections_that_ignore_the_box_would_miss_what_it_reaches():
    """One published run on inputs at the sides of the domain: on a linear classifier it is enough."""
    for norm in ("linf", "l2"):
        ratios = minimum_norm.ratios(FMN(targets=0, starts=0), known("linear-2"), norm)
        assert np.quantile(ratios, 0.95) <= 1.02


def test_targets_find_what_a_single_run_misses():
    case = known("relu-10")
    single = minimum_norm.ratios(FMN(targets=0, starts=0), case, "linf")
    more = minimum_norm.ratios(FMN(targets=9, starts=0), case, "linf")
    assert np.quantile(single, 0.95) > 1.2 > np.quantile(more, 0.95)
    assert (more <= single * (1 + 1e-9)).all()


def test_starts_find_what_no_run_from_the_clean_input_does():
    """Samples of relu-2 whose gradient leads to a corner of the box that is classified correctly."""
    case = known("relu-2")
    assert np.isinf(minimum_norm.ratios(FMN(targets=0, starts=0), case, "l2")).sum() > 4
    assert np.isfinite(minimum_norm.ratios(FMN(targets=0, starts=3), case, "l2")).mean() > 0.95


def test_the_published_rule_of_the_radius():
    """Algorithm 1 in the middle of the schedule: out by the linear estimate, then (1 ± γ), never above d*."""
    fmn, infinite = FMN(steps=100, gamma=0.05, gamma_final=0.001), math.inf
    gamma = (0.05 + 0.001) / 2
    rows = [
        # radius, distance, nearest, met, boundary -> next radius
        (0.3, 0.3, infinite, False, 0.2, 0.5),
        (0.3, 0.3, 0.4, False, 0.2, 0.3 * (1 + gamma)),
        (0.3, 0.3, 0.3, True, 0.0, 0.3 * (1 - gamma)),
        (0.9, 0.3, 0.3, True, 0.0, 0.3),
    ]
    radius, distance, nearest, met, boundary, expected = zip(*rows, strict=True)
    now = Moment(
        50,
        torch.tensor(radius),
        torch.tensor(distance),
        torch.tensor(nearest),
        torch.tensor(met),
        torch.tensor(boundary),
    )
    torch.testing.assert_close(fmn.radius(now), torch.tensor(expected))
    assert fmn.length(0) == 1.0
    assert fmn.length(50) == pytest.approx((1 + 0.01) / 2)


@pytest.mark.parametrize("norm", NORMS)
def test_promises(norm):
    minimum_norm.batches_agree(SHORT, norm)
    minimum_norm.passes_are_counted(SHORT, norm, 4 * 15)
    minimum_norm.misclassified_inputs_cost_one_pass(SHORT, norm)
    minimum_norm.keeps_to_shapes_and_domains(SHORT, norm)
    minimum_norm.leaves_everything_as_it_was(SHORT, norm)
    minimum_norm.not_finite_is_reported(SHORT, norm)
    minimum_norm.classifiers_without_gradients_are_refused(SHORT, norm)


@pytest.mark.parametrize("norm", NORMS)
def test_flat_logits_are_searched_at_random(norm):
    assert minimum_norm.flat_logits_are_left_alone_or_searched(FMN(steps=60), norm) > 0.9


def test_detail_says_which_run_found_the_point():
    case = known("relu-10")
    proposal = minimum_norm.propose(FMN(), case.classifier, case.x, case.y, "linf")
    runs = {detail["run"] for detail in proposal.detail}
    assert len(runs) > 2
    assert runs <= set(range(6))
    for detail, label in zip(proposal.detail, case.y.tolist(), strict=True):
        assert (detail["target"] is not None) == (1 <= detail["run"] <= 3)
        assert detail["target"] != label
