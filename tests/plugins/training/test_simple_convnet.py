"""SimpleConvNet and the temperature: published sizes; batch norm in training, under attack, and resumed."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from robench.contracts import TrainContext
from robench.errors import InputError
from robench.graph import GraphClassifier, fingerprint, from_torch
from robench_plugins.datasets.digits import Digits
from robench_plugins.training.fgsm_at import FgsmAt
from robench_plugins.training.gradalign import GradAlign
from robench_plugins.training.networks import BatchNorm, Normalise, build
from robench_plugins.training.pgd_at import PgdAt
from robench_plugins.training.smoothadv import SmoothAdv
from robench_plugins.training.standard import Standard
from robench_plugins.training.trades import Trades

TRAIN, TEST = Digits().load("train"), Digits().load("test")
FEW = TRAIN.select(slice(0, 65))  # 65 in batches of 64: the last has one sample, of one pixel in the end
X, Y = torch.tensor(TEST.x), torch.tensor(TEST.y)
CPU = torch.device("cpu")
ADVERSARIAL = [
    PgdAt(steps=2),
    FgsmAt(),
    FgsmAt(start=False),
    GradAlign(),
    Trades(steps=2),
    SmoothAdv(steps=2),
]


def made(shape, width=64, classes=10):
    plain = Normalise(torch.zeros(shape[0], 1, 1), torch.ones(shape[0], 1, 1))
    return build("simple-convnet", width, plain, shape, classes, "he", torch.Generator().manual_seed(0))


def test_the_published_network():
    """Layers and their order as in the authors' file; parameters counted by hand: 3x3 kernels, norms, linear."""
    network = made((3, 32, 32))
    kinds = "".join(
        {"Conv2d": "c", "BatchNorm": "b", "ReLU": "r", "MaxPool2d": "m"}.get(type(n).__name__, "") for n in network
    )
    assert kinds == "cbr" + "cbr" + "cmbr" + "cbr" + "cmbr" + "cbr" + "cmbr" + "cbr" + "m"
    sizes = [3, 64, 64, 128, 128, 256, 256, 512, 512]
    wanted = sum(9 * a * b for a, b in pairwise(sizes)) + 2 * sum(sizes[1:]) + 5120
    assert sum(parameter.numel() for parameter in network.parameters()) == wanted
    assert network[-3].kernel_size == (4, 4)  # the global maximum


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 9, 17)])
def test_shapes(shape):
    network = made(shape, width=2, classes=7)
    x = torch.rand(3, *shape)
    assert network(x).shape == (3, 7)
    network.eval()
    graph = from_torch(network, shape)
    torch.testing.assert_close(GraphClassifier(graph).logits(x), network(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 7, 8), (64,)])
def test_what_is_too_small_is_refused(shape):
    with pytest.raises(InputError, match=r"images \[C, H, W\] from 8 x 8"):
        made(shape)


def test_a_single_value_per_channel_is_normalised_by_the_running_statistics():
    layer, torchs = BatchNorm(3), nn.BatchNorm2d(3)
    x, y = torch.randn(5, 3, 2, 2), torch.randn(1, 3, 1, 1)
    torch.testing.assert_close(layer(x), torchs(x))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        torchs(y)
    before = layer.running_mean.clone()
    torch.testing.assert_close(layer(y), torchs.eval()(y))
    assert torch.equal(layer.running_mean, before)


def test_it_learns_digits():
    result = Standard(arch="simple-convnet", width=8, epochs=5).train(TRAIN, TrainContext(0, CPU))
    assert float((result.module(X).argmax(1) == Y).float().mean()) >= 0.95
    graph = from_torch(result.module, TEST.shape)
    assert sum(node.op == "batch_norm" for node in graph.nodes) == 8
    torch.testing.assert_close(GraphClassifier(graph).logits(X), result.module(X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("recipe", ADVERSARIAL, ids=lambda recipe: type(recipe).__name__)
def test_attacks_leave_the_running_statistics_alone(recipe, monkeypatch):
    """They change by the passes of the loss alone: one of each batch, two in trades."""
    updates = []
    forward = BatchNorm.forward

    def watched(self, x):
        before = self.running_mean.clone()
        out = forward(self, x)
        updates.append((self.training, torch.equal(before, self.running_mean)))
        return out

    monkeypatch.setattr(BatchNorm, "forward", watched)
    recipe = replace(recipe, arch="simple-convnet", width=2, epochs=1)
    recipe.train(TRAIN.select(slice(0, 64)), TrainContext(0, CPU))
    assert sum(training for training, _ in updates) == (16 if isinstance(recipe, Trades) else 8)
    assert all(training != same for training, same in updates)


def test_a_resumed_training_has_the_running_statistics_that_it_had():
    states = []
    recipe = PgdAt(arch="simple-convnet", width=2, steps=1, epochs=3, temperature=8.0)

    def keep(state):
        states.append(replace(state, tensors={name: tensor.clone() for name, tensor in state.tensors.items()}))

    whole = recipe.train(FEW, TrainContext(0, CPU, keep=keep))
    rest = recipe.train(FEW, TrainContext(0, CPU, resume=states[1]))
    assert any("running_var" in name for name in states[1].tensors)
    assert rest.history == whole.history
    prints = [fingerprint(from_torch(result.module, TEST.shape), torch.float32) for result in (whole, rest)]
    assert prints[0] == prints[1]


def test_the_temperature_divides_scores_and_multiplies_the_loss():
    """One step of SGD without momentum: the weights move as by hand with T·CE(s/T)."""
    recipe = Standard(arch="mlp", width=1, epochs=1, batch=65, optimizer="sgd", momentum=0.0, lr=0.1)
    results = {t: replace(recipe, temperature=t).train(FEW, TrainContext(3, CPU)) for t in (1.0, 8.0)}
    start = replace(recipe, lr=1e-30).train(FEW, TrainContext(3, CPU)).module
    x, y = torch.tensor(FEW.x[:]), torch.tensor(FEW.y)
    for t, result in results.items():
        start.zero_grad()
        loss = t * nn.functional.cross_entropy(start(x) / t, y)
        loss.backward()
        assert result.history[0]["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
        torch.testing.assert_close(
            result.module[-1 if t == 1 else -2].weight, start[-1].weight - 0.1 * start[-1].weight.grad
        )
    graph = from_torch(results[8.0].module, TEST.shape)
    assert graph.nodes[-1].op == "div"
    assert bool((graph.nodes[-1].constants["other"] == 8).all())
