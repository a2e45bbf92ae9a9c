"""What Auto-PGD promises besides strength: independence of the batch, honest counting, odd inputs."""

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
from robench_plugins.attacks.apgd import APGD

NORMS = ("linf", "l2", "l1")
EPS = {"linf": 0.12, "l2": 0.35, "l1": 1.0}
ATTACKS = [APGD(steps=20), APGD(steps=20, loss="dlr", targets=3, restarts=2)]


def sample(classifier, count, seed=0):
    """Correctly classified points of the unit box."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4 * count + 40, *classifier.input_shape, generator=generator, dtype=classifier.dtype)
    logits = classifier.logits(x).detach()
    y = logits.argmax(1)
    rows = (margins(logits, y) > 1e-3).nonzero()[:count, 0]
    return x[rows], y[rows]


def perturb(attack, classifier, x, y, norm="linf", eps=None, indices=None):
    threat = Threat(norm, EPS[norm] if eps is None else eps, Domain())
    stream = Stream.for_samples(0, "test", range(len(x)) if indices is None else indices)
    return attack.perturb(classifier, x, y, threat, stream)


def broken(classifier, x, y):
    return margins(classifier.logits(x).detach(), y) <= 0


@pytest.mark.parametrize("attack", ATTACKS, ids=["ce", "targeted"])
@pytest.mark.parametrize("norm", NORMS)
def test_batch_size_and_order_do_not_matter(attack, norm):
    classifier = mlp((12, 30, 30, 5), seed=1, dtype=torch.float64)
    x, y = sample(classifier, 15)
    eps = EPS[norm]
    whole = perturb(attack, classifier, x, y, norm, eps)
    flags = broken(classifier, whole.points, y)
    assert 2 <= flags.sum() <= 13
    order = torch.randperm(15, generator=torch.Generator().manual_seed(1))
    for parts in (torch.arange(15).split(1), torch.arange(15).split(7), [order]):
        for rows in parts:
            part = perturb(attack, classifier, x[rows], y[rows], norm, eps, rows.tolist())
            torch.testing.assert_close(part.points, whole.points[rows], rtol=0, atol=1e-9)
            assert torch.equal(part.passes.forwards, whole.passes.forwards[rows])
            assert torch.equal(part.passes.backwards, whole.passes.backwards[rows])


@pytest.mark.parametrize("norm", NORMS)
def test_early_exit_saves_passes_and_changes_no_flag(norm):
    """Neither do compaction and the checkpoints of rows that stay longer change what the others find."""
    classifier = mlp((16, 40, 40, 5), seed=1, dtype=torch.float64)
    x, y = sample(classifier, 40)
    attack = APGD(steps=30, loss="dlr", targets=2, restarts=2)
    early = perturb(attack, classifier, x, y, norm, EPS[norm] / 2)
    late = perturb(dataclasses.replace(attack, early_exit=False), classifier, x, y, norm, EPS[norm] / 2)
    flags = broken(classifier, early.points, y)
    assert 5 < flags.sum() < 38
    assert torch.equal(flags, broken(classifier, late.points, y))
    assert (early.passes.forwards[flags] < late.passes.forwards[flags]).all()
    torch.testing.assert_close(early.points[~flags], late.points[~flags], rtol=0, atol=1e-9)
    # As many gradients as steps; one look more per search, of which l1 makes three; the clean pass that ranks targets.
    assert (late.passes.backwards == 30 * 4).all()
    assert (late.passes.forwards == (30 + (3 if norm == "l1" else 1)) * 4 + 1).all()


@pytest.mark.parametrize("attack", ATTACKS, ids=["ce", "targeted"])
@pytest.mark.parametrize("norm", NORMS)
def test_passes_are_what_really_passed_and_the_batch_never_grows(attack, norm):
    inner, sizes = mlp((16, 40, 6), seed=2), []
    x, y = sample(inner, 30)

    def logits(rows):
        sizes.append(len(rows))
        return inner.function(rows)

    counted = Counted(dataclasses.replace(inner, function=logits))
    proposal = perturb(attack, counted, x, y, norm)
    assert (proposal.passes.forwards.sum(), proposal.passes.backwards.sum()) == counted.take()
    assert max(sizes) <= 30
    untouched = perturb(attack, counted, x, y, norm, eps=1e-6).passes
    runs = attack.restarts * max(attack.targets, 1)
    assert (untouched.backwards == attack.steps * runs).all()


def test_detail_tells_where_the_point_comes_from():
    classifier = mlp((16, 40, 6), seed=2)
    x, y = sample(classifier, 20)
    proposal = perturb(APGD(loss="dlr", restarts=2, targets=3), classifier, x, y, eps=0.03)
    seen = margins(classifier.logits(proposal.points).detach(), y)
    for row, detail in enumerate(proposal.detail):
        assert detail["margin"] == pytest.approx(seen[row].item(), abs=1e-4)
        assert detail["target"] not in (None, y[row].item())
        assert 0 <= detail["step"] <= 100
    assert perturb(APGD(), classifier, x[:1], y[:1]).detail[0]["target"] is None


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("shape", "classes"), [((1,), 2), ((7,), 2), ((1, 3, 9), 3), ((2, 3), 4)], ids=str)
@pytest.mark.parametrize("loss", ["ce", "dlr", "margin"])
def test_shapes_dtypes_few_classes_and_empty_batches(norm, dtype, shape, classes, loss):
    generator = torch.Generator().manual_seed(0)
    classifier = linear(torch.randn(classes, math.prod(shape), generator=generator), torch.zeros(classes), shape, dtype)
    x, y = sample(classifier, 6)
    for attack in (APGD(steps=10, loss=loss), APGD(steps=3, loss=loss, targets=9)):
        proposal = perturb(attack, classifier, x, y, norm)
        assert (proposal.points.shape, proposal.points.dtype) == (x.shape, dtype)
        assert proposal.points.isfinite().all()
        assert not proposal.points.requires_grad
        empty = perturb(attack, classifier, x[:0], y[:0], norm)
        assert empty.points.shape == (0, *shape)
        assert empty.passes.forwards.shape == (0,)


@pytest.mark.parametrize("attack", ATTACKS, ids=["ce", "targeted"])
@pytest.mark.parametrize("norm", NORMS)
def test_touches_neither_inputs_nor_parameters_nor_the_global_generator(attack, norm):
    classifier = mlp((16, 30, 4))
    x, y = sample(classifier, 8)
    before, state = (x.clone(), y.clone()), torch.random.get_rng_state()
    with torch.no_grad():
        first = perturb(attack, classifier, x, y, norm).points
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert torch.equal(first, perturb(attack, classifier, x, y, norm).points)
    assert torch.equal(before[0], x)
    assert torch.equal(before[1], y)
    assert all(parameter.grad is None for parameter in classifier.function.parameters)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("norm", NORMS)
def test_logits_that_are_not_finite_are_no_success_but_reported(norm):
    def cliff(value):
        return Function(
            lambda points: torch.where(points[:, :1] < 0.65, value, points @ torch.tensor([[1.0, 0.0], [0.2, 0.0]])),
            (2,),
            2,
        )

    x, y = torch.tensor([[0.9, 0.5], [0.7, 0.5]]), torch.tensor([0, 0])
    for value in (torch.nan, torch.inf):
        classifier = cliff(value)
        proposal = perturb(APGD(), classifier, x, y, norm, eps=0.1)
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
    proposal = perturb(APGD(), classifier, x, y, norm, eps={"linf": 0.5, "l2": 1.0, "l1": 1.8}[norm])
    assert broken(classifier, proposal.points, y).all()


@pytest.mark.parametrize("norm", NORMS)
def test_flat_logits_are_searched_at_random(norm):
    """Rounded inputs have no gradient at all; a random walk still finds a large error region."""

    def logits(points):
        cells = points.detach().round(decimals=1) + 0 * points
        return torch.stack([cells[:, 0] - 0.35, torch.zeros(len(points))], 1)

    classifier = Function(logits, (3,), 2)
    x, y = torch.full((30, 3), 0.5), torch.zeros(30, dtype=torch.int64)
    proposal = perturb(APGD(restarts=3), classifier, x, y, norm, eps=0.3)
    assert broken(classifier, proposal.points, y).float().mean() > 0.9
    again = perturb(APGD(restarts=3), classifier, x[7:9], y[7:9], norm, eps=0.3, indices=[7, 8])
    assert torch.equal(again.points, proposal.points[7:9])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "attack", [APGD(steps=50), APGD(steps=50, loss="dlr"), APGD(steps=50, loss="dlr", targets=2)], ids=str
)
def test_the_scale_of_the_logits_makes_no_difference(norm, attack):
    """Exactly none for ratios of logits; cross-entropy on odd logits is the one on logits that spread over 10."""
    plain = mlp((16, 40, 40, 10), seed=4, dtype=torch.float64)
    x, y = sample(plain, 50)
    eps = {"linf": 0.04, "l2": 0.14, "l1": 0.3}[norm]

    def flags(scale):
        classifier = dataclasses.replace(plain, function=lambda rows: plain.function(rows) * scale)
        return broken(plain, perturb(attack, classifier, x, y, norm, eps).points, y)

    usual = flags(1.0)
    assert 0.15 < usual.double().mean() < 0.9
    large, small = flags(1e4), flags(1e-4)
    assert torch.equal(large, small)
    if attack.loss == "ce":
        assert large.sum() >= usual.sum() - 1
    else:
        assert torch.equal(large, usual)


def test_classifiers_without_gradients_are_refused():
    classifier = Function(lambda x: x.detach().flatten(1), (3,), 3)
    assert "gradients" in APGD().applies(classifier, "linf")
    with pytest.raises(InputError, match="gradients"):
        perturb(APGD(), classifier, torch.eye(3), torch.arange(3))
    assert APGD().applies(mlp((3, 4, 2)), "l2") is None
