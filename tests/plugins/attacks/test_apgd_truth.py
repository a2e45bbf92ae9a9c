"""Auto-PGD against exact robust radii: linear classifiers in a box that matters, tiny networks by enumeration."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from oracles import enumeration, linear_box
from oracles.classifiers import Function, linear
from oracles.linear_box import exact_radius
from robench.classifier import Counted, margins
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.attacks.apgd import APGD

NORMS = ("linf", "l2", "l1")
ORD = {"linf": np.inf, "l2": 2, "l1": 1}
DIM = 24
SHAPE = (2, 3, 4)
TARGETED = APGD(loss="dlr", targets=9)
TINY = APGD(loss="dlr", targets=9, restarts=5)
problem = functools.partial(linear_box.problem, dim=DIM, count=120)


def attack(apgd, classifier, x, y, norm, eps, domain=None):
    """Return which points are misclassified, after checking that they obey the threat model."""
    dtype = classifier.dtype
    inputs, labels = torch.tensor(x, dtype=dtype).reshape(-1, *classifier.input_shape), torch.tensor(y)
    counted, stream, domain = Counted(classifier), Stream.for_samples(0, "apgd", range(len(x))), domain or Domain()
    proposal = apgd.perturb(counted, inputs, labels, Threat(norm, eps, domain), stream)
    assert (proposal.passes.forwards.sum(), proposal.passes.backwards.sum()) == counted.take()
    points = proposal.points
    assert ((points >= domain.lower) & (points <= domain.upper)).all()
    far = (points.double() - inputs.double()).flatten(1).norm(p=ORD[norm], dim=1)
    assert (far <= eps * (1 + 8 * torch.finfo(dtype).eps * DIM)).all()
    return (margins(classifier.logits(points), labels) <= 0).numpy()


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
@pytest.mark.parametrize("norm", NORMS)
def test_targeted_runs_break_what_can_be_broken_and_nothing_else(norm, classes):
    W, b, x, y, radii = problem(classes, norm)
    for quantile in (0.2, 0.5, 0.8):
        eps = float(np.quantile(radii, quantile))
        broken = attack(TARGETED, linear(W, b, SHAPE), x, y, norm, eps)
        assert broken[radii < 0.98 * eps].mean() >= 0.99
        assert not broken[radii > eps * (1 + 1e-12)].any()


@pytest.mark.parametrize(
    "apgd",
    [
        APGD(),
        APGD(loss="dlr"),
        APGD(loss="margin", larger_radius=False),
        APGD(loss="ce", targets=1),
        APGD(momentum=1.0, rho=0.5),
        APGD(restarts=3, steps=60),
    ],
    ids=lambda apgd: repr(apgd)[:70],
)
@pytest.mark.parametrize("norm", NORMS)
def test_every_rule_breaks_a_binary_classifier(norm, apgd):
    W, b, x, y, radii = problem(2, norm)
    eps = float(np.median(radii))
    broken = attack(apgd, linear(W, b, SHAPE), x, y, norm, eps)
    assert broken[radii < 0.98 * eps].mean() >= 0.99
    assert not broken[radii > eps * (1 + 1e-12)].any()


@pytest.mark.parametrize("apgd", [APGD(), APGD(loss="dlr", targets=9)], ids=["ce", "dlr"])
@pytest.mark.parametrize("norm", NORMS)
def test_float32_and_the_scale_of_the_logits(norm, apgd):
    W, b, x, y, radii = problem(10 if apgd.targets else 2, norm)
    eps = float(np.median(radii))
    for scale in (1e-4, 1.0, 1e4):
        broken = attack(apgd, linear(W * scale, b * scale, SHAPE, torch.float32), x, y, norm, eps)
        assert broken[radii < 0.98 * eps].mean() >= 0.99
        assert not broken[radii > eps * (1 + 1e-5)].any()


def test_all_targets_are_tried():
    """Only the least likely of ten classes can be reached: nine targets find it, eight do not."""
    weight = np.zeros((10, 9))
    weight[9, 0] = 12.0
    for j in range(1, 9):
        weight[j, j] = 3.0
    classifier = linear(weight, [6.0, *[2.2] * 8, -4.0])
    x, y = np.full((3, 9), 0.4), np.zeros(3, dtype=np.int64)
    for targets, found in ((8, False), (9, True), (50, True)):
        assert (attack(APGD(loss="dlr", targets=targets, steps=30), classifier, x, y, "l1", 0.6) == found).all()


@pytest.mark.parametrize("norm", NORMS)
def test_unbounded_domains(norm):
    rng = np.random.default_rng(4)
    W, b, x = rng.normal(size=(3, DIM)), rng.normal(size=3), rng.normal(size=(60, DIM)) * 5
    y = (x @ W.T + b).argmax(1)
    for lower, upper in ((-np.inf, np.inf), (float(x.min()), np.inf)):
        radii = np.array([exact_radius(W, b, x[i], y[i], norm, lower, upper)[0] for i in range(len(x))])
        eps = float(np.median(radii))
        broken = attack(APGD(targets=2, loss="dlr"), linear(W, b), x, y, norm, eps, Domain(lower, upper))
        assert broken[radii < 0.98 * eps].mean() >= 0.99
        assert not broken[radii > eps * (1 + 1e-12)].any()


@functools.cache
def tiny(seed: int, norm: str):
    """A ReLU network small enough to enumerate, correct points and their radii, which are finite for these seeds."""
    rng = np.random.default_rng(seed)
    weights, biases = enumeration.random_net(rng, (3, 5, 4, 3))
    x = rng.uniform(size=(10, 3))
    y = np.array([enumeration.logits(weights, biases, row).argmax() for row in x])
    radii = np.array([enumeration.exact_radius(weights, biases, x[i], y[i], norm) for i in range(len(x))])
    pairs = [(torch.tensor(w), torch.tensor(b)) for w, b in zip(weights, biases, strict=True)]

    def logits(points):
        for weight, bias in pairs[:-1]:
            points = (points @ weight.T + bias).relu()
        return points @ pairs[-1][0].T + pairs[-1][1]

    return Function(logits, (3,), 3, torch.float64), x, y, radii


@pytest.mark.parametrize("norm", NORMS)
def test_breaks_tiny_networks_up_to_their_exact_radius(norm):
    """Seed 4 has samples that single runs do not find."""
    within = hit = 0
    for seed in (0, 4):
        classifier, x, y, radii = tiny(seed, norm)
        for quantile in (0.5, 0.9):
            eps = float(np.quantile(radii, quantile))
            broken = attack(TINY, classifier, x, y, norm, eps)
            assert not broken[radii > eps + enumeration.TOLERANCE].any()
            within, hit = within + (radii < 0.98 * eps).sum(), hit + broken[radii < 0.98 * eps].sum()
    assert within >= 25
    assert hit == within
