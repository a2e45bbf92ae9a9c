"""The networks as they are built, and the plain ones that are kept."""

import copy

import pytest
import torch
from torch import nn

from oracles.expansion import most_expanded
from oracles.operators import largest
from robench.errors import InputError
from robench.graph import from_torch
from robench_plugins.lipschitz.constant import lipschitz_constant
from robench_plugins.training.lipschitz.networks import convnet, freeze, mlp
from robench_plugins.training.lipschitz.recipes import Aol, Bcop, Cayley, Cpl, Soc, SpectralNorm

FAMILIES = {recipe.__name__: recipe.family for recipe in (Aol, Cpl, Cayley, Bcop, Soc, SpectralNorm)}
CONVOLUTIONAL = [name for name, family in FAMILIES.items() if family.conv]
PLAIN = {"input", "reshape", "linear", "conv2d", "relu", "group_sort", "pad", "slice", "transpose", "max_pool2d"}
PLAIN |= {"add", "div", "sub"}
ESTIMATED = ("Cpl", "Soc", "SpectralNorm")  # norms by the power method


def generator(seed):
    return torch.Generator().manual_seed(seed)


def moved(network, seed):
    """A network whose weights are far from where they start, as after training."""
    g = generator(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=g))
        for _ in range(20):  # estimates of norms follow
            network(torch.zeros(1, *network.shape))
    return network


def build(kind, name, shape, seed=0, **sizes):
    g = generator(seed)
    mean = torch.rand(shape[0], *[1] * (len(shape) - 1), generator=g)
    if kind == "mlp":
        network = mlp(FAMILIES[name], mean, shape, 5, sizes.get("width", 20), sizes.get("depth", 3), g)
    else:
        sizes = {"channels": 4, "convolutions": 2, "blocks": 2} | sizes
        network = convnet(FAMILIES[name], mean, shape, 5, generator=g, **sizes)
    network.shape = shape
    return network


NETWORKS = [("mlp", name) for name in FAMILIES] + [("convnet", name) for name in CONVOLUTIONAL]


@pytest.mark.parametrize(("kind", "name"), NETWORKS)
def test_no_search_finds_a_pair_that_is_expanded_and_the_certifier_proves_it(kind, name):
    shape = (2, 3, 3) if kind == "mlp" else (1, 8, 4)
    for seed in range(2):
        network = freeze(moved(build(kind, name, shape, seed), seed), shape)
        graph = from_torch(network, shape)
        assert {node.op for node in graph.nodes} <= PLAIN
        assert not any(module.training for module in network.modules())
        ratio = most_expanded(graph, seed, starts=16, steps=12)[0]
        assert 1e-3 < ratio <= lipschitz_constant(graph).value <= 1 + 1e-6


@pytest.mark.parametrize("shape", [(2, 4, 4), (1, 7, 10)], ids=["as it is", "in a frame"])
@pytest.mark.parametrize(("kind", "name"), NETWORKS)
def test_frozen_is_the_same_function(kind, name, shape):
    """Also of images that get a frame: the mean is not that of the frame."""
    network = moved(build(kind, name, shape, 3, **({"width": 70} if kind == "mlp" else {})), 3)
    x = torch.rand(20, *shape, generator=generator(4))
    with torch.no_grad():
        for _ in range(500 if name in ESTIMATED else 0):
            network(x)
        trained = network.eval()(x)
        kept = freeze(network, shape)(x)
    torch.testing.assert_close(kept, trained, rtol=5e-3 if name in ESTIMATED else 1e-5, atol=1e-4)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_an_mlp_is_kept_without_its_mean(depth):
    network = moved(build("mlp", "Aol", (2, 3, 3), 3, width=8, depth=depth), 3)
    plain = freeze(network, (2, 3, 3))
    assert [node.op for node in from_torch(plain, (2, 3, 3)).nodes] == (
        ["input", "reshape", "linear", *["group_sort", "linear"] * (depth - 1)]
    )
    weights = [layer.weight for layer in plain if isinstance(layer, nn.Linear)]
    assert [tuple(weight.shape) for weight in weights] == [
        (8 if layer < depth - 1 else 5, 18 if layer == 0 else 8) for layer in range(depth)
    ]
    assert max(map(largest, weights)) <= 1 + 1e-6


