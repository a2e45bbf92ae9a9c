"""FAB against exact radii in three norms, its published rules, and what every attack promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oracles import minimum_norm
from oracles.classifiers import Function, linear, mlp
from oracles.known_radii import LINEAR, RELU, known
from robench.classifier import Counted
from robench.distances import distance
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.attacks.fab import FAB

NORMS = ("linf", "l2", "l1")
BOUND = {"linf": 1.05, "l2": 1.02, "l1": 1.05}
SHORT = FAB(steps=15, restarts=2)
AIMED = FAB(steps=15, restarts=2, targets=2)


def stage(attack, classifier, x, y, norm, eps, domain=None):
    """Ask for errors within `eps`, as a composite attack does."""
    stream = Stream.for_samples(0, "test", range(len(x)))
    return attack.perturb(classifier, x, y, Threat(norm, eps, domain or Domain()), stream)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", [*RELU, *LINEAR])
def test_close_to_the_exact_radius(name, norm):
    ratios = minimum_norm.ratios(FAB(), known(name), norm)
    assert np.median(ratios) <= BOUND[norm]
    assert np.quantile(ratios, 0.95) <= 1.2


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["deep-3", "relu-3", "linear-10", "linear-3"])
def test_targets_are_as_close(name, norm):
    ratios = minimum_norm.ratios(FAB(restarts=2, targets=9), known(name), norm)
    assert np.median(ratios) <= BOUND[norm]
    assert np.quantile(ratios, 0.95) <= 1.2


@pytest.mark.parametrize("targets", [0, 9])
@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_float32_and_the_scale_of_the_logits(scale, targets):
    for norm in NORMS:
        attack = FAB(steps=30, restarts=1, targets=targets)
        ratios = minimum_norm.ratios(attack, known("linear-10"), norm, scale, torch.float32)
        assert np.median(ratios) <= BOUND[norm]
        assert np.quantile(ratios, 0.95) <= 1.2


@pytest.mark.parametrize("norm", NORMS)
def test_one_step_on_a_linear_classifier(norm):
    """From x itself α is 1/2, so α_max; both projections agree, and the error is η times as far as the boundary."""
    case = known("linear-unbounded")
    attack = FAB(steps=1, restarts=1)
    points = minimum_norm.propose(attack, case.classifier, case.x, case.y, norm, case.domain).points
    ratio = distance(points, case.x, norm).numpy() / case.radii[norm]
    # The final search of three steps ends at the boundary.
    assert ratio.max() <= 1.0001
    far = FAB(steps=1, restarts=1, eta=1.5, beta=0.9)
    points = minimum_norm.propose(far, case.classifier, case.x, case.y, norm, case.domain).points
    # 1.5 · .9³: the final search takes back a tenth at a time while it knows no correct point.
    assert distance(points, case.x, norm).numpy() / case.radii[norm] == pytest.approx(1.5 * 0.9**3, rel=1e-4)


def test_passes_are_the_published_ones():
    """Two forwards and one gradient a step, three forwards at the end, one to rank the targets: 1,828 and 900."""
    classifier = mlp((16, 40, 12), seed=2)
    x, y = minimum_norm.correct(classifier, 4)
    counted = Counted(classifier)
    proposal = stage(FAB(restarts=1, targets=9), counted, x, y, "linf", 1e-6)
    assert (proposal.passes.forwards == 1828).all()
    assert (proposal.passes.backwards == 900).all()
    assert counted.take() == (4 * 1828, 4 * 900)
    proposal = stage(FAB(restarts=2, steps=10), Counted(classifier), x, y, "linf", 1e-6)
    assert (proposal.passes.forwards == 2 * 23).all()
    assert (proposal.passes.backwards == 2 * 10 * 11).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("targets", [0, 9])
def test_a_stage_stops_at_the_first_error_within_eps(norm, targets):
    case = known("relu-10")
    attack = FAB(targets=targets, restarts=2, steps=40)
    eps = float(np.median(case.radii[norm]))
    full = minimum_norm.propose(attack, case.classifier, case.x, case.y, norm)
    proposal = stage(attack, case.classifier, case.x, case.y, norm, eps)
    wrong = minimum_norm.broken(case.classifier, proposal.points, case.y).numpy()
    within = wrong & (distance(proposal.points, case.x, norm).numpy() <= eps * (1 + 1e-9))
    radii = case.radii[norm]
    assert within[radii < 0.9 * eps].all()
    assert not within[radii > eps].any()
    assert (proposal.passes.forwards[within] < full.passes.forwards[within]).all()
    assert (proposal.passes.forwards[~within] == full.passes.forwards[~within]).all()


@pytest.mark.parametrize("norm", NORMS)
def test_restarts_of_a_stage_begin_within_eps(norm):
    """Nothing can be found: every restart begins at half of ε, and runs over one step look there first."""
    weight, seen = torch.randn(3, 12, generator=torch.Generator().manual_seed(0)).double(), []

    def logits(rows):
        seen.append(rows.detach())
        return rows @ weight.T + torch.tensor([1e3, 0.0, 0.0])

    x, y = torch.full((5, 12), 0.5).double(), torch.zeros(5, dtype=torch.int64)
    stage(FAB(steps=1, restarts=4), Function(logits, (12,), 3, torch.float64), x, y, norm, 0.1)
    # Per restart: the plane, the step, three passes at the end.
    starts = torch.stack([distance(points, x, norm) for points in seen[::5]])
    assert (starts[0] == 0).all()
    assert (starts[1:] <= 0.05 + 1e-9).all()
    assert (starts[1:].amax(1) > 0.0499).all()


def test_targeted_runs_find_the_least_likely_class():
    """Only the last of ten classes can be reached: nine targets find it, eight do not."""
    weight = np.zeros((10, 9))
    weight[9, 0] = 12.0
    for other in range(1, 9):
        weight[other, other] = 3.0
    classifier = linear(weight, [6.0, *[2.2] * 8, -4.0])
    x, y = torch.full((6, 9), 0.4).double(), torch.zeros(6, dtype=torch.int64)
    for targets, found in ((8, False), (9, True), (50, True)):
        proposal = stage(FAB(restarts=1, targets=targets), classifier, x, y, "l1", 0.6)
        within = minimum_norm.broken(classifier, proposal.points, y) & (distance(proposal.points, x, "l1") <= 0.6)
        assert (within == found).all()


def test_logits_that_are_not_finite_lead_back():
    """NaN from a distance of .2 on, the boundary at .1: steps overshoot into NaN and still find it."""
    weight = torch.tensor([[1.0, 0.0], [0.0, 0.0]])

    def logits(rows):
        bent = torch.where(rows > 0.6, rows, 0.6 + (rows - 0.6) / 16)
        return torch.where(rows[:, :1] < 0.5, torch.nan, (bent - 0.595) @ weight.T)

    classifier = Function(logits, (2,), 2)
    x, y = torch.tensor([[0.7, 0.5]]), torch.tensor([0])
    proposal = minimum_norm.propose(FAB(steps=30, restarts=1, eta=2.0), classifier, x, y, "l2")
    assert minimum_norm.broken(classifier, proposal.points, y).all()
    assert distance(proposal.points, x, "l2").item() == pytest.approx(0.18, rel=0.01)


@pytest.mark.parametrize("attack", [SHORT, AIMED], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("norm", NORMS)
def test_promises(norm, attack):
    minimum_norm.batches_agree(attack, norm)
    minimum_norm.passes_are_counted(attack, norm, 2 * 15 * 5)
    minimum_norm.keeps_to_shapes_and_domains(attack, norm)
    minimum_norm.leaves_everything_as_it_was(attack, norm)
    minimum_norm.not_finite_is_reported(attack, norm)
    minimum_norm.classifiers_without_gradients_are_refused(attack, norm)
    minimum_norm.flat_logits_are_left_alone_or_searched(attack, norm)
    if not attack.targets:
        minimum_norm.misclassified_inputs_cost_one_pass(attack, norm)


def test_where_there_is_no_gradient_a_run_ends_at_once():
    classifier = Function(lambda rows: torch.stack([rows.sum(1) * 0 + 1, rows.sum(1) * 0], 1), (3,), 2)
    x, y = torch.full((4, 3), 0.5), torch.zeros(4, dtype=torch.int64)
    proposal = minimum_norm.propose(FAB(restarts=3), classifier, x, y, "l2")
    assert torch.equal(proposal.points, x)
    assert (proposal.passes.forwards == 3).all()
    assert (proposal.passes.backwards == 3).all()


def test_detail_says_which_run_found_the_point():
    case = known("relu-10")
    proposal = minimum_norm.propose(FAB(targets=3, restarts=2, steps=30), case.classifier, case.x, case.y, "linf")
    assert len({detail["run"] for detail in proposal.detail}) > 2
    for detail, label in zip(proposal.detail, case.y.tolist(), strict=True):
        assert detail["target"] is not None
        assert detail["target"] != label
        assert 0 <= detail["run"] < 6
    alone = minimum_norm.propose(SHORT, case.classifier, case.x, case.y, "linf")
    assert {detail["target"] for detail in alone.detail} == {None}
