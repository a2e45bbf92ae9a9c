"""The certifiers `crown-ibp`, `crown` and `alpha-crown`: ε, radii, the data's own regions, and how they fail."""

import math

import numpy as np
import pytest
import torch

from oracles.enumeration import TOLERANCE, exact_radius, random_net
from oracles.random_graphs import Draft, evaluate, mlp
from robench.graph import Graph, GraphClassifier, Node
from robench.graph.intervals import ball_margin_lower
from robench.regions import Condition, Region
from robench.streams import Stream
from robench.threat import NORMS, Domain, Threat
from robench_plugins.verify import _proofs
from robench_plugins.verify._radius import greatest
from robench_plugins.verify.crown import CROWN, CROWNIBP, AlphaCROWN

ALL = [CROWNIBP, CROWN, AlphaCROWN]
SPACE = Domain.unbounded()


def certify(certifier, classifier, x, y, norm="linf", eps=None, domain=None, region=None):
    stream = Stream.for_samples(0, "crown", range(len(x)))
    return certifier.certify(classifier, x, y, Threat(norm, eps, domain or Domain(), region), stream)


def net(seed=0, sizes=(3, 8, 8, 3), samples=6):
    rng = np.random.default_rng(seed)
    weights, biases = random_net(rng, sizes)
    classifier = GraphClassifier(mlp(weights, biases), dtype=torch.float64)
    x = torch.tensor(rng.random((samples, sizes[0])))
    return classifier, x, classifier.logits(x).argmax(1), (weights, biases)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("make", ALL)
def test_certified_or_open_with_the_margin_and_the_open_neurons(make, norm):
    classifier, x, y, _ = net()
    counts = []
    for eps in (1e-4, 0.05, 3.0):
        found = certify(make(), classifier, x, y, norm, eps, SPACE)
        ibp = ball_margin_lower(classifier.graph, x, y, norm, eps, SPACE)
        for lower, status, detail, least in zip(found.lower.tolist(), found.status, found.detail, ibp, strict=True):
            assert (lower, status) == ((eps, "certified") if detail["margin"] > 0 else (0.0, "open"))
            assert detail["margin"] >= least
            assert 0 <= detail["open"] <= 16
        assert found.lower.dtype == torch.float64 and found.confidence is None and found.points is None
        counts.append(found.status.count("certified"))
    assert counts[0] == 6 and counts[2] < 6
    with pytest.raises(ValueError, match="radius=true"):
        certify(make(), classifier, x, y, norm)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("make", ALL)
def test_radii_are_proven_and_below_the_exact_ones(make, norm):
    classifier, x, y, (weights, biases) = net(1, (2, 6, 3), 5)
    certifier = make(radius=True, tolerance=0.05)
    assert not certifier.per_eps and make().per_eps
    found = certify(certifier, classifier, x, y, norm)
    for i, radius in enumerate(found.lower.tolist()):
        exact = exact_radius(weights, biases, x[i].numpy(), int(y[i]), norm)
        assert radius <= exact + TOLERANCE
        assert radius > 0.1 * min(exact, 1.0)
        again = certify(make(), classifier, x[i : i + 1], y[i : i + 1], norm, min(radius, 10.0))
        assert again.status == ["certified"]
        assert again.lower.item() >= min(radius, 10.0)


def test_a_radius_is_exact_for_two_linear_logits_and_infinite_where_the_domain_ends():
    weight = torch.tensor([[4.0, 0.0], [0.0, 0.0]])
    draft = Draft((2,), np.random.default_rng(0)).add(
        "linear", constants={"weight": weight, "bias": torch.tensor([-1.0, 0.0])}
    )
    classifier = GraphClassifier(draft.graph(), dtype=torch.float64)
    x, y = torch.tensor([[0.75, 0.5], [0.5, 0.5]], dtype=torch.float64), torch.tensor([0, 0])
    for norm in NORMS:
        for make in ALL:
            radius = certify(make(radius=True, tolerance=1e-6), classifier, x, y, norm).lower
            torch.testing.assert_close(radius, torch.tensor([0.5, 0.25]).double(), rtol=2e-6, atol=0)
            assert (radius < torch.tensor([0.5, 0.25])).all()
    always = Draft((2,), np.random.default_rng(0)).add(
        "linear", constants={"weight": torch.zeros(2, 2), "bias": torch.tensor([1.0, 0.0])}
    )
    for norm in NORMS:
        assert (
            certify(CROWN(radius=True), GraphClassifier(always.graph()), x.float(), y, norm).lower.tolist()
            == [math.inf] * 2
        )


