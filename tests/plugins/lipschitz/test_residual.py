"""x − Wᵀσ(Wx + b): max(1, s‖W‖² − 1) where it is exactly that, 1 + L where anything differs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.expansion import expanded, most_expanded
from oracles.random_graphs import Draft, evaluate
from robench_plugins.lipschitz import _rules
from robench_plugins.lipschitz._residual import PotentialStep, potential_step, stretch
from robench_plugins.lipschitz.constant import lipschitz_constant
from robench_plugins.lipschitz.spectral import spectral_norm_upper


def draft(*shape):
    return Draft(shape, np.random.default_rng(0))


def scaled(norm, rows=5, columns=4, seed=0):
    weight = np.random.default_rng(seed).normal(size=(rows, columns))
    return torch.tensor(weight * norm / np.linalg.norm(weight, 2))


def block(weight, back=None, activation=("relu", {}), op="sub", order=(0, 3), **bias):
    """x − back(σ(Wx + b)) on vectors."""
    d = draft(weight.shape[1]).add("linear", constants={"weight": weight, "bias": torch.ones(len(weight))})
    d.add(activation[0], **activation[1])
    d.add("linear", constants={"weight": weight.T if back is None else back} | bias)
    return d.add(op, *order, **({"reverse": 0} if op == "sub" else {})).graph()


@pytest.mark.parametrize(
    ("activation", "slope"),
    [
        (("relu", {}), 1.0),
        (("tanh", {}), 1.0),
        (("sigmoid", {}), 0.25),
        (("clip", {"min": -1.0, "max": 1.0}), 1.0),
        (("leaky_relu", {"slope": 0.3}), 1.0),
        (("leaky_relu", {"slope": 1.5}), 1.5),
    ],
)
@pytest.mark.parametrize("norm", [0.5, math.sqrt(2), 1.7, 3.0])
def test_a_step_on_vectors(norm, activation, slope):
    graph = block(scaled(norm), activation=activation)
    found = lipschitz_constant(graph)
    assert found.value == pytest.approx(max(1, slope * norm**2 - 1), rel=1e-11)
    assert found.source == "matrix 1, residual 4"
    assert expanded(graph, found.value) is None
    if slope * norm**2 > 2.5 and activation[0] not in ("tanh", "sigmoid"):
        assert most_expanded(graph, steps=80)[0] > 0.95 * found.value  # −(s‖W‖² − 1) along one direction


def test_a_bias_behind_the_step_and_biases_of_zero_do_not_matter():
    graph = block(scaled(1.4), bias=torch.ones(4))
    assert lipschitz_constant(graph).value == 1.0


CHANGES = {
    "one entry one double further": lambda w: {"back": _nudged(w)},
    "not transposed": lambda w: {"back": w},
    "negative": lambda w: {"back": -w.T},
    "half": lambda w: {"back": w.T / 2},
    "single precision": lambda w: {"back": w.T.float()},
    "added": lambda w: {"op": "add"},
    "the branch minus x": lambda w: {"order": (3, 0)},
    "an activation that falls": lambda w: {"activation": ("leaky_relu", {"slope": -0.1})},
    "an activation of pairs": lambda w: {"activation": ("group_sort", {"group": 2})},
    "no activation": lambda w: {"activation": ("slice", {"axis": 0, "start": 0, "stop": 4, "step": 1})},
}


def _nudged(weight):
    back = weight.T.clone()
    back[1, 2] = math.nextafter(float(back[1, 2]), 9.0)
    return back


@pytest.mark.parametrize("change", CHANGES)
def test_anything_else_keeps_the_general_rule(change):
    weight = scaled(1.4, 4, 4)
    graph = block(weight, **CHANGES[change](weight))
    assert potential_step(graph, 4) is None
    assert lipschitz_constant(graph).value > 1.9


def test_the_branch_must_start_from_x():
    weight = scaled(1.4, 4, 4)
    d = (
        draft(4)
        .add("linear", constants={"weight": scaled(3.0, 4, 4, 1)})
        .add("linear", 0, constants={"weight": weight})
    )
    d.add("relu").add("linear", constants={"weight": weight.T})
    assert potential_step(d.add("sub", 1, 4, reverse=0).graph(), 5) is None
    d = draft(4).add("linear", constants={"weight": weight}).add("relu").add("tanh", 1)
    d.add("linear", 2, constants={"weight": weight.T})
    assert potential_step(d.add("sub", 0, 4, reverse=0).graph(), 5).chain == (1, 2, 4)


def _conv(d, weight, padding, dilation, groups, stride=None):
    rank = weight.dim() - 2
    return d.add(
        f"conv{rank}d",
        constants={"weight": weight},
        stride=stride or (1,) * rank,
        padding=tuple(padding),
        dilation=tuple(dilation),
        groups=groups,
    )


def matrix_of(graph):
    units = torch.eye(math.prod(graph.input_shape), dtype=torch.float64).reshape(-1, *graph.input_shape)
    return (evaluate(graph, units) - evaluate(graph, torch.zeros_like(units[:1]))).flatten(1).T


@settings(max_examples=120)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2]), st.booleans())
def test_a_second_convolution_is_taken_exactly_where_it_is_the_transposed_matrix(seed, rank, right):
    """Recognition against the matrices themselves, for settings that are right and for random ones."""
    rng = np.random.default_rng(seed)
    groups, out, inner = (int(rng.integers(1, 3)) for _ in range(3))
    taps, dilation = rng.integers(1, 4, rank), rng.integers(1, 3, rank).tolist()
    reach = [d * (int(k) - 1) for k, d in zip(taps, dilation, strict=True)]
    padding = [int(rng.integers(0, r + 1)) for r in reach * 2]
    size = [int(rng.integers(r + 1, r + 4)) for r in reach]
    weight = torch.tensor(rng.integers(-1, 2, (groups * out, inner, *taps)).astype(float))
    back = torch.zeros(groups * inner, out, *taps, dtype=torch.float64)
    for g in range(groups):
        for o in range(out):
            for i in range(inner):
                kernel = weight[g * out + o, i]
                if right or rng.random() < 0.8:
                    kernel = kernel.flip(tuple(range(rank)))
                back[g * inner + i, o] = kernel
    opposite = [r - p for r, p in zip(reach * 2, padding, strict=True)]
    if not right and rng.random() < 0.5:
        opposite = opposite[rank:] + opposite[:rank]
    d = _conv(draft(groups * inner, *size), weight, padding, dilation, groups)
    middle = d.shape
    d = _conv(d.add("relu"), back, opposite, dilation, groups)
    forward = matrix_of(_conv(draft(groups * inner, *size), weight, padding, dilation, groups).graph())
    backward = matrix_of(_conv(draft(*middle), back, opposite, dilation, groups).graph())
    graph = d.add("sub", 0, 3, reverse=0).flatten().graph()
    same = forward.shape == backward.T.shape and torch.equal(forward, backward.T)
    found = potential_step(graph, 4)
    assert same or found is None
    if right:
        assert same and found == PotentialStep((1, 2, 3), 1.0)
        norm = spectral_norm_upper(forward)
        assert lipschitz_constant(graph).value == pytest.approx(stretch(norm, 1.0), rel=1e-10)


def test_a_stride_is_not_taken():
    weight = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    d = _conv(draft(1, 1, 1), weight, (0,) * 4, (1, 1), 1, (2, 2)).add("relu")
    graph = _conv(d, weight, (0,) * 4, (1, 1), 1, (2, 2)).add("sub", 0, 3, reverse=0).flatten().graph()
    assert potential_step(graph, 4) is None


def test_steps_in_a_row_and_normalisations_before():
    weight = scaled(math.sqrt(2) * (1 - 1e-9), 4, 4)
    d = draft(4).add("div", constants={"other": torch.tensor([0.5, 0.25, 0.5, 0.5])})
    for _ in range(3):
        x = d.end
        d.add("linear", constants={"weight": weight, "bias": torch.ones(4)}).add("relu")
        d.add("linear", constants={"weight": weight.T}).add("sub", x, d.end, reverse=0)
    found = lipschitz_constant(d.graph())
    assert found.value == pytest.approx(4, rel=1e-15) and expanded(d.graph(), found.value) is None
    # From within a branch the sum is one of its own.
    tails = found.tails(d.graph(), range(len(d.nodes)))
    assert tails[1] == tails[5] == 1.0 and 1.4 < tails[3] < 20 and tails[4] == 1.0


def test_the_factor_is_rounded_up():
    assert stretch(math.sqrt(2) * (1 - 1e-15), 1.0) == 1.0 and stretch(2.0, 1.0) == pytest.approx(3.0)
    assert stretch(2.0, 1.0) >= 3 and stretch(2.0**30, 1.0) >= 2.0**60 - 1 and stretch(math.inf, 1.0) == math.inf
    assert stretch(0.0, 0.25) == 1.0


@pytest.mark.parametrize("mistake", ["always 1", "norm instead of its square", "slope forgotten", "any activation"])
def test_the_search_finds_a_pair_that_a_mistake_allows(mistake, monkeypatch):
    slope = {"slope forgotten": ("leaky_relu", {"slope": 2.0}), "any activation": ("leaky_relu", {"slope": -1.5})}
    graph = block(scaled(1.6), activation=slope.get(mistake, ("relu", {})))
    assert expanded(graph, lipschitz_constant(graph).value, steps=60) is None
    wrong = {
        "always 1": lambda norm, slope: 1.0,
        "norm instead of its square": lambda norm, slope: max(1.0, norm - 1),
        "slope forgotten": lambda norm, slope: max(1.0, norm**2 - 1),
        "any activation": lambda norm, slope: 1.0,
    }
    monkeypatch.setattr(_rules, "stretch", wrong[mistake])
    if mistake == "any activation":
        monkeypatch.setattr(_rules, "potential_step", lambda graph, position: PotentialStep((1, 2, 3), 1.0))
    graph = block(scaled(1.6), activation=slope.get(mistake, ("relu", {})))
    assert expanded(graph, lipschitz_constant(graph).value, steps=60) is not None
