"""Skew orthogonal layers: the exponential that they approximate, and the plain layers that they are kept as."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from oracles.expansion import most_expanded
from oracles.operators import largest, matrix_of
from robench.graph import from_torch
from robench_plugins.lipschitz.constant import lipschitz_constant
from robench_plugins.training.lipschitz.layers import transposed
from robench_plugins.training.lipschitz.skew_orthogonal import Exponential, SkewConvolution, SkewMatrix


def generator(seed):
    return torch.Generator().manual_seed(seed)


def layer_of(out, inner, seed, scale=1.0):
    layer = SkewConvolution(out, inner, 3, generator(seed)).eval()
    with torch.no_grad():
        layer.weight *= scale
        layer.bias.normal_(0, 0.3, generator=generator(seed + 1))
    return layer


def convolution(kernel):
    """A, as its matrix on maps of 4 × 5."""
    layer = nn.Conv2d(len(kernel), len(kernel), 3, padding=1, bias=False)
    layer.weight = nn.Parameter(kernel.detach().double())
    return matrix_of(layer, (len(kernel), 4, 5))


cases = given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**31), st.sampled_from([1e-2, 1.0, 50.0]))


@settings(max_examples=25, deadline=None)
@cases
def test_the_kept_layer_is_nearly_an_exponential_and_expands_nothing(out, inner, seed, scale):
    layer = layer_of(out, inner, seed, scale)
    frozen = layer.frozen()
    (series,) = (part for part in frozen if isinstance(part, Exponential))
    kernel = series.kernel.detach()
    assert torch.equal(transposed(kernel), -kernel)
    operator = convolution(kernel)
    norm = float(torch.linalg.matrix_norm(operator, 2))
    assert norm <= 2.1 + 1e-6
    exponential = torch.linalg.matrix_exp(operator)
    error = largest(matrix_of(series, (len(kernel), 4, 5)) - exponential)
    assert error <= norm**13 / math.factorial(13) + 1e-12
    matrix = matrix_of(frozen, (inner, 4, 5))
    torch.testing.assert_close(matrix, exponential[: out * 20, : inner * 20], rtol=0, atol=1e-5)
    assert largest(matrix) <= 1 + 1e-12


def test_norms_are_bounded_by_the_smallest_of_four_unfoldings():
    weight = torch.randn(3, 3, 3, 3, generator=generator(0))
    skew = ((weight - transposed(weight)) / 2).double()
    layer = layer_of(3, 3, 0)
    with torch.no_grad():
        layer.weight.copy_(weight)
    unfolded = [
        torch.tensor(
            [[float(skew[o, i, h, w]) for i in range(3) for w in range(3)] for o in range(3) for h in range(3)]
        ),
        torch.tensor(
            [[float(skew[o, i, h, w]) for i in range(3) for h in range(3)] for o in range(3) for w in range(3)]
        ),
        skew.reshape(3, 27),
        skew.transpose(0, 1).reshape(3, 27),
    ]
    torch.testing.assert_close(layer.exact(), 0.7 * skew / min(map(largest, unfolded)))


def test_training_meets_what_is_kept():
    layer = layer_of(4, 3, 1).train()
    x = torch.randn(10, 3, 4, 5, generator=generator(2))
    with torch.no_grad():
        for _ in range(500):
            layer(x)
        torch.testing.assert_close(layer.effective().double(), layer.exact(), rtol=1e-4, atol=1e-5)
        fifth = layer(x)  # within 2.1⁶/6! of the exponential
        twelfth = layer.eval()(x)
    torch.testing.assert_close(twelfth, layer.frozen()(x), rtol=1e-4, atol=1e-5)
    assert 0 < float((fifth - twelfth).abs().max()) < 2.1**6 / 720 * float(x.flatten(1).norm(dim=1).max())


@pytest.mark.parametrize(("out", "inner"), [(4, 4), (3, 5), (6, 2)])
@pytest.mark.parametrize("kernel", [False, True])
def test_matrices_are_orthogonal(out, inner, kernel):
    weight = SkewMatrix(out, inner, generator(0), kernel).exact()
    assert weight.shape == ((out, inner, 1, 1) if kernel else (out, inner))
    values = torch.linalg.svdvals(weight.reshape(out, inner))
    assert float(values[0]) <= 1 + 1e-12
    if out == inner:
        assert float(values[-1]) >= 1 - 1e-12
        assert float(torch.linalg.det(weight.reshape(out, inner))) == pytest.approx(1)  # a rotation


def test_the_certifier_proves_a_constant_of_one():
    layers = [layer_of(4, 3, 0).frozen(), layer_of(2, 4, 1).frozen(), layer_of(2, 2, 2).frozen()]
    graph = from_torch(nn.Sequential(*layers, nn.Flatten()).eval(), (3, 5, 4))
    found = lipschitz_constant(graph)
    assert found.value == 1
    assert found.source.startswith("series")
    assert most_expanded(graph, steps=30)[0] <= 1 + 1e-9