def test_bisection_ends_where_it_should():
    """Thresholds of all sizes, never passed, always passed, known ones; at most a percent below."""
    edge = torch.tensor([0.3, 1e-12, 7e5, 0.0, math.inf, 1.0, 1e-300])
    calls = []

    def passes(some, eps):
        calls.append(int(some.sum()))
        return eps < edge[some]

    start = torch.ones(7, dtype=torch.float64)
    known = torch.tensor([0.0, 0, 0, 0, 0, 0.999, 0], dtype=torch.float64)
    most = torch.tensor([10.0, 10, 1e6, 10, 10, 10, 10], dtype=torch.float64)
    found = greatest(passes, start, most, 0.01, known)
    assert found[4] == math.inf and found[3] == 0 and found[6] == 0  # 2^-64 is as good as nothing
    assert (found[[0, 1, 2, 5]] < edge[[0, 1, 2, 5]]).all()
    assert (found[[0, 1, 2, 5]] >= edge[[0, 1, 2, 5]] / 1.011).all()
    assert len(calls) < 160


def region(lower, upper, conditions):
    return Region(torch.as_tensor(lower).double(), torch.as_tensor(upper).double(), conditions)


@pytest.mark.parametrize("make", ALL)
def test_the_datas_own_boxes(make):
    """A box that is thin in the direction that matters is certified where the ball around it is not."""
    classifier, x, y, _ = net(2, (3, 8, 3), 4)
    eps = 1.5
    assert "open" in certify(make(), classifier, x, y, eps=eps, domain=SPACE).status
    labels = [Condition.of_label(label, 3) for label in y.tolist()]
    for make_box in (
        lambda: (x - 1e-3, x + 1e-3),
        lambda: (x - torch.tensor([1.5, 0, 0]), x + torch.tensor([0.0, 0, 0])),
    ):
        low, high = make_box()
        found = certify(make(), classifier, x, y, eps=eps, domain=SPACE, region=region(low, high, labels))
        points = low + (high - low) * torch.rand(500, 4, 3, generator=torch.Generator().manual_seed(0)).double()
        right = (evaluate(classifier.graph, points.flatten(0, 1)).argmax(1).reshape(500, 4) == y).all(0)
        for status, lower, fine in zip(found.status, found.lower.tolist(), right.tolist(), strict=True):
            assert (status, lower) in (("certified", eps), ("open", 0.0))
            assert fine or status == "open"
    tiny = certify(make(), classifier, x, y, eps=eps, region=region(x - 1e-6, x + 1e-6, labels))
    assert tiny.status == ["certified"] * 4
    # Radii are of no use there: the region is answered.
    assert (
        certify(make(radius=True), classifier, x, y, eps=eps, region=region(x, x, labels)).status == ["certified"] * 4
    )


@pytest.mark.parametrize("make", ALL)
def test_conditions_on_the_outputs(make):
    """Disjunctions of conjunctions, offsets, one output: sampled truth, and the edges by hand."""
    rng = np.random.default_rng(4)
    graph = Draft((2,), rng).linear(6).add("relu").linear(3).graph()
    classifier = GraphClassifier(graph, dtype=torch.float64)
    x = torch.tensor(rng.random((20, 2)))
    y = torch.zeros(20, dtype=torch.int64)
    conditions = []
    for _ in range(20):
        disjuncts = [
            (rng.normal(size=(k, 3)), rng.normal(size=k) + 2.0) for k in rng.integers(1, 4, int(rng.integers(1, 4)))
        ]
        conditions.append(Condition(tuple(disjuncts)))
    low, high = x - 0.2, x + 0.2
    found = certify(make(), classifier, x, y, eps=0.2, domain=SPACE, region=region(low, high, conditions))
    proven = 0
    for i, condition in enumerate(conditions):
        points = low[i] + (high[i] - low[i]) * torch.rand(2000, 2, generator=torch.Generator().manual_seed(i)).double()
        logits = evaluate(graph, points).numpy()
        unsafe = min((logits @ rows.T + offsets).max(1).min() for rows, offsets in condition.disjuncts)
        assert found.status[i] == "open" or unsafe > 0
        assert found.detail[i]["margin"] <= unsafe + 1e-9
        proven += found.status[i] == "certified"
    assert 3 < proven < 20
    # f_0 ≤ c is unsafe: at exactly the value it is not proven, a hair below it is.
    point = x[:1]
    value = evaluate(graph, point)[0, 0].item()
    for offset, status in ((-value, "open"), (-value + 1e-9, "certified")):
        one = [Condition(((np.array([[1.0, 0.0, 0.0]]), np.array([offset])),))]
        assert certify(make(), classifier, point, y[:1], eps=1.0, region=region(point, point, one)).status == [status]


