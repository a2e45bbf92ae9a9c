"""The power method's estimate, and the norms that weights are divided by in the end."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from oracles.operators import largest, matrix_of
from robench_plugins.training.lipschitz.layers import uniform
from robench_plugins.training.lipschitz.spectral import NormEstimate, SpectralNorm, spectral_norm


def generator(seed):
    return torch.Generator().manual_seed(seed)


class OnTorus(nn.Module):
    def __init__(self, kernel):
        super().__init__()
        self.kernel = kernel

    def forward(self, x):
        padding = (0, self.kernel.shape[3] - 1, 0, self.kernel.shape[2] - 1)
        return F.conv2d(F.pad(x, padding, "circular"), self.kernel)


def torus_norm(kernel, spatial):
    grid = [size + taps - 1 for size, taps in zip(spatial, kernel.shape[2:], strict=True)]
    return largest(matrix_of(OnTorus(kernel.double()), (kernel.shape[1], *grid)))


def settled(weight, spatial, steps=400):
    estimate = NormEstimate(weight, spatial, generator(1)).double()
    for _ in range(steps):
        estimate(weight.double())
    return estimate.eval()


@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (1, 4)])
def test_the_estimate_of_a_matrix_is_its_largest_singular_value(shape):
    weight = uniform(shape, generator(0))
    assert float(settled(weight, ())(weight.double())) == pytest.approx(largest(weight), rel=1e-8)
    assert float(spectral_norm(weight)) == pytest.approx(largest(weight), rel=1e-12)


@pytest.mark.parametrize(("shape", "spatial"), [((3, 2, 3, 3), (5, 4)), ((2, 4, 1, 3), (3, 4)), ((2, 2, 2, 2), (4, 4))])
def test_the_estimate_of_a_kernel_is_its_norm_on_a_torus_around_the_image(shape, spatial):
    kernel = uniform(shape, generator(0))
    estimate = float(settled(kernel, spatial, 4000)(kernel.double()))
    assert estimate == pytest.approx(torus_norm(kernel, spatial), rel=1e-4)
    padded = nn.Conv2d(shape[1], shape[0], shape[2:], padding=(shape[2] - 1, shape[3] - 1), bias=False)
    padded.weight = nn.Parameter(kernel)
    zero_padded = largest(matrix_of(padded, (shape[1], *spatial)))
    assert zero_padded <= estimate * (1 + 1e-4)
    assert float(spectral_norm(kernel, spatial)) == pytest.approx(torus_norm(kernel, spatial), rel=1e-12)


def test_the_gradient_is_that_of_the_largest_singular_value():
    weight = uniform((6, 5), generator(0)).double().requires_grad_()
    estimate = settled(weight.detach().float(), (), 2000)
    (ours,) = torch.autograd.grad(estimate(weight), weight)
    (theirs,) = torch.autograd.grad(torch.linalg.matrix_norm(weight, 2), weight)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_the_estimate_moves_in_training_alone():
    weight = uniform((6, 5), generator(0))
    estimate = NormEstimate(weight, (), generator(1))
    before = estimate.vector.clone()
    estimate.eval()(weight)
    assert torch.equal(estimate.vector, before)
    weight = uniform((6, 5), generator(2))
    estimate.train()(weight)
    assert not torch.equal(estimate.vector, before)


@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 3, 3)])
def test_training_meets_what_is_kept(shape):
    spatial = () if len(shape) == 2 else (8, 8)
    layer = SpectralNorm(uniform(shape, generator(0)), spatial, generator(1), padding=len(shape) // 4)
    x = torch.randn(1, shape[1], *spatial, generator=generator(2))
    with torch.no_grad():
        for _ in range(1000):
            out = layer(x)
        kept = layer.frozen()(x)
    torch.testing.assert_close(out, kept, rtol=1e-3, atol=1e-4)


def test_a_weight_of_zeros_stays_one():
    for shape, spatial in (((3, 4), ()), ((3, 4, 3, 3), (5, 5))):
        layer = SpectralNorm(torch.zeros(shape), spatial, generator(0), padding=len(shape) // 4)
        x = torch.randn(2, 4, *spatial, generator=generator(1))
        for one in (layer, layer.frozen()):
            assert not one(x).any()
