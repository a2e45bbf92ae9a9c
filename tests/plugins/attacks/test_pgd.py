"""What PGD promises besides strength: independence of the batch, honest counting, odd inputs."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from oracles.classifiers import Function, linear, mlp
from robench.classifier import Counted, margins
from robench.errors import InputError
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.attacks.fgsm import FGSM
from robench_plugins.attacks.pgd import PGD

NORMS = ("linf", "l2", "l1")
EPS = {"linf": 0.12, "l2": 0.35, "l1": 1.0}
ATTACKS = [FGSM(), FGSM(random_start=True), PGD(steps=12), PGD(steps=12, restarts=3, targets=2, loss="dlr")]


def sample(classifier, count, seed=0):
    """Correctly classified points of the unit box."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4 * count + 40, *classifier.input_shape, generator=generator, dtype=classifier.dtype)
    logits = classifier.logits(x).detach()
    y = logits.argmax(1)
    rows = (margins(logits, y) > 1e-3).nonzero()[:count, 0]
    return x[rows], y[rows]


def perturb(attack, classifier, x, y, norm="linf", eps=None, indices=None, domain=None):
    threat = Threat(norm, EPS[norm] if eps is None else eps, domain or Domain())
    stream = Stream.for_samples(0, "test", range(len(x)) if indices is None else indices)
    return attack.perturb(classifier, x, y, threat, stream)


def broken(classifier, x, y):
    return margins(classifier.logits(x).detach(), y) <= 0


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)
@pytest.mark.parametrize("norm", NORMS)
def test_batch_size_and_order_do_not_matter(attack, norm):
    classifier = mlp((12, 30, 5), seed=2, dtype=torch.float64)
    x, y = sample(classifier, 15)
    eps = EPS[norm] / 2
    whole = perturb(attack, classifier, x, y, norm, eps)
    flags = broken(classifier, whole.points, y)
    assert 2 <= flags.sum() <= 13
    order = torch.randperm(15, generator=torch.Generator().manual_seed(1))
    for parts in (torch.arange(15).split(1), torch.arange(15).split(7), [order]):
        for rows in parts:
            part = perturb(attack, classifier, x[rows], y[rows], norm, eps, rows.tolist())
            torch.testing.assert_close(part.points, whole.points[rows], rtol=0, atol=1e-9)
            assert torch.equal(broken(classifier, part.points, y[rows]), flags[rows])
            assert torch.equal(part.passes.forwards, whole.passes.forwards[rows])
            assert torch.equal(part.passes.backwards, whole.passes.backwards[rows])


@pytest.mark.parametrize("norm", NORMS)
def test_early_exit_saves_passes_and_changes_no_flag(norm):
    classifier = mlp((16, 40, 40, 5), seed=1, dtype=torch.float64)
    x, y = sample(classifier, 60)
    for attack in (PGD(steps=15), PGD(steps=15, restarts=3, targets=2)):
        early = perturb(attack, classifier, x, y, norm, EPS[norm] / 2)
        late = perturb(dataclasses.replace(attack, early_exit=False), classifier, x, y, norm, EPS[norm] / 2)
        flags = broken(classifier, early.points, y)
        assert 5 < flags.sum() < 60
        assert torch.equal(flags, broken(classifier, late.points, y))
        assert (early.passes.forwards[flags] < late.passes.forwards[flags]).all()
        torch.testing.assert_close(early.points[~flags], late.points[~flags], rtol=0, atol=1e-9)
        runs = attack.restarts * (1 + min(attack.targets, 4))
        assert (late.passes.backwards == 15 * runs).all()
        assert (late.passes.forwards == 16 * runs + 1).all()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)
def test_passes_are_what_really_passed_and_the_batch_never_grows(attack):
    inner = mlp((16, 40, 6), seed=2)
    x, y = sample(inner, 50)
    sizes = []

    def logits(rows):
        sizes.append(len(rows))
        return inner.function(rows)

    counted = Counted(dataclasses.replace(inner, function=logits))
    proposal = perturb(attack, counted, x, y)
    assert (proposal.passes.forwards.sum(), proposal.passes.backwards.sum()) == counted.take()
    assert proposal.passes.forwards.dtype == torch.int64
    assert max(sizes) <= 50


