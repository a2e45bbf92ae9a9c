"""The error term: what float64 rounds never certifies, and what is certified is true in fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.piecewise import strange_mode
from oracles.random_graphs import Draft, evaluate, random_graph, step_names
from oracles.rational import margin, rational_logits
from oracles.rounding import FAMILIES, traps
from robench.graph import GraphClassifier
from robench.streams import Stream
from robench.threat import NORMS, Domain, Threat
from robench_plugins.verify._engine import backward
from robench_plugins.verify._engine.backward import Rows, lower_bounds
from robench_plugins.verify._engine.bounds import bounded
from robench_plugins.verify._engine.owners import Owners
from robench_plugins.verify._engine.region import region_of
from robench_plugins.verify._engine.slopes import Schedule
from robench_plugins.verify._forms import label_forms
from robench_plugins.verify._proofs import Settings, prove
from robench_plugins.verify.crown import AlphaCROWN

SPACE = Domain.unbounded()
METHODS = [Settings(False), Settings(True), Settings(True, Schedule(3))]


def rounded_up(name: str, count: int = 24) -> tuple[int, int]:
    """Return how many traps plain float64 takes for certain, and how many linear bounds do, over the point alone."""
    plain = claimed = 0
    for graph, x, _ in traps(name, count):
        y = torch.tensor([0])
        logits = evaluate(graph, x[None])[0]
        plain += bool(logits[0] > logits[1])
        region = region_of(x[None], Threat("linf", 0.0, SPACE))
        known = bounded(graph, region, "crown")
        rows = label_forms(y, 2).rows(known.program.last)
        claimed += bool(lower_bounds(known.program, region, known.lines, rows, errors=known.errors).bound > 0)
    return plain, claimed


@pytest.mark.parametrize("name", FAMILIES)
def test_no_trap_is_certified(name):
    plain, claimed = rounded_up(name)
    assert claimed == 0
    # The families are traps: without an error term about half of them would be.
    assert plain > 3 or name in ("thin values", "batch normalisation")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("norm", NORMS)
def test_no_trap_is_certified_by_any_method(method, norm):
    for name in FAMILIES:
        for graph, x, _ in traps(name, 4, seed=1):
            for eps in (0.0, 5e-324, 1e-20):
                region = region_of(x[None], Threat(norm, eps, SPACE))
                assert not prove(graph, region, label_forms(torch.tensor([0]), 2), method).margin.item() > 0


@settings(max_examples=80)
@given(
    st.lists(st.sampled_from(step_names()), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-150, 1e-30, 1e-8, 1.0, 1e8, 1e30, 1e150]),
)
def test_bounds_at_a_point_are_below_the_exact_value(steps, seed, size):
    """Rows of any size, a single point: the bound is at most the exact form, and near it where numbers are tame."""
    rng = np.random.default_rng(seed)
    graph = random_graph(steps, rng)
    x = torch.tensor(rng.normal(size=(1, *graph.input_shape)) * 10.0 ** rng.integers(-3, 4))
    region = region_of(x, Threat("linf", 0.0, SPACE))
    known = bounded(graph, region, "ibp")
    asked = torch.tensor(rng.normal(size=(3, 3)) * size)
    constant = torch.tensor(rng.normal(size=3))
    rows = Rows(known.program.last, Owners.uniform(1, 3, x.device), asked, constant=constant)
    bound = lower_bounds(known.program, region, known.lines, rows, errors=known.errors).bound
    logits = rational_logits(graph, x[0])
    for k in range(3):
        exact = sum(
            (Fraction(a) * b for a, b in zip(asked[k].tolist(), logits, strict=True)), Fraction(float(constant[k]))
        )
        assert bound[k].item() <= exact
        reach = sum(abs(Fraction(a)) for a in asked[k].tolist()) * 10**6 + abs(Fraction(float(constant[k])))
        assert exact - Fraction(bound[k].item()) <= reach / 10**3


def cancelling(gap: float, seed: int):
    """Return (graph, x) with f_0 − f_1 = Σ c_j r(w_j·x + b_j) − Σ c_j r(w_j·x + b_j) − gap · size, terms shuffled.

    Exactly −gap · size at every point, near which all ReLUs are on: what is pushed back rounds, what is true does not.
    """
    rng = np.random.default_rng(seed)
    n, hidden = 6, 20
    order = rng.permutation(2 * hidden)
    weight = np.tile(rng.normal(size=(hidden, n)), (2, 1))[order]
    shift = np.tile(100 + rng.random(hidden), 2)[order]
    out = rng.normal(size=hidden) * 10.0 ** rng.integers(-2, 3, hidden)
    row = np.concatenate([out, -out])[order]
    draft = Draft((n,), rng)
    draft.add("linear", constants={"weight": torch.tensor(weight), "bias": torch.tensor(shift)}).add("relu")
    last = {"weight": np.stack([row, 0 * row]), "bias": [-gap * 100 * np.abs(row).sum(), 0.0]}
    draft.add("linear", constants={name: torch.tensor(np.array(value)) for name, value in last.items()})
    return draft.graph(), torch.tensor(rng.normal(size=(1, n)))


def claimed(gap: float, method: Settings) -> int:
    """Return how many margins of cancelling networks are said to be above 0, at points and over balls."""
    count = 0
    for seed in range(12):
        graph, x = cancelling(gap, seed)
        assert margin(rational_logits(graph, x[0]), 0) <= 0
        for eps in (0.0, 1e-3):
            region = region_of(x, Threat("linf", eps, SPACE))
            count += prove(graph, region, label_forms(torch.tensor([0]), 2), method).margin.item() > 0
    return count


@pytest.mark.parametrize("gap", [1e-18, 1e-17, 0.0])
@pytest.mark.parametrize("method", METHODS)
def test_a_margin_a_hair_below_zero_is_never_certified(gap, method, monkeypatch):
    assert claimed(gap, method) == 0
    monkeypatch.setattr(backward, "below", lambda value, error: value)
    assert claimed(gap, method) > 4  # it is the error term that keeps them open


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("steps", [["conv2d", "relu"], ["clip"], ["sigmoid", "max_pool2d"], ["group_sort"], ["tanh"]])
def test_what_is_not_finite_proves_nothing(value, steps):
    graph = random_graph([*steps, "linear", "relu"], np.random.default_rng(1))
    x = torch.rand(2, 2, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    x[0, 1, 2, 0] = value
    forms = label_forms(torch.tensor([0, 0]), 3)
    for norm in NORMS:
        for method in METHODS:
            found = prove(graph, region_of(x, Threat(norm, 0.01, SPACE)), forms, method).margin
            assert found[0] == -math.inf and found[1].isfinite()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("op", ["linear", "conv2d", "batch_norm", "add", "sub", "mul", "div"])
def test_a_constant_that_is_not_finite_proves_nothing(value, op):
    graph = random_graph(["relu", op, "relu"], np.random.default_rng(7), shape=(2, 4, 4))
    node = next(node for node in graph.nodes if node.op == op)
    next(iter(node.constants.values())).reshape(-1)[0] = value
    for eps in (0.0, 0.1):
        region = region_of(torch.zeros(1, 2, 4, 4), Threat("linf", eps, SPACE))
        for y in range(3):
            for method in METHODS:
                found = prove(graph, region, label_forms(torch.tensor([y]), 3), method).margin.item()
                assert not math.isnan(found) and not (found > 0 and not _finite_without(graph, y))


def _finite_without(graph, y: int) -> bool:
    """Whether the margin of `y` is a number at the point 0 all the same: the constant may not reach it."""
    logits = evaluate(graph, torch.zeros(1, 2, 4, 4).double())[0]
    return bool(logits.isfinite().all()) and bool(logits.argmax() == y)


@pytest.mark.parametrize("eps", [1e100, 1e300, math.inf])
@pytest.mark.parametrize("norm", NORMS)
def test_huge_sets_stay_open(norm, eps):
    graph = random_graph(["linear", "relu", "linear", "tanh"], np.random.default_rng(3))
    region = region_of(torch.rand(2, 2, 3, 3), Threat(norm, eps, SPACE))
    for method in METHODS:
        assert not (prove(graph, region, label_forms(torch.tensor([0, 1]), 3), method).margin > 0).any()


def test_factors_that_underflow_are_no_factors():
    """1/w and weight/√var have no relative error where they are subnormal or 0."""
    tiny = {"other": torch.tensor([1.7e308, 1.7e308], dtype=torch.float64)}
    draft = Draft((2,), np.random.default_rng(0))
    for _ in range(2):
        draft.add("div", constants=tiny)
    for _ in range(2):
        draft.add("mul", constants=tiny)
    graph = draft.add("sub", constants={"other": torch.tensor([0.0, 0.25], dtype=torch.float64)}, reverse=0).graph()
    # The logits are x and x − 1/4; with factors flushed to 0 they would be 0 and −1/4.
    region = region_of(torch.tensor([[0.5, 1.5]]), Threat("linf", 0.0, SPACE))
    forms = label_forms(torch.tensor([0]), 2)
    for method in METHODS:
        assert not prove(graph, region, forms, method).margin.item() > 0


def test_the_callers_settings_do_not_matter():
    """Subnormals flushed, autocast, inference mode, default dtype: the same proofs."""
    graph = random_graph(["conv2d", "relu", "linear", "relu"], np.random.default_rng(5))
    classifier = GraphClassifier(graph)
    x, y = torch.rand(3, 2, 3, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2])
    stream, threat = Stream.for_samples(0, "alpha-crown", range(3)), Threat("linf", 0.05, SPACE)
    expected = AlphaCROWN(steps=3).certify(classifier, x, y, threat, stream)
    with strange_mode():
        found = AlphaCROWN(steps=3).certify(classifier, x + 0, y, threat, stream)
    assert found.status == expected.status
    for one, other in zip(found.detail, expected.detail, strict=True):
        assert one["open"] == other["open"] and abs(one["margin"] - other["margin"]) < 1e-9