def test_an_orthogonal_mlp_starts_as_an_isometry_of_centred_inputs():
    for name in ("Aol", "Cayley"):
        network = mlp(FAMILIES[name], torch.full((1, 1, 1), 0.5), (1, 4, 4), 16, 16, 3, generator(0)).double()
        x = torch.rand(50, 1, 4, 4, dtype=torch.float64, generator=generator(1))
        torch.testing.assert_close(network(x).norm(dim=1), (x - 0.5).flatten(1).norm(dim=1), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_the_shapes_of_a_convolutional_network(name):
    """channels → 2 · channels of half the size in each block, the maximum over what is left, a dense layer."""
    network = build("convnet", name, (3, 16, 8), channels=4, convolutions=3, blocks=2)
    shapes, x = [], torch.rand(2, 3, 16, 8, generator=generator(0))
    for layer in network:
        x = layer(x)
        shapes.append((type(layer).__name__, tuple(x.shape[1:])))
    kinds = ("Aol", "Bcop", "SpectralNorm", "ConvexPotential", "SkewConvolution", "SkewMatrix")
    assert [shape for kind, shape in shapes if kind in kinds and len(shape) == 3] == [(4, 16, 8)] * 4 + [(8, 8, 4)] * 3
    assert ("PixelUnshuffle", (8, 8, 4)) in shapes
    assert ("MaxPool2d", (16, 1, 1)) in shapes
    assert shapes[-1][1] == (5,)
    assert sum(kind == "GroupSort" for kind, _ in shapes) == 7


@pytest.mark.parametrize(
    ("shape", "blocks", "framed"),
    [((1, 28, 28), 5, (32, 32)), ((3, 7, 10), 3, (8, 16)), ((1, 64, 64), 5, (64, 64)), ((1, 1, 4), 0, (1, 4))],
)
def test_images_are_halved_as_often_as_can_be(shape, blocks, framed):
    """With a frame of zeros around, as even as can be."""
    network = convnet(FAMILIES["Aol"], torch.zeros(shape[0], 1, 1), shape, 3, 2, 0, None, generator(0))
    assert sum(type(layer).__name__ == "PixelUnshuffle" for layer in network) == blocks
    x = torch.ones(1, *shape)
    x = network[1](x) if framed != shape[1:] else x
    assert x.shape[2:] == framed
    for axis in (2, 3):
        inside = x.sum((0, 1, 5 - axis)).nonzero()
        assert abs(int(inside[0]) - (framed[axis - 2] - 1 - int(inside[-1]))) <= 1
    assert network(torch.rand(2, *shape)).shape == (2, 3)


@pytest.mark.parametrize(
    ("kind", "name", "shape", "sizes", "message"),
    [
        ("convnet", "Aol", (64,), {}, "arch=convnet needs images"),
        ("convnet", "Bcop", (1, 28, 28), {"blocks": 6}, "28 x 28 are one pixel wide after 5"),
        ("convnet", "Aol", (1, 8, 6), {"blocks": 4}, "8 x 6 are one pixel wide after 3"),
        ("convnet", "Cpl", (3, 4, 4), {"channels": 2}, "channels=2 is less than the 3"),
        ("convnet", "Cpl", (1, 4, 4), {"channels": 2, "blocks": 1}, "channels=2 leaves 4 logits for 5 classes"),
        ("mlp", "Cpl", (3, 4, 4), {"width": 20}, "width=20 is less than the 48 inputs"),
        ("mlp", "Cpl", (2,), {"width": 4}, "width=4 leaves 4 logits for 5 classes"),
    ],
)
def test_what_cannot_be_built(kind, name, shape, sizes, message):
    with pytest.raises(InputError, match=message):
        build(kind, name, shape, **sizes)


@pytest.mark.parametrize(("kind", "name"), NETWORKS)
def test_weights_are_drawn_from_the_generator_alone(kind, name):
    state = torch.get_rng_state()
    networks = [build(kind, name, (1, 4, 4), seed) for seed in (0, 0, 1)]
    freeze(copy.deepcopy(networks[0]), (1, 4, 4))
    assert torch.equal(torch.get_rng_state(), state)
    first, again, other = (torch.cat([p.flatten() for p in network.parameters()]) for network in networks)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
