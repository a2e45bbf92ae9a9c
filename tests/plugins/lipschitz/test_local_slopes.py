"""The rows behind `fast-lip` enclose what they stand for: derivatives, quotients of differences, exact constants."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from oracles.enumeration import random_net
from oracles.random_graphs import evaluate, mlp, random_graph, step_names
from robench.graph import OPERATORS, Graph, Node
from robench.graph.intervals import Box, input_set, node_boxes
from robench.threat import NORMS, Domain
from robench_plugins.lipschitz.local._affine import AFFINE
from robench_plugins.lipschitz.local._choices import CHOICES
from robench_plugins.lipschitz.local._rows import Rows
from robench_plugins.lipschitz.local._slopes import SLOPES, Reach
from robench_plugins.lipschitz.local.slopes import margin_rows, margin_slopes
from robench_plugins.verify.boxes import crown_boxes

SPACE = Domain.unbounded()


def test_every_operator_has_a_rule():
    assert sorted([*AFFINE, *SLOPES, *CHOICES]) == sorted(OPERATORS)
    assert all((name in AFFINE) == operator.affine for name, operator in OPERATORS.items())


def points_around(x, eps, norm, rng, count=40):
    """Points [count, ...] of the closed ball around x [...], most of them far out."""
    noise = torch.tensor(rng.normal(size=(count, *x.shape)))
    size = noise.flatten(1).norm(p={"linf": math.inf, "l2": 2, "l1": 1}[norm], dim=1)
    share = torch.tensor(rng.random(count)) ** 0.2 * (1 - 1e-12)
    return x + noise * (eps * share / size).reshape(-1, *[1] * x.dim())


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(step_names()), max_size=4),
    st.integers(0, 2**32 - 1),
    st.sampled_from(NORMS),
    st.sampled_from([1e-6, 0.1, 1.0]),
    st.booleans(),
)
def test_rows_enclose_derivatives_and_differences(steps, seed, norm, eps, tight):
    rng = np.random.default_rng(seed)
    graph = random_graph(steps, rng)
    x = torch.tensor(rng.normal(size=(1, *graph.input_shape)))
    y, rivals = torch.tensor([seed % 3]), torch.arange(3)
    radius = torch.tensor([eps], dtype=torch.float64)
    start = input_set(x, norm, radius, SPACE)
    ball = crown_boxes(graph, x, norm, radius, SPACE) if tight else node_boxes(graph, start)
    between, from_x = (margin_rows(graph, y, rivals, ball, point) for point in (None, node_boxes(graph, Box(x, x))))
    assert (from_x.lower >= between.lower - 1e-9).all() and (from_x.upper <= between.upper + 1e-9).all()
    points = points_around(x[0], eps, norm, rng).requires_grad_()
    logits, centre = evaluate(graph, points), evaluate(graph, x)
    step = (points - x).detach()
    rates = margin_slopes(graph, x, y, norm, SPACE, ball, None)[0]
    size = step.flatten(1).norm(p={"linf": math.inf, "l2": 2, "l1": 1}[norm], dim=1)
    for j in range(3):
        gap = logits[:, int(y)] - logits[:, j]
        (gradient,) = torch.autograd.grad(gap.sum(), points, retain_graph=True, materialize_grads=True)
        slack = 1e-9 * (1 + gradient.abs().amax())
        assert (gradient >= between.lower[0, j] - slack).all() and (gradient <= between.upper[0, j] + slack).all()
        moved = (gap - (centre[0, int(y)] - centre[0, j])).detach()
        low, high = from_x.lower[0, j], from_x.upper[0, j]
        least = torch.minimum(low * step, high * step).flatten(1).sum(1)
        most = torch.maximum(low * step, high * step).flatten(1).sum(1)
        slack = 1e-9 * (1 + centre.abs().max())
        assert (moved >= least - slack).all() and (moved <= most + slack).all()
        assert (moved >= -rates[j] * size - slack).all()


def local_constant(weights, biases, x, eps, form, dual):
    """The largest dual norm of the gradient of form · f within the linf ball, over patterns with inner points."""
    best = 0.0
    hidden = [len(bias) for bias in biases[:-1]]
    for flat in itertools.product([0.0, 1.0], repeat=sum(hidden)):
        signs = np.split(np.array(flat), np.cumsum(hidden)[:-1])
        matrix, offset, rows, limits = np.eye(len(x)), np.zeros(len(x)), [], []
        for weight, bias, on in zip(weights[:-1], biases[:-1], signs, strict=True):
            matrix, offset = weight @ matrix, weight @ offset + bias
            turn = np.where(on == 1, -1.0, 1.0)
            rows.append(turn[:, None] * matrix)
            limits.append(-turn * offset)
            matrix, offset = on[:, None] * matrix, on * offset
        above = np.vstack(rows)
        # The deepest point: a slack of at least 1e-9 in every row.
        cost = np.append(np.zeros(len(x)), -1.0)
        found = linprog(
            cost,
            np.hstack([above, np.ones((len(above), 1))]),
            np.concatenate(limits),
            bounds=[*((v - eps, v + eps) for v in x), (None, 1.0)],
        )
        if found.status == 0 and -found.fun > 1e-9:
            best = max(best, float(np.linalg.norm(form @ weights[-1] @ matrix, dual)))
    return best


def test_never_below_the_exact_local_constant():
    """All patterns of activations that have a point in the ball, by linear programs."""
    ratios = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        weights, biases = random_net(rng, (2, 3, 2, 2))
        graph, x = mlp(weights, biases), rng.random(2)
        for eps in (0.01, 0.1, 0.4):
            exact = local_constant(weights, biases, x, eps, np.array([1.0, -1.0]), 1)
            point = torch.tensor(x[None])
            ball = crown_boxes(graph, point, "linf", torch.tensor([eps], dtype=torch.float64), SPACE)
            found = margin_slopes(graph, point, torch.tensor([0]), "linf", SPACE, ball, None)[0, 1].item()
            assert found >= exact * (1 - 1e-12)
            ratios.append(found / exact if exact else 1.0)
    assert sum(ratio < 1 + 1e-9 for ratio in ratios) >= 3  # exact where no neuron is open
    assert max(ratios) > 1.05  # and some were


@settings(max_examples=80)
@given(st.sampled_from(sorted(SLOPES)), st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 1.0, 30.0]))
def test_slopes_hold_all_quotients(op, seed, size):
    rng = np.random.default_rng(seed)
    attributes = {
        "leaky_relu": {"slope": float(rng.choice([-0.5, 0.0, 0.1, 1.0, 2.0]))},
        "clip": {"min": float(rng.choice([-math.inf, -0.3])), "max": float(rng.choice([math.inf, 0.5, -0.3]))},
    }.get(op, {})
    if op == "clip" and attributes["min"] > attributes["max"]:
        return
    low = torch.tensor(rng.normal(size=200) * size)
    high = low + torch.tensor(rng.random(200) * size)
    z = low + (high - low) * torch.tensor(rng.random(200))
    node = Node(op, (0,), attributes, {}, (200,))
    slopes_low, slopes_high = (side[0] for side in SLOPES[op](node, Reach(low[None], high[None], z[None], z[None])))
    wide_low, wide_high = SLOPES[op](node, Reach(low[None], high[None], low[None], high[None]))
    assert (slopes_low >= wide_low[0] - 1e-12).all() and (slopes_high <= wide_high[0] + 1e-12).all()
    apply = OPERATORS[op].bind(attributes, {})
    for share in (0.0, 0.1, 0.4, 0.7, 0.95, 1.0):
        v = low + (high - low) * share
        for start, (least, most) in (
            (z, (slopes_low, slopes_high)),
            (high - (high - low) * share**2, (wide_low[0], wide_high[0])),
        ):
            far = (v - start).abs() > 1e-3 * size
            quotient = (apply(v) - apply(start)) / (v - start)
            slack = 1e-9 if size >= 1 else 1e-6
            assert (quotient >= least - slack)[far].all() and (quotient <= most + slack)[far].all()


def test_an_open_relu_has_the_share_of_the_way_that_it_is_open_for():
    reach = Reach(
        *(torch.tensor([[v, w]], dtype=torch.float64) for v, w in ((-1.0, -3.0), (2.0, 1.0), (1.0, -1.0), (1.0, -1.0)))
    )
    low, high = SLOPES["relu"](Node("relu", (0,)), reach)
    torch.testing.assert_close(low, torch.tensor([[0.5, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(high, torch.tensor([[1.0, 0.5]], dtype=torch.float64))


@pytest.mark.parametrize("op", sorted(CHOICES))
def test_choices_enclose_every_choice_of_a_random_walk(op):
    """Gradients at points of the input's box lie within the rows, and equal them where nothing is open."""
    rng = np.random.default_rng(0)
    attributes = {
        "group_sort": {"group": 3},
        "max_pool2d": {"kernel": (2, 2), "stride": (1, 1), "padding": (1, 0, 0, 1), "dilation": (1, 2)},
    }[op]
    apply = OPERATORS[op].bind(attributes, {})
    for width in (0.0, 0.2, 1.0):
        low = torch.tensor(rng.normal(size=(2, 6, 4, 4)))
        high = low + width * torch.tensor(rng.random(low.shape))
        value = apply(low)
        rows = torch.tensor(rng.normal(size=(2, 1, *value.shape[1:])))
        found = CHOICES[op](
            Node(op, (0,), attributes, {}, tuple(value.shape[1:])), Reach(low, high, low, low), Rows(rows, rows)
        )
        for _ in range(30):
            v = (low + (high - low) * torch.tensor(rng.random(low.shape))).requires_grad_()
            (gradient,) = torch.autograd.grad(apply(v), v, rows[:, 0])
            assert (gradient >= found.lower[:, 0] - 1e-12).all() and (gradient <= found.upper[:, 0] + 1e-12).all()
        if width == 0:
            torch.testing.assert_close(found.lower[:, 0], gradient)
            torch.testing.assert_close(found.upper[:, 0], gradient)


