"""Logits in float64: the exact ones lie within the error given, which stays small where layers expand nothing."""

import gc
import math
import weakref
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.random_graphs import Draft, random_graph, step_names
from oracles.rational import rational_logits
from robench.graph import OPERATORS
from robench.graph.intervals import point_margins
from robench_plugins.lipschitz import _forward
from robench_plugins.lipschitz._forward import local_error, logits
from robench_plugins.lipschitz.constant import lipschitz_constant


def draft(*shape):
    return Draft(shape, np.random.default_rng(0))


def matrix(*rows):
    return {"weight": torch.tensor(rows, dtype=torch.float64)}


def excess(graph, x):
    """‖fl f(x) − f(x)‖₂ over what is given for it, the largest of the points; exact but for the last division."""
    values, errors = logits(graph, lipschitz_constant(graph), x)
    most = 0.0
    for point, row, error in zip(x, values.tolist(), errors.tolist(), strict=True):
        exact = rational_logits(graph, point)
        square = sum((Fraction(a) - b) ** 2 for a, b in zip(row, exact, strict=True))
        most = max(most, float(min(square / Fraction(error) ** 2, 9)) if error else 9.0 * (square > 0))
    return most


@settings(max_examples=60)
@given(st.lists(st.sampled_from(step_names()), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_exact_logits_lie_within_the_error(steps, seed):
    rng = np.random.default_rng(seed)
    graph = random_graph(steps, rng)
    x = torch.tensor(rng.normal(size=(2, *graph.input_shape)) * 10.0 ** rng.integers(-3, 4))
    assert excess(graph, x) <= 1
    values, errors = logits(graph, lipschitz_constant(graph), x)
    assert float((errors / (values.norm(dim=1) + x.flatten(1).norm(dim=1) + 1)).max()) < 1e-6


def test_every_operator_has_an_error():
    assert set(_forward._ERRORS) == set(OPERATORS) | {"input"}


CANCELLING = {
    "products": lambda: draft(3).add("linear", constants=matrix((1e16, -1e16, 1.0), (1.0, 0.0, 0.0))),
    "a convolution": lambda: (
        draft(1, 3)
        .add(
            "conv1d",
            constants={"weight": torch.tensor([[[1e16, -1e16, 1.0]]] * 2, dtype=torch.float64)},
            stride=(1,),
            padding=(0, 0),
            dilation=(1,),
            groups=1,
        )
        .flatten()
    ),
    "a bias": lambda: (
        draft(3)
        .add("linear", constants=matrix((0.3, 0.2, 0.1), (1.0, 0.0, 0.0)) | {"bias": torch.tensor([1e16, 1.0])})
        .add("sub", constants={"other": torch.tensor([1e16, 0.0], dtype=torch.float32)}, reverse=0)
    ),
    "a sum with a constant": lambda: (
        draft(3)
        .add("add", constants={"other": torch.tensor([2.0**55, 0.0, 0.0])})
        .add("sub", constants={"other": torch.tensor([2.0**55, 0.0, 0.0])}, reverse=0)
    ),
    "a normalisation": lambda: draft(2).add(
        "batch_norm",
        constants={
            "mean": torch.tensor([3e15, 0.0]),
            "var": torch.tensor([0.125, 0.125]),
            "weight": torch.tensor([3.3, 0.3]),
            "bias": torch.tensor([1e16, 0.0]),
        },
        eps=0.125,
    ),
    "a rounding that the next layer stretches": lambda: (
        draft(3)
        .add("add", constants={"other": torch.tensor([2.0**55, 0.0, 0.0])})
        .add("sub", constants={"other": torch.tensor([2.0**55, 0.0, 0.0])}, reverse=0)
        .add("linear", constants=matrix((2.0**20, 0.0, 0.0), (1.0, 0.0, 0.0)))
    ),
}


@pytest.mark.parametrize("case", CANCELLING)
def test_cancellation_is_within_the_error_and_needs_every_part_of_it(case, monkeypatch):
    graph = CANCELLING[case]().graph()
    x = torch.tensor(np.random.default_rng(0).random((20, *graph.input_shape)))
    assert 0 < excess(graph, x) <= 1
    wrong = {
        "products": lambda error: (0.0, *error[1:]),
        "a convolution": lambda error: (0.0, *error[1:]),
        "a bias": lambda error: (error[0], error[1] / 1e6, 0.0),
        "a sum with a constant": lambda error: (error[0], 0.0, error[2]),
        "a normalisation": lambda error: (error[0], error[1], 0.0),
    }
    if case in wrong:
        monkeypatch.setattr(_forward, "local_error", lambda graph, position: wrong[case](local_error(graph, position)))
        again = CANCELLING[case]().graph()
    else:
        again = CANCELLING[case]().graph()
        found = lipschitz_constant(again)
        object.__setattr__(found, "tails", lambda graph, nodes: dict.fromkeys(nodes, 1.0))
    assert excess(again, x) > 1


def test_deep_orthogonal_layers_lose_nothing():
    """The error grows with the norms, not with those of the magnitudes: 11 digits where intervals keep none."""
    rng = np.random.default_rng(0)
    d = draft(128)
    for _ in range(9):
        d.add("linear", constants={"weight": torch.tensor(np.linalg.qr(rng.normal(size=(128, 128)))[0])})
        d.add("group_sort", group=2)
    graph = d.graph()
    x = torch.tensor(rng.random((5, 128)))
    values, errors = logits(graph, lipschitz_constant(graph), x)
    assert float(errors.max()) < 1e-10
    y = values.argmax(1)
    lower, upper = point_margins(graph, x, y)
    assert float((upper - lower).min()) > 1e4 * float(errors.max())
    top = values.topk(2, 1).values
    assert bool(((top[:, 0] - top[:, 1]).clamp(lower, upper) == top[:, 0] - top[:, 1]).all())


def test_points_that_are_not_finite_are_not_known():
    graph = draft(2).add("clip", min=-1.0, max=1.0).add("relu").graph()
    x = torch.tensor([[0.5, 0.1], [math.inf, 0.0], [math.nan, 0.0]], dtype=torch.float64)
    errors = logits(graph, lipschitz_constant(graph), x)[1]
    assert errors[0] == 0 and not bool(errors[1:].isfinite().any())
    assert logits(graph, lipschitz_constant(graph), x[:0])[0].shape == (0, 2)


def test_nothing_keeps_a_graph_alive():
    """What is known about a graph goes with it: a suite evaluates many networks in one process."""
    graph = draft(3).linear(2).graph()
    logits(graph, lipschitz_constant(graph), torch.zeros(1, 3))
    there = weakref.ref(graph)
    del graph
    gc.collect()
    assert there() is None
