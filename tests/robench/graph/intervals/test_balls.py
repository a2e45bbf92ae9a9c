"""Bounds over balls: never above a value taken inside, exact where theory says so, monotone, independent of batches."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.enumeration import TOLERANCE, exact_radius, random_net
from oracles.random_graphs import Draft, evaluate, mlp, random_graph, step_names
from oracles.soundness import excluded_in_ball, linear_ball_minimum
from robench.graph.intervals import ball_margin_lower, logit_bounds, point_margins
from robench.graph.intervals._layers import layers
from robench.graph.intervals._sums import RADII
from robench.threat import NORMS, Domain

STEPS = st.lists(st.sampled_from(step_names()), min_size=1, max_size=6)
SEEDS = st.integers(0, 2**32 - 1)
SPACE = Domain(-math.inf, math.inf)


def batch(graph, rng, size=8):
    x = torch.tensor(rng.random((size, *graph.input_shape)), dtype=torch.float32)
    return x, torch.tensor(rng.integers(0, graph.classes, size))


@settings(max_examples=120)
@given(STEPS, SEEDS, st.sampled_from(NORMS), st.sampled_from([1e-6, 0.01, 0.3, 5.0]), st.booleans())
def test_no_point_of_the_ball_is_below_the_bound(steps, seed, norm, eps, boxed):
    rng = np.random.default_rng(seed)
    graph = random_graph(steps, rng)
    x, y = batch(graph, rng, 1)
    generator = torch.Generator().manual_seed(seed)
    domain = Domain() if boxed else SPACE
    assert excluded_in_ball(graph, x[0], int(y), norm, eps, domain, generator) is None


@settings(max_examples=60)
@given(STEPS, SEEDS, st.sampled_from(NORMS))
def test_a_larger_ball_never_has_a_higher_bound(steps, seed, norm):
    rng = np.random.default_rng(seed)
    graph = random_graph(steps, rng)
    x, y = batch(graph, rng)
    bounds = [point_margins(graph, x, y)[0]]
    bounds += [ball_margin_lower(graph, x, y, norm, eps, Domain()) for eps in (1e-9, 1e-3, 0.1, 0.7, 3.0, math.inf)]
    for nearer, farther in itertools.pairwise(bounds):
        # Bounds are rounded outward on their own: equal up to rounding where eps is tiny.
        assert (farther <= nearer + 1e-9 * (1 + nearer.abs())).all()


@settings(max_examples=40)
@given(STEPS, SEEDS, st.sampled_from(NORMS))
def test_a_row_does_not_depend_on_its_batch(steps, seed, norm):
    rng = np.random.default_rng(seed)
    graph = random_graph(steps, rng)
    x, y = batch(graph, rng, 9)
    eps = torch.tensor(rng.random(9))
    whole = ball_margin_lower(graph, x, y, norm, eps, Domain())
    order = torch.tensor(rng.permutation(9))
    shuffled = ball_margin_lower(graph, x[order], y[order], norm, eps[order], Domain())
    single = torch.cat(
        [ball_margin_lower(graph, x[i : i + 1], y[i : i + 1], norm, eps[i].item(), Domain()) for i in range(9)]
    )
    torch.testing.assert_close(shuffled, whole[order], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(single, whole, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(6))
def test_never_above_the_exact_radius(norm, seed):
    rng = np.random.default_rng(seed)
    weights, biases = random_net(rng, (3, 4, 3, 3) if seed % 2 else (2, 6, 3))
    graph = mlp(weights, biases)
    x, y = batch(graph, rng, 4)
    for row in range(4):
        margin = point_margins(graph, x[row : row + 1], y[row : row + 1])[0]
        radius = exact_radius(weights, biases, x[row].double().numpy(), int(y[row]), norm)
        assert (margin.item() > 0) == (radius > 0)
        for share in (0.3, 0.9, 0.999, 1.001, 1.5):
            eps = min(radius, 10.0) * share + (share > 1) * TOLERANCE
            bound = ball_margin_lower(graph, x[row : row + 1], y[row : row + 1], norm, eps, Domain()).item()
            assert not (bound > 0 and eps > radius + TOLERANCE)


@pytest.mark.parametrize("norm", NORMS)
def test_tiny_balls_of_clear_samples_are_certified(norm):
    rng = np.random.default_rng(3)
    graph = mlp(*random_net(rng, (8, 16, 16, 3)))
    x, _ = batch(graph, rng, 32)
    y = evaluate(graph, x.double()).argmax(1)
    clear = point_margins(graph, x, y)[0] > 0.05
    assert clear.sum() > 16
    assert (ball_margin_lower(graph, x, y, norm, 1e-3, Domain())[clear] > 0).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", step_names())
def test_bounds_close_in_on_the_margin_as_the_ball_shrinks(name, norm):
    """A bound that always says −inf would be sound: every operator's bound has to be of use."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        graph = random_graph(["conv2d", name, "relu"] if seed % 2 else [name, name], rng, shape=(2, 4, 4))
        x, y = batch(graph, rng)
        margin, _ = point_margins(graph, x, y)
        for eps in (1e-8, 1e-4):
            assert (ball_margin_lower(graph, x, y, norm, eps, Domain()) >= margin - 1e3 * eps).all()


