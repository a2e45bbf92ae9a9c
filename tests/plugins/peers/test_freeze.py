"""Frozen networks without the libraries: torch's own parametrisations, and the activations from their formulas."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from oracles.expansion import most_expanded
from oracles.operators import largest
from robench.contracts import TrainContext
from robench.errors import InputError
from robench.graph import GraphModule, from_torch
from robench_plugins.datasets.digits import Digits
from robench_plugins.lipschitz.constant import lipschitz_constant
from robench_plugins.peers._activations import HalfMaxMin, Reflection, ScaledGroupSort, TwoSided
from robench_plugins.peers._library import Library
from robench_plugins.peers.freeze import freeze
from robench_plugins.peers.recipes import Orthogonium, Torchlip

ANGLES = torch.tensor([0.0, 0.3, 1.57, 3.0])


def half_max_min(z):
    a, b = z.chunk(2, 1)
    return torch.cat((torch.maximum(a, b), torch.minimum(a, b)), 1)


def reflected(z):
    """Where sin(θ/2) a > cos(θ/2) b the pair (a, b) is reflected, after the formula of SOC."""
    a, b = z.chunk(2, 1)
    theta = ANGLES.reshape(1, -1, *[1] * (z.dim() - 2))
    turned = (a * theta.cos() + b * theta.sin(), a * theta.sin() - b * theta.cos())
    keeps = a * (theta / 2).sin() <= b * (theta / 2).cos()
    return torch.cat((torch.where(keeps, a, turned[0]), torch.where(keeps, b, turned[1])), 1)


ACTIVATIONS = {
    "halves": (HalfMaxMin(), half_max_min, 1.0),
    "two sides": (TwoSided(), lambda z: torch.cat((z.relu(), (-z).relu()), 1), 1.0),
    "two sides, scaled": (TwoSided(0.7), lambda z: 0.7 * torch.cat((z.relu(), (-z).relu()), 1), 0.7),
    "groups": (ScaledGroupSort(4, 0.5), lambda z: 0.5 * z.unflatten(1, (-1, 4)).sort(2).values.flatten(1, 2), 0.5),
    "all": (ScaledGroupSort(None), lambda z: z.sort(1).values, 1.0),
    "reflection": (Reflection(ANGLES), reflected, 1.0),
    "half a reflection": (Reflection(ANGLES, 0.5**0.5), lambda z: reflected(z) * 0.5**0.5, 0.5**0.5),
}


@pytest.mark.parametrize("shape", [(8,), (8, 2, 3)], ids=["features", "images"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_their_formula_and_are_proven_to_expand_nothing(name, shape):
    layer, formula, constant = ACTIVATIONS[name]
    z = torch.randn(50, *shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(z), formula(z), rtol=1e-5, atol=1e-6)
    graph = from_torch(nn.Sequential(layer, nn.Flatten()).eval(), shape)
    torch.testing.assert_close(GraphModule(graph)(z), formula(z).flatten(1), rtol=1e-5, atol=1e-6)
    proven = lipschitz_constant(graph).value
    assert constant * 0.99 <= most_expanded(graph, 0, starts=8, steps=8)[0] <= proven * (1 + 1e-9)
    assert proven <= constant * (1 + 1e-6)


def parametrised():
    torch.manual_seed(0)
    shared = parametrizations.spectral_norm(nn.Linear(8, 8))
    net = nn.Sequential(
        parametrizations.orthogonal(nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular")),
        nn.PReLU(),
        nn.AvgPool2d(4),
        nn.Flatten(),
        parametrizations.weight_norm(nn.Linear(16, 8)),
        nn.Sequential(shared, nn.ReLU(), shared),
        nn.Linear(8, 3),
    )
    net(torch.rand(4, 1, 8, 8))
    return net


def test_the_function_stays_and_so_does_the_module():
    net = parametrised()
    before = copy.deepcopy(net.state_dict())
    frozen = freeze(net)
    x = torch.rand(20, 1, 8, 8)
    assert net.training
    assert parametrize.is_parametrized(net[0])
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    net.eval()
    torch.testing.assert_close(frozen(x), net(x), rtol=1e-5, atol=1e-6)
    graph = from_torch(frozen, (1, 8, 8))
    torch.testing.assert_close(GraphModule(graph)(x), net(x), rtol=1e-5, atol=1e-6)
    assert not any(parametrize.is_parametrized(layer) for layer in frozen.modules())
    assert not any(layer.training for layer in frozen.modules())
    assert frozen[5][0] is frozen[5][2]
    assert type(frozen[0]) is nn.Conv2d


def test_weights_are_computed_in_float64_and_rounded_once():
    layer = parametrizations.orthogonal(nn.Linear(40, 40), orthogonal_map="cayley", use_trivialization=False)
    exact = copy.deepcopy(layer).double().weight.detach()
    frozen = freeze(layer)
    assert torch.equal(frozen.weight, exact.float())
    assert largest(frozen.weight) <= 1 + 1e-7


class OnePrecision(nn.Module):
    def forward(self, weight):
        if weight.dtype != torch.float32:
            raise RuntimeError("expected float32")
        return weight.clamp(-0.1, 0.1)


def test_a_parametrisation_of_one_precision_is_taken_as_it_is():
    layer = nn.Linear(5, 3)
    parametrize.register_parametrization(layer, "weight", OnePrecision())
    assert torch.equal(freeze(layer).weight, layer.weight)


def test_what_cannot_be_copied_is_one_clear_line():
    layer = nn.Linear(2, 2)
    layer.kept = layer(torch.ones(1, 2))  # a value with its history
    with pytest.raises(InputError, match=r"Linear cannot be copied .*: run it once in evaluation mode"):
        freeze(layer)


@pytest.mark.parametrize("recipe", [Orthogonium(), Torchlip()])
def test_a_missing_library_is_one_clear_line(recipe, monkeypatch):
    missing = Library("robench_has_no_such_module", recipe.library.distribution, recipe.library.extra)
    monkeypatch.setattr(type(recipe), "library", missing)
    with pytest.raises(InputError, match=rf"cannot be imported .*pip install 'robench\[{missing.extra}\]'"):
        recipe.train(Digits().load("train"), TrainContext(0, torch.device("cpu")))


class Theirs(nn.Module):
    """An activation that stands for one of a library's."""

    def forward(self, x):
        return x.abs()


class Mine(Theirs):
    def forward(self, x):
        return 2 * x.abs()


@pytest.fixture
def replaced(monkeypatch):
    monkeypatch.setattr("robench_plugins.peers.freeze._RULES", {f"{__name__}.Theirs": lambda layer: nn.ReLU()})


def test_a_layer_that_occurs_twice_is_replaced_in_both_places(replaced):
    shared = Theirs()
    frozen = freeze(nn.Sequential(nn.Linear(3, 3), shared, nn.Linear(3, 3), shared))
    assert [type(layer) for layer in frozen] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU]
    assert frozen[1] is frozen[3]


def test_what_computes_something_else_than_the_librarys_layer_stays(replaced):
    hooked = Theirs()
    hooked.register_forward_hook(lambda layer, inputs, output: output + 1)
    frozen = freeze(nn.Sequential(Mine(), hooked, type("Same", (Theirs,), {})()))
    assert [type(layer) for layer in frozen] == [Mine, Theirs, nn.ReLU]
    x = torch.linspace(-1, 1, 5)
    assert torch.equal(frozen[:2](x), 2 * x.abs() + 1)
