"""PGD against the exact robust radii of linear classifiers in a box that matters."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from oracles import linear_box
from oracles.classifiers import linear
from oracles.linear_box import exact_radius
from robench.classifier import Counted, margins
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.attacks.fgsm import FGSM
from robench_plugins.attacks.pgd import PGD

NORMS = ("linf", "l2", "l1")
ORD = {"linf": np.inf, "l2": 2, "l1": 1}
SHAPE = (2, 3, 5)
DIM = 30
problem = functools.partial(linear_box.problem, dim=DIM, count=120)


def attack(pgd, W, b, x, y, norm, eps, dtype=torch.float64):
    """Return which points are misclassified, after checking that they obey the threat model."""
    classifier = linear(W, b, SHAPE, dtype)
    inputs, labels = torch.tensor(x, dtype=dtype).reshape(-1, *SHAPE), torch.tensor(y)
    counted = Counted(classifier)
    stream = Stream.for_samples(0, "pgd", range(len(x)))
    proposal = pgd.perturb(counted, inputs, labels, Threat(norm, eps, Domain()), stream)
    assert proposal.passes is not None
    assert (proposal.passes.forwards.sum(), proposal.passes.backwards.sum()) == counted.take()
    points = proposal.points
    assert (points.dtype, points.shape) == (dtype, inputs.shape)
    assert ((points >= 0) & (points <= 1)).all()
    far = (points.double() - inputs.double()).flatten(1).norm(p=ORD[norm], dim=1)
    assert (far <= eps * (1 + 8 * torch.finfo(dtype).eps * DIM)).all()
    return (margins(classifier.logits(points), labels) <= 0).numpy()


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("norm", NORMS)
def test_breaks_what_can_be_broken_and_nothing_else(norm, classes):
    W, b, x, y, radii = problem(classes, norm)
    unboxed = np.array([exact_radius(W, b, x[i], y[i], norm)[0] for i in range(len(x))])
    assert (radii > 1.1 * unboxed).mean() > 0.2
    for quantile in (0.2, 0.5, 0.8):
        eps = float(np.quantile(radii, quantile))
        broken = attack(PGD(), W, b, x, y, norm, eps)
        assert broken[radii < 0.98 * eps].mean() >= 0.99
        assert not broken[radii > eps * (1 + 1e-12)].any()


@pytest.mark.parametrize(
    "pgd",
    [
        PGD(steps=40, targets=0, schedule="fixed"),
        PGD(targets=0, random_start=False),
        PGD(targets=0, restarts=3, loss="dlr", targeted_loss="dlr"),
        PGD(targets=2, loss="margin", targeted_loss="ce"),
        PGD(targets=0, momentum=0.75),
    ],
    ids=lambda pgd: repr(pgd)[:60],
)
@pytest.mark.parametrize("norm", NORMS)
def test_every_rule_breaks_a_binary_classifier(norm, pgd):
    W, b, x, y, radii = problem(2, norm)
    eps = float(np.median(radii))
    broken = attack(pgd, W, b, x, y, norm, eps)
    assert broken[radii < 0.98 * eps].mean() >= 0.99
    assert not broken[radii > eps * (1 + 1e-12)].any()


@pytest.mark.parametrize("norm", NORMS)
def test_float32_and_the_scale_of_the_logits(norm):
    W, b, x, y, radii = problem(10, norm)
    eps = float(np.median(radii))
    for scale in (1e-6, 1.0, 1e4):
        broken = attack(PGD(), W * scale, b * scale, x, y, norm, eps, torch.float32)
        assert broken[radii < 0.98 * eps].mean() >= 0.99
        assert not broken[radii > eps * (1 + 1e-5)].any()


@pytest.mark.parametrize("norm", NORMS)
def test_fgsm_is_exact_on_a_binary_linear_classifier(norm):
    W, b, x, y, radii = problem(2, norm)
    for quantile in (0.2, 0.5, 0.8):
        eps = float(np.quantile(radii, quantile))
        broken = attack(FGSM(), W, b, x, y, norm, eps)
        assert broken[radii < eps * (1 - 1e-12)].all()
        assert not broken[radii > eps * (1 + 1e-12)].any()


@pytest.mark.parametrize("norm", NORMS)
def test_unbounded_domains(norm):
    rng = np.random.default_rng(4)
    W, b, x = rng.normal(size=(3, DIM)), rng.normal(size=3), rng.normal(size=(60, DIM)) * 5
    y = (x @ W.T + b).argmax(1)
    for lower, upper in ((-np.inf, np.inf), (-np.inf, float(x.max())), (float(x.min()), np.inf)):
        radii = np.array([exact_radius(W, b, x[i], y[i], norm, lower, upper)[0] for i in range(len(x))])
        eps = float(np.median(radii))
        inputs, labels = torch.tensor(x), torch.tensor(y)
        stream = Stream.for_samples(1, "pgd", range(len(x)))
        classifier = linear(W, b)
        points = PGD().perturb(classifier, inputs, labels, Threat(norm, eps, Domain(lower, upper)), stream).points
        broken = (margins(classifier.logits(points), labels) <= 0).numpy()
        assert ((points >= lower) & (points <= upper)).all()
        assert broken[radii < 0.98 * eps].mean() >= 0.99
        assert not broken[radii > eps * (1 + 1e-12)].any()
