"""`lipschitz`: never above the exact radius, equal to the closed form where it is tight, and never contradicted."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import robench
from oracles.enumeration import TOLERANCE, exact_radius, random_net
from oracles.random_graphs import STEPS, Draft, evaluate, mlp, random_graph, step_names
from oracles.rational import margin as exact_margin
from oracles.rational import rational_logits
from robench.check import check
from robench.graph import GraphClassifier
from robench.registry import load_plugins
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.lipschitz import margin
from robench_plugins.lipschitz.constant import lipschitz_constant
from robench_plugins.lipschitz.margin import ROOT_TWO, LipschitzMargin


def certify(classifier, x, y, domain=None, norm="l2"):
    stream = Stream.for_samples(0, "lipschitz", range(len(x)))
    return LipschitzMargin().certify(classifier, x, y, Threat(norm, None, domain or Domain()), stream)


def linear(weight, bias=None, dtype=torch.float64):
    constants = {"weight": torch.as_tensor(weight, dtype=dtype)}
    constants |= {} if bias is None else {"bias": torch.as_tensor(bias, dtype=dtype)}
    draft = Draft((constants["weight"].shape[1],), np.random.default_rng(0))
    return GraphClassifier(draft.add("linear", constants=constants).graph(), dtype=dtype)


def labels(classifier, x):
    return classifier.logits(x).argmax(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_never_above_the_exact_radius_of_relu_nets(dtype):
    proven = 0.0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        weights, biases = random_net(rng, (2, 5, 3) if seed % 2 else (3, 4, 4, 3))
        classifier = GraphClassifier(mlp(weights, biases), dtype=dtype)
        x = torch.tensor(rng.random((6, len(weights[0][0]))), dtype=dtype)
        y = labels(classifier, x)
        for row, lower in enumerate(certify(classifier, x, y).lower.tolist()):
            exact = exact_radius(weights, biases, x[row].double().numpy(), int(y[row]), "l2")
            assert lower <= exact + TOLERANCE
            proven = max(proven, lower / exact)
    assert proven > 0.3


def max_min_as_relu(weights, biases):
    """A MaxMin net on [0, 1]^d as a ReLU net: max = b + (a − b)⁺, min = a − (a − b)⁺, and v = (v + C)⁺ − C."""
    large, mix, offset = 64.0, np.eye(len(weights[0][0])), np.zeros(len(weights[0][0]))
    relu_weights, relu_biases = [], []
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        first, second = np.eye(len(weight))[::2], np.eye(len(weight))[1::2]
        pick = np.vstack([first - second, first, second])
        shift = np.repeat([0.0, large, large], len(first))
        relu_weights.append(pick @ weight @ mix)
        relu_biases.append(pick @ (weight @ offset + bias) + shift)
        pairs, mix = len(first), np.zeros((len(weight), len(pick)))
        for i in range(pairs):  # rows: min, max; columns: (a − b)⁺, a + C, b + C
            mix[2 * i, [i, pairs + i]] = -1.0, 1.0
            mix[2 * i + 1, [i, 2 * pairs + i]] = 1.0, 1.0
        offset = np.full(len(weight), -large)
    relu_weights.append(weights[-1] @ mix)
    relu_biases.append(weights[-1] @ offset + biases[-1])
    return relu_weights, relu_biases


def max_min(weights, biases):
    draft = Draft((weights[0].shape[1],), np.random.default_rng(0))
    for depth, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if depth:
            draft.add("group_sort", group=2)
        draft.add("linear", constants={"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    return GraphClassifier(draft.graph(), dtype=torch.float64)


def test_never_above_the_exact_radius_of_max_min_nets():
    proven = 0.0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        sizes = (2, 4, 4, 3) if seed % 2 else (3, 6, 2)
        weights, biases = random_net(rng, sizes)
        if seed >= 2:  # orthogonal layers, for which the product is made
            weights = [np.linalg.qr(rng.normal(size=(max(w.shape),) * 2))[0][: len(w), : len(w[0])] for w in weights]
        classifier, as_relu = max_min(weights, biases), max_min_as_relu(weights, biases)
        x = torch.tensor(rng.random((5, sizes[0])))
        y = labels(classifier, x)
        for row, lower in enumerate(certify(classifier, x, y).lower.tolist()):
            exact = exact_radius(*as_relu, x[row].numpy(), int(y[row]), "l2")
            assert lower <= exact + TOLERANCE
            proven = max(proven, lower / exact)
    assert proven > 0.7


def potential_steps(steps, last):
    """A net of steps x − Wᵀ(Wx + b)⁺ on [0, 1]^d, and the same as a ReLU net: v = (v + C)⁺ − C."""
    large, size = 64.0, steps[0][0].shape[1]
    draft = Draft((size,), np.random.default_rng(0))
    weights, biases, mix, offset = [], [], np.eye(size), np.zeros(size)
    for weight, bias in steps:
        source = draft.end
        draft.add("linear", constants={"weight": torch.tensor(weight), "bias": torch.tensor(bias)}).add("relu")
        draft.add("linear", constants={"weight": torch.tensor(weight.T)}).add("sub", source, draft.end, reverse=0)
        weights.append(np.vstack([weight, np.eye(size)]) @ mix)
        biases.append(np.vstack([weight, np.eye(size)]) @ offset + np.concatenate([bias, np.full(size, large)]))
        mix, offset = np.hstack([-weight.T, np.eye(size)]), np.full(size, -large)
    draft.add("linear", constants={"weight": torch.tensor(last)})
    return GraphClassifier(draft.graph(), dtype=torch.float64), ([*weights, last @ mix], [*biases, last @ offset])


def test_never_above_the_exact_radius_of_convex_potential_nets():
    """Their constant is that of the last layer alone; the general rule would give (1 + 2)² times as much."""
    proven = 0.0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        steps = []
        for _ in range(2):
            weight = rng.normal(size=(2, 2))
            weight *= math.sqrt(2) * (1 - 1e-12) / np.linalg.norm(weight, 2)
            steps.append((weight, rng.normal(size=2) - weight.sum(1) / 2))
        classifier, as_relu = potential_steps(steps, rng.normal(size=(3, 2)))
        x = torch.tensor(rng.random((5, 2)))
        y = labels(classifier, x)
        found = certify(classifier, x, y)
        assert found.detail[0]["lipschitz_source"] == "matrix 1 5 9, residual 4 8"
        for row, lower in enumerate(found.lower.tolist()):
            exact = exact_radius(*as_relu, x[row].numpy(), int(y[row]), "l2")
            assert lower <= exact + TOLERANCE
            proven = max(proven, lower / exact)
    assert proven > 0.7


def test_the_last_layers_rows_replace_its_norm():
    """Rows that differ little limit little: √2 ‖W‖ would give a fifth of the radius, exact here."""
    weight = np.array([[5.0, 1.0], [5.0, -1.0], [5.0, 0.0]])
    x = torch.tensor([[0.5, 0.25]], dtype=torch.float64)
    found = certify(linear(weight), x, torch.tensor([0]))
    assert 0.25 * (1 - 1e-12) < found.lower.item() < 0.25
    detail = found.detail[0]
    assert detail["rival"] in (1, 2) and detail["slope"] == pytest.approx({1: 2.0, 2: 1.0}[detail["rival"]])
    assert detail["margin"] / (math.sqrt(2) * detail["lipschitz"]) < 0.2 * 0.25
    # A temperature, a shift and a sign of all logits change nothing; factors of their own forbid the form.
    for op, constants, tight in (
        ("mul", [4.0], True),
        ("add", [4.0], True),
        ("mul", [1.0, 1.0, 2.0], False),
        ("div", [-0.25], True),
    ):
        draft = Draft((2,), np.random.default_rng(0))
        draft.add("linear", constants={"weight": torch.tensor(weight if constants != [-0.25] else -weight)})
        graph = draft.add(op, constants={"other": torch.tensor(constants, dtype=torch.float64)}).graph()
        other = certify(GraphClassifier(graph, dtype=torch.float64), x, torch.tensor([2 if not tight else 0]))
        assert (other.lower.item() > 0.24) == tight


def test_normalisations_before_the_last_layer_scale_its_rows():
    """f = W diag(s) x: the radius is exact, with each row's own factors."""
    weight, factors = np.array([[1.0, 3.0], [2.0, -1.0]]), np.array([0.25, -8.0])
    draft = Draft((2,), np.random.default_rng(0)).add("mul", constants={"other": torch.tensor(factors)})
    classifier = GraphClassifier(
        draft.add("linear", constants={"weight": torch.tensor(weight)}).graph(), dtype=torch.float64
    )
    x = torch.tensor([[0.3, -0.7]], dtype=torch.float64)
    row = (weight[0] - weight[1]) * factors
    exact = float(row @ x[0].numpy() / np.linalg.norm(row))
    assert exact * (1 - 1e-12) < certify(classifier, x, torch.tensor([0])).lower.item() < exact


