"""Linear bounds of thousands of random tiny networks: never above a value taken, never looser than promised."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from oracles.enumeration import TOLERANCE, exact_radius, random_net
from oracles.linear_bounds import Case, complaint, random_case, random_slopes
from oracles.random_graphs import Draft, evaluate, mlp, random_graph, step_names
from robench.graph.intervals import ball_margin_lower, logit_bounds
from robench.threat import NORMS, Domain, Threat
from robench_plugins.verify._engine.backward import lower_bounds, unit_rows
from robench_plugins.verify._engine.bounds import bounded, refined
from robench_plugins.verify._engine.lower import lower
from robench_plugins.verify._engine.owners import Owners
from robench_plugins.verify._engine.region import Region, region_of
from robench_plugins.verify._engine.slopes import Schedule, optimise
from robench_plugins.verify._forms import label_forms
from robench_plugins.verify._proofs import Settings, prove

SEEDS = st.integers(0, 2**32 - 1)
METHODS = {
    "crown-ibp": Settings(False),
    "crown": Settings(True),
    "alpha-crown": Settings(True, Schedule(5)),
    "alpha-crown:inside=false": Settings(True, Schedule(5), inside=False),
}
SPACE = Domain.unbounded()


def margins(case: Case, method: Settings, eps=None) -> torch.Tensor:
    region = region_of(case.x, case.threat, eps)
    return prove(case.graph, region, label_forms(case.y, case.graph.classes), method).margin


@settings(max_examples=150)
@given(SEEDS)
def test_no_value_taken_is_excluded(seed):
    """Boxes, bounds of neurons, margins and forms of every step; with own, optimised and senseless slopes."""
    assert complaint(random_case(seed)) is None


@pytest.mark.parametrize("block", range(19))
def test_no_value_taken_is_excluded_in_thousands_of_networks(block):
    """The same on seeds that stay the same: 1900 networks, of which six in ten have activations."""
    for seed in range(100 * block, 100 * block + 100):
        assert complaint(random_case(seed, samples=1 + seed % 2), Schedule(1)) is None, seed


@pytest.mark.parametrize("part", range(3))
def test_methods_stand_in_their_order(part):
    """On hundreds of graphs: crown-ibp and crown are at least ibp, alpha-crown is at least crown."""
    gained = dict.fromkeys(METHODS, 0)
    for seed in range(part * 10_000, part * 10_000 + 60):
        case = random_case(seed, samples=3)
        ibp = ball_margin_lower(case.graph, case.x, case.y, case.norm, case.eps, case.domain)
        found = {name: margins(case, method) for name, method in METHODS.items()}
        for name, margin in found.items():
            assert (margin >= ibp).all(), (seed, name)
            gained[name] += int((margin > ibp + 1e-6 * (1 + ibp.abs())).sum())
        for name in ("alpha-crown", "alpha-crown:inside=false"):
            assert (found[name] >= found["crown"]).all(), (seed, name)
            gained[name] -= int((found["crown"] > ibp + 1e-6 * (1 + ibp.abs())).sum())
    assert gained["crown"] > 40 and gained["crown-ibp"] > 20


@pytest.mark.parametrize("seed", range(8))
def test_optimised_slopes_are_no_worse_than_crowns_own_on_the_same_lines(seed):
    """Float64 throughout, so that there is nothing but the slopes between them; some are better."""
    better = 0
    for k in range(6):
        case = random_case(
            1000 * seed + k, ["linear", "relu", "linear", "leaky_relu"] if k % 2 else ["linear", "tanh"] * 2
        )
        known = bounded(case.graph, region_of(case.x, case.threat, 0.3), "crown")
        rows = label_forms(case.y, case.graph.classes).rows(known.program.last)
        own = lower_bounds(known.program, known.region, known.lines, rows).bound
        found = optimise(*known.search(torch.float64), rows, schedule=Schedule(10))
        again = lower_bounds(known.program, known.region, known.lines, rows, slopes=found.slopes).bound
        assert (found.bound >= own - 1e-12 * (1 + own.abs())).all()
        torch.testing.assert_close(again, found.bound, rtol=1e-9, atol=1e-9)
        better += int((found.bound > own + 1e-6).sum())
    assert better > 0


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(4))
def test_never_above_the_exact_radius(seed, norm):
    """Enumeration of activation patterns; certified shares grow from crown-ibp to alpha-crown."""
    rng = np.random.default_rng(seed)
    weights, biases = random_net(rng, (3, 4, 4, 3) if seed % 2 else (2, 7, 3))
    if seed == 3:
        weights[0][1], biases[0][1] = 0.0, 0.0  # a pre-activation of exactly 0 everywhere
        weights[0][2], biases[0][2] = 0.0, -1.0  # a dead unit
    graph = mlp(weights, biases)
    x = torch.tensor(rng.random((3, weights[0].shape[1])))
    y = evaluate(graph, x).argmax(1)
    exact = torch.tensor([
        exact_radius(weights, biases, point.numpy(), int(label), norm) for point, label in zip(x, y, strict=True)
    ])  # fmt: skip
    for share in (0.2, 0.6, 0.95, 1.0, 1.05):
        eps = exact.clamp_max(10.0) * share + (share == 1.0) * TOLERANCE * 2
        proven = {}
        for name, method in METHODS.items():
            margin = prove(graph, region_of(x, Threat(norm, 1.0, Domain()), eps), label_forms(y, 3), method).margin
            assert not ((margin > 0) & (eps > exact + TOLERANCE)).any(), name
            proven[name] = margin > 0
        assert (~proven["crown"] | proven["alpha-crown"]).all()
        if share == 0.2:
            assert proven["crown"].any()


@pytest.mark.parametrize("name", step_names())
def test_bounds_close_in_on_the_margin_as_the_ball_shrinks(name):
    """−inf would be sound: every operator's linear bounds have to be of use, and the error term tiny."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        graph = random_graph(["conv2d", name, "relu"] if seed % 2 else [name, name], rng, shape=(2, 4, 4))
        x = torch.tensor(rng.random((4, *graph.input_shape)))
        logits = evaluate(graph, x)
        y = torch.tensor(rng.integers(0, 3, 4))
        margin = logits.gather(1, y[:, None])[:, 0] - logits.scatter(1, y[:, None], -math.inf).amax(1)
        for norm, eps in itertools.product(NORMS, (1e-10, 1e-5)):
            case = Case(graph, x, y, norm, eps, Domain())
            # Not by interval arithmetic: by what goes back alone.
            known = bounded(graph, region_of(x, case.threat), "crown")
            forms = label_forms(y, 3)
            rows = forms.rows(known.program.last)
            slopes = random_slopes(known, rows, torch.Generator().manual_seed(seed)) if seed % 2 else None
            bound = lower_bounds(known.program, known.region, known.lines, rows, slopes=slopes, errors=known.errors)
            assert (forms.margin(bound.bound) >= margin - 1e3 * eps - 1e-11).all()


