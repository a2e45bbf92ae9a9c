"""What the probe promises besides its figures: independence of the batch, the passes stated, odd inputs."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from oracles.classifiers import Function, linear, mlp
from robench.classifier import Counted, margins
from robench.distances import distance
from robench.health import CATALOGUE
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.attacks.probe import Probe

NORMS = ("linf", "l2", "l1")
EPS = {"linf": 0.1, "l2": 0.3, "l1": 0.9}
CODES = {one.code for one in CATALOGUE.values() if one.origin == "probe"}


def sample(classifier, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4 * count + 40, *classifier.input_shape, generator=generator, dtype=classifier.dtype)
    logits = classifier.logits(x).detach()
    y = logits.argmax(1)
    rows = (margins(logits, y) > 1e-3).nonzero()[:count, 0]
    return x[rows], y[rows]


def perturb(classifier, x, y, norm="linf", eps=None, indices=None, domain=None):
    threat = Threat(norm, EPS[norm] if eps is None else eps, domain or Domain())
    stream = Stream.for_samples(0, "test", range(len(x)) if indices is None else indices)
    return Probe().perturb(classifier, x, y, threat, stream)


def broken(classifier, points, y):
    return margins(classifier.logits(points).detach(), y) <= 0


@pytest.mark.parametrize("norm", NORMS)
def test_points_and_figures_do_not_depend_on_the_batch(norm):
    classifier = mlp((12, 30, 30, 5), seed=1, dtype=torch.float64)
    x, y = sample(classifier, 15)
    whole = perturb(classifier, x, y, norm)
    assert 2 <= broken(classifier, whole.points, y).sum() <= 13
    order = torch.randperm(15, generator=torch.Generator().manual_seed(1))
    for parts in (torch.arange(15).split(1), torch.arange(15).split(7), [order]):
        for rows in parts:
            part = perturb(classifier, x[rows], y[rows], norm, indices=rows.tolist())
            torch.testing.assert_close(part.points, whole.points[rows], rtol=0, atol=1e-9)
            assert torch.equal(part.passes.forwards, whole.passes.forwards[rows])
            assert torch.equal(part.passes.backwards, whole.passes.backwards[rows])
            for mine, theirs in zip(part.detail, [whole.detail[row] for row in rows.tolist()], strict=True):
                assert mine["health"] == pytest.approx(theirs["health"], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_passes_are_those_stated_and_those_made(norm):
    inner, sizes = mlp((16, 60, 60, 6), seed=2), []
    x, y = sample(inner, 60)

    def logits(rows):
        sizes.append(len(rows))
        return inner.function(rows)

    counted = Counted(dataclasses.replace(inner, function=logits))
    proposal = perturb(counted, x, y, norm)
    passes = list(zip(proposal.passes.forwards.tolist(), proposal.passes.backwards.tolist(), strict=True))
    assert tuple(map(sum, zip(*passes, strict=True))) == counted.take()
    assert max(sizes) <= 60
    # The clean gradient and one step; several steps; all the rest;
    # and, where an attack without a budget found an error, the halvings of the way to it.
    assert {(2, 1), (20, 5)} <= set(passes) <= {(2, 1), (6, 3), (12, 5), (20, 5)}
    assert norm == "l2" or (6, 3) in passes
    fallen = broken(inner, proposal.points, y).tolist()
    assert all(wrong or cost in ((12, 5), (20, 5)) for wrong, cost in zip(fallen, passes, strict=True))


def test_every_figure_of_the_catalogue_is_measured_on_a_sample_that_stands():
    classifier = mlp((16, 40, 6), seed=2)
    x, y = sample(classifier, 20)
    proposal = perturb(classifier, x, y, eps=0.01)
    standing = [
        one["health"] for one, cost in zip(proposal.detail, proposal.passes.forwards, strict=True) if cost == 20
    ]
    assert len(standing) > 10
    assert all(set(one) == CODES for one in standing)
    fallen = perturb(classifier, x, y, eps=0.4).detail
    assert all(set(one["health"]) < CODES for one in fallen)
    assert all("loss-not-rising" in one["health"] for one in fallen), "the first step counts too"
    json.dumps(list(proposal.detail), allow_nan=False)


@pytest.mark.parametrize("jump", [0.0, 0.5, 2.0])
def test_a_margin_that_jumps_is_told_by_how_much_of_its_fall(jump):
    """One input: the margin falls along a slope of −2 and by `jump` at once in the middle."""

    def logits(rows):
        margin = 2 * (0.5 - rows) + jump * (0.5 - (rows >= 0.5).to(rows.dtype))
        return torch.cat([margin, 0 * rows], 1)

    classifier = Function(logits, (1,), 2, torch.float64)
    x = torch.tensor([[0.1], [0.2], [0.3]], dtype=torch.float64)
    found = perturb(classifier, x, torch.zeros(3, dtype=torch.int64), eps=0.05).detail
    way = 1 - x[:, 0]
    expected = (jump + 2 * way / 256) / (jump + 2 * way)
    assert [one["health"]["margin-jumps"] for one in found] == pytest.approx(expected.tolist(), rel=1e-4)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("domain", [Domain.unbounded(), Domain()])
def test_a_linear_classifier_keeps_every_promise(norm, domain):
    """Two classes: the margin is one affine function, and every figure has its ideal value."""
    draw = torch.Generator().manual_seed(4)
    classifier = linear(torch.randn(2, 40, generator=draw), torch.randn(2, generator=draw), (40,))
    x, y = sample(classifier, 20)
    x = 0.3 + 0.4 * x
    y = classifier.logits(x).argmax(1)
    found = [one["health"] for one in perturb(classifier, x, y, norm, EPS[norm] / 10, domain=domain).detail]
    standing = [one for one in found if "gradient-alignment" in one]
    assert len(standing) > 5
    for one in standing:
        assert one["loss-not-rising"] == pytest.approx(1, abs=1e-6)
        assert one["gradient-differs"] == pytest.approx(0, abs=1e-6)
        assert one["gradient-alignment"] == pytest.approx(1, abs=1e-6)
        assert one["zero-gradient-margin"] == one["non-finite-gradient"] == one["randomness"] == 0
        assert one["noise-stronger"] < 0
        assert one["unbounded-not-zero"] == 0
    if domain.bounded:
        margin = margins(classifier.logits(x), y)
        weight = classifier.logits(torch.eye(40, dtype=x.dtype)) - classifier.logits(torch.zeros(1, 40, dtype=x.dtype))
        slope = (weight[:, y] - weight[:, 1 - y]).T
        reach = torch.where(slope > 0, slope * x, slope * (x - 1)).sum(1)
        assert [one["vanishing-gradient"] for one in found] == pytest.approx((margin / reach).tolist(), rel=1e-4)


def test_the_clean_margin_is_the_scale_of_the_logits():
    classifier = mlp((16, 40, 6), seed=2)
    x, y = sample(classifier, 20)
    clean = margins(classifier.logits(x).detach(), y)
    found = [one["health"]["logit-scale"] for one in perturb(classifier, x, y, eps=0.01).detail]
    assert found == pytest.approx(clean.tolist(), rel=1e-4)


def test_a_budget_beneath_rounding_promises_nothing():
    """The change of the margin would be the noise of the logits: no figure, rather than a random one."""
    classifier = mlp((16, 40, 6), seed=2)
    x, y = sample(classifier, 20)
    for one in perturb(classifier, x, y, eps=1e-8).detail:
        assert "loss-not-rising" not in one["health"]
        assert "gradient-differs" not in one["health"]
        assert one["health"]["vanishing-gradient"] < 10


@pytest.mark.parametrize("norm", NORMS)
def test_odd_inputs(norm):
    for shape, classes in (((7,), 2), ((1, 3, 5), 3), ((1,), 2)):
        for dtype in (torch.float32, torch.float64):
            weight = torch.randn(classes, math.prod(shape), generator=torch.Generator().manual_seed(0))
            classifier = linear(weight, torch.zeros(classes), shape, dtype)
            x, y = sample(classifier, 4)
            for domain in (Domain(), Domain.unbounded(), Domain(-math.inf, 1.0), Domain(0.0, math.inf), Domain(-3, 7)):
                points = perturb(classifier, x, y, norm, domain=domain).points
                assert (points.shape, points.dtype) == (x.shape, dtype)
                assert ((points >= domain.lower) & (points <= domain.upper)).all()
                assert (distance(points, x, norm) <= EPS[norm] * (1 + 1e-6)).all()
                assert not points.requires_grad
    empty = perturb(classifier, x[:0], y[:0], norm)
    assert (empty.points.shape, empty.passes.forwards.shape, list(empty.detail)) == ((0, 1), (0,), [])


def test_misclassified_inputs_cost_one_pass():
    classifier = mlp((16, 40, 6), seed=2)
    x, y = sample(classifier, 10)
    wrong = torch.where(torch.arange(10) < 5, (y + 1) % 6, y)
    proposal = perturb(classifier, x, wrong)
    assert torch.equal(proposal.points[:5], x[:5])
    assert proposal.passes.forwards[:5].tolist() == proposal.passes.backwards[:5].tolist() == [1] * 5
    assert (proposal.passes.forwards[5:] > 1).all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_no_success_but_are_reported(value):
    weight = torch.tensor([[1.0, 0.2], [0.0, 0.0]])
    classifier = Function(lambda x: torch.where(x[:, :1] < 0.65, value, x @ weight.T), (2,), 2)
    proposal = perturb(classifier, torch.tensor([[0.7, 0.5]]), torch.tensor([0]))
    assert proposal.points.isfinite().all()
    assert not classifier.logits(proposal.points).isfinite().all()
    assert proposal.detail[0]["margin"] is None


def test_everything_stays_as_it_was():
    classifier = mlp((16, 30, 4))
    x, y = sample(classifier, 5)
    before, state = (x.clone(), y.clone()), torch.random.get_rng_state()
    with torch.no_grad():
        perturb(classifier, x, y)
    assert torch.equal(before[0], x)
    assert torch.equal(before[1], y)
    assert not x.requires_grad
    assert all(parameter.grad is None for parameter in classifier.function.parameters)
    assert torch.equal(state, torch.random.get_rng_state())


def test_classifiers_without_gradients_are_refused():
    reason = Probe().applies(Function(lambda x: x.detach().flatten(1), (3,), 3), "linf")
    assert reason is not None
    assert "gradients" in reason
    assert Probe().applies(mlp((3, 4, 2)), "linf") is None