FACTORS = {
    "mul": lambda signs: {"constants": {"other": signs}},
    "div": lambda signs: {"constants": {"other": signs}},
    "batch_norm": lambda signs: {
        "constants": {"mean": torch.ones(3), "var": torch.full((3,), 0.75), "weight": signs, "bias": torch.ones(3)},
        "eps": 0.25,
    },
}


@pytest.mark.parametrize("op", FACTORS)
def test_factors_of_the_logits_that_differ_in_sign_alone_are_no_common_factor(op):
    """W = (w, w, w) with the signs (1, −1, 1): f_0 − f_1 = 2 w·x, though the rows of W do not differ at all."""
    draft = Draft((2,), np.random.default_rng(0))
    draft.add("linear", constants={"weight": torch.tensor([[3.0, 4.0]] * 3), "bias": torch.tensor([0.0, 0.0, -50.0])})
    graph = draft.add(op, **FACTORS[op](torch.tensor([1.0, -1.0, 1.0]))).graph()
    classifier = GraphClassifier(graph, dtype=torch.float64)
    x = torch.tensor([[3.0, 4.0]], dtype=torch.float64) / 5
    y = torch.tensor([0])
    lower = certify(classifier, x, y).lower.item()
    assert 0 < lower < 1
    assert labels(classifier, x - 1.01 * x).item() != 0  # a multiple of x at a distance of 1.01