@settings(max_examples=25)
@given(SEEDS)
def test_fixed_slopes_are_monotone_in_the_set(seed):
    """With equal slopes a smaller set has no looser lines, so no lower bound. (The adaptive slope may jump.)"""
    case = random_case(seed, samples=2)
    previous = None
    generator = torch.Generator().manual_seed(seed)
    slopes = None
    for eps in (0.0, 1e-4, 0.05, 0.3, 1.0):
        known = bounded(case.graph, region_of(case.x, case.threat, eps), "ibp")
        assume(known.program.piecewise_linear)
        rows = label_forms(case.y, case.graph.classes).rows(known.program.last)
        slopes = random_slopes(known, rows, generator) if slopes is None else slopes
        bound = lower_bounds(known.program, known.region, known.lines, rows, slopes=slopes, errors=known.errors).bound
        assert previous is None or (bound <= previous + 1e-9 * (1 + previous.abs())).all()
        previous = bound


@settings(max_examples=25)
@given(SEEDS, st.sampled_from(sorted(METHODS)))
def test_a_row_does_not_depend_on_its_batch(seed, name):
    case, method = random_case(seed, samples=5), METHODS[name]
    rng = np.random.default_rng(seed)
    eps = torch.tensor(rng.random(5)) * 0.3
    whole = margins(case, method, eps)
    order = torch.tensor(rng.permutation(5))
    shuffled = margins(replace(case, x=case.x[order], y=case.y[order]), method, eps[order])
    single = torch.cat(
        [margins(replace(case, x=case.x[i, None], y=case.y[i, None]), method, eps[i, None]) for i in range(5)]
    )
    # The search of slopes is in float32, where the order of sums shows.
    room = 1e-9 if method.schedule is None else 1e-2
    torch.testing.assert_close(shuffled, whole[order], rtol=room, atol=room)
    torch.testing.assert_close(single, whole, rtol=room, atol=room)


