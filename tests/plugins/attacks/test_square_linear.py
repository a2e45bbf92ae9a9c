"""The Square Attack against the exact robust radii of linear classifiers in a box that matters."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from oracles import linear_box
from oracles.classifiers import linear
from oracles.linear_box import exact_radius
from robench.classifier import margins
from robench.distances import distance
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.attacks.square import Square

SHAPE = (1, 5, 6)
DIM = 30
problem = functools.partial(linear_box.problem, dim=DIM, count=100, spread=0.5)


def attack(square, W, b, x, y, norm, eps, shape=SHAPE, domain=None):
    """Return which points are misclassified when each has its own multiple of its radius as a budget."""
    domain, classifier = domain or Domain(), linear(W, b, shape)
    inputs, labels = torch.tensor(x).reshape(-1, *shape), torch.tensor(y)
    points = square.perturb(
        classifier, inputs, labels, Threat(norm, eps, domain), Stream.for_samples(0, "square", range(len(x)))
    ).points
    assert ((points >= domain.lower) & (points <= domain.upper)).all()
    assert (distance(points, inputs, norm) <= eps).all()
    return (margins(classifier.logits(points), labels) <= 0).numpy()


# How near to the optimum the random search must come: of the samples whose exact radius is below the first figure times
# the budget, at least the second must break. In linf flips of single pixels reach every corner; bumps of three pixels
# and more are a coarse basis of the other balls, and the best point in l1 is no bump at all.
FLOORS = {"linf": (0.98, 0.98), "l2": (0.8, 0.9), "l1": (0.7, 0.85)}


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("shape", [SHAPE, (30,), (15, 2)], ids=str)
@pytest.mark.parametrize("norm", FLOORS)
def test_breaks_what_can_be_broken_and_nothing_else(norm, shape, classes):
    W, b, x, y, radii = problem(classes, norm)
    unboxed = np.array([exact_radius(W, b, x[i], y[i], norm)[0] for i in range(len(x))])
    assert (radii > 1.1 * unboxed).mean() > 0.2
    near, floor = FLOORS[norm]
    for quantile in (0.5, 0.9):
        eps = float(np.quantile(radii, quantile))
        broken = attack(Square(queries=1000), W, b, x, y, norm, eps, shape)
        assert broken[radii < near * eps].mean() >= floor
        assert not broken[radii > eps * (1 + 1e-12)].any()
        # The start alone is a random point of the sphere: what follows it must do the work.
        start = attack(Square(queries=1), W, b, x, y, norm, eps, shape)
        assert start[radii < near * eps].mean() < 0.75 * floor


@pytest.mark.parametrize("norm", FLOORS)
def test_three_channels(norm):
    """On 3 · 4 · 5 entries windows of l2 and l1 nearly fill the image: a lower floor."""
    W, b, x, y, radii = problem(10, norm)
    eps = float(np.quantile(radii, 0.8))
    broken = attack(Square(queries=1000), W, b, x, y, norm, eps, (3, 2, 5))
    near, floor = {"linf": (0.98, 0.98), "l2": (0.5, 0.9), "l1": (0.5, 0.9)}[norm]
    assert broken[radii < near * eps].mean() >= floor
    assert not broken[radii > eps * (1 + 1e-12)].any()


@pytest.mark.parametrize("norm", FLOORS)
@pytest.mark.parametrize(("lower", "upper"), [(-np.inf, np.inf), (-np.inf, 1.0), (0.0, np.inf), (-40.0, 60.0)], ids=str)
def test_other_domains(norm, lower, upper):
    """Shifted and scaled inputs, and sides that are missing: the published code assumes [0, 1]."""
    scale, shift = (100.0, -40.0) if lower == -40.0 else (1.0, 0.0)
    W, b, x, y, _ = problem(3, norm)
    W, b, x = W / scale, b - (W / scale).sum(1) * shift, x * scale + shift
    radii = np.array([exact_radius(W, b, x[i], y[i], norm, lower, upper)[0] for i in range(len(x))])
    eps, (near, floor) = float(np.quantile(radii, 0.7)), FLOORS[norm]
    broken = attack(Square(queries=1000), W, b, x, y, norm, eps, (30,), Domain(lower, upper))
    assert broken[radii < near * eps].mean() >= floor
    assert not broken[radii > eps * (1 + 1e-12)].any()


def test_the_lower_and_right_edge_can_decide():
    """Only the last pixel matters: the published windows never come there, and its start fails half of the time."""
    W = np.zeros((2, 36))
    W[0, 35] = 1.0
    b, x, y = np.array([-0.5, 0.0]), np.full((60, 36), 0.55), np.zeros(60, dtype=int)
    for norm, eps in (("linf", 0.06), ("l2", 0.3), ("l1", 2.0)):
        assert attack(Square(queries=2000), W, b, x, y, norm, eps, (1, 6, 6)).mean() >= 0.95