@settings(max_examples=100)
@given(
    st.lists(st.sampled_from(step_names()), max_size=4),
    st.lists(st.sampled_from(["mul", "div", "batch_norm", "neg", "add", "sub", "pad", "slice"]), max_size=3),
    st.integers(0, 2**32 - 1),
)
def test_no_gradient_of_a_difference_of_logits_is_longer_than_its_slope(steps, tail, seed):
    rng = np.random.default_rng(seed)
    graph = _with_tail(steps, tail, rng)
    x = torch.tensor(rng.normal(size=(6, *graph.input_shape)), requires_grad=True)
    y = torch.arange(6) % graph.classes
    slopes = margin._slopes(lipschitz_constant(graph), graph.classes, y)
    values = evaluate(graph, x)
    for j in range(graph.classes):
        gaps = values.gather(1, y[:, None])[:, 0] - values[:, j]
        (gradient,) = torch.autograd.grad(gaps.sum(), x, retain_graph=True, materialize_grads=True)
        assert (gradient.flatten(1).norm(dim=1) <= slopes[:, j] * (1 + 1e-12)).all()


def _with_tail(steps, tail, rng):
    """A random graph behind whose last layer more operators stand."""
    draft = Draft((2, 3, 3), rng)
    draft.nodes = list(random_graph(steps, rng, classes=4).nodes)
    for name in tail:
        STEPS[name][1](draft)
    return draft.graph()


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1), st.integers(-100, 100))
def test_below_the_closed_form_of_linear_nets_in_exact_arithmetic(seed, power):
    rng = np.random.default_rng(seed)
    weight, x = rng.normal(size=(3, 4)) * 10.0**power, rng.random(4)
    bias = rng.normal(size=3) * 10.0 ** (power - 1)
    classifier = linear(weight, bias)
    for y in range(3):
        lower = certify(classifier, torch.tensor(x[None]), torch.tensor([y])).lower.item()
        point = [Fraction(v) for v in x.tolist()]
        for j in range(3):
            row = [Fraction(a) - Fraction(b) for a, b in zip(weight[y].tolist(), weight[j].tolist(), strict=True)]
            gap = sum((a * b for a, b in zip(row, point, strict=True)), Fraction(bias[y]) - Fraction(bias[j]))
            if j != y and lower > 0:
                assert gap > 0 and Fraction(lower) ** 2 * sum(v * v for v in row) < gap**2


def test_tight_where_logits_are_opposite():
    """f = (w·x, −w·x): L = √2 ‖w‖, and the radius is w·x / ‖w‖. Without √2 it would be too large, with 2 too small."""
    w = np.array([3.0, -4.0, 12.0]) / 7
    x = np.array([0.5, 0.25, 0.75])
    found = certify(linear(np.stack([w, -w])), torch.tensor(x[None]), torch.tensor([0]))
    radius = float(w @ x / np.linalg.norm(w))
    assert radius * (1 - 1e-12) < found.lower.item() < radius
    assert found.status == ["certified"]


def test_the_ball_is_closed():
    """The nearest tie of f = (x₁, −x₁) is at distance 1/2 exactly; the stored radius is below."""
    lower = certify(linear([[1.0], [-1.0]]), torch.tensor([[0.5]], dtype=torch.float64), torch.tensor([0])).lower.item()
    assert 0.5 * (1 - 1e-13) < lower < 0.5


