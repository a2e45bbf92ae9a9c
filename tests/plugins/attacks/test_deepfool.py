"""DeepFool: its step against exact solutions, its distance against exact radii, and what every attack promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oracles import minimum_norm
from oracles.known_radii import LINEAR, RELU, known
from oracles.linear_box import exact_radius
from robench_plugins.attacks._fab_planes import onto, room
from robench_plugins.attacks.deepfool import DeepFool

NORMS = ("linf", "l2", "l1")
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}


def cross(norm, w, need, low, high):
    """Return DeepFool's step over ⟨w, z⟩ = need from 0 inside the box, and its length, inf where none is enough."""
    peak = w.abs().max().clamp_min(1e-300)
    size, length = onto(norm, (w / peak).abs(), need / peak, room(w, need, torch.zeros_like(w), low, high))
    step = w.sign() * size
    return step, torch.where((w * step).sum(1) >= need * (1 - 1e-9), length, torch.inf)


@pytest.mark.parametrize("norm", NORMS)
def test_the_step_is_the_shortest_inside_the_box(norm):
    """Against the oracle of linear classifiers: rooms that are 0, small and infinite, zeros and ties in the normal."""
    infinite = 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        size = int(rng.integers(1, 9))
        w = rng.normal(size=size) * rng.choice([0.0, 1.0, 1.0, 1e-3, 1e4], size=size)
        low, high = -rng.choice([0.0, 0.1, 1.0, np.inf], size=size), rng.choice([0.0, 0.1, 1.0, np.inf], size=size)
        need = float(rng.choice([1e-6, 0.1, 1.0, 10.0])) * max(np.abs(w).max(), 1e-9)
        radius, _ = exact_radius(np.stack([-w, 0 * w]), [need, 0.0], np.zeros(size), 0, norm, low, high)
        tensors = (torch.tensor(value)[None] for value in (w, low, high))
        normal, low_t, high_t = tensors
        step, length = cross(norm, normal, torch.tensor([need]), low_t, high_t)
        assert length.item() == pytest.approx(radius, rel=1e-6)
        if np.isinf(radius):
            infinite += 1
            continue
        step = step[0].numpy()
        assert w @ step == pytest.approx(need, rel=1e-6)
        assert ((step >= low) & (step <= high)).all()
        assert np.linalg.norm(step, ORDER[norm]) == pytest.approx(radius, rel=1e-6)
    assert 5 < infinite < 60


def test_the_step_without_a_box_is_the_papers():
    """Eqs. 9 and 11: |f| / ‖w‖₂² · w in l2, |f| / ‖w‖₁ · sign(w) in linf."""
    w, need = torch.tensor([[3.0, -4.0]]), torch.tensor([2.0])
    free = torch.full((1, 2), torch.inf)
    torch.testing.assert_close(cross("l2", w, need, -free, free)[0], w * 2 / 25)
    torch.testing.assert_close(cross("linf", w, need, -free, free)[0], w.sign() * 2 / 7)
    torch.testing.assert_close(cross("l1", w, need, -free, free)[0], torch.tensor([[0.0, -0.5]]))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", LINEAR)
def test_linear_classifiers_take_one_step(name, norm):
    case = known(name)
    ratios = minimum_norm.ratios(DeepFool(), case, norm)
    assert ratios.max() <= 1.021
    proposal = minimum_norm.propose(DeepFool(), case.classifier, case.x, case.y, norm, case.domain)
    some = torch.from_numpy(np.isfinite(case.radii[norm]) & (case.radii[norm] > 1e-6))
    assert (proposal.passes.forwards[some] == 2).all()
    assert (proposal.passes.backwards[some] == 2 * (case.classifier.classes - 1)).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", RELU)
def test_near_on_small_networks(name, norm):
    """What it reaches: a few per cent in the median. relu-2 leads a quarter into a corner that is no error."""
    ratios = minimum_norm.ratios(DeepFool(), known(name), norm)
    median, share, bound = 1.02, 0.75, 1.2
    if name == "relu-2":
        median, share, bound = (1.5, 0.7, 2.0) if norm == "l1" else (1.2, 0.7, 1.4)
    assert np.median(ratios) <= median
    assert np.quantile(ratios, share) <= bound


@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_float32_and_the_scale_of_the_logits(scale):
    for norm in NORMS:
        assert minimum_norm.ratios(DeepFool(), known("linear-10"), norm, scale, torch.float32).max() <= 1.03


def test_fewer_classes_cost_fewer_gradients():
    case = known("relu-10")
    few, many = (
        minimum_norm.propose(DeepFool(classes=count), case.classifier, case.x, case.y, "l2") for count in (3, 10)
    )
    assert (few.passes.backwards == 2 * few.passes.forwards).all()
    assert (many.passes.backwards == 9 * many.passes.forwards).all()
    # The nearest rival is nearly always among the most likely two.
    assert minimum_norm.broken(case.classifier, few.points, case.y).all()
    near, far = (minimum_norm.distance(one.points, case.x, "l2").mean() for one in (many, few))
    assert far <= 1.05 * near


@pytest.mark.parametrize("norm", NORMS)
def test_promises(norm):
    attack = DeepFool(steps=20)
    minimum_norm.batches_agree(attack, norm)
    minimum_norm.passes_are_counted(attack, norm, 21 * 5)
    minimum_norm.keeps_to_shapes_and_domains(attack, norm)
    minimum_norm.leaves_everything_as_it_was(attack, norm)
    minimum_norm.not_finite_is_reported(attack, norm)
    minimum_norm.classifiers_without_gradients_are_refused(attack, norm)
    assert minimum_norm.flat_logits_are_left_alone_or_searched(attack, norm) == 0