def test_the_ball_is_closed_and_ties_are_errors():
    weight = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    classifier = GraphClassifier(
        Draft((2,), np.random.default_rng(0)).add("linear", constants={"weight": weight}).graph()
    )
    x, label = torch.tensor([[0.75, 0.5]]), torch.tensor([0])
    for make in ALL:
        for norm, radius in (("linf", 0.125), ("l1", 0.25)):
            assert certify(make(), classifier, x, label, norm, radius).status == ["open"]
            assert certify(make(), classifier, x, label, norm, radius * (1 - 1e-12)).status == ["certified"]
        assert certify(make(), classifier, torch.tensor([[0.5, 0.5]]), label, "linf", 1e-9).status == ["open"]


def test_bounds_of_nan_are_open(monkeypatch):
    classifier, x, y, _ = net()
    monkeypatch.setattr(_proofs, "crown_bounds", lambda known, forms: torch.full((len(forms),), math.nan).double())
    for make in ALL:
        found = certify(make(), classifier, x, y, eps=1e-4)
        assert found.status == ["open"] * 6 and found.lower.tolist() == [0.0] * 6 and found.detail == [None] * 6


def test_memory_that_runs_out_is_the_runners_for_batches_and_a_timeout_for_one(monkeypatch):
    classifier, x, y, _ = net()

    def full(*_):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    for error in (full, lambda *_: (_ for _ in ()).throw(MemoryError())):
        monkeypatch.setattr(_proofs, "crown_bounds", error)
        for certifier in (CROWN(), CROWN(radius=True)):
            eps = None if certifier.radius else 0.1
            with pytest.raises((RuntimeError, MemoryError)):
                certify(certifier, classifier, x, y, eps=eps)
            found = certify(certifier, classifier, x[:1], y[:1], eps=eps)
            assert found.status == ["timeout"] and found.lower.tolist() == [0.0]
            assert "memory" in found.detail[0]["reason"]
    monkeypatch.setattr(_proofs, "crown_bounds", lambda *_: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        certify(CROWN(), classifier, x[:1], y[:1], eps=0.1)


@pytest.mark.parametrize("make", ALL)
def test_it_says_why_it_does_not_apply(make):
    class Opaque:
        graph = None

    class Foreign:
        graph = Graph((Node("input", shape=(3,)), Node("erf", (0,), shape=(3,))))

    assert "graph" in make().applies(Opaque(), "linf")
    assert "node 1" in make().applies(Foreign(), "linf") and "erf" in make().applies(Foreign(), "linf")
    assert make().applies(net()[0], "l1") is None
    assert make.regions is True and make.deterministic is True


@pytest.mark.parametrize("make", ALL)
def test_an_empty_batch(make):
    classifier, x, y, _ = net()
    for certifier, eps in ((make(), 0.1), (make(radius=True), None)):
        found = certify(certifier, classifier, x[:0], y[:0], eps=eps)
        assert found.lower.shape == (0,) and found.lower.dtype == torch.float64 and list(found.status) == []


def test_more_is_proven_from_one_to_the_next():
    classifier, x, y, _ = net(5, (4, 16, 16, 16, 3), 40)
    rates = []
    for certifier in (CROWNIBP(), CROWN(), AlphaCROWN(inside=False), AlphaCROWN()):
        found = certify(certifier, classifier, x, y, eps=0.06, domain=SPACE)
        rates.append({i for i, status in enumerate(found.status) if status == "certified"})
    assert rates[0] < rates[1] <= rates[2] <= rates[3]
    assert len(rates[3]) > len(rates[1])