def test_detail_tells_where_the_point_comes_from():
    classifier = mlp((16, 40, 6), seed=2)
    x, y = sample(classifier, 30)
    proposal = perturb(PGD(restarts=2, targets=3), classifier, x, y, eps=0.03)
    seen = margins(classifier.logits(proposal.points).detach(), y)
    for row, detail in enumerate(proposal.detail):
        assert detail["margin"] == pytest.approx(seen[row].item(), abs=1e-4)
        assert detail["target"] is None or detail["target"] != y[row]
        assert detail["restart"] in (0, 1)
        assert 0 <= detail["step"] <= 50
    assert {type(detail["target"]) for detail in proposal.detail} == {int, type(None)}


def test_a_settled_sample_leaves_at_once():
    classifier = mlp((16, 40, 6), seed=2)
    x, y = sample(classifier, 10)
    wrong = torch.where(torch.arange(10) < 5, (y + 1) % 6, y)
    proposal = perturb(PGD(random_start=False), classifier, x, wrong, eps=1e-6)
    assert (proposal.passes.forwards[:5] == 1).all()
    assert torch.equal(proposal.points[:5], x[:5])
    assert (proposal.passes.forwards[5:] > 300).all()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("shape", "classes"), [((7,), 2), ((1, 3, 9), 3), ((2, 3), 4)], ids=str)
def test_shapes_dtypes_and_empty_batches(attack, norm, dtype, shape, classes):
    generator = torch.Generator().manual_seed(0)
    classifier = linear(torch.randn(classes, math.prod(shape), generator=generator), torch.zeros(classes), shape, dtype)
    x, y = sample(classifier, 6)
    proposal = perturb(attack, classifier, x, y, norm)
    assert (proposal.points.shape, proposal.points.dtype) == (x.shape, dtype)
    assert proposal.points.isfinite().all()
    assert not proposal.points.requires_grad
    empty = perturb(attack, classifier, x[:0], y[:0], norm)
    assert empty.points.shape == (0, *shape)
    assert empty.passes.forwards.shape == (0,)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)
def test_touches_neither_inputs_nor_parameters_nor_the_global_generator(attack):
    classifier = mlp((16, 30, 4))
    x, y = sample(classifier, 8)
    before, state = (x.clone(), y.clone()), torch.random.get_rng_state()
    with torch.no_grad():
        first = perturb(attack, classifier, x, y).points
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert torch.equal(first, perturb(attack, classifier, x, y).points)
    assert torch.equal(before[0], x)
    assert torch.equal(before[1], y)
    assert not x.requires_grad
    assert all(parameter.grad is None for parameter in classifier.function.parameters)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("norm", NORMS)
def test_logits_that_are_not_finite_are_no_success_but_reported(norm):
    weight = torch.tensor([[1.0, 0.2], [0.0, 0.0]])
    x, y = torch.tensor([[0.9, 0.5], [0.7, 0.5]]), torch.tensor([0, 0])

    def cliff(value):
        def logits(points):
            out = points @ weight.T
            return torch.where(points[:, :1] < 0.65, value, out)

        return Function(logits, (2,), 2)

    for value in (torch.nan, torch.inf):
        classifier = cliff(value)
        proposal = perturb(PGD(), classifier, x, y, norm, eps=0.1)
        out = classifier.logits(proposal.points)
        # The first never meets the cliff: its best point is a correct one; the second's is the error itself.
        assert out[0].isfinite().all()
        assert out[0, 0] > 0
        assert not out[1].isfinite().all()
        assert proposal.detail[1]["margin"] is None


@pytest.mark.parametrize("norm", NORMS)
def test_an_error_behind_a_region_of_nan_is_still_found(norm):
    def logits(points):
        out = torch.stack([points.sum(1) - 2.0, torch.zeros(len(points))], 1)
        return torch.where(points[:, :1] > 0.9, torch.nan, out)

    classifier = Function(logits, (4,), 2)
    x, y = torch.full((20, 4), 0.85), torch.zeros(20, dtype=torch.int64)
    proposal = perturb(PGD(), classifier, x, y, norm, eps={"linf": 0.5, "l2": 1.0, "l1": 1.8}[norm])
    assert broken(classifier, proposal.points, y).all()


