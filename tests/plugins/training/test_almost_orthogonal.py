import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from robench.graph import GroupSort, from_torch
from robench_plugins.training.almost_orthogonal import AolLinear, Centre, almost_orthogonal, build, frozen


def generator(seed):
    return torch.Generator().manual_seed(seed)


def largest(weight):
    return float(torch.linalg.svdvals(weight.detach().double())[0])


sizes = st.integers(1, 12)
scales = st.sampled_from([1e-3, 1.0, 100.0])


@given(rows=sizes, columns=sizes, rank=sizes, scale=scales, seed=st.integers(0, 2**31))
def test_no_singular_value_is_above_one(rows, columns, rank, scale, seed):
    g = generator(seed)
    factors = torch.randn(rows, rank, generator=g), torch.randn(rank, columns, generator=g)
    weight = scale * (factors[0] @ factors[1])
    assert largest(almost_orthogonal(weight)) <= 1 + 1e-6


@given(rows=sizes, columns=sizes, scale=st.sampled_from([0.1, 1.0, 30.0]), seed=st.integers(0, 2**31))
def test_orthonormal_weights_stay_whatever_their_scale(rows, columns, scale, seed):
    """The bound is tight there: all singular values become 1, on the side where they all can be."""
    weight = nn.init.orthogonal_(torch.empty(rows, columns, dtype=torch.float64), generator=generator(seed))
    rescaled = almost_orthogonal(scale * weight)
    torch.testing.assert_close(rescaled, weight, rtol=1e-4, atol=1e-4)


def test_a_hand_computed_matrix():
    """WᵀW = [[1, 1], [1, 2]]: columns over √2 and √3, up to the 1e-6. Its transpose alike, by rows."""
    weight = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    expected = weight / torch.tensor([2**0.5, 3**0.5], dtype=torch.float64)
    torch.testing.assert_close(almost_orthogonal(weight), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(almost_orthogonal(weight.T.contiguous()), expected.T, rtol=1e-6, atol=0)


@given(rows=st.integers(2, 10), columns=st.integers(2, 10), seed=st.integers(0, 2**31))
def test_it_commutes_with_orderings_and_signs_of_units(rows, columns, seed):
    g = generator(seed)
    weight = torch.randn(rows, columns, dtype=torch.float64, generator=g)
    rank, file = torch.randperm(rows, generator=g), torch.randperm(columns, generator=g)
    signs = torch.randint(0, 2, (columns,), generator=g) * 2.0 - 1
    moved = almost_orthogonal((weight * signs)[rank][:, file])
    torch.testing.assert_close(moved, (almost_orthogonal(weight) * signs)[rank][:, file])


def test_a_zero_matrix_stays_zero_and_has_a_gradient():
    weight = torch.zeros(3, 4, requires_grad=True)
    out = almost_orthogonal(weight)
    out.sum().backward()
    assert not out.any()
    assert torch.isfinite(weight.grad).all()


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_its_gradient_is_that_of_finite_differences(shape):
    weight = torch.randn(*shape, dtype=torch.float64, generator=generator(1), requires_grad=True)
    assert torch.autograd.gradcheck(almost_orthogonal, (weight,))


@given(width=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_maxmin_sorts_pairs_and_never_expands(width, seed):
    g = generator(seed)
    x, z = torch.randn(2, 20, 2 * width, dtype=torch.float64, generator=g)
    layer = GroupSort(2)
    pairs = layer(x).reshape(20, width, 2)
    assert (pairs[..., 0] <= pairs[..., 1]).all()
    torch.testing.assert_close(pairs.sum(2), x.reshape(20, width, 2).sum(2))
    for order in (1, 2, math.inf):
        before, after = (x - z).norm(order, dim=1), (layer(x) - layer(z)).norm(order, dim=1)
        assert (after <= before * (1 + 1e-12)).all()


def trained_like(seed, shape=(2, 3, 3), width=8, depth=4):
    """A network whose weights are far from orthogonal, as after training."""
    g = generator(seed)
    network = build(torch.rand(2, 1, 1, generator=g), shape, 5, width, depth, g)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=g))
    return network


def test_the_network_starts_as_an_isometry_of_centred_inputs():
    network = build(torch.full((1, 1, 1), 0.5), (1, 4, 4), 16, 16, 3, generator(0)).double()
    x = torch.rand(50, 1, 4, 4, dtype=torch.float64, generator=generator(1))
    torch.testing.assert_close(network(x).norm(dim=1), (x - 0.5).flatten(1).norm(dim=1), rtol=1e-5, atol=0)


@given(seed=st.integers(0, 2**31), distance=st.sampled_from([1e-3, 0.1, 3.0]))
def test_the_network_never_expands(seed, distance):
    network = trained_like(seed).double()
    g = generator(seed)
    x = torch.rand(30, 2, 3, 3, dtype=torch.float64, generator=g)
    z = x + distance * torch.randn(x.shape, dtype=torch.float64, generator=g)
    with torch.no_grad():
        ratio = (network(x) - network(z)).norm(dim=1) / (x - z).flatten(1).norm(dim=1)
    assert ratio.max() <= 1 + 1e-9


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_frozen_is_the_same_function_in_plain_layers(depth):
    network = trained_like(3, depth=depth)
    plain = frozen(network, (2, 3, 3))
    x = torch.rand(20, 2, 3, 3, generator=generator(4))
    with torch.no_grad():
        torch.testing.assert_close(plain(x), network(x), rtol=1e-5, atol=1e-5)
    assert [node.op for node in from_torch(plain, (2, 3, 3)).nodes] == (
        ["input", "reshape", "linear", *["group_sort", "linear"] * (depth - 1)]
    )
    weights = [layer.weight for layer in plain if isinstance(layer, nn.Linear)]
    assert len(weights) == depth
    assert max(map(largest, weights)) <= 1 + 1e-6
    assert not any(module.training for module in plain.modules())


def test_weights_are_drawn_from_the_generator_alone():
    state = torch.get_rng_state()
    networks = [build(torch.zeros(1), (7,), 3, 4, 2, generator(seed)) for seed in (0, 0, 1)]
    frozen(networks[0], (7,))
    assert torch.equal(torch.get_rng_state(), state)
    first = [layer.weight for network in networks for layer in network if isinstance(layer, AolLinear)]
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[4])


def test_centring_scales_nothing():
    x = torch.rand(5, 2, 3, generator=generator(0))
    assert torch.equal(Centre(torch.tensor([[0.25], [0.5]]))(x), x - torch.tensor([[0.25], [0.5]]))
