"""Enclosures at points hold the margin of exact rational arithmetic."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.random_graphs import Draft, evaluate, random_graph, step_names
from oracles.rational import margin, rational_logits
from oracles.soundness import excluded_at_point
from robench.errors import GraphError
from robench.graph import OPERATORS, Graph, Node
from robench.graph.intervals import _elementwise, logit_bounds, pairwise_margins, point_margins, unsupported
from robench.threat import Domain

STEPS = st.lists(st.sampled_from(step_names()), min_size=1, max_size=8)
SEEDS = st.integers(0, 2**32 - 1)


def sample(graph: Graph, rng: np.random.Generator) -> torch.Tensor:
    values = rng.random(graph.input_shape) * (rng.random(graph.input_shape) > 0.2)
    return torch.tensor(values, dtype=torch.float32)


@settings(max_examples=150)
@given(STEPS, SEEDS)
def test_the_true_margin_lies_inside(steps, seed):
    rng = np.random.default_rng(seed)
    graph = random_graph(steps, rng)
    assert excluded_at_point(graph, sample(graph, rng), int(rng.integers(0, graph.classes))) is None


@pytest.mark.parametrize("name", step_names())
def test_every_operator_is_enclosed_tightly(name):
    operator = name.split()[0]
    seen = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        graph = random_graph([*(["conv2d"] if seed % 2 else []), name], rng, shape=(2, 4, 4))
        seen += operator in {node.op for node in graph.nodes}
        x, y = sample(graph, rng), int(rng.integers(0, graph.classes))
        lower, upper = point_margins(graph, x[None], torch.tensor([y]))
        exact = margin(rational_logits(graph, x), y)
        assert lower.item() <= exact <= upper.item()
        assert upper.item() - lower.item() < 1e-11 * (1 + abs(exact))
    assert seen >= 6


def test_every_operator_of_the_vocabulary_is_among_the_steps():
    assert {name.split()[0] for name in step_names()} == set(OPERATORS)


@given(STEPS, SEEDS)
def test_logit_bounds_hold_the_logits(steps, seed):
    rng = np.random.default_rng(seed)
    graph = random_graph(steps, rng)
    x = sample(graph, rng)
    exact = rational_logits(graph, x)
    lower, upper = logit_bounds(graph, x[None], x[None])
    assert all(low <= v <= high for low, v, high in zip(lower[0].tolist(), exact, upper[0].tolist(), strict=True))
    lower, upper = logit_bounds(graph, x[None] - 0.25, x[None] + 0.25)
    assert all(low <= v <= high for low, v, high in zip(lower[0].tolist(), exact, upper[0].tolist(), strict=True))


@pytest.mark.parametrize("function", ["sigmoid", "tanh"])
def test_transcendental_functions_hold_over_their_whole_range(function, monkeypatch):
    powers = 10.0 ** np.arange(-300, 4, 8)
    values = np.concatenate([np.linspace(-40, 40, 161), powers, -powers])
    graph = Draft((len(values),), np.random.default_rng(0)).add(function).graph()
    x = torch.tensor(values)
    exact = rational_logits(graph, x)

    def missed() -> int:
        lower, upper = logit_bounds(graph, x[None], x[None])
        assert (upper - lower).max() < 3e-14
        return sum(not low <= v <= up for low, v, up in zip(lower[0].tolist(), exact, upper[0].tolist(), strict=True))

    assert missed() == 0
    monkeypatch.setattr(_elementwise, "LIBRARY_ERROR", 0.0)
    monkeypatch.setattr(_elementwise, "UNDERFLOW", 0.0)
    assert missed() > 0


def test_pairs_are_the_margins_of_single_classes():
    rng = np.random.default_rng(1)
    graph = random_graph(["conv2d", "relu"], rng, classes=4)
    x = torch.tensor(rng.random((5, *graph.input_shape)))
    y = torch.tensor([0, 3, 1, 3, 2])
    lower, upper = pairwise_margins(graph, x, y, "linf", 0.0, Domain())
    logits = evaluate(graph, x)
    pairs = logits.gather(1, y[:, None]) - logits
    own = torch.nn.functional.one_hot(y, 4).bool()
    assert (lower[own] == torch.inf).all() and (upper[own] == torch.inf).all()
    torch.testing.assert_close(lower[~own], pairs[~own], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(upper[~own], pairs[~own], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_stored_constants_are_taken_exactly(dtype):
    rng = np.random.default_rng(5)
    draft = Draft((6,), rng)
    weight, bias = (torch.tensor(rng.normal(size=s)).to(dtype) for s in ((3, 6), (3,)))
    graph = draft.add("linear", constants={"weight": weight, "bias": bias}).graph()
    assert excluded_at_point(graph, torch.tensor(rng.random(6)), 1) is None


def test_an_empty_batch_gives_an_empty_answer():
    graph = random_graph(["conv2d", "relu"], np.random.default_rng(0))
    lower, upper = point_margins(graph, torch.empty(0, 2, 3, 3), torch.empty(0, dtype=torch.int64))
    assert lower.shape == upper.shape == (0,)


def test_what_has_no_rule_is_refused_by_name():
    graph = Graph((Node("input", shape=(3,)), Node("softmax", (0,), shape=(3,))))
    assert unsupported(graph) == "node 1: no interval rule for softmax with 1 inputs"
    with pytest.raises(GraphError, match="softmax"):
        point_margins(graph, torch.zeros(1, 3), torch.tensor([0]))
    single = Draft((3,), np.random.default_rng(0)).linear(1).graph()
    assert "at least two logits" in str(unsupported(single))


def test_the_callers_settings_survive():
    graph = random_graph(["conv2d", "relu"], np.random.default_rng(0))
    x = torch.rand(2, 2, 3, 3, requires_grad=True)
    before = torch.get_rng_state(), torch.backends.cudnn.enabled
    lower, _ = point_margins(graph, x, torch.tensor([0, 1]))
    assert not lower.requires_grad and x.grad is None and torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before[0]) and torch.backends.cudnn.enabled == before[1]


@pytest.mark.gpu
@pytest.mark.parametrize("name", step_names())
def test_a_gpu_encloses_the_same_function(name):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        graph = random_graph(["conv2d", name], rng, shape=(2, 4, 4))
        x, y = sample(graph, rng), int(rng.integers(0, graph.classes))
        lower, upper = point_margins(graph, x[None].cuda(), torch.tensor([y], device="cuda"))
        exact = margin(rational_logits(graph, x), y)
        assert lower.is_cuda and lower.item() <= exact <= upper.item()
        assert upper.item() - lower.item() < 1e-11 * (1 + abs(exact))