def test_root_two_is_rounded_up():
    assert Fraction(ROOT_TWO) ** 2 > 2 > Fraction(math.nextafter(ROOT_TWO, 0)) ** 2


def test_every_operation_is_rounded_to_the_safe_side():
    """radius · slope ≤ margin, from the figures in the detail and the true margins, in exact arithmetic."""
    rng = np.random.default_rng(0)
    for seed in range(30):
        weights, biases = random_net(np.random.default_rng(seed), (3, 6, 3))
        classifier = GraphClassifier(mlp(weights, biases), dtype=torch.float64)
        x = torch.tensor(rng.random((4, 3)))
        y = labels(classifier, x)
        found = certify(classifier, x, y)
        constant = lipschitz_constant(classifier.graph).value
        for row, lower in enumerate(found.lower.tolist()):
            detail = found.detail[row]
            assert detail["lipschitz"] == constant and detail["lipschitz_source"] == "matrix 1 3"
            logits, label = rational_logits(classifier.graph, x[row]), int(y[row])
            assert Fraction(detail["margin"]) <= exact_margin(logits, label)
            gap = logits[label] - logits[detail["rival"]]
            assert Fraction(lower) * Fraction(detail["slope"]) < gap
            assert lower * detail["slope"] > float(gap) - 1e-13
            head = [[Fraction(v) for v in weights[1][k].tolist()] for k in (label, detail["rival"])]
            between = sum((a - b) ** 2 for a, b in zip(*head, strict=True))
            first = Fraction(lipschitz_constant(classifier.graph).layers[0].norm)
            assert (
                first**2 * between <= Fraction(detail["slope"]) ** 2 <= first**2 * between * (1 + Fraction(1, 10**12))
            )
            assert Fraction(detail["slope"]) <= Fraction(ROOT_TWO) * Fraction(constant)


@pytest.mark.parametrize("factor", [4.0, 0.37, 1e-30, 1e30])
def test_scaling_the_logits_leaves_radii(factor):
    """A temperature changes margin and L alike."""
    rng = np.random.default_rng(1)
    weights, biases = random_net(rng, (4, 8, 3))
    x = torch.tensor(rng.random((20, 4)))
    plain = GraphClassifier(mlp(weights, biases), dtype=torch.float64)
    scaled = GraphClassifier(
        mlp([weights[0], factor * weights[1]], [biases[0], factor * biases[1]]), dtype=torch.float64
    )
    y = labels(plain, x)
    torch.testing.assert_close(certify(scaled, x, y).lower, certify(plain, x, y).lower, rtol=1e-10, atol=0)


def test_an_orthogonal_layer_more_leaves_radii():
    """The same function in three layers: turned, and turned back with the next one, at any scale."""
    rng = np.random.default_rng(2)
    weights, biases = random_net(rng, (4, 8, 3))
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    x = torch.tensor(rng.random((20, 4)))
    plain = GraphClassifier(mlp(weights, biases), dtype=torch.float64)
    y = labels(plain, x)
    for factor in (1.0, 2.0):
        draft = Draft((4,), rng)
        draft.add("linear", constants={"weight": torch.tensor(turn.T * factor)})
        draft.add(
            "linear", constants={"weight": torch.tensor(weights[0] @ turn / factor), "bias": torch.tensor(biases[0])}
        )
        draft.add("relu").add("linear", constants={"weight": torch.tensor(weights[1]), "bias": torch.tensor(biases[1])})
        more = GraphClassifier(draft.graph(), dtype=torch.float64)
        torch.testing.assert_close(certify(more, x, y).lower, certify(plain, x, y).lower, rtol=1e-10, atol=0)


def test_ties_errors_and_numbers_that_are_not_finite_have_radius_zero():
    classifier = linear([[1.0, 0.0], [0.0, 1.0]])
    x = torch.tensor([[0.5, 0.5], [0.1, 0.9], [math.nan, 0.0], [math.inf, 0.0]], dtype=torch.float64)
    found = certify(classifier, x, torch.zeros(4, dtype=torch.int64))
    assert found.lower.tolist() == [0.0] * 4 and found.status == ["open"] * 4
    assert found.detail[2] is None and found.detail[1]["margin"] < 0


def test_what_cannot_be_misclassified_has_no_finite_radius():
    classifier = linear(np.zeros((2, 2)), [1.0, 0.0])
    found = certify(classifier, torch.rand(2, 2, dtype=torch.float64), torch.tensor([0, 1]))
    assert found.lower.tolist() == [math.inf, 0.0] and found.status == ["certified", "open"]


