"""`linear`: the closed form of SOURCES 000-2 from below, and never above the exact radius."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.enumeration import TOLERANCE, exact_radius
from oracles.random_graphs import STEPS, Draft, evaluate, random_graph
from oracles.rational import rational_logits
from robench.graph import OPERATORS, GraphClassifier
from robench.streams import Stream
from robench.threat import NORMS, Domain, Threat
from robench_plugins.verify import _collapse
from robench_plugins.verify.linear import Linear

DUAL = {"linf": 1, "l2": 2, "l1": math.inf}
AFFINE = sorted(name for name in STEPS if OPERATORS[name.split()[0]].affine)


def certify(classifier, x, y, norm, domain=None):
    stream = Stream.for_samples(0, "linear", range(len(x)))
    return Linear().certify(classifier, x, y, Threat(norm, None, domain or Domain()), stream)


def classifier_of(weight, bias=None, dtype=torch.float64):
    constants = {"weight": torch.as_tensor(weight)} | ({} if bias is None else {"bias": torch.as_tensor(bias)})
    draft = Draft((constants["weight"].shape[1],), np.random.default_rng(0))
    return GraphClassifier(draft.add("linear", constants=constants).graph(), dtype=dtype)


def _fractions(values) -> np.ndarray:
    return np.vectorize(Fraction, otypes=[object])(np.asarray(values))


def is_at_most(lower: float, weight, bias, x, y: int, norm: str) -> bool:
    """Whether lower < min_j margin_j / ‖w_y − w_j‖_q, decided in exact arithmetic."""
    w, b, point = (_fractions(v) for v in (weight, bias, x))
    for j in range(len(w)):
        row, margin = w[y] - w[j], (w[y] - w[j]) @ point + b[y] - b[j]
        if j == y or lower == 0:
            continue
        if norm == "l2":
            inside = margin > 0 and Fraction(lower) ** 2 * (row @ row) < margin**2
        else:
            inside = Fraction(lower) * (sum(map(abs, row)) if norm == "linf" else max(map(abs, row))) < margin
        if not inside:
            return False
    return True


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [2, 64, 500])
def test_equal_to_the_closed_form_and_below_it(norm, size):
    rng = np.random.default_rng(size)
    weight, bias, x = rng.normal(size=(5, size)), rng.normal(size=5), rng.random((20, size))
    y = (x @ weight.T + bias).argmax(1)
    found = certify(classifier_of(weight, bias), torch.tensor(x), torch.tensor(y), norm)
    assert found.status == ["certified"] * 20
    for row, lower in enumerate(found.lower.tolist()):
        margins = np.array(
            [math.fsum([*((weight[y[row]] - w) * x[row]), bias[y[row]] - b]) for w, b in zip(weight, bias, strict=True)]
        )
        slopes = np.linalg.norm(weight[y[row]] - weight, DUAL[norm], axis=1)
        closed = min(margins[j] / slopes[j] for j in range(5) if j != y[row])
        # The margin itself is only known relative to the terms that it is a difference of.
        condition = np.abs((weight[y[row]] - weight) * x[row]).sum(1).max() / min(m for m in margins if m > 0)
        assert abs(lower - closed) <= 1e-12 * closed * max(1.0, condition * size / 200)
        assert is_at_most(lower, weight, bias, x[row], y[row], norm)


@settings(max_examples=150)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(NORMS),
    st.integers(-12, 12),
)
def test_below_the_exact_radius_whatever_the_scale(seed, norm, power):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(3, 4)) * 10.0**power
    bias = rng.normal(size=3) * 10.0 ** rng.integers(-12, 12)
    x = rng.random(4)
    for y in range(3):
        lower = certify(classifier_of(weight, bias), torch.tensor(x[None]), torch.tensor([y]), norm).lower.item()
        assert is_at_most(lower, weight, bias, x, y, norm)


@pytest.mark.parametrize("norm", NORMS)
def test_a_box_leaves_a_lower_bound(norm):
    rng = np.random.default_rng(4)
    below = 0
    for _ in range(10):
        weight, bias = rng.normal(size=(3, 3)), rng.normal(size=3) * 0.1
        x = rng.random(3)
        y = int((weight @ x + bias).argmax())
        lower = certify(classifier_of(weight, bias), torch.tensor(x[None]), torch.tensor([y]), norm).lower.item()
        free = exact_radius([weight], [bias], x, y, norm, -math.inf, math.inf)
        boxed = exact_radius([weight], [bias], x, y, norm)
        assert abs(lower - free) <= TOLERANCE and lower <= boxed + TOLERANCE
        below += boxed > lower + 1e-3
    assert below > 0


@settings(max_examples=60)
@given(st.lists(st.sampled_from(AFFINE), min_size=1, max_size=6), st.integers(0, 2**32 - 1), st.sampled_from(NORMS))
def test_any_affine_graph_is_collapsed(steps, seed, norm):
    rng = np.random.default_rng(seed)
    graph = random_graph(steps, rng)
    classifier = GraphClassifier(graph, dtype=torch.float64)
    assert Linear().applies(classifier, norm) is None
    x = torch.tensor(rng.random((2, *graph.input_shape)))
    y = classifier.logits(x).argmax(1)
    zero = torch.zeros(1, *graph.input_shape, dtype=torch.float64)
    units = torch.eye(zero.numel(), dtype=torch.float64).reshape(-1, *graph.input_shape)
    # The exact matrix, one column at a time, from fractions.
    offset = np.array(rational_logits(graph, zero[0]))
    weight = np.array([np.array(rational_logits(graph, unit)) - offset for unit in units]).T
    for row, lower in enumerate(certify(classifier, x, y, norm).lower.tolist()):
        point = np.array([Fraction(v) for v in x[row].flatten().tolist()])
        label = int(y[row])
        for j in range(len(weight)):
            difference, margin = (
                weight[label] - weight[j],
                (weight[label] - weight[j]) @ point + offset[label] - offset[j],
            )
            if j == label or lower == 0:
                continue
            if lower == math.inf:
                assert not any(difference) and margin > 0
            elif norm == "l2":
                assert margin > 0 and Fraction(lower) ** 2 * (difference @ difference) < margin**2
            else:
                reach = sum(map(abs, difference)) if norm == "linf" else max(map(abs, difference))
                assert Fraction(lower) * reach < margin


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_normalised_linear_layer_is_scaled_exactly(norm, dtype, monkeypatch):
    """Its matrix W diag(−1/σ) is known in fractions, and is what unit vectors give."""
    rng = np.random.default_rng(5)
    sigma, weight = rng.uniform(0.1, 3.0, 3), rng.normal(size=(4, 12)) * (rng.random((4, 12)) > 0.2)
    draft = Draft((3, 2, 2), rng)
    draft.add("sub", constants={"other": torch.tensor(rng.normal(size=(3, 1, 1)))}, reverse=1)
    draft.add("div", constants={"other": torch.tensor(sigma)[:, None, None]}).flatten()
    graph = draft.add("linear", constants={"weight": torch.tensor(weight)}).graph()
    classifier = GraphClassifier(graph, dtype=dtype)
    x = torch.tensor(rng.random((20, 3, 2, 2)), dtype=dtype)
    y = classifier.logits(x).argmax(1)
    found = certify(classifier, x, y, norm).lower
    stored = [next(iter(node.constants.values())) for node in classifier.graph.nodes if node.constants]
    offset, deviation, rows = (_fractions(value.double()) for value in stored)
    matrix = -rows / np.repeat(deviation.flatten(), 4)
    bias = -matrix @ np.repeat(offset.flatten(), 4)
    assert (found > 0).all()
    for row in range(20):
        assert is_at_most(found[row].item(), matrix, bias, x[row].flatten().double(), int(y[row]), norm)
    monkeypatch.setattr(_collapse, "_is_scaled", lambda graph: False)
    torch.testing.assert_close(
        certify(GraphClassifier(graph, dtype=dtype), x, y, norm).lower, found, rtol=1e-12, atol=0
    )


def test_what_would_take_too_long_is_refused_before():
    def of(channels, size, head):
        draft = Draft((3, size, size), np.random.default_rng(0))
        if channels:
            constants = {"weight": torch.zeros(channels, 3, 3, 3)}
            draft.add("conv2d", constants=constants, stride=(4, 4), padding=(1, 1, 1, 1), dilation=(1, 1), groups=1)
        draft.flatten()
        return GraphClassifier(draft.add("linear", constants={"weight": torch.zeros(head, draft.shape[0])}).graph())

    for quick in (of(0, 224, 10), of(16, 32, 10)):
        assert Linear().applies(quick, "l2") is None
    slow = of(16, 160, 10)
    assert re.fullmatch(
        r"the graph's matrix would take about \d+ minutes \(linear:minutes=1\)", Linear().applies(slow, "l2")
    )
    assert Linear(minutes=1000).applies(slow, "l2") is None
    assert Linear().applies(of(0, 224, 300), "l2") is not None  # every label's differences are as large


def test_the_ball_is_closed_and_the_boundary_is_an_error():
    """The nearest tie is at exactly 1/8 in linf: the stored radius is below."""
    classifier = classifier_of([[1.0, -1.0], [0.0, 0.0]])
    x, y = torch.tensor([[0.75, 0.5]], dtype=torch.float64), torch.tensor([0])
    lower = certify(classifier, x, y, "linf").lower.item()
    assert 0.125 * (1 - 1e-14) < lower < 0.125
    moved = x + torch.tensor([-lower, lower], dtype=torch.float64)
    assert evaluate(classifier.graph, moved)[0, 0] > 0


def test_what_cannot_be_misclassified_has_no_finite_radius():
    classifier = classifier_of([[0.0, 0.0], [0.0, 0.0]], [1.0, 0.0])
    x = torch.rand(2, 2, dtype=torch.float64)
    found = certify(classifier, x, torch.tensor([0, 1]), "l2")
    assert found.lower.tolist() == [math.inf, 0.0]
    assert found.status == ["certified", "open"]


def test_ties_errors_and_numbers_that_are_not_finite_have_radius_zero():
    classifier = classifier_of([[1.0, 0.0], [0.0, 1.0]])
    x = torch.tensor([[0.5, 0.5], [0.1, 0.9], [math.nan, 0.0], [math.inf, 0.0]], dtype=torch.float64)
    for norm in NORMS:
        found = certify(classifier, x, torch.zeros(4, dtype=torch.int64), norm)
        assert found.lower.tolist() == [0.0] * 4 and found.status == ["open"] * 4


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("value", [1e308, 1e160, 1e-160, 5e-324])
def test_weights_at_the_ends_of_the_range_never_prove_too_much(norm, value):
    weight, bias = np.array([[value, value], [0.0, value / 2]]), np.zeros(2)
    x = np.array([0.5, 0.25])
    found = certify(classifier_of(weight, bias), torch.tensor(x[None]), torch.tensor([0]), norm)
    assert is_at_most(found.lower.item(), weight, bias, x, 0, norm)


def test_it_says_why_it_does_not_apply():
    draft = Draft((2,), np.random.default_rng(0)).linear(3).add("relu").linear(2)
    assert Linear().applies(GraphClassifier(draft.graph()), "l2") == "node 2: relu is not affine"

    class Opaque:
        graph = None

    assert "graph" in Linear().applies(Opaque(), "linf")


def test_batches_and_labels_do_not_matter():
    rng = np.random.default_rng(8)
    classifier = classifier_of(rng.normal(size=(4, 6)), rng.normal(size=4), torch.float32)
    x, y = torch.tensor(rng.random((12, 6)), dtype=torch.float32), torch.tensor(rng.integers(0, 4, 12))
    whole = certify(classifier, x, y, "l2").lower
    single = torch.cat([certify(classifier, x[i : i + 1], y[i : i + 1], "l2").lower for i in range(12)])
    torch.testing.assert_close(whole, single, rtol=1e-13, atol=0)
    assert certify(classifier, x[:0], y[:0], "l2").lower.shape == (0,)
