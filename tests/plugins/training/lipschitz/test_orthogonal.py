"""Orthogonality of the Cayley transform and of composed convolutions."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from oracles.operators import matrix_of
from robench_plugins.training.lipschitz.layers import uniform
from robench_plugins.training.lipschitz.orthogonal import Bcop, Cayley, cayley, compose, orthogonal_kernel


def generator(seed):
    return torch.Generator().manual_seed(seed)


def isometry(matrix):
    """Return the product that must be the identity: of columns, or of rows where they are fewer."""
    rows, columns = matrix.shape[-2:]
    return matrix.mT @ matrix if columns <= rows else matrix @ matrix.mT


def assert_isometry(matrix, tolerance=1e-10):
    product = isometry(matrix)
    one = torch.eye(product.shape[-1], dtype=matrix.dtype).expand_as(product)
    torch.testing.assert_close(product, one, rtol=0, atol=tolerance)


@given(
    rows=st.integers(1, 10),
    columns=st.integers(1, 10),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 30.0]),
    seed=st.integers(0, 2**31),
)
def test_the_cayley_transform_is_orthogonal_whatever_the_weight(rows, columns, scale, seed):
    assert_isometry(cayley(scale * torch.randn(rows, columns, dtype=torch.float64, generator=generator(seed))))


def test_the_cayley_transform_of_two_units_is_a_rotation():
    """A = (0, −2a; 2a, 0) of W = (0, −a; a, 0): the angle is −2·atan(2a)."""
    a = 0.3
    angle = -2 * math.atan(2 * a)
    rotation = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64
    )
    torch.testing.assert_close(cayley(torch.tensor([[0.0, -a], [a, 0.0]], dtype=torch.float64)), rotation)


def test_the_cayley_transform_is_the_formula():
    weight = torch.randn(7, 4, dtype=torch.float64, generator=generator(0))
    upper, lower = weight[:4], weight[4:]
    a, one = upper - upper.T + lower.T @ lower, torch.eye(4, dtype=torch.float64)
    inverse = torch.linalg.inv(one + a)
    torch.testing.assert_close(cayley(weight), torch.cat((inverse @ (one - a), -2 * lower @ inverse)))
    torch.testing.assert_close(cayley(weight.T), cayley(weight).T)
    torch.testing.assert_close(cayley(torch.stack((weight, -weight)))[1], cayley(-weight))


def test_a_layer_follows_its_scale_and_not_that_of_the_weight():
    layers = [Cayley(factor * uniform((5, 3), generator(0))) for factor in (1, 7)]
    with torch.no_grad():
        layers[1].scale.copy_(layers[0].scale)
    torch.testing.assert_close(layers[0].effective(), layers[1].effective())
    before = layers[0].effective()
    with torch.no_grad():
        layers[0].scale.mul_(2)
    assert not torch.allclose(layers[0].effective(), before, atol=0.01)


@pytest.mark.parametrize("sizes", [((2, 3), (3, 2)), ((1, 2), (2, 1)), ((3, 3), (1, 1))])
def test_composed_kernels_are_one_convolution_after_the_other(sizes):
    g = generator(1)
    outer = torch.randn(4, 3, *sizes[0], dtype=torch.float64, generator=g)
    inner = torch.randn(3, 2, *sizes[1], dtype=torch.float64, generator=g)
    x = torch.randn(2, 2, 9, 9, dtype=torch.float64, generator=g)
    torch.testing.assert_close(F.conv2d(x, compose(outer, inner)), F.conv2d(F.conv2d(x, inner), outer))


class Circular(nn.Module):
    def __init__(self, kernel):
        super().__init__()
        self.kernel = kernel

    def forward(self, x):
        more = self.kernel.shape[2] - 1
        return F.conv2d(F.pad(x, (0, more, 0, more), "circular"), self.kernel)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize(("out", "inner"), [(3, 3), (5, 2), (2, 5), (1, 1), (4, 1)])
def test_a_composed_kernel_is_orthogonal_on_a_torus(size, out, inner):
    layer = Bcop(out, inner, size, generator(0)).double()
    kernel = layer.effective().detach()
    assert kernel.shape == (out, inner, size, size)
    assert_isometry(matrix_of(Circular(kernel), (inner, 5, 4)), 1e-6)  # the bases were float32


def test_it_uses_all_of_its_kernel():
    """Each of the nine entries has its share of the squared norm, which is the number of channels."""
    kernel = Bcop(16, 16, 3, generator(0)).effective().detach()
    share = kernel.square().sum((0, 1)) / 16
    assert float(share.sum()) == pytest.approx(1, abs=1e-5)
    assert float(share.min()) > 0.03
    assert float(share.max()) < 0.4


def test_projectors_by_hand():
    """One channel of two: bases I give P = diag(1, 0), which shifts the second channel down and across."""
    kernel = orthogonal_kernel(torch.eye(2).expand(3, 2, 2), 2, 2)
    expected = torch.zeros(2, 2, 2, 2)
    expected[0, 0, 0, 0] = expected[1, 1, 1, 1] = 1
    assert torch.equal(kernel, expected)


def test_it_keeps_lengths_except_at_the_border():
    layer = Bcop(6, 4, 3, generator(2), padding=1)
    x = torch.zeros(1, 4, 7, 7)
    x[..., 2:5, 2:5] = torch.randn(1, 4, 3, 3, generator=generator(3))
    torch.testing.assert_close(layer(x).norm(), x.norm())
    edge = torch.zeros(1, 4, 7, 7)
    edge[..., 0] = 1.0
    assert layer(edge).norm() < 0.97 * edge.norm()