def test_a_constant_that_overflows_proves_nothing():
    classifier = linear(np.full((2, 2), 1.7e308), [1.0, 0.0])
    x = torch.full((1, 2), 1e-308, dtype=torch.float64)
    found = certify(classifier, x, torch.tensor([0]))
    assert found.lower.tolist() == [0.0] and found.status == ["open"] and found.detail == [None]


def test_it_says_why_it_does_not_apply(monkeypatch):
    classifier = linear([[1.0, 0.0], [0.0, 1.0]])
    one = LipschitzMargin()
    assert one.applies(classifier, "l2") is None
    for norm in ("linf", "l1"):
        assert "l2" in one.applies(classifier, norm) and norm in one.applies(classifier, norm)
        with pytest.raises(ValueError, match=norm):
            certify(classifier, torch.rand(1, 2, dtype=torch.float64), torch.tensor([0]), norm=norm)

    class Opaque:
        graph = None

    assert "graph" in one.applies(Opaque(), "l2")
    draft = Draft((5000,), np.random.default_rng(0))
    wide = draft.add("linear", constants={"weight": torch.zeros(()).expand(5000, 5000)}).add("relu")
    large = GraphClassifier(wide.add("linear", constants={"weight": torch.zeros(2, 5000)}).graph())
    reason = one.applies(large, "l2")
    assert reason.startswith("node 1: the matrix of linear, 5000 x 5000, is too large: all norms would take about ")
    assert reason.endswith("minutes (lipschitz:minutes=1)")
    assert LipschitzMargin(minutes=10).applies(large, "l2") is None
    monkeypatch.setattr(margin, "unsupported", lambda graph: "node 7: no Lipschitz rule for erf")
    assert one.applies(classifier, "l2") == "node 7: no Lipschitz rule for erf"


def test_it_runs_where_nothing_is_asked_for():
    (entry,) = [entry for entry in load_plugins().entries("certifiers") if entry.name == "lipschitz"]
    assert entry.cost == "small" and entry.default
    assert load_plugins().resolve("certifiers", "lipschitz:minutes=1").canonical == "lipschitz"


def test_batches_and_the_domain_do_not_matter():
    classifier = GraphClassifier(mlp(*random_net(np.random.default_rng(3), (6, 8, 4))))
    x, y = torch.rand(12, 6, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 4
    whole = certify(classifier, x, y).lower
    single = torch.cat([certify(classifier, x[i : i + 1], y[i : i + 1], Domain.unbounded()).lower for i in range(12)])
    torch.testing.assert_close(whole, single, rtol=1e-12, atol=0)
    assert certify(classifier, x[:0], y[:0]).lower.shape == (0,)


def attacked(model, data, out, eps):
    done = robench.evaluate(
        model,
        data,
        norm="l2",
        eps=eps,
        attacks=["pgd:steps=20,targets=2"],
        certifiers=["lipschitz"],
        out=out,
    )
    assert check([done.run]).findings == ()
    for result in done.summary["results"]:
        assert result["contradictions"] == 0
        assert result["certified_accuracy"] <= result["empirical_accuracy"]
    return done


def test_no_witness_lies_within_a_radius_of_random_nets(tmp_path):
    rng = np.random.default_rng(0)
    for seed in range(3):
        torch.manual_seed(seed)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3, padding=1),
            torch.nn.BatchNorm2d(4),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(36, 3),
        ).eval()
        torch.nn.init.normal_(net[1].weight)
        x = rng.random((30, 1, 6, 6), dtype=np.float32)
        y = net(torch.tensor(x)).argmax(1).numpy()
        data = robench.Samples(x, y, np.arange(30), Domain(), ("a", "b", "c"))
        done = attacked(net, data, tmp_path / str(seed), ["0.02", "0.2"])
        assert (done.evidence["lower"] > 0).sum() >= 30


@pytest.mark.parametrize("model", ["digits-standard", "digits-pgd-l2", "digits-aol"])
def test_no_witness_lies_within_a_radius_of_trained_nets(model, tmp_path):
    done = attacked(model, "digits | subset:n=60", tmp_path, ["0.1", "0.5", "1"])
    radii = done.evidence.query("kind == 'certificate'")["lower"]
    assert (radii > 0).sum() >= 50
    half = next(result for result in done.summary["results"] if result["eps"] == "0.5")
    if model == "digits-aol":  # made for it: most of what attacks leave is proven
        assert half["certified_accuracy"] > 0.6
        assert half["empirical_accuracy"] - half["certified_accuracy"] < 0.2
