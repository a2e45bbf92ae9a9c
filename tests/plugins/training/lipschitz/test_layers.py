"""What holds for every layer: nothing is expanded, and what is kept is what was trained."""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from oracles.operators import largest, matrix_of
from robench_plugins.training.lipschitz.almost_orthogonal import Aol
from robench_plugins.training.lipschitz.convex_potential import ConvexPotential
from robench_plugins.training.lipschitz.layers import centred_orthogonal, transposed, uniform
from robench_plugins.training.lipschitz.orthogonal import Bcop, Cayley
from robench_plugins.training.lipschitz.spectral import SpectralNorm


def generator(seed):
    return torch.Generator().manual_seed(seed)


def drawn(shape, rank, scale, g):
    """Weights far from orthogonal: of low rank, with entries that share their sign."""
    rows, columns = shape[0], shape[1:].numel()
    factors = torch.rand(rows, rank, generator=g) - 0.2, torch.rand(rank, columns, generator=g) - 0.2
    return scale * (factors[0] @ factors[1]).reshape(shape)


DENSE = {
    "aol": lambda weight, g: Aol(weight),
    "cayley": lambda weight, g: Cayley(weight),
    "spectral-norm": lambda weight, g: SpectralNorm(weight, (), g),
}
CONV = {
    "aol": lambda weight, spatial, g, **grid: Aol(weight, **grid),
    "bcop": lambda weight, spatial, g, **grid: Bcop(len(weight), weight.shape[1], weight.shape[2], g, **grid),
    "spectral-norm": lambda weight, spatial, g, **grid: SpectralNorm(weight, spatial, g, **grid),
}
sizes = st.integers(1, 12)


@pytest.mark.parametrize("kind", DENSE)
@settings(max_examples=40)
@given(rows=sizes, columns=sizes, rank=sizes, scale=st.sampled_from([1e-3, 1.0, 100.0]), seed=st.integers(0, 2**31))
def test_no_singular_value_of_a_dense_layer_is_above_one(kind, rows, columns, rank, scale, seed):
    g = generator(seed)
    layer = DENSE[kind](drawn(torch.Size((rows, columns)), rank, scale, g), g)
    assert largest(matrix_of(layer.frozen(), (columns,))) <= 1 + 1e-6


@pytest.mark.parametrize("kind", CONV)
@settings(max_examples=60)
@given(
    out=st.integers(1, 4),
    inner=st.integers(1, 4),
    size=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 4),
    spatial=st.tuples(st.integers(3, 6), st.integers(3, 6)),
    scale=st.sampled_from([1e-2, 1.0, 30.0]),
    seed=st.integers(0, 2**31),
)
def test_no_singular_value_of_a_convolution_is_above_one(kind, out, inner, size, stride, padding, spatial, scale, seed):
    g = generator(seed)
    weight = drawn(torch.Size((out, inner, size, size)), 2, scale, g)
    layer = CONV[kind](weight, spatial, g, stride=stride, padding=padding)
    assert largest(matrix_of(layer.frozen(), (inner, *spatial))) <= 1 + 1e-6


def test_the_bound_of_a_convolution_is_reached():
    """Kernels of one positive sign: the norm on a large map is close to the sum that all of them divide by."""
    weight = torch.ones(1, 1, 3, 3)
    for layer in (Aol(weight, padding=1), SpectralNorm(weight, (20, 20), generator(0), padding=1)):
        assert 0.97 < largest(matrix_of(layer.frozen(), (1, 20, 20))) <= 1 + 1e-6


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        *itertools.product(("aol", "cayley"), [(5, 7), (7, 5), (6, 6)]),
        *itertools.product(("aol", "bcop"), [(4, 2, 3, 3), (2, 4, 3, 3)]),
    ],
)
def test_frozen_is_the_layer_up_to_rounding(kind, shape):
    g = generator(3)
    weight = uniform(shape, g)
    layer = DENSE[kind](weight, g) if len(shape) == 2 else CONV[kind](weight, (5, 6), g, padding=1)
    with torch.no_grad():
        layer.bias.normal_(generator=g)
    plain = layer.frozen()
    assert type(plain) is (nn.Linear if len(shape) == 2 else nn.Conv2d)
    x = torch.randn((20, shape[1], *((5, 6) if len(shape) == 4 else ())), generator=g)
    torch.testing.assert_close(plain(x), layer(x), rtol=1e-5, atol=2e-6)
    with torch.no_grad():
        exact = copy.deepcopy(layer).double().effective()
    assert torch.equal(plain.weight, exact.float())
    assert torch.equal(plain.bias, layer.bias)


@pytest.mark.parametrize(
    "layer",
    [
        Aol(uniform((6, 4), generator(0))),
        Aol(uniform((3, 5, 3, 3), generator(0)), padding=1),
        Cayley(uniform((6, 4), generator(0))),
        Bcop(3, 5, 3, generator(0), padding=1),
        SpectralNorm(uniform((3, 5, 3, 3), generator(0)), (6, 6), generator(0), padding=1),
        ConvexPotential(uniform((5, 5, 3, 3), generator(0)), (6, 6), generator(0)),
        ConvexPotential(uniform((4, 4), generator(0)), (), generator(0)),
    ],
    ids=lambda layer: f"{type(layer).__name__}-{layer.weight.dim()}d",
)
def test_every_parameter_has_the_gradient_of_finite_differences(layer):
    layer = copy.deepcopy(layer).double().eval()
    names, parameters = zip(*layer.named_parameters(), strict=True)
    shape = {"Aol": (4,), "Cayley": (4,), "ConvexPotential": (4,)}.get(type(layer).__name__, ())
    shape = shape if layer.weight.dim() == 2 else (5, 6, 6)
    x = torch.randn(2, *shape, dtype=torch.float64, generator=generator(1))

    def run(*values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,)).square().sum((0, 1))

    assert torch.autograd.gradcheck(run, parameters, fast_mode=True)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (6, 2, 3, 3), (2, 6, 1, 1)])
def test_starting_weights(shape):
    weight = centred_orthogonal(shape, generator(0))
    matrix = weight if len(shape) == 2 else weight[:, :, shape[2] // 2, shape[3] // 2]
    assert int((weight != 0).sum()) == matrix.numel()
    torch.testing.assert_close(torch.linalg.svdvals(matrix), torch.ones(min(shape[:2])))
    bound = torch.Size(shape[1:]).numel() ** -0.5
    other = uniform(shape, generator(0))
    assert 0.5 * bound < float(other.abs().max()) <= bound


@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 3, 3), (3, 2, 5, 1)])
def test_transposed_weights(shape):
    weight = torch.randn(shape, dtype=torch.float64, generator=generator(0))

    def layer(weight):
        if len(shape) == 2:
            return lambda x: nn.functional.linear(x, weight)
        return lambda x: nn.functional.conv2d(x, weight, padding=(shape[2] // 2, shape[3] // 2))

    class Fixed(nn.Module):
        def __init__(self, weight):
            super().__init__()
            self.forward = layer(weight)

    spatial = () if len(shape) == 2 else (5, 4)
    ours = matrix_of(Fixed(transposed(weight)), (shape[0], *spatial))
    torch.testing.assert_close(ours, matrix_of(Fixed(weight), (shape[1], *spatial)).T)