def test_merging_the_last_layer_is_never_looser():
    gained = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        graph = random_graph(["conv2d", "relu", "linear", "tanh"], rng)
        x, y = batch(graph, rng)
        lower, upper = logit_bounds(graph, x.double() - 0.05, x.double() + 0.05)
        own = lower.gather(1, y[:, None])[:, 0]
        apart = own - upper.scatter(1, y[:, None], -math.inf).amax(1)
        merged = ball_margin_lower(graph, x, y, "linf", 0.05, SPACE)
        assert (merged >= apart - 1e-9).all()
        gained += int((merged > apart + 1e-3).sum())
    assert gained > 20


@pytest.mark.parametrize("norm", NORMS)
def test_a_temperature_behind_the_last_layer_scales_the_merged_bound(norm):
    """Margins of −(c − s·f)/t are s/t times those of f: no looser than merged, in whatever order."""
    rng = np.random.default_rng(7)
    plain = Draft((6,), rng).linear(8).add("relu").linear(4)
    scaled = Draft((6,), rng)
    scaled.nodes[:] = plain.nodes
    number = {name: {"other": torch.tensor([value])} for name, value in (("s", 3.0), ("c", 0.7), ("t", 10.0))}
    scaled.add("mul", constants=number["s"]).add("sub", constants=number["c"], reverse=1)
    scaled.add("add", constants=number["c"]).add("div", constants=number["t"]).add("neg")
    x, y = batch(plain.graph(), rng, 20)
    before = ball_margin_lower(plain.graph(), x, y, norm, 0.1, Domain())
    after = ball_margin_lower(scaled.graph(), x, y, norm, 0.1, Domain())
    torch.testing.assert_close(after, before * 0.3, rtol=1e-12, atol=1e-12)
    for row in range(20):
        generator = torch.Generator().manual_seed(row)
        assert excluded_in_ball(scaled.graph(), x[row], int(y[row]), norm, 0.1, Domain(), generator) is None
    logits = evaluate(scaled.graph(), x.double())
    lower, upper = point_margins(scaled.graph(), x, y)
    margin = logits.gather(1, y[:, None])[:, 0] - logits.scatter(1, y[:, None], -math.inf).amax(1)
    assert ((lower <= margin + 1e-14) & (margin - 1e-14 <= upper)).all()


