"""`ibp`: what it certifies is true, in every norm, and it says why where it cannot certify."""

import itertools
import math

import numpy as np
import pytest
import torch

from oracles.enumeration import TOLERANCE, exact_radius, random_net
from oracles.random_graphs import Draft, mlp
from robench.graph import Graph, GraphClassifier, Node, from_torch
from robench.graph.intervals import ball_margin_lower
from robench.streams import Stream
from robench.threat import NORMS, Domain, Threat
from robench_plugins.verify.ibp import IBP


def certify(classifier, x, y, norm, eps, domain=None):
    stream = Stream.for_samples(0, "ibp", range(len(x)))
    return IBP().certify(classifier, x, y, Threat(norm, eps, domain or Domain()), stream)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_never_above_the_exact_radius(norm, dtype):
    proven = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        weights, biases = random_net(rng, (2, 5, 3))
        classifier = GraphClassifier(mlp(weights, biases), dtype=dtype)
        x = torch.tensor(rng.random((6, 2)), dtype=dtype)
        y = classifier.logits(x).argmax(1)
        exact = [
            exact_radius(weights, biases, point.double().numpy(), int(label), norm)
            for point, label in zip(x, y, strict=True)
        ]
        for eps in (0.01, 0.05, 0.2, 0.7):
            found = certify(classifier, x, y, norm, eps)
            assert found.confidence is None
            for lower, status, radius in zip(found.lower.tolist(), found.status, exact, strict=True):
                assert (lower, status) in ((eps, "certified"), (0.0, "open"))
                assert lower <= radius + TOLERANCE
                proven += lower > 0
    assert proven > 40


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_proven_at_a_radius_is_proven_below_it(norm):
    rng = np.random.default_rng(0)
    classifier = GraphClassifier(mlp(*random_net(rng, (4, 8, 8, 3))))
    x = torch.tensor(rng.random((64, 4)), dtype=torch.float32)
    y = classifier.logits(x).argmax(1)
    proven = [certify(classifier, x, y, norm, eps).lower > 0 for eps in (0.5, 0.1, 0.03, 0.01, 0.001)]
    for larger, smaller in itertools.pairwise(proven):
        assert (smaller | ~larger).all()
    assert proven[-1].sum() > proven[0].sum()