@pytest.mark.parametrize("norm", NORMS)
def test_flat_logits_are_searched_at_random(norm):
    """Rounded inputs have no gradient at all; a random walk still finds a large error region."""

    def logits(points):
        cells = points.detach().round(decimals=1) + 0 * points
        return torch.stack([cells[:, 0] - 0.35, torch.zeros(len(points))], 1)

    classifier = Function(logits, (3,), 2)
    x, y = torch.full((40, 3), 0.5), torch.zeros(40, dtype=torch.int64)
    walk = PGD(restarts=3)
    proposal = perturb(walk, classifier, x, y, norm, eps=0.3)
    assert broken(classifier, proposal.points, y).float().mean() > 0.95
    again = perturb(walk, classifier, x[7:9], y[7:9], norm, eps=0.3, indices=[7, 8])
    assert torch.equal(again.points, proposal.points[7:9])
    assert perturb(FGSM(), classifier, x, y, norm, eps=0.3).points.sub(x).abs().flatten(1).amax(1).min() > 0.05


def test_gradients_with_nan_entries_use_the_others():
    def logits(points):
        bad = (points[:, 1] - points[:, 1].detach()).abs().sqrt()
        return torch.stack([points[:, 0] - 0.5 + bad, torch.zeros(len(points))], 1)

    classifier = Function(logits, (3,), 2)
    x, y = torch.tensor([[0.55, 0.5, 0.5]]), torch.tensor([0])
    for attack in (FGSM(), PGD(targets=0)):
        assert broken(classifier, perturb(attack, classifier, x, y, eps=0.1).points, y).all()


def test_a_large_scale_of_the_logits_does_not_blind_it():
    plain = mlp((16, 40, 40, 10), seed=4)
    x, y = sample(plain, 80)

    def share(scale, loss):
        classifier = dataclasses.replace(plain, function=lambda rows: plain.function(rows) * scale)
        points = perturb(PGD(targets=0, loss=loss), classifier, x, y, eps=0.04).points
        return broken(plain, points, y).float().mean().item()

    usual = share(1.0, "ce")
    assert 0.2 < usual < 0.9
    assert share(1e4, "ce") >= usual - 0.05
    # So far above 1, cross-entropy only sees the strongest rival, as the margin does.
    assert share(1e4, "ce") == pytest.approx(share(1.0, "margin"), abs=0.03)


def test_more_targets_than_classes_and_all_targets_are_tried():
    """Only the least likely of ten classes can be reached: nine targets find it, fewer do not."""
    weight = torch.zeros(10, 9)
    weight[9, 0] = 12.0
    for j in range(1, 9):
        weight[j, j] = 3.0
    bias = torch.tensor([6.0, *[2.2] * 8, -4.0])
    classifier = linear(weight, bias, dtype=torch.float32)
    x, y = torch.full((12, 9), 0.4), torch.zeros(12, dtype=torch.int64)
    assert not broken(classifier, x, y).any()
    for targets in (9, 50):
        proposal = perturb(PGD(targets=targets), classifier, x, y, "l1", eps=0.6)
        assert broken(classifier, proposal.points, y).all()


@pytest.mark.parametrize("attack", [FGSM(), PGD()], ids=["fgsm", "pgd"])
def test_classifiers_without_gradients_are_refused(attack):
    classifier = Function(lambda x: x.detach().flatten(1), (3,), 3)
    assert "gradients" in attack.applies(classifier, "linf")
    with pytest.raises(InputError, match="gradients"):
        perturb(attack, classifier, torch.eye(3), torch.arange(3))
    assert attack.applies(mlp((3, 4, 2)), "l2") is None


def test_restarts_without_random_starts_are_refused():
    with pytest.raises(ValueError, match="random"):
        PGD(restarts=2, random_start=False)


@pytest.mark.gpu
@pytest.mark.parametrize("norm", NORMS)
def test_a_gpu_finds_the_same(norm):
    weight = torch.randn(5, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    here = linear(weight, torch.zeros(5))
    x, y = sample(here, 30)
    there = dataclasses.replace(here, function=lambda rows: rows @ weight.cuda().T, device=torch.device("cuda"))
    stream = Stream.for_samples(0, "test", range(30), device="cuda")
    threat = Threat(norm, EPS[norm], Domain())
    proposal = PGD().perturb(there, x.cuda(), y.cuda(), threat, stream)
    assert proposal.points.is_cuda
    expected = perturb(PGD(), here, x, y, norm)
    assert torch.equal(broken(here, proposal.points.cpu(), y), broken(here, expected.points, y))
