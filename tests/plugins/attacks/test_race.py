"""The race of short runs: batches, passes, targets, odd inputs, and what restarts and larger balls gain."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from oracles.classifiers import Function, linear, mlp
from robench.classifier import Counted, margins
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.attacks.race import Race

NORMS = ("linf", "l2", "l1")
EPS = {"linf": 0.12, "l2": 0.35, "l1": 1.0}


def sample(classifier, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4 * count + 40, *classifier.input_shape, generator=generator, dtype=classifier.dtype)
    logits = classifier.logits(x).detach()
    y = logits.argmax(1)
    rows = (margins(logits, y) > 1e-3).nonzero()[:count, 0]
    return x[rows], y[rows]


def perturb(attack, classifier, x, y, norm="linf", eps=None, indices=None):
    stream = Stream.for_samples(0, "test", range(len(x)) if indices is None else indices)
    return attack.perturb(classifier, x, y, Threat(norm, EPS[norm] if eps is None else eps, Domain()), stream)


def broken(classifier, x, y):
    return margins(classifier.logits(x).detach(), y) <= 0


@pytest.mark.parametrize("norm", NORMS)
def test_batch_size_and_order_do_not_matter(norm):
    classifier = mlp((12, 30, 30, 5), seed=1, dtype=torch.float64)
    x, y = sample(classifier, 15)
    whole = perturb(Race(), classifier, x, y, norm)
    assert 2 <= broken(classifier, whole.points, y).sum() <= 13
    order = torch.randperm(15, generator=torch.Generator().manual_seed(1))
    for parts in (torch.arange(15).split(1), torch.arange(15).split(7), [order]):
        for rows in parts:
            part = perturb(Race(), classifier, x[rows], y[rows], norm, indices=rows.tolist())
            torch.testing.assert_close(part.points, whole.points[rows], rtol=0, atol=1e-9)
            assert torch.equal(part.passes.forwards, whole.passes.forwards[rows])
            assert torch.equal(part.passes.backwards, whole.passes.backwards[rows])


@pytest.mark.parametrize("norm", NORMS)
def test_passes_are_what_really_passed_and_the_batch_never_grows(norm):
    inner, sizes = mlp((16, 40, 12), seed=2), []
    x, y = sample(inner, 30)

    def logits(rows):
        sizes.append(len(rows))
        return inner.function(rows)

    counted = Counted(dataclasses.replace(inner, function=logits))
    proposal = perturb(Race(), counted, x, y, norm)
    assert (proposal.passes.forwards.sum(), proposal.passes.backwards.sum()) == counted.take()
    assert max(sizes) <= 30
    # A survivor: 9 heats of 10 steps, 2 × 4 runs of 20; a look more per search (l2, l1: three), one to rank targets.
    stands = perturb(Race(), counted, x, y, norm, eps=1e-6).passes
    assert (stands.backwards == 9 * 10 + 8 * 20).all()
    assert (stands.forwards == 1 + 9 * 10 + 8 * 20 + 17 * (1 if norm == "linf" else 3)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_the_final_goes_for_the_classes_that_heats_came_closest_to(norm):
    """Of three rivals the clean logits prefer the first two, which hardly any step raises; the third comes closest."""
    mean, side = torch.tensor([1 / 8] * 8 + [0.0]), torch.tensor([0.0] * 8 + [0.001])
    weight = torch.stack([mean, mean + side, mean - side, -2 * mean])
    classifier = linear(weight, torch.tensor([0.2, -0.3, -0.35, 1.0]), dtype=torch.float32)
    x, y = torch.full((4, 9), 0.5), torch.zeros(4, dtype=torch.int64)
    assert classifier.logits(x[:1]).argsort(descending=True).tolist() == [[0, 1, 2, 3]]
    eps = {"linf": 0.1, "l2": 0.28, "l1": 0.8}[norm]
    for keep in (1, 2):
        made = perturb(Race(targets=3, heat=3, keep=keep), classifier, x, y, norm, eps)
        assert [one["target"] for one in made.detail] == [3] * 4
    # With fewer targets than it takes that class is never tried.
    near = perturb(Race(targets=2), classifier, x, y, norm, eps)
    assert all(one["target"] in (1, 2) for one in near.detail)


def islands(points):
    """Errors in small discs around (.5 ± .2, .5 ± .2) only, with slopes of their own; elsewhere the margin rises."""
    centres = torch.tensor([[0.3, 0.3], [0.3, 0.7], [0.7, 0.3], [0.7, 0.7]])
    near = (points[:, None] - centres).norm(dim=2).amin(1)
    margin = torch.where(near < 0.09, near - 0.06, 0.2 + 0.5 * (points - 0.5).norm(dim=1))
    return torch.stack([margin, torch.zeros_like(margin)], 1)


def test_restarts_find_what_one_run_does_not():
    classifier = Function(islands, (2,), 2)
    x, y = torch.full((60, 2), 0.5) + 0.001, torch.zeros(60, dtype=torch.int64)
    rates = [
        broken(classifier, perturb(Race(restarts=count), classifier, x, y, eps=0.25).points, y).float().mean()
        for count in (0, 4, 16)
    ]
    assert rates[0] < rates[1] < rates[2]
    assert rates[2] > 0.9


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("shape", "classes"), [((1,), 2), ((7,), 2), ((1, 3, 9), 3), ((2, 3), 4)], ids=str)
def test_shapes_dtypes_few_classes_and_empty_batches(norm, dtype, shape, classes):
    generator = torch.Generator().manual_seed(0)
    classifier = linear(torch.randn(classes, math.prod(shape), generator=generator), torch.zeros(classes), shape, dtype)
    x, y = sample(classifier, 6)
    for attack in (Race(steps=5, heat=1), Race(steps=1, restarts=20), Race(restarts=0)):
        proposal = perturb(attack, classifier, x, y, norm)
        assert (proposal.points.shape, proposal.points.dtype) == (x.shape, dtype)
        assert proposal.points.isfinite().all()
        empty = perturb(attack, classifier, x[:0], y[:0], norm)
        assert (empty.points.shape, empty.passes.forwards.shape) == ((0, *shape), (0,))


@pytest.mark.parametrize("norm", NORMS)
def test_touches_neither_inputs_nor_parameters_nor_the_global_generator(norm):
    classifier = mlp((16, 30, 4))
    x, y = sample(classifier, 8)
    before, state = (x.clone(), y.clone()), torch.random.get_rng_state()
    with torch.no_grad():
        first = perturb(Race(), classifier, x, y, norm).points
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert torch.equal(first, perturb(Race(), classifier, x, y, norm).points)
    assert torch.equal(before[0], x)
    assert torch.equal(before[1], y)
    assert all(parameter.grad is None for parameter in classifier.function.parameters)
    assert torch.equal(state, torch.random.get_rng_state())
