"""Networks of orthogonium's and deel-torchlip's layers, trained and frozen: the same functions, proven constants."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from oracles.expansion import expanded, most_expanded
from oracles.peers import library
from robench.contracts import TrainContext
from robench.errors import GraphError
from robench.graph import GraphModule, fingerprint, from_torch, load
from robench.training import train
from robench_plugins.datasets.digits import Digits
from robench_plugins.lipschitz.constant import lipschitz_constant
from robench_plugins.peers.freeze import freeze
from robench_plugins.peers.recipes import Borrowed, Orthogonium, Torchlip

pytestmark = [
    pytest.mark.peers,
    # What the libraries themselves warn of on new versions of torch and Python.
    pytest.mark.filterwarnings("ignore"),
]

TRAIN, TEST = Digits().load("train"), Digits().load("test")
X, Y = torch.tensor(TEST.x), torch.tensor(TEST.y)
CPU = torch.device("cpu")
RECIPES = {
    "orthogonium": Orthogonium(epochs=4),
    "torchlip": Torchlip(epochs=4),
    "orthogonium convnet": Orthogonium(epochs=3, arch="convnet", channels=8),
    "torchlip convnet": Torchlip(epochs=3, arch="convnet", channels=8, blocks=1),
}


@pytest.fixture(autouse=True)
def installed():
    library(Orthogonium), library(Torchlip)


def orthogonium():
    layers = importlib.import_module("orthogonium.layers")
    return nn.Sequential(
        layers.AdaptiveOrthoConv2d(1, 8, 3),  # circular, the library's default
        layers.MaxMin(),
        layers.AdaptiveOrthoConv2d(8, 16, 4, stride=2, padding=1),
        layers.HouseHolder(16),
        layers.BatchCentering2D(16),
        layers.AdaptiveOrthoConv2d(16, 16, 2, stride=2, padding=0, padding_mode="zeros", groups=2),
        layers.Abs(),
        nn.Flatten(),
        layers.OrthoLinear(64, 32),
        layers.MaxMin(),
        layers.UnitNormLinear(32, 10),
    )


def torchlip():
    layers = importlib.import_module("deel.torchlip")
    return layers.Sequential(
        layers.SpectralConv2d(1, 4, (3, 3), padding=1),
        layers.GroupSort2(),
        layers.InvertibleDownSampling(2),
        layers.FrobeniusConv2d(16, 8, (3, 3), padding=1, padding_mode="circular"),
        layers.modules.HouseHolder(8),
        layers.modules.BatchCentering(8),
        layers.ScaledAvgPool2d(2),
        nn.Flatten(),
        layers.SpectralLinear(32, 16),
        layers.modules.LPReLU(),
        layers.SpectralLinear(16, 16),
        layers.MaxMin(),
        layers.SpectralLinear(32, 16),
        layers.FullSort(),
        layers.FrobeniusLinear(16, 10),
    )


def moved(net, steps=30):
    """A network after some steps of training, as a user would make them."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for step in range(steps):
        batch = slice(64 * (step % 20), 64 * (step % 20) + 64)
        x, y = torch.tensor(TRAIN.x[batch]), torch.tensor(TRAIN.y[batch])
        optimizer.zero_grad()
        nn.functional.cross_entropy(10 * net(x), y).backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        for _ in range(30):  # orthogonium goes on iterating in evaluation mode, too
            net(X[:2])
    return net


@pytest.mark.parametrize(("make", "constant"), [(orthogonium, 0.5**0.5), (torchlip, 1.0)])
def test_a_users_network_is_the_same_function_with_a_proven_constant(make, constant):
    """All but the last is proven to expand nothing; orthogonium divides its Householder activation by √2."""
    net = moved(make())
    frozen = freeze(net)
    with torch.no_grad():
        theirs = net(X)
    torch.testing.assert_close(frozen(X), theirs, rtol=1e-5, atol=1e-5)
    graph = from_torch(frozen, TEST.shape)
    torch.testing.assert_close(GraphModule(graph)(X), theirs, rtol=1e-5, atol=1e-5)
    found = lipschitz_constant(graph)
    last = found.layers[-1]
    # Their last layers have rows of length 1: each logit is 1-Lipschitz, all together are not.
    assert found.value <= constant * last.norm * (1 + 1e-6)
    assert last.norm == pytest.approx(float(torch.linalg.svdvals(frozen[-1].weight.detach().double())[0]), rel=1e-9)
    assert most_expanded(graph, 0, starts=4, steps=6)[0] > 0.01
    assert expanded(graph, found.value, starts=4, steps=6) is None


