"""`fast-lip`: never above the exact radius, equal to closed forms where slopes are known, never below `lipschitz`."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import robench
from oracles.enumeration import TOLERANCE, exact_radius, random_net
from oracles.linear_box import exact_radius as exact_linear
from oracles.nets import blobs, trained
from oracles.random_graphs import Draft, mlp, random_graph, step_names
from oracles.rational import margin as exact_margin
from oracles.rational import rational_logits
from oracles.rounding import FAMILIES, traps
from oracles.soundness import ball_points, margins
from robench.check import check
from robench.graph import GraphClassifier, from_torch
from robench.streams import Stream
from robench.threat import NORMS, Domain, Threat
from robench_plugins.lipschitz.local import slopes
from robench_plugins.lipschitz.local.fast_lip import FastLip
from robench_plugins.lipschitz.margin import LipschitzMargin

SPACE = Domain.unbounded()
VARIANTS = [{}, {"secants": False}, {"bounds": "ibp"}, {"minutes": 0.0}]


def certify(classifier, x, y, norm="l2", domain=None, one=None, **given):
    stream = Stream.for_samples(0, "fast-lip", range(len(x)))
    return (one or FastLip(**given)).certify(classifier, x, y, Threat(norm, None, domain or Domain()), stream)


def classifier_of(draft):
    return GraphClassifier(draft.graph(), dtype=torch.float64)


def linear(weight, bias=None):
    constants = {"weight": torch.as_tensor(weight, dtype=torch.float64)}
    constants |= {} if bias is None else {"bias": torch.as_tensor(bias, dtype=torch.float64)}
    return classifier_of(
        Draft((constants["weight"].shape[1],), np.random.default_rng(0)).add("linear", constants=constants)
    )


@pytest.mark.parametrize("given", VARIANTS, ids=str)
@pytest.mark.parametrize("norm", NORMS)
def test_never_above_the_exact_radius_of_relu_nets(norm, given):
    shares = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        weights, biases = random_net(rng, (2, 6, 3) if seed % 2 else (3, 4, 4, 3))
        classifier = GraphClassifier(mlp(weights, biases), dtype=torch.float64)
        x = torch.tensor(rng.random((4, len(weights[0][0]))))
        y = classifier.logits(x).argmax(1)
        for row, lower in enumerate(certify(classifier, x, y, norm, **given).lower.tolist()):
            exact = exact_radius(weights, biases, x[row].numpy(), int(y[row]), norm)
            assert lower <= exact + TOLERANCE
            shares.append(1.0 if exact == math.inf else lower / exact)
    # An infinite radius of a finite one would have failed above.
    assert max(shares) > 0.8 and np.mean(shares) > (0.5 if given == {} else 0.35)


@pytest.mark.parametrize("norm", NORMS)
def test_linear_nets_have_their_closed_form(norm):
    dual = {"linf": 1, "l2": 2, "l1": math.inf}[norm]
    for seed in range(5):
        rng = np.random.default_rng(seed)
        weight, bias, x = rng.normal(size=(4, 6)), rng.normal(size=4) * 0.2, rng.random(6)
        y = int(np.argmax(weight @ x + bias))
        gaps, rows = (weight @ x + bias)[y] - (weight @ x + bias), weight[y] - weight
        exact = min(gaps[j] / np.linalg.norm(rows[j], dual) for j in range(4) if j != y)
        for variant in VARIANTS:
            found = certify(linear(weight, bias), torch.tensor(x[None]), torch.tensor([y]), norm, SPACE, **variant)
            assert exact * (1 - 1e-11) < found.lower.item() <= exact * (1 + 1e-14)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(-100, 100))
def test_below_the_closed_form_of_linear_nets_in_exact_arithmetic(seed, power):
    rng = np.random.default_rng(seed)
    weight, x = rng.normal(size=(3, 4)) * 10.0**power, rng.random(4)
    bias = rng.normal(size=3) * 10.0 ** (power - 1)
    points, y = torch.tensor(x[None]).expand(3, 4), torch.arange(3)
    lower = certify(linear(weight, bias), points, y, domain=SPACE).lower.tolist()
    point = [Fraction(v) for v in x.tolist()]
    for label in range(3):
        for j in range(3):
            row = [Fraction(a) - Fraction(b) for a, b in zip(weight[label].tolist(), weight[j].tolist(), strict=True)]
            gap = sum((a * b for a, b in zip(row, point, strict=True)), Fraction(bias[label]) - Fraction(bias[j]))
            if j != label and lower[label] > 0:
                assert gap > 0 and Fraction(lower[label]) ** 2 * sum(v * v for v in row) < gap**2


@pytest.mark.parametrize("norm", NORMS)
def test_pixels_at_the_sides_of_the_domain_move_one_way(norm):
    """All at a side: the exact radius within the box where the nearest error is nearer than the other sides."""
    compared = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        weight, x = rng.normal(size=(3, 6)), rng.integers(0, 2, 6).astype(float)
        bias = -weight @ x + rng.random(3) * 0.3
        y = int(np.argmax(weight @ x + bias))
        exact, point = exact_linear(weight, bias, x, y, norm, 0.0, 1.0)
        lower, free = (
            certify(linear(weight, bias), torch.tensor(x[None]), torch.tensor([y]), norm, domain).lower.item()
            for domain in (Domain(), SPACE)
        )
        assert lower <= exact and free <= lower
        if exact < math.inf and np.abs(point - x).max() < 1:
            assert lower > exact * (1 - 1e-8)
            compared += free < 0.99 * lower
    assert compared >= 8


def test_the_ball_is_closed():
    """The nearest tie of f = (x₁, −x₁) is at distance 1/2 exactly; the stored radius is below."""
    for norm in NORMS:
        found = certify(linear([[1.0], [-1.0]]), torch.tensor([[0.5]], dtype=torch.float64), torch.tensor([0]), norm)
        assert 0.5 * (1 - 1e-12) < found.lower.item() < 0.5


def test_a_ball_that_holds_the_domain_is_endless():
    classifier = linear([[1.0, 1.0], [0.0, 0.0]], [0.25, 0.0])
    x = torch.tensor([[0.5, 0.0], [1.0, 0.0]], dtype=torch.float64)
    for norm in NORMS:
        assert certify(classifier, x[:1], torch.tensor([0]), norm).lower.item() < math.inf  # slopes know no room
        assert certify(classifier, x[:1] * 0, torch.tensor([0]), norm).lower.item() == math.inf
    constant = linear(np.zeros((2, 2)), [1.0, 0.0])
    found = certify(constant, x, torch.tensor([0, 1]))
    assert found.lower.tolist() == [math.inf, 0.0] and found.status == ["certified", "open"]
    assert certify(constant, x, torch.tensor([0, 1]), minutes=0.0, domain=SPACE).lower[0].item() > 1e15


def test_never_below_lipschitz_and_above_it_on_trained_nets():
    data = blobs()
    x, y = torch.tensor(data.x), torch.tensor(data.y)
    for hidden in ((16,), (12, 12)):
        classifier = GraphClassifier(from_torch(trained(hidden), (6,)))
        right = classifier.logits(x).argmax(1) == y
        both = [certify(classifier, x[right], y[right], one=one).lower for one in (FastLip(), LipschitzMargin())]
        assert (both[0] >= both[1]).all()
        assert (both[0] / both[1]).median() > 1.1
        published = certify(classifier, x[right], y[right], secants=False).lower
        assert (both[0] >= published * 0.98).all() and both[0].mean() > 1.02 * published.mean()
        for norm in ("linf", "l1"):
            loose = certify(classifier, x[right], y[right], norm, bounds="ibp", secants=False).lower
            assert (certify(classifier, x[right], y[right], norm).lower >= loose * 0.98).all()


def test_the_product_is_taken_where_it_is_better():
    """Rotations: componentwise bounds grow by √2 with each layer, norms do not at all."""
    turn = np.array([[1.0, -1.0], [1.0, 1.0]]) / math.sqrt(2)
    draft = Draft((2,), np.random.default_rng(0))
    for _ in range(6):
        draft.add("linear", constants={"weight": torch.tensor(turn), "bias": torch.tensor([0.2, -0.1])})
        draft.add("group_sort", group=2)
    classifier = classifier_of(draft.add("linear", constants={"weight": torch.eye(2, dtype=torch.float64)}))
    x = torch.tensor([[0.9, 0.2], [0.5, 0.4]], dtype=torch.float64)
    y = classifier.logits(x).argmax(1)
    with_it, without = certify(classifier, x, y), certify(classifier, x, y, minutes=0.0)
    plain = certify(classifier, x, y, one=LipschitzMargin())
    assert (with_it.lower >= plain.lower).all() and (with_it.lower > 0).all()
    for norm, factor in (("l1", 1.0), ("linf", math.sqrt(0.5))):
        assert (certify(classifier, x, y, norm).lower >= plain.lower * factor * (1 - 1e-9)).all()
    for found in (with_it, without):
        for row, detail in enumerate(found.detail):
            assert found.lower[row] <= detail["margin"] / detail["slope"]
            assert found.lower[row] <= detail.get("tried", math.inf)


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(step_names()), max_size=4),
    st.integers(0, 2**32 - 1),
    st.sampled_from(NORMS),
    st.sampled_from(VARIANTS),
)
def test_no_point_within_a_radius_is_misclassified(steps, seed, norm, given):
    rng = np.random.default_rng(seed)
    graph = random_graph(steps, rng)
    classifier = GraphClassifier(graph, dtype=torch.float64)
    domain = Domain(-1.5, 1.5)
    x = torch.tensor(rng.normal(size=(2, *graph.input_shape))).clamp(-1.5, 1.5)
    y = classifier.logits(x).argmax(1)
    generator = torch.Generator().manual_seed(seed % 1000)
    for row, lower in enumerate(certify(classifier, x, y, norm, domain, **given).lower.tolist()):
        if lower > 0:
            points = ball_points(graph, x[row], int(y[row]), norm, min(lower, 100.0), domain, generator)
            worst = points[margins(graph, points, int(y[row])).argmin()]
            assert exact_margin(rational_logits(graph, worst), int(y[row])) > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_no_trap_is_certified(name):
    """Their exact margin is at most 0, which plain float64 does not notice."""
    for graph, x, _ in traps(name, 8):
        for norm in NORMS:
            found = certify(GraphClassifier(graph, dtype=torch.float64), x[None], torch.tensor([0]), norm, SPACE)
            assert found.lower.item() == 0 and found.status == ["open"]


@pytest.mark.parametrize("size", [1e-150, 1e-30, 1e-8, 1e8, 1e30, 1e150])
def test_scales_leave_radii(size):
    """The first layer times `size`, the second divided by it: the same function but for rounding."""
    rng = np.random.default_rng(1)
    weights, biases = random_net(rng, (4, 8, 3))
    x = torch.tensor(rng.random((4, 4)))
    plain = GraphClassifier(mlp(weights, biases), dtype=torch.float64)
    scaled = GraphClassifier(
        mlp([size * weights[0], weights[1] / size], [size * biases[0], biases[1]]), dtype=torch.float64
    )
    y = plain.logits(x).argmax(1)
    for variant in ({"minutes": 0.0}, {"bounds": "ibp"}):
        expected = certify(plain, x, y, **variant).lower
        torch.testing.assert_close(certify(scaled, x, y, **variant).lower, expected, rtol=1e-9, atol=0)


def test_what_overflows_proves_nothing():
    draft = Draft((2,), np.random.default_rng(0))
    for _ in range(3):
        draft.add("linear", constants={"weight": torch.full((2, 2), 1e200, dtype=torch.float64)}).add("relu")
    end = draft.add("clip", min=0.0, max=1.0).end
    draft.add("linear", end, constants={"weight": torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)})
    graph = draft.add("add", constants={"other": torch.tensor([0.5, 0.0], dtype=torch.float64)}).graph()
    found = certify(
        GraphClassifier(graph, dtype=torch.float64), torch.rand(2, 2, dtype=torch.float64), torch.tensor([0, 0])
    )
    assert not found.lower.isnan().any()
    # 1/2 + clip(…) is never below 1/2, but slopes are unknown: no radius, or the whole domain.
    assert set(found.lower.tolist()) <= {0.0, math.inf}


def test_ties_errors_and_numbers_that_are_not_finite_have_radius_zero():
    classifier = linear([[1.0, 0.0], [0.0, 1.0]])
    x = torch.tensor([[0.5, 0.5], [0.1, 0.9], [math.nan, 0.0], [math.inf, 0.0], [0.7, 0.3]], dtype=torch.float64)
    found = certify(classifier, x, torch.zeros(5, dtype=torch.int64))
    assert found.lower.tolist()[:4] == [0.0] * 4 and found.status[:4] == ["open"] * 4
    assert 0.28 < found.lower.tolist()[4] < 0.283 and found.detail[2] is None


@pytest.mark.parametrize("norm", NORMS)
def test_batches_pieces_and_inference_mode_do_not_matter(norm, monkeypatch):
    graph = random_graph(["conv2d", "relu", "max_pool2d", "leaky_relu"], np.random.default_rng(3))
    classifier = GraphClassifier(graph, dtype=torch.float64)
    x = torch.rand(5, *graph.input_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = classifier.logits(x).argmax(1)
    with torch.inference_mode():
        whole = certify(classifier, x, y, norm).lower
    single = torch.cat([certify(classifier, x[i : i + 1], y[i : i + 1], norm).lower for i in range(5)])
    torch.testing.assert_close(whole, single, rtol=1e-9, atol=0)
    monkeypatch.setattr(slopes, "_MEMORY", 1)
    torch.testing.assert_close(whole, certify(classifier, x, y, norm).lower, rtol=1e-9, atol=0)
    assert certify(classifier, x[:0], y[:0], norm).lower.shape == (0,)


def test_it_says_why_it_does_not_apply(monkeypatch):
    classifier = linear([[1.0, 0.0], [0.0, 1.0]])
    assert all(
        FastLip(bounds=bounds).applies(classifier, norm) is None for bounds in ("crown", "ibp") for norm in NORMS
    )

    class Opaque:
        graph = None

    assert "graph" in FastLip().applies(Opaque(), "l2")
    monkeypatch.setattr(slopes, "AFFINE", {})
    assert FastLip().applies(classifier, "l2") == "node 1: no local slopes for linear"


@pytest.mark.parametrize("norm", NORMS)
def test_no_witness_lies_within_a_radius_of_trained_nets(norm, tmp_path):
    eps = {"linf": ["0.02", "0.1"], "l2": ["0.05", "0.2"], "l1": ["0.1", "0.5"]}[norm]
    done = robench.evaluate(
        "digits-ibp",
        "digits | subset:n=8",
        norm=norm,
        eps=eps,
        attacks=["pgd:steps=20,targets=2"],
        certifiers=["fast-lip:tolerance=0.2"],
        out=tmp_path,
    )
    assert check([done.run]).findings == ()
    assert all(result["contradictions"] == 0 for result in done.summary["results"])
    assert (done.evidence.query("kind == 'certificate'")["lower"] > 0).sum() >= 6
