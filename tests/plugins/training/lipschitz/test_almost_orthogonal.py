import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from oracles.operators import largest
from robench.graph import GroupSort
from robench_plugins.training.lipschitz import almost_orthogonal as module
from robench_plugins.training.lipschitz.almost_orthogonal import almost_orthogonal


def generator(seed):
    return torch.Generator().manual_seed(seed)


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


@pytest.mark.parametrize("wide", [512, 1])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (3, 2, 3, 3), (2, 3, 3, 3)])
def test_its_gradient_is_that_of_finite_differences(monkeypatch, shape, wide):
    monkeypatch.setattr(module, "_WIDE", wide)
    monkeypatch.setattr(module, "_BLOCK", 2)
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


@pytest.mark.parametrize("columns", [1, 127, 128, 300])
def test_wide_matrices_are_rescaled_alike(monkeypatch, columns):
    """Blocks of the Gram matrix and their mirror images, against all of it."""
    results = []
    for wide in (10_000, 1):
        monkeypatch.setattr(module, "_WIDE", wide)
        weight = torch.randn(310, columns, dtype=torch.float64, generator=generator(0), requires_grad=True)
        out = almost_orthogonal(weight)
        (gradient,) = torch.autograd.grad((out * torch.arange(columns)).sum(), weight)
        results.append((out.detach(), gradient))
    torch.testing.assert_close(results[0], results[1])


def test_a_hand_computed_kernel():
    """(1, −2) on one channel: correlations −2, 5, −2 add up to 9 in magnitude, so that it is a third of itself."""
    kernel = torch.tensor([1.0, -2.0], dtype=torch.float64).reshape(1, 1, 1, 2)
    torch.testing.assert_close(almost_orthogonal(kernel), kernel / 3, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(4, 2, 3, 3), (2, 4, 3, 2), (3, 3, 1, 3)])
def test_a_kernel_is_rescaled_by_the_rows_of_the_gram_matrix_on_a_large_map(shape):
    """Inner channels in the middle of a map: all their correlations are in the operator's explicit Gram matrix."""
    kernel = torch.randn(shape, dtype=torch.float64, generator=generator(5))
    side = 9
    out, inner = shape[:2]
    basis = torch.eye(inner * side * side, dtype=torch.float64).reshape(-1, inner, side, side)
    operator = F.conv2d(basis, kernel, padding=(shape[2] - 1, shape[3] - 1)).flatten(1).T
    narrow = inner > out
    gram = operator @ operator.T if narrow else operator.T @ operator
    height, width = (side + shape[2] - 1, side + shape[3] - 1) if narrow else (side, side)
    middle = torch.arange(out if narrow else inner) * height * width + (height // 2) * width + width // 2
    lengths = (gram.abs().sum(1)[middle] + 1e-6).sqrt()
    expected = kernel / lengths.reshape((-1, 1, 1, 1) if narrow else (1, -1, 1, 1))
    torch.testing.assert_close(almost_orthogonal(kernel), expected)
