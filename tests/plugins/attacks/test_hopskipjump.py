"""hopskipjump against exact radii, on decisions alone, within its queries, in any batch."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from oracles import minimum_norm
from oracles.classifiers import Function, linear, mlp
from oracles.known_radii import known
from oracles.linear_box import exact_radius
from robench.classifier import Counted
from robench.distances import distance
from robench.registry import load_plugins
from robench.runner import Judge
from robench.streams import Stream
from robench.threat import NORMS, Domain, Threat
from robench_plugins.attacks._decisions import Decisions, along, down, nearest
from robench_plugins.attacks.hopskipjump import HopSkipJump
from robench_plugins.attacks.square import Square

SHORT = HopSkipJump(queries=400)
PUBLISHED = {"leap": False, "rivals": 1, "spread": None}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["linear-2", "linear-3", "linear-10", "linear-unbounded", "relu-3", "deep-3"])
def test_close_to_the_exact_radius(name, norm):
    ratios = minimum_norm.ratios(HopSkipJump(queries=2500), known(name), norm)
    assert np.median(ratios) <= 1.05
    assert np.quantile(ratios, 0.9) <= 1.25


def boxed(size, seed=0, count=6):
    """A linear classifier of three classes in [0, 1], samples, and their radii by norm."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, size, generator=generator, dtype=torch.float64)
    bias = -weight.sum(1) / 2
    classifier = linear(weight, bias)
    x, y = minimum_norm.correct(classifier, count)
    radii = {
        norm: np.array(
            [
                exact_radius(weight, bias, row.numpy(), int(label), norm, 0, 1)[0]
                for row, label in zip(x, y, strict=True)
            ]
        )
        for norm in NORMS
    }
    return classifier, x, y, radii


def reached(attack, case, norm):
    classifier, x, y, radii = case
    points = minimum_norm.propose(attack, classifier, x, y, norm).points
    assert minimum_norm.broken(classifier, points, y).all()
    return distance(points, x, norm).numpy() / radii[norm]


@pytest.mark.parametrize("norm", NORMS)
def test_queries_lead_towards_the_exact_radius(norm):
    case = boxed(100)
    few, more, many = (np.median(reached(HopSkipJump(queries=q), case, norm)) for q in (400, 1500, 6000))
    assert min(few, more) > many >= 1
    assert more <= 1.25
    assert many <= 1.05


@pytest.mark.parametrize(("norm", "gain"), [("linf", 1.08), ("l1", 1.5)])
def test_leaps_reach_further_than_the_published_steps(norm, gain):
    case = boxed(200)
    ours, published = (HopSkipJump(queries=2000, **settings) for settings in ({}, PUBLISHED))
    assert np.median(reached(published, case, norm)) > gain * np.median(reached(ours, case, norm))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_published_attack_converges(norm):
    assert np.median(reached(HopSkipJump(queries=6000, **PUBLISHED), boxed(60), norm)) <= 1.06


def test_decisions_are_all_that_is_used():
    inner = mlp((12, 30, 5), seed=4, dtype=torch.float64)
    x, y = minimum_norm.correct(inner, 6)

    def seen(change):
        classifier = dataclasses.replace(inner, function=lambda rows: change(inner.function(rows).detach()))
        return minimum_norm.propose(SHORT, classifier, x, y, "l2").points

    first = seen(lambda z: z)
    for change in (lambda z: z * 1e4, lambda z: z.softmax(1), lambda z: torch.eye(5).double()[z.argmax(1)]):
        assert torch.equal(seen(change), first)


@pytest.mark.parametrize("queries", [50, 120, 500, 1300])
def test_no_sample_gets_more_queries_than_its_own_and_batches_stay_small(queries):
    inner = mlp((16, 40, 6), seed=2)
    x, y = minimum_norm.correct(inner, 40)
    sizes = []

    def logits(rows):
        sizes.append(len(rows))
        return inner.function(rows).detach()

    counted = Counted(dataclasses.replace(inner, function=logits))
    proposal = minimum_norm.propose(HopSkipJump(queries=queries), counted, x, y, "l2")
    assert (proposal.passes.forwards.sum(), proposal.passes.backwards.sum()) == counted.take()
    assert int(proposal.passes.forwards.max()) <= queries
    assert max(sizes) <= 40
    minimum_norm.propose(HopSkipJump(queries=queries), counted, x[:2], y[:2], "l2")
    assert max(sizes) <= 40  # two samples are asked about 32 points at once