@pytest.mark.parametrize(
    "layer",
    [
        ("orthogonium.layers", "HouseHolder_Order_2", (4,)),
        ("deel.torchlip.modules", "ScaledL2NormPool2d", (2,)),
    ],
    ids=lambda layer: layer[1],
)
def test_layers_that_are_no_graph_are_refused_by_name(layer):
    module, name, arguments = layer
    net = nn.Sequential(getattr(importlib.import_module(module), name)(*arguments), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(GraphError, match=name):
        from_torch(freeze(net), (4, 2, 2))


def test_a_batch_norm_with_one_scale_is_exported():
    layers = importlib.import_module("deel.torchlip.modules")
    net = nn.Sequential(layers.BatchLipNorm(1), nn.Flatten(), nn.Linear(64, 3))
    for _ in range(3):
        net(torch.rand(16, 1, 8, 8))
    net.eval()
    net(X[:2])
    graph = from_torch(freeze(net), (1, 8, 8))
    torch.testing.assert_close(GraphModule(graph)(X), net(X), rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def trained():
    library(Orthogonium), library(Torchlip)
    return {name: recipe.train(TRAIN, TrainContext(0, CPU)) for name, recipe in RECIPES.items()}


@pytest.mark.parametrize(
    ("name", "accuracy", "proven"),
    [("orthogonium", 0.9, 0.8), ("torchlip", 0.9, 0.8), ("orthogonium convnet", 0.75, 0.5), ("torchlip convnet", 0, 0)],
)
def test_the_recipes_learn_digits_with_a_margin(trained, name, accuracy, proven):
    module = trained[name].module
    logits = module(X).detach().double()
    label = logits.gather(1, Y[:, None])[:, 0]
    radius = (label - logits.scatter(1, Y[:, None], -math.inf).amax(1)) / math.sqrt(2)
    assert float((radius > 0).double().mean()) >= accuracy
    assert float((radius > 36 / 255).double().mean()) >= proven
    assert len(trained[name].history) == RECIPES[name].epochs


@pytest.mark.parametrize("name", RECIPES)
def test_what_the_recipes_keep_is_proven_to_be_1_lipschitz(trained, name):
    graph = from_torch(trained[name].module, TEST.shape)
    found = lipschitz_constant(graph)
    assert found.value <= 1 + 1e-6
    assert expanded(graph, found.value, starts=4, steps=6) is None


@pytest.mark.parametrize("name", ["orthogonium", "torchlip"])
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_a_frozen_layer_is_the_trained_one(name, kind):
    family, generator = RECIPES[name].family, torch.Generator().manual_seed(0)
    if kind == "dense":
        layer, x = family.dense(12, 20, generator), torch.randn(9, 20, generator=generator)
    else:
        layer, x = family.conv(6, 4, 3, (5, 5), generator), torch.randn(9, 4, 5, 5, generator=generator)
    assert isinstance(layer, Borrowed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        for _ in range(100):
            theirs = layer(x)
    torch.testing.assert_close(layer.frozen()(x), theirs, rtol=1e-4, atol=1e-5)
    assert torch.equal(layer.frozen().weight, layer.exact().float())


@pytest.mark.parametrize("name", ["orthogonium", "torchlip"])
def test_equal_seeds_give_equal_weights_and_touch_nothing_else(name):
    recipe, few = replace(RECIPES[name], epochs=1, width=8), TRAIN.select(slice(0, 100))
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed + len(results))
        state = torch.get_rng_state()
        result = recipe.train(few, TrainContext(seed, CPU))
        assert torch.equal(torch.get_rng_state(), state)
        results.append((fingerprint(from_torch(result.module, TEST.shape), torch.float32), result.history))
    assert results[0] == results[1]
    assert results[0][0] != results[2][0]


@pytest.mark.parametrize("name", ["orthogonium", "torchlip"])
def test_a_resumed_training_goes_on_with_what_the_layers_keep(name):
    recipe, few, states = replace(RECIPES[name], epochs=3, width=8), TRAIN.select(slice(0, 100)), []

    def keep(state):
        states.append(replace(state, tensors={key: tensor.clone() for key, tensor in state.tensors.items()}))

    whole = recipe.train(few, TrainContext(0, CPU, keep=keep))
    rest = recipe.train(few, TrainContext(0, CPU, resume=states[1]))
    assert rest.history == whole.history
    prints = [fingerprint(from_torch(result.module, TEST.shape), torch.float32) for result in (whole, rest)]
    assert prints[0] == prints[1]


def test_the_checkpoint_names_the_librarys_version(tmp_path):
    train("torchlip:epochs=1,width=8", "digits", tmp_path / "net", device="cpu")
    graph, metadata = load(tmp_path / "net")
    assert metadata["versions"]["deel-torchlip"] == Torchlip.library.version
    assert json.loads((tmp_path / "net" / "checkpoint.json").read_text())["metadata"]["recipe"].startswith("torchlip")
    assert graph.input_shape == TEST.shape