def test_branches_that_cancel_and_repeat():
    """The input read twice, and its own negative: f = (x + x − x, 0) has the slope 1."""
    nodes = (
        Node("input", shape=(2,)),
        Node("add", (0, 0), {}, {}, (2,)),
        Node("sub", (1, 0), {"reverse": 0}, {}, (2,)),
    )
    x = torch.tensor([[0.3, 0.1]], dtype=torch.float64)
    graph = Graph(nodes)
    rows = margin_rows(graph, torch.tensor([0]), torch.arange(2), node_boxes(graph, Box(x, x)), None)
    for side in (rows.lower, rows.upper):
        torch.testing.assert_close(side[0, 1], torch.tensor([1.0, -1.0], dtype=torch.float64))
    assert (rows.lower[0, 0] == 0).all() and (rows.upper[0, 0] == 0).all()


@pytest.mark.parametrize("op", ["mul", "div", "batch_norm"])
def test_factors_that_underflow_are_not_zero(op):
    """0 < |w| < the smallest double: the slope is unknown, but not 0."""
    tiny, huge = 5e-324, 1.7e308
    constants = {
        "mul": {"other": torch.tensor([tiny, 0.0], dtype=torch.float64)},
        "div": {"other": torch.tensor([huge, huge], dtype=torch.float64)},
        "batch_norm": {
            name: torch.tensor(value, dtype=torch.float64)
            for name, value in {"mean": [0.0] * 2, "bias": [0.0] * 2, "var": [1e300] * 2, "weight": [tiny, 0.0]}.items()
        },
    }[op]
    attributes = {"eps": 0.25} if op == "batch_norm" else {}
    rule = AFFINE[op](Node(op, (0,), attributes, constants, (2,)), [(2,)], torch.device("cpu"))
    one = torch.tensor([[[1e-200, 1.0]]], dtype=torch.float64)
    (rows,) = rule(Rows(one, one))
    assert rows.lower[0, 0, 0] < 0 < rows.upper[0, 0, 0] < 1e-100
    if op != "div":
        assert rows.lower[0, 0, 1] == rows.upper[0, 0, 1] == 0
