"""Convex potential layers: a step down a convex function, and the two layers that it is kept as."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from oracles.expansion import most_expanded
from oracles.operators import largest, matrix_of
from robench.graph import from_torch
from robench_plugins.lipschitz.spectral import spectral_norm_upper
from robench_plugins.lipschitz.symbol import convolution_norm_upper
from robench_plugins.training.lipschitz.convex_potential import ConvexPotential
from robench_plugins.training.lipschitz.layers import uniform


def generator(seed):
    return torch.Generator().manual_seed(seed)


def layer_of(shape, seed, scale=1.0, spatial=(4, 5)):
    g = generator(seed)
    layer = ConvexPotential(scale * uniform(shape, g), () if len(shape) == 2 else spatial, g)
    with torch.no_grad():
        layer.bias.normal_(0, 0.3, generator=g)
    return layer


def inputs(shape, seed, count=40, spatial=(4, 5)):
    size = (count, shape[1], *(() if len(shape) == 2 else spatial))
    return torch.randn(size, dtype=torch.float64, generator=generator(seed))


shapes = st.one_of(
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.integers(1, 4).flatmap(lambda c: st.sampled_from([(c, c, 3, 3), (c, c, 1, 1), (c + 1, c, 3, 1), (c, c, 5, 5)])),
)


@settings(max_examples=30)
@given(shape=shapes, seed=st.integers(0, 2**31), scale=st.sampled_from([1e-2, 1.0, 50.0]))
def test_the_step_is_the_gradient_of_a_convex_function(shape, seed, scale):
    """g = x − f(x) is ∇ ½‖relu(W'x + b)‖², and as ‖W'‖² ≤ 2: (g(x) − g(z))·(x − z) ≥ ½ ‖g(x) − g(z)‖² ≥ 0."""
    layer = layer_of(shape, seed, scale).frozen().double()
    x, z = inputs(shape, seed).chunk(2)
    with torch.no_grad():
        steps = (x - layer(x) - (z - layer(z))).flatten(1)
    apart = (x - z).flatten(1)
    assert ((steps * apart).sum(1) >= steps.square().sum(1) / 2 * (1 - 1e-12) - 1e-12).all()
    x = x.requires_grad_()
    around = () if len(shape) == 2 else (shape[2] // 2, shape[3] // 2)
    hidden = (
        nn.functional.linear(x, layer.weight, layer.bias)
        if not around
        else nn.functional.conv2d(x, layer.weight, layer.bias, padding=around)
    )
    (slope,) = torch.autograd.grad(hidden.relu().square().sum() / 2, x)
    torch.testing.assert_close(x.detach() - layer(x.detach()), slope)


@settings(max_examples=30)
@given(shape=shapes, seed=st.integers(0, 2**31), distance=st.sampled_from([1e-3, 1.0, 30.0]))
def test_it_never_expands(shape, seed, distance):
    layer = layer_of(shape, seed).frozen().double()
    x = inputs(shape, seed)
    z = x + distance * inputs(shape, seed + 1)
    with torch.no_grad():
        moved = (layer(x) - layer(z)).flatten(1).norm(dim=1)
    assert (moved <= (x - z).flatten(1).norm(dim=1) * (1 + 1e-12)).all()


@pytest.mark.parametrize("shape", [(6, 5), (3, 3, 3, 3)])
def test_all_of_the_step_is_used(shape):
    """Where every unit is on, the Jacobian is I − W'ᵀW', whose least eigenvalue is −1 on maps that are large enough."""
    layer = layer_of(shape, 0, spatial=(9, 9))
    with torch.no_grad():
        layer.bias.fill_(1e3)
    size = (shape[1], *(() if len(shape) == 2 else (9, 9)))
    jacobian = matrix_of(layer.frozen(), size)
    torch.testing.assert_close(jacobian, jacobian.T)
    values = torch.linalg.eigvalsh(jacobian)
    assert -1 <= float(values[0]) < (-1 + 1e-5 if len(shape) == 2 else -0.8)
    assert float(values[-1]) <= 1


@pytest.mark.parametrize("shape", [(6, 4), (4, 4), (3, 3, 3, 3), (4, 2, 1, 3)])
def test_it_is_kept_as_two_layers_with_the_same_numbers(shape):
    layer = layer_of(shape, 3)
    spatial = () if len(shape) == 2 else (4, 5)
    network = nn.Sequential(layer.frozen(), nn.Flatten()).eval()
    nodes = from_torch(network, (shape[1], *spatial)).nodes
    dense = len(shape) == 2
    op = "linear" if dense else "conv2d"
    assert [node.op for node in nodes[:5]] == ["input", op, "relu", op, "sub"]
    assert nodes[4].inputs == (0, 3)
    first, second = nodes[1].constants, nodes[3].constants
    assert set(first) == {"weight", "bias"}
    assert set(second) == {"weight"}
    weight = first["weight"]
    assert weight.dtype == torch.float32
    assert torch.equal(second["weight"], weight.T if dense else weight.transpose(0, 1).flip(2, 3))
    if dense:
        bound = spectral_norm_upper(weight.double())
    else:
        torus = tuple(size + taps - 1 for size, taps in zip((4, 5), shape[2:], strict=True))
        bound = convolution_norm_upper(weight, torus=torus)[0]
        around = (shape[2] // 2, shape[3] // 2) * 2
        for node in (nodes[1], nodes[3]):
            assert (node.attributes["stride"], node.attributes["padding"]) == ((1, 1), around)
    assert 2 * (1 - 5e-6) < bound**2 <= 2


def test_training_meets_what_is_kept():
    layer = layer_of((6, 5), 1)
    x = torch.randn(30, 5, generator=generator(2))
    with torch.no_grad():
        for _ in range(2000):
            out = layer(x)
        torch.testing.assert_close(out, layer.frozen()(x), rtol=1e-4, atol=1e-5)


def test_the_units_of_the_bias_are_those_of_the_published_form():
    """x − 2/‖W‖² Wᵀ relu(Wx + c) with c = ‖W‖ b / √2."""
    layer = layer_of((5, 5), 4)
    weight, norm = layer.weight.detach().double(), largest(layer.weight)
    c = norm * layer.bias.detach().double() / 2**0.5
    x = inputs((5, 5), 5)
    expected = x - 2 / norm**2 * (x @ weight.T + c).relu() @ weight
    torch.testing.assert_close(layer.frozen().double()(x), expected, rtol=1e-4, atol=1e-5)


def test_no_search_finds_a_pair_that_is_expanded():
    layers = [layer_of((3, 3, 3, 3), seed).frozen() for seed in range(3)]
    graph = from_torch(nn.Sequential(*layers, nn.Flatten()).eval(), (3, 4, 5))
    assert most_expanded(graph, steps=40)[0] <= 1 + 1e-9