@pytest.mark.parametrize("norm", NORMS)
def test_batches_agree(norm):
    minimum_norm.batches_agree(SHORT, norm)


def test_misclassified_inputs_cost_one_pass():
    minimum_norm.misclassified_inputs_cost_one_pass(SHORT, "l2")


@pytest.mark.parametrize("norm", NORMS)
def test_keeps_to_shapes_and_domains(norm):
    minimum_norm.keeps_to_shapes_and_domains(SHORT, norm)


def test_leaves_everything_as_it_was():
    minimum_norm.leaves_everything_as_it_was(SHORT, "linf")


def test_what_is_not_finite_is_no_error_but_proposed_where_nothing_else_is():
    weight = torch.tensor([[1.0, 0.2], [0.0, 0.0]])
    x, y = torch.tensor([[0.7, 0.5]]), torch.tensor([0])
    for value in (torch.nan, torch.inf):

        def logits(rows, value=value):
            return torch.where(rows[:, :1] < 0.65, value, rows @ weight.T)

        classifier = Function(logits, (2,), 2)
        points = minimum_norm.propose(SHORT, classifier, x, y, "l2").points
        assert points.isfinite().all()
        assert not classifier.logits(points).isfinite().all()
    constant = Function(lambda rows: torch.tensor([[1.0, 0.0]]).expand(len(rows), 2), (2,), 2)
    assert torch.equal(minimum_norm.propose(SHORT, constant, x, y, "l2").points, x)


def test_steps_without_gradients_anywhere_are_climbed():
    assert minimum_norm.flat_logits_are_left_alone_or_searched(HopSkipJump(queries=1500), "linf") == 1


def test_a_stage_with_a_budget_ends_at_the_first_point_within_it():
    classifier, x, y, radii = boxed(30)
    eps = 1.5 * float(radii["l2"].max())
    stream = Stream.for_samples(0, "test", range(len(x)))
    proposal = HopSkipJump().perturb(classifier, x, y, Threat("l2", eps, Domain()), stream)
    assert (distance(proposal.points, x, "l2") <= eps).all()
    assert minimum_norm.broken(classifier, proposal.points, y).all()
    assert (proposal.passes.forwards < 2000).all()


def test_what_is_proposed_is_confirmed_in_float64():
    """Points are next to the boundary: the runner must not find them on the other side of it."""
    resolved = load_plugins().resolve("models", "digits-pgd-linf").value.load(torch.device("cpu"), torch.float32)
    data = load_plugins().resolve("datasets", "digits").value.load("test")
    x, y = torch.tensor(data.x[:12]).float(), torch.tensor(data.y[:12])
    keep = resolved.logits(x).argmax(1) == y
    points = minimum_norm.propose(SHORT, resolved, x[keep], y[keep], "linf").points
    verdict = Judge(Counted(resolved)).judge(x[keep], y[keep], points, Threat("linf", None, Domain()))
    assert verdict.broken.all()
    assert (verdict.distances["linf"] <= distance(points, x[keep], "linf") + 1e-9).all()


def test_starts_are_found_where_noise_has_the_right_class():
    """All noise has the mean 1/2: only an almost white image is an error."""

    def logits(rows):
        return torch.stack([0.9 - rows.flatten(1).mean(1), torch.zeros(len(rows))], 1)

    classifier = Function(logits, (1, 6, 9), 2)
    x = torch.rand(3, 1, 6, 9, generator=torch.Generator().manual_seed(0)) * 0.9
    y = torch.zeros(3, dtype=torch.int64)
    points = minimum_norm.propose(HopSkipJump(queries=800), classifier, x, y, "linf").points
    assert minimum_norm.broken(classifier, points, y).all()
    rare = Function(
        lambda rows: torch.stack([(rows > 0.5).double().mean(1) - 0.2, torch.zeros(len(rows))], 1), (20,), 2
    )
    # Of corners 1 in 170 has so few ones, of noise as many: half of all queries may be spent on a start.
    x = torch.full((8, 20), 0.9)
    points = minimum_norm.propose(HopSkipJump(queries=3000, tries=4), rare, x, torch.zeros(8, dtype=torch.int64), "l1")
    assert minimum_norm.broken(rare, points.points, torch.zeros(8, dtype=torch.int64)).all()


