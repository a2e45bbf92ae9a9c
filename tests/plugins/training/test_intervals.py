from itertools import product

import pytest
import torch
from torch import nn

from robench_plugins.training.intervals import layer_inputs, propagate, worst_margins
from robench_plugins.training.networks import Normalise, build


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def boxes(shape, count=5, seed=0):
    g = generator(seed)
    centre, radius = torch.randn(count, *shape, generator=g), torch.rand(count, *shape, generator=g)
    return centre - radius, centre + radius


def worst(network, lower, upper, y):
    return worst_margins(network[-1], layer_inputs(network, lower, upper)[-1], y)


def corners(lower, upper):
    """All corners of flat boxes [B, D]: [B, 2^D, D]."""
    choice = torch.tensor(list(product([False, True], repeat=lower.shape[1])))
    return torch.where(choice, upper[:, None], lower[:, None])


def test_a_linear_layer_is_bounded_exactly_at_the_corners():
    layer = nn.Linear(6, 4).double()
    lower, upper = boxes((6,))
    values = layer(corners(lower.double(), upper.double()))
    low, high = propagate(layer, lower.double(), upper.double())
    torch.testing.assert_close(low, values.amin(1))
    torch.testing.assert_close(high, values.amax(1))


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "groups": 2, "bias": False}])
def test_a_convolution_is_bounded_like_its_matrix(settings):
    layer = nn.Conv2d(2, 4, 3, **settings).double()
    lower, upper = boxes((2, 6, 6))
    matrix = torch.func.vmap(torch.func.jacrev(layer))(lower.double())[0].flatten(0, 2).flatten(1)
    flat = nn.Linear(*reversed(matrix.shape)).double()
    with torch.no_grad():
        flat.weight.copy_(matrix)
        flat.bias.copy_(layer(torch.zeros(1, 2, 6, 6).double()).flatten())
    for got, wanted in zip(
        propagate(layer, lower.double(), upper.double()),
        propagate(flat, lower.double().flatten(1), upper.double().flatten(1)),
        strict=True,
    ):
        torch.testing.assert_close(got.flatten(1), wanted)


def test_the_worst_margins_of_a_linear_network_are_exact():
    """Merging the last layer with the difference makes them exact; bounds on the logits alone are not."""
    network = nn.Sequential(Normalise(torch.ones(6), torch.full((6,), 2.0)), nn.Linear(6, 4)).double()
    lower, upper = (side.double() for side in boxes((6,)))
    y = torch.tensor([0, 1, 2, 3, 0])
    logits = network(corners(lower, upper))
    exact = (logits - logits.gather(2, y[:, None, None].expand(-1, 64, 1))).amax(1)
    bound = worst(network, lower, upper, y)
    torch.testing.assert_close(bound, exact)
    low, high = propagate(network, lower, upper)
    rivals = torch.arange(4) != y[:, None]
    assert (high - low.gather(1, y[:, None]))[rivals].gt(bound[rivals] + 1e-3).all()


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_bounds_hold_inside_the_box(architecture):
    g = generator()
    normalise = Normalise(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    network = build(architecture, 2, normalise, (1, 5, 5), 3, "he", g).double()
    lower, upper = (side.double() for side in boxes((1, 5, 5), count=8))
    y = torch.arange(8) % 3
    low, high = propagate(network, lower, upper)
    bound = worst(network, lower, upper, y)
    for _ in range(50):
        share = torch.rand(lower.shape, generator=g, dtype=torch.float64)
        share = share.round() if torch.rand((), generator=g) < 0.5 else share  # corners, too
        logits = network(lower + share * (upper - lower))
        assert (logits >= low - 1e-12).all()
        assert (logits <= high + 1e-12).all()
        assert (logits - logits.gather(1, y[:, None]) <= bound + 1e-12).all()


def test_an_empty_box_gives_the_function_itself():
    network = build("cnn", 2, Normalise(torch.zeros(1, 1, 1), torch.ones(1, 1, 1)), (1, 5, 5), 3, "ibp", generator())
    x = torch.rand(4, 1, 5, 5, generator=generator(1))
    y = torch.tensor([0, 1, 2, 0])
    logits = network(x)
    torch.testing.assert_close(worst(network, x, x, y), logits - logits.gather(1, y[:, None]))


def test_layers_without_a_rule_are_named():
    with pytest.raises(TypeError, match="no interval rule for Sigmoid"):
        propagate(nn.Sequential(nn.Sigmoid()), torch.zeros(1, 2), torch.ones(1, 2))
    with pytest.raises(TypeError, match="circular padding"):
        propagate(nn.Conv2d(1, 1, 3, padding_mode="circular"), torch.zeros(1, 1, 3, 3), torch.ones(1, 1, 3, 3))
    with pytest.raises(TypeError, match="last layer must be linear, not ReLU"):
        worst_margins(nn.ReLU(), (torch.zeros(1, 2), torch.ones(1, 2)), torch.tensor([0]))