@pytest.mark.parametrize("seed", range(20))
def test_linear_networks_lose_only_rounding(seed):
    """Over an unbounded linf ball the merged bound is the exact minimum, which fractions give."""
    rng = np.random.default_rng(seed)
    draft = Draft((40,), rng)
    # Large, nearly cancelling terms make rounding errors many times the last place of the result.
    weight = torch.tensor(rng.normal(size=(3, 40)) * 10.0 ** rng.integers(-8, 9, 40))
    bias = torch.tensor(rng.normal(size=3))
    graph = draft.add("linear", constants={"weight": weight, "bias": bias}).graph()
    x = torch.tensor(rng.random(40))
    exact = linear_ball_minimum(weight, bias, x, 1, 0.125)
    bound = ball_margin_lower(graph, x[None], torch.tensor([1]), "linf", 0.125, SPACE).item()
    assert bound <= exact
    assert abs(bound - exact) <= 1e-12 * weight.abs().sum()


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_the_first_layer_takes_the_dual_norm_through_a_normalisation(norm):
    rng = np.random.default_rng(2)
    mean, std = torch.tensor([[[0.5]], [[0.25]]]), torch.tensor([[[0.5]], [[0.125]]])
    draft = Draft((2, 3, 3), rng)
    draft.add("sub", constants={"other": mean}, reverse=0).add("div", constants={"other": std}).flatten()
    weight = draft.values(3, 18)
    graph = draft.add("linear", constants={"weight": weight}).graph()
    x, y = batch(graph, rng)
    scaled = weight.double() / std.double().expand(2, 3, 3).reshape(-1)
    shifted = (x.double() - mean) / std.double()
    logits = shifted.flatten(1) @ weight.double().T
    steps = scaled[y][:, None] - scaled
    dual = steps.norm(dim=2) if norm == "l2" else steps.abs().amax(2)
    expected = logits.gather(1, y[:, None]) - logits - 0.2 * dual
    expected.scatter_(1, y[:, None], torch.inf)
    bound = ball_margin_lower(graph, x, y, norm, 0.2, SPACE)
    torch.testing.assert_close(bound, expected.amin(1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_a_convolution_takes_the_dual_norm_of_its_matrix(norm, rank):
    rng = np.random.default_rng(4)
    draft = Draft((4, 5, 4) if rank == 2 else (4, 7), rng)
    settings_ = {"stride": (2, 1)[:rank], "padding": (1, 0, 0, 1) if rank == 2 else (1, 0), "dilation": (1,) * rank}
    weight = draft.values(6, 2, *(2, 3)[:rank])
    graph = draft.add("conv" + f"{rank}d", constants={"weight": weight}, groups=2, **settings_).linear(3).graph()
    layer = layers(graph, torch.device("cpu"))[1]
    scale = torch.tensor(rng.random((1, *graph.input_shape)) + 0.5)
    units = torch.eye(scale.numel(), dtype=torch.float64).reshape(-1, *graph.input_shape) * scale
    columns = layer.evaluate(units)
    radius = RADII[layer.op](layer, scale, norm)
    if norm == "l2":
        exact = columns.norm(dim=0, keepdim=True)
        torch.testing.assert_close(radius.expand_as(exact), exact, rtol=1e-12, atol=1e-12)
    else:
        exact = columns.abs().amax(0, keepdim=True)
    assert (radius.expand_as(exact) >= exact * (1 - 1e-15)).all()


@given(STEPS, SEEDS)
def test_boxes_of_logits_hold_their_corners(steps, seed):
    rng = np.random.default_rng(seed)
    graph = random_graph(steps, rng)
    x, _ = batch(graph, rng, 1)
    x = x.double()
    lower, upper = logit_bounds(graph, x - 0.5, x + 0.5)
    signs = torch.tensor(rng.choice([-0.5, 0.0, 0.5], (64, *graph.input_shape)))
    logits = evaluate(graph, x + signs)
    slack = 1e-9 * (1 + logits.abs())
    assert (lower <= logits + slack).all() and (logits - slack <= upper).all()


@pytest.mark.parametrize("eps", [-1.0, math.nan])
def test_no_radius_below_zero(eps):
    graph = mlp(*random_net(np.random.default_rng(0), (2, 3, 2)))
    with pytest.raises(ValueError, match="from 0 up"):
        ball_margin_lower(graph, torch.rand(1, 2), torch.tensor([0]), "linf", eps, Domain())