@pytest.mark.parametrize("seed", range(6))
def test_one_sample_with_many_rows_is_bounded_like_many_samples(seed):
    """Rows of one sample share its lines, and ReLUs that are off drop out of products: the same numbers."""
    rng = np.random.default_rng(seed)
    shape, steps = (
        ((6,), ["linear", "relu"] * 3) if seed % 2 else ((2, 6, 6), ["conv2d", "relu", "conv2d", "add nodes"])
    )
    graph = random_graph([*steps, "relu"], rng, shape)
    x = torch.tensor(rng.random((2, *shape)))
    known = bounded(graph, region_of(x, Threat("linf", 0.1, SPACE)), "crown")
    for position in known.program.activations:
        at = known.program.steps[position].inputs[0]
        size = math.prod(known.program.steps[at].shape)
        unit = torch.arange(size).repeat(2)
        sign = torch.ones(2 * size, dtype=torch.float64)
        sign[size:] = -1
        apart = []
        for sample in range(2):
            one = known.select(slice(sample, sample + 1))
            rows = unit_rows(at, Owners.uniform(1, 2 * size, x.device), unit, sign)
            apart.append(lower_bounds(one.program, one.region, one.lines, rows, errors=one.errors).bound)
        owners = Owners(torch.arange(2).repeat_interleave(2 * size))
        rows = unit_rows(at, owners, unit.repeat(2), sign.repeat(2))
        together = lower_bounds(known.program, known.region, known.lines, rows, errors=known.errors).bound
        torch.testing.assert_close(torch.cat(apart), together, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("op", ["sigmoid", "tanh"])
def test_smooth_networks_against_interval_splitting(op):
    """One input, thousands of points and cells: the least margin is known from both sides."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        draft = Draft((1,), rng).linear(5).add(op).linear(5).add(op).linear(3)
        graph, x, y = draft.graph(), torch.tensor(rng.normal(size=(1, 1))), torch.tensor([seed % 3])
        others = [j for j in range(3) if j != y.item()]
        for eps in (0.05, 0.4, 2.0):
            grid = torch.linspace(float(x) - eps, float(x) + eps, 2001, dtype=torch.float64)[:, None]
            logits = evaluate(graph, grid)
            least = (logits[:, y] - logits[:, others]).amin().item()
            low, high = logit_bounds(graph, grid[:-1], grid[1:])
            certain = (low[:, y] - high[:, others]).amin().item()
            assert certain <= least
            last = -math.inf
            for cells in (1, 4, 16, 64):
                ends = torch.linspace(float(x) - eps, float(x) + eps, cells + 1, dtype=torch.float64)[:, None]
                region = Region(ends[:-1], ends[1:], (ends[:-1] + ends[1:]) / 2)
                many = label_forms(y.repeat(cells), 3)
                margin = prove(graph, region, many, METHODS["crown"]).margin.amin().item()
                assert margin <= least + 1e-12
                assert margin >= last - 1e-9
                last = margin
            assert last >= least - 0.02 * eps


def test_refined_bounds_are_inside_crowns():
    gained = 0
    for seed in range(12):
        case = random_case(seed, ["linear", "relu", "linear", "relu", "linear", "relu"])
        known = bounded(case.graph, region_of(case.x, case.threat, 0.5), "crown")
        better = refined(known, Schedule(8))
        for position, (low, high) in known.inputs.items():
            tight_low, tight_high = better.inputs[position]
            assert (tight_low >= low).all() and (tight_high <= high).all()
            gained += int((tight_high - tight_low < high - low - 1e-6).sum())
        assert (better.open_neurons() <= known.open_neurons()).all()
    assert gained > 20


def test_bounds_of_plain_relus_are_crowns_by_hand():
    """max(x, 0) on [−1, 2]: the chord 2/3 (x + 1) above, x below as 2 > 1; f = y0 − y1 of two units, by hand."""
    draft = Draft((2,), np.random.default_rng(0)).add("relu")
    graph = draft.graph()
    region = Region(*(torch.tensor([v], dtype=torch.float64) for v in ([-1.0, -2.0], [2.0, 1.0], [0.5, -0.5])))
    known = bounded(graph, region, "crown")
    rows = label_forms(torch.tensor([0]), 2).rows(lower(graph).last)
    # y0 ≥ x0 (slope 1), y1 ≤ 1/3 (x1 + 2): least of x0 − (x1 + 2)/3 is −1 − 1.
    bound = lower_bounds(known.program, known.region, known.lines, rows, errors=known.errors).bound
    assert abs(bound.item() + 2.0) < 1e-12
    # With the slope 0 below it is 0 − 1, interval arithmetic's; slopes are found.
    zero = {1: torch.zeros(1, 2, dtype=torch.float64)}
    bound = lower_bounds(known.program, known.region, known.lines, rows, slopes=zero, errors=known.errors).bound
    assert abs(bound.item() + 1.0) < 1e-12
    found = optimise(*known.search(torch.float64), rows, schedule=Schedule(20))
    assert abs(found.bound.item() + 1.0) < 1e-9
