"""Where float64 ends: overflow, underflow, NaN, cancellation and zero weights never give a false claim."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles.random_graphs import Draft, random_graph
from oracles.soundness import excluded_at_point, excluded_in_ball
from robench.graph.intervals import ball_margin_lower, dual_norm_up, logit_bounds, point_margins
from robench.threat import NORMS, Domain

SPACE = Domain(-math.inf, math.inf)
ZERO = torch.tensor([0])


def two_logits(weight, bias=None, dtype=torch.float64):
    """A linear classifier as a graph."""
    constants = {"weight": torch.tensor(weight, dtype=dtype)}
    if bias is not None:
        constants["bias"] = torch.tensor(bias, dtype=dtype)
    return Draft((len(weight[0]),), np.random.default_rng(0)).add("linear", constants=constants).graph()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("steps", [["conv2d", "relu"], ["clip"], ["sigmoid", "max_pool2d"], ["group_sort"], ["relu"]])
def test_an_input_that_is_not_finite_proves_nothing(value, steps):
    graph = random_graph(steps, np.random.default_rng(1))
    x = torch.rand(2, 2, 3, 3)
    x[0, 1, 2, 0] = value
    y = torch.tensor([0, 0])
    lower, upper = point_margins(graph, x, y)
    assert (lower[0], upper[0]) == (-math.inf, math.inf)
    assert lower[1].isfinite() and upper[1].isfinite()
    for norm in NORMS:
        bound = ball_margin_lower(graph, x, y, norm, 0.1, SPACE)
        assert bound[0] == -math.inf and bound[1].isfinite()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("op", ["linear", "conv2d", "batch_norm", "add", "sub", "mul", "div"])
def test_a_constant_that_is_not_finite_proves_nothing(value, op):
    graph = random_graph([op], np.random.default_rng(7), shape=(2, 4, 4))
    node = next(node for node in graph.nodes if node.op == op)
    next(iter(node.constants.values())).reshape(-1)[0] = value
    lower, upper = point_margins(graph, torch.zeros(1, 2, 4, 4), ZERO)
    assert not lower.isnan().any() and not upper.isnan().any()
    assert (lower.item() <= 0 and upper.item() == math.inf) or lower.item() == -math.inf


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [1e300, math.inf])
def test_a_huge_ball_is_open_without_a_box(norm, eps):
    graph = random_graph(["linear", "relu"], np.random.default_rng(3))
    assert not (ball_margin_lower(graph, torch.rand(4, 2, 3, 3), ZERO.expand(4), norm, eps, SPACE) > 0).any()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [5e-324, 1e-310, 1e-30])
def test_a_tiny_ball_still_holds_its_points(norm, eps):
    """The bound at a tie is at most 0, however small the ball."""
    graph = two_logits([[1.0, 0.0], [0.0, 1.0]])
    x = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    assert ball_margin_lower(graph, x, ZERO, norm, eps, Domain()).item() <= 0
    beside = torch.tensor([[0.5, math.nextafter(0.5, 0.0)]], dtype=torch.float64)
    assert point_margins(graph, beside, ZERO)[0].item() <= Fraction(0.5) - Fraction(math.nextafter(0.5, 0.0))


def test_zero_weights_leave_the_bias_alone():
    graph = two_logits([[0.0, 0.0], [0.0, 0.0]], [0.25, 0.0])
    x = torch.rand(3, 2)
    for norm in NORMS:
        bound = ball_margin_lower(graph, x, ZERO.expand(3), norm, 1e9, SPACE)
        assert ((bound > 0.2499999) & (bound <= 0.25)).all()
    tie = two_logits([[0.0, 0.0], [0.0, 0.0]], [0.25, 0.25])
    lower, upper = point_margins(tie, x, ZERO.expand(3))
    assert (lower <= 0).all() and (upper >= 0).all()


def test_exploding_weights_overflow_to_no_claim():
    draft = Draft((2,), np.random.default_rng(0))
    for _ in range(3):
        draft.add("linear", constants={"weight": torch.full((2, 2), 1e200, dtype=torch.float64)}).add("relu")
    graph = draft.add("linear", constants={"weight": torch.eye(2, dtype=torch.float64)}).graph()
    lower, upper = point_margins(graph, torch.rand(1, 2), ZERO)
    assert lower.item() == -math.inf and upper.item() == math.inf
    # Overflow in the middle, a true margin of 1: inf − inf must not become a claim.
    rows = [[1e308, 1e308, -1e308, -1e308, 1.0], [0.0] * 5]
    graph = two_logits(rows)
    x = torch.ones(1, 5, dtype=torch.float64)
    lower, upper = point_margins(graph, x, ZERO)
    assert lower.item() <= 1 <= upper.item()
    assert excluded_at_point(graph, x[0], 0) is None


@given(st.floats(1e5, 1e17), st.floats(-1.0, 1.0))
def test_cancelling_branches_hold_the_small_difference(offset, small):
    draft = Draft((1,), np.random.default_rng(0))
    other = {"other": torch.tensor([offset], dtype=torch.float64)}
    draft.add("add", constants=other)
    draft.add("sub", 1, 0, reverse=0)
    weight = {"weight": torch.tensor([[1.0], [0.0]], dtype=torch.float64)}
    graph = draft.add("sub", constants=other, reverse=0).add("linear", constants=weight).graph()
    x = torch.tensor([small], dtype=torch.float64)
    # (x + c) − x − c is 0 in real arithmetic: neither sign may be claimed.
    lower, upper = (v.item() for v in point_margins(graph, x[None], ZERO))
    assert lower <= 0 <= upper


@pytest.mark.parametrize("scale", [1e-160, 1e-300, 1e-308, 5e-324])
def test_margins_near_the_smallest_doubles(scale):
    rng = np.random.default_rng(0)
    for seed in range(20):
        weight = torch.tensor(rng.normal(size=(3, 4))) * scale
        graph = Draft((4,), rng).add("linear", constants={"weight": weight}).graph()
        x = torch.tensor(rng.random(4)) * 10.0 ** rng.integers(-20, 1)
        assert excluded_at_point(graph, x, seed % 3) is None
        for norm in NORMS:
            generator = torch.Generator().manual_seed(seed)
            assert excluded_in_ball(graph, x, seed % 3, norm, 0.1, SPACE, generator) is None


def test_products_that_underflow_are_not_lost():
    graph = two_logits([[1e-200, 0.0], [0.0, 1e-200]])
    x = torch.tensor([1e-200, 2e-200], dtype=torch.float64)
    assert excluded_at_point(graph, x, 0) is None
    assert excluded_at_point(graph, x, 1) is None


def test_batch_normalisation_with_a_vanishing_scale():
    values = {"mean": [0.0], "var": [1e300], "weight": [1e-300], "bias": [0.0]}
    constants = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
    draft = Draft((1,), np.random.default_rng(0)).add("batch_norm", constants=constants, eps=1e-5)
    graph = draft.add("linear", constants={"weight": torch.tensor([[1e300], [0.0]], dtype=torch.float64)}).graph()
    # The margin is 1e150 · x / 1e300 > 0, but the scale 1e-450 underflows: no claim of a margin of 0 or below.
    lower, upper = point_margins(graph, torch.ones(1, 1, dtype=torch.float64), ZERO)
    assert lower.item() <= 0 < upper.item()


def test_flushed_subnormals_do_not_matter():
    graph = two_logits([[5e-324, 0.0], [0.0, 5e-324]])
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor has no switch for subnormals")
    try:
        lower, upper = point_margins(graph, x, ZERO)
        assert (torch.full((), 5e-324, dtype=torch.float64) * 1.0 == 0).item()
    finally:
        torch.set_flush_denormal(False)
    assert lower.item() < 0 and upper.item() >= -5e-324


@given(
    st.lists(st.floats(0, 1e308, allow_subnormal=True), min_size=1, max_size=6),
    st.sampled_from(NORMS),
)
def test_dual_norms_are_rounded_up(values, norm):
    result = dual_norm_up(torch.tensor([values], dtype=torch.float64), norm).item()
    exact = [Fraction(v) for v in values]
    if norm == "l2":
        assert result == math.inf or Fraction(result) ** 2 >= sum(v * v for v in exact)
    else:
        assert result >= (sum(exact) if norm == "linf" else max(exact))
    size = max(values)
    assert size == 0 or result <= size * len(values) * (1 + 1e-13) + 1e-320
    assert size > 0 or result == 0


def test_nan_bounds_of_a_box_are_unknown():
    graph = two_logits([[1.0, 0.0], [0.0, 1.0]])
    lower = torch.tensor([[math.nan, 0.0]], dtype=torch.float64)
    low, high = logit_bounds(graph, lower, torch.ones(1, 2, dtype=torch.float64))
    assert low[0, 0] == -math.inf and high[0, 0] == math.inf