def test_rounded_inputs_are_broken_where_the_published_estimates_see_nothing():
    """Gradients are 0 nearly everywhere, and differences at the published distance; scores tell a little more."""
    base = load_plugins().resolve("models", "digits-standard").value.load(torch.device("cpu"), torch.float32)
    classifier = Function(lambda rows: base.logits((rows * 8).round() / 8).detach(), (1, 8, 8), 10)
    data = load_plugins().resolve("datasets", "digits").value.load("test")
    x, y = torch.tensor(data.x[:24]).float(), torch.tensor(data.y[:24])
    keep = classifier.logits(x).argmax(1) == y
    x, y = x[keep], y[keep]
    eps = 0.14
    stream = Stream.for_samples(0, "test", range(len(x)))
    scores = Square(queries=1000).perturb(classifier, x, y, Threat("linf", eps, Domain()), stream).points
    ours, published = (
        (distance(minimum_norm.propose(attack, classifier, x, y, "linf").points, x, "linf") > eps).double().mean()
        for attack in (HopSkipJump(queries=1500), HopSkipJump(queries=1500, **PUBLISHED))
    )
    best = (~minimum_norm.broken(classifier, scores, y)).double().mean()
    assert best < 0.5
    assert ours <= best + 0.3
    assert ours < published - 0.2


def test_paths_are_the_balls_nearest_and_furthest_points():
    x, low, high = torch.zeros(1, 3), torch.tensor([[-1.0, -1, -1]]), torch.tensor([[1.0, 0.2, 1]])
    asked = Decisions.about(linear(torch.eye(3), torch.zeros(3), dtype=torch.float32), x, torch.tensor([0]), Domain())
    asked = dataclasses.replace(asked, low=low, high=high)
    points, owner, half = torch.tensor([[0.8, 0.2, -0.4]]), torch.tensor([0]), torch.tensor([0.5])
    expected = {
        "linf": [0.5, 0.2, -0.4],
        "l2": [0.8 * 0.5 / 0.84**0.5, 0.2 * 0.5 / 0.84**0.5, -0.4 * 0.5 / 0.84**0.5],
        "l1": [0.45, 0.0, -0.05],
    }
    furthest = {
        "linf": [0.5, 0.2, -0.5],
        "l2": [math.sqrt((0.25 - 0.04) / 2), 0.2, -math.sqrt((0.25 - 0.04) / 2)],
        "l1": [0.3, 0.2, 0.0],
    }
    for norm in NORMS:
        torch.testing.assert_close(down(asked, norm, points, owner)(half), torch.tensor([expected[norm]]))
        way = torch.tensor([[1.0, 3.0, -1.0]]) if norm != "l1" else torch.tensor([[2.0, 3.0, -1.0]])
        torch.testing.assert_close(along(asked, norm, way, owner)(half), torch.tensor([furthest[norm]]))


def test_bisection_ends_on_the_far_side_within_its_halvings():
    classifier = linear(torch.tensor([[-1.0], [0.0]]), torch.tensor([0.3, 0.0]))
    asked = Decisions.about(classifier, torch.zeros(1, 1).double(), torch.tensor([0]), Domain())
    owner, start = torch.tensor([0]), torch.ones(1, 1).double()
    points, radius = nearest(asked, down(asked, "l2", start, owner), torch.ones(1).double(), owner, 10)
    assert 0.3 <= float(radius) <= 0.3 + 2**-10
    assert float(points) == pytest.approx(float(radius))
    assert asked.forwards.tolist() == [10]


def test_classifiers_that_draw_are_refused_and_labels_are_enough():
    class Draws:
        input_shape, classes, dtype, graph = (3,), 2, torch.float32, None

        def sample(self, x, stream):
            return x

    assert "draws" in HopSkipJump().applies(Draws(), "l2")
    for norm in NORMS:
        assert HopSkipJump().applies(Function(lambda x: x.detach(), (3,), 3), norm) is None
