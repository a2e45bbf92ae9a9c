"""Polynomials of a skew-symmetric layer: max |p(iθ)|, and the sum of norms where anything differs."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.expansion import expanded
from oracles.random_graphs import Draft, evaluate
from robench_plugins.lipschitz._series import largest, series
from robench_plugins.lipschitz.constant import lipschitz_constant

numbers = st.integers(-300, 300).map(lambda n: Fraction(n, 100))


@settings(max_examples=200)
@given(st.lists(numbers, min_size=1, max_size=9).map(tuple), st.floats(0, 4))
def test_the_largest_value_of_a_polynomial_on_the_imaginary_axis(coefficients, radius):
    theta = np.linspace(0, radius, 20_001)
    seen = np.abs(sum(float(c) * (1j * theta) ** k for k, c in enumerate(coefficients))).max()
    found = largest(coefficients, radius)
    scale = sum(abs(float(c)) * radius**k for k, c in enumerate(coefficients))
    assert seen * (1 - 1e-12) <= found <= seen + 1e-5 * scale


def taylor(degree):
    return tuple(Fraction(1, math.factorial(k)) for k in range(degree + 1))


@pytest.mark.parametrize(
    ("degree", "radius", "value"),
    [
        (1, 0.5, math.sqrt(1.25)),
        (2, 1.0, math.sqrt(1.25)),  # |1 − θ²/2 + iθ|² = 1 + θ⁴/4
        (3, math.sqrt(3) - 1e-9, 1.0),  # 1 − θ⁴/12 + θ⁶/36
        (4, math.sqrt(8) - 1e-9, 1.0),  # the stability interval of the classical Runge-Kutta method
        (4, 3.0, math.sqrt((1 - 4.5 + 81 / 24) ** 2 + (3 - 4.5) ** 2)),
        (12, 3.3, 1.0),
    ],
)
def test_truncated_exponentials(degree, radius, value):
    assert largest(taylor(degree), radius) == pytest.approx(value, rel=1e-6)
    if value == 1:
        assert largest(taylor(degree), radius) == 1


def test_after_the_fifth_power_every_series_expands():
    assert largest(taylor(5), 1e-2) > 1
    assert largest(taylor(12), 3.5) > 1


def test_what_is_not_known_stays_so():
    assert largest((Fraction(1), Fraction(1)), math.inf) == math.inf
    assert largest((Fraction(-2), Fraction(0)), math.inf) == pytest.approx(2, rel=1e-12)
    assert largest((Fraction(1), Fraction(0), Fraction(10) ** 300), 1e10) == math.inf


def skew(size, norm, seed=0):
    weight = np.random.default_rng(seed).normal(size=(size, size))
    weight -= weight.T
    weight = np.triu(weight * norm / np.linalg.norm(weight, 2))
    return torch.tensor(weight - weight.T)


def skew_kernel(channels, groups, taps, seed, rank=2):
    weight = torch.tensor(np.random.default_rng(seed).normal(size=(channels, channels // groups, *[taps] * rank)))
    swapped = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
    return (weight - swapped.flip(tuple(range(2, 2 + rank)))) / (2 * channels * taps)


def dense(weight):
    return lambda d, *source: d.add("linear", *source, constants={"weight": weight})


def convolution(weight, dilation=1, groups=1, padding=None):
    rank = weight.dim() - 2
    around = dilation * (weight.shape[2] - 1) // 2 if padding is None else padding

    def add(d, *source):
        return d.add(
            f"conv{rank}d",
            *source,
            constants={"weight": weight},
            stride=(1,) * rank,
            padding=(around,) * 2 * rank,
            dilation=(dilation,) * rank,
            groups=groups,
        )

    return add


def chain(shape, layer, degree=4, before=()):
    """x + Ax + A²x/2 + …, as our layers are written; node 3k is what the power k is added in."""
    d = Draft(shape, np.random.default_rng(0))
    for one in before:
        one(d)
    total = power = len(before)
    for k in range(1, degree + 1):
        layer(d, power).add("div", constants={"other": torch.full((1,) * len(shape), float(k))})
        power = total + 2 if k == 1 else power + 3
        d.add("add", total, power)
        total = power + 1
    return d.flatten().graph()


def matrix_of(graph):
    units = torch.eye(math.prod(graph.input_shape), dtype=torch.float64).reshape(-1, *graph.input_shape)
    return (evaluate(graph, units) - evaluate(graph, torch.zeros_like(units[:1]))).flatten(1).T


def norm_of(graph):
    return float(torch.linalg.matrix_norm(matrix_of(graph), 2))


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 7, 12])
@pytest.mark.parametrize("norm", [0.3, 1.0, 2.5])
def test_a_dense_series(norm, degree):
    graph = chain((6,), dense(skew(6, norm)), degree)
    found = lipschitz_constant(graph)
    assert found.source == f"series {3 * degree}"
    assert norm_of(graph) <= found.value * (1 + 1e-12)
    assert found.value == pytest.approx(largest(taylor(degree), norm), rel=1e-9)
    assert expanded(graph, found.value) is None


def test_the_eigenvalue_that_expands_most_is_met():
    """A rotation by θ: both eigenvalues are ±iθ, so that the bound is the norm."""
    weight = torch.tensor([[0.0, 1.3], [-1.3, 0.0]], dtype=torch.float64)
    graph = chain((2,), dense(weight), 2)
    assert lipschitz_constant(graph).value == pytest.approx(norm_of(graph), rel=1e-9)


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (4, 1), (4, 2)])
@pytest.mark.parametrize(("taps", "dilation", "rank"), [(1, 1, 2), (3, 1, 2), (3, 2, 2), (5, 1, 1), (2, 2, 1)])
def test_series_of_convolutions(channels, groups, taps, dilation, rank):
    kernel = skew_kernel(channels, groups, taps, 3, rank)
    graph = chain((channels, *(5, 4)[:rank]), convolution(kernel, dilation, groups))
    found = lipschitz_constant(graph)
    assert found.source.startswith("series")
    assert norm_of(graph) <= found.value * (1 + 1e-12)
    assert found.value < 1.05  # of the sum of norms, e^‖A‖
    assert expanded(graph, found.value, steps=6) is None


def _nudged(weight):
    other = weight.clone()
    other[1, 2] = math.nextafter(float(other[1, 2]), 9.0)
    return other


def _alternating(first, second):
    calls = iter([first, second, first, first])
    return lambda d, *source: next(calls)(d, *source)


WEIGHT = skew(4, 1.0)
OTHERS = {
    "not skew-symmetric by one double": dense(_nudged(WEIGHT)),
    "symmetric": dense(WEIGHT @ WEIGHT),
    "one layer differs by one double": _alternating(dense(WEIGHT), dense(_nudged(WEIGHT))),
    "one layer in single precision": _alternating(dense(WEIGHT), dense(WEIGHT.float())),
}


@pytest.mark.parametrize("name", OTHERS)
def test_anything_else_keeps_the_general_rule(name):
    graph = chain((4,), OTHERS[name])
    assert not any(len(one.nodes) == len(graph.nodes) - 2 for one in series(graph).values())
    found = lipschitz_constant(graph)
    assert found.value > 1.5
    assert norm_of(graph) <= found.value


def test_an_activation_between_ends_a_series():
    d = dense(WEIGHT)(Draft((4,), np.random.default_rng(0)), 0).add("relu")
    graph = dense(WEIGHT)(d, 2).add("add", 0, 3).graph()
    assert series(graph) == {}
    assert lipschitz_constant(graph).value == pytest.approx(2, rel=1e-9)
    assert expanded(graph, 2.0) is None


@pytest.mark.parametrize("padding", [0, 2])
def test_the_padding_of_a_convolution_must_be_its_transposes(padding):
    kernel = skew_kernel(2, 1, 3, 0)
    d = convolution(kernel, padding=padding)(Draft((2, 5, 5), np.random.default_rng(0)), 0)
    assert series(d.graph()) == {}


def test_what_others_read_is_no_part_of_a_series():
    d = dense(WEIGHT)(Draft((4,), np.random.default_rng(0)), 0).add("add", 0, 1).add("relu", 1)
    graph = d.add("add", 2, 3).graph()
    assert series(graph) == {}
    assert lipschitz_constant(graph).value >= 3 - 1e-9


def test_factors_and_layers_around_multiply():
    scale = {"other": torch.full((1,), 3.0, dtype=torch.float64)}
    before = (dense(skew(4, 2.0, seed=5)), lambda d: d.add("relu"))
    graph = chain((4,), dense(WEIGHT), 4, before)
    assert lipschitz_constant(graph).value == pytest.approx(2.0, rel=1e-9)
    d = Draft((4,), np.random.default_rng(0)).add("mul", 0, constants=scale)
    graph = dense(WEIGHT)(d, 1).add("add", 1, 2).graph()
    assert lipschitz_constant(graph).value == pytest.approx(3 * math.sqrt(2), rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.2, 1.0, 4.0]))
def test_any_sum_of_powers(seed, norm):
    """Powers in any order, with any factors: never below the norm of the matrix, from any node on."""
    rng = np.random.default_rng(seed)
    weight = skew(3, norm, seed)
    d = Draft((3,), rng)
    values = [0]
    for _ in range(int(rng.integers(1, 5))):
        values.append(dense(weight)(d, int(rng.choice(values))).end)
        if rng.random() < 0.7:
            values.append(d.add("mul", d.end, constants={"other": torch.tensor([rng.normal()])}).end)
        if rng.random() < 0.7:
            values.append(d.add("add", *(int(one) for one in rng.choice(values, 2))).end)
    for one in values:
        d.add("add", d.end, one)
    graph = d.graph()
    assert len(series(graph)) == 1
    found = lipschitz_constant(graph)
    assert norm_of(graph) <= found.value * (1 + 1e-9)
    tails = found.tails(graph, range(len(graph.nodes)))
    for position, tail in tails.items():
        assert float(torch.linalg.matrix_norm(_jacobian_from(graph, position), 2)) <= tail * (1 + 1e-9)


def _jacobian_from(graph, start):
    """How the last value depends on node `start`, by putting unit vectors there: by hand, for these operators."""
    size = graph.input_shape[0]
    moved = {position: torch.zeros(size, size, dtype=torch.float64) for position in range(start)}
    moved[start] = torch.eye(size, dtype=torch.float64)
    for position in range(start + 1, len(graph.nodes)):
        node = graph.nodes[position]
        read = [moved[source] for source in node.inputs]
        if node.op == "linear":
            moved[position] = node.constants["weight"] @ read[0]
        elif node.op == "mul":
            moved[position] = node.constants["other"] * read[0]
        else:
            moved[position] = sum(read)
    return moved[len(graph.nodes) - 1]
