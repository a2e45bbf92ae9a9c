import pytest
import torch
from torch import nn

from oracles.operators import matrix_of
from robench.graph import GraphModule, from_torch
from robench_plugins.training.lipschitz.shapes import Centre, FirstChannels, PixelUnshuffle, ZeroChannels


def inputs(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_centring_scales_nothing():
    x = inputs(5, 2, 3)
    assert torch.equal(Centre(torch.tensor([[0.25], [0.5]]))(x), x - torch.tensor([[0.25], [0.5]]))


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 4, 6)])
def test_pixels_are_shuffled_as_torch_does(shape):
    x = inputs(4, *shape)
    assert torch.equal(PixelUnshuffle()(x), nn.PixelUnshuffle(2)(x))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (PixelUnshuffle(), (2, 4, 6)),
        (ZeroChannels(3), (2, 3, 4)),
        (ZeroChannels(3), (2,)),
        (FirstChannels(2), (3, 2, 2)),
        (FirstChannels(2), (5,)),
    ],
)
def test_inputs_are_moved_or_dropped_and_nothing_else(layer, shape):
    matrix = matrix_of(layer, shape)
    assert set(matrix.unique().tolist()) <= {0.0, 1.0}
    assert matrix.sum(0).max() <= 1
    assert matrix.sum(1).max() <= 1
    assert int(matrix.sum()) == min(matrix.shape)
    x = inputs(3, *shape)
    network = nn.Sequential(layer, nn.Flatten()).eval()
    assert torch.equal(GraphModule(from_torch(network, shape))(x), network(x))


def test_channels_keep_their_places():
    x = inputs(2, 3, 4, 4)
    more = ZeroChannels(2)(x)
    assert torch.equal(more[:, :3], x)
    assert not more[:, 3:].any()
    assert torch.equal(FirstChannels(3)(more), x)