def test_a_torch_module_is_certified_through_its_graph():
    torch.manual_seed(0)

    class Residual(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Conv2d(1, 4, 3, padding=1)
            self.norm = torch.nn.BatchNorm2d(4)
            self.second = torch.nn.Conv2d(4, 4, 3, padding=1)
            self.last = torch.nn.Linear(4 * 4 * 4, 3)

        def forward(self, x):
            h = torch.relu(self.norm(self.first((x - 0.5) / 0.25)))
            h = torch.nn.functional.max_pool2d(h + self.second(h), 2)
            return self.last(h.flatten(1))

    module = Residual().eval()
    classifier = GraphClassifier(from_torch(module, (1, 8, 8)))
    x = torch.rand(16, 1, 8, 8)
    y = module(x).argmax(1)
    for norm, eps, each in (("linf", 1e-3, 1), ("l2", 1e-2, 8), ("l1", 1e-2, 64)):
        found = certify(classifier, x, y, norm, eps)
        proven = found.lower > 0
        assert proven.sum() >= 8
        points = torch.stack([x + (torch.rand_like(x) * 2 - 1) * eps / each for _ in range(20)]).flatten(0, 1)
        kept = (module(points.clamp(0, 1)).argmax(1) == y.repeat(20)).unflatten(0, (20, 16)).all(0)
        assert kept[proven].all()


def test_ties_and_numbers_that_are_not_finite_stay_open():
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    classifier = GraphClassifier(
        Draft((2,), np.random.default_rng(0)).add("linear", constants={"weight": weight}).graph()
    )
    x = torch.tensor([[0.5, 0.5], [math.nan, 0.0], [math.inf, 0.0], [0.9, 0.1], [0.1, 0.9]])
    for norm in NORMS:
        found = certify(classifier, x, torch.zeros(5, dtype=torch.int64), norm, 0.05)
        assert found.status == ["open", "open", "open", "certified", "open"]
        assert found.lower.tolist() == [0.0, 0.0, 0.0, 0.05, 0.0]
        assert found.detail[1] is None and found.detail[3]["margin"] > 0


def test_a_bound_of_nan_is_open(monkeypatch):
    monkeypatch.setattr(
        "robench_plugins.verify.ibp.ball_margin_lower", lambda graph, x, *_: torch.full((len(x),), math.nan)
    )
    classifier = GraphClassifier(mlp(*random_net(np.random.default_rng(0), (2, 3, 2))))
    found = certify(classifier, torch.rand(2, 2), torch.tensor([0, 1]), "linf", 0.1)
    assert found.status == ["open", "open"] and found.lower.tolist() == [0.0, 0.0]


def test_the_ball_is_closed():
    """At exactly the radius of the nearest error nothing is certified; in binary fractions this is exact."""
    weight = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    classifier = GraphClassifier(
        Draft((2,), np.random.default_rng(0)).add("linear", constants={"weight": weight}).graph()
    )
    x = torch.tensor([[0.75, 0.5]])
    for norm, radius in (("linf", 0.125), ("l1", 0.25)):
        label = torch.tensor([0])
        assert certify(classifier, x, label, norm, radius).status == ["open"]
        assert certify(classifier, x, label, norm, radius * (1 - 1e-12)).status == ["certified"]


def test_the_domain_helps():
    """Beyond the box there is no adversary: a pixel at 0 cannot go below."""
    weight = torch.tensor([[1.0], [0.0]])
    bias = torch.tensor([0.25, 0.0])
    draft = Draft((1,), np.random.default_rng(0)).add("linear", constants={"weight": weight, "bias": bias})
    classifier = GraphClassifier(draft.graph())
    x, y = torch.zeros(1, 1), torch.tensor([0])
    for norm in NORMS:
        assert certify(classifier, x, y, norm, 0.5).status == ["certified"]
        assert certify(classifier, x, y, norm, 0.5, Domain(-math.inf, math.inf)).status == ["open"]


def test_it_says_why_it_does_not_apply():
    classifier = GraphClassifier(mlp(*random_net(np.random.default_rng(0), (2, 3, 2))))
    assert IBP().applies(classifier, "l2") is None

    class Opaque:
        graph = None

    class Foreign:
        graph = Graph((Node("input", shape=(3,)), Node("erf", (0,), shape=(3,))))

    assert "graph" in IBP().applies(Opaque(), "linf")
    assert "erf" in IBP().applies(Foreign(), "linf")
    with pytest.raises(ValueError, match="budget"):
        certify(classifier, torch.rand(1, 2), torch.tensor([0]), "linf", None)


def test_an_empty_batch_and_one_sample():
    classifier = GraphClassifier(mlp(*random_net(np.random.default_rng(1), (2, 3, 2))))
    empty = certify(classifier, torch.empty(0, 2), torch.empty(0, dtype=torch.int64), "l2", 0.1)
    assert empty.lower.shape == (0,) and list(empty.status) == []
    x, y = torch.rand(5, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1, 0, 1])
    whole = certify(classifier, x, y, "l2", 0.01).lower
    single = torch.cat([certify(classifier, x[i : i + 1], y[i : i + 1], "l2", 0.01).lower for i in range(5)])
    assert torch.equal(whole, single)


def test_the_detail_is_the_margins_bound():
    classifier = GraphClassifier(mlp(*random_net(np.random.default_rng(2), (2, 3, 2))))
    x, y = torch.rand(3, 2), torch.tensor([0, 1, 0])
    bound = ball_margin_lower(classifier.graph, x, y, "linf", 0.1, Domain())
    assert [row["margin"] for row in certify(classifier, x, y, "linf", 0.1).detail] == bound.tolist()
