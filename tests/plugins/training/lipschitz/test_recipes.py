"""The recipes on digits: what they reach, what they record, and that they repeat themselves."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from robench.contracts import Recipe, TrainContext
from robench.errors import InputError
from robench.graph import fingerprint, from_torch
from robench_plugins.datasets.digits import Digits
from robench_plugins.training.lipschitz.recipes import Aol, Bcop, Cayley, Cpl, Soc, SpectralNorm

TRAIN, TEST = Digits().load("train"), Digits().load("test")
X, Y = torch.tensor(TEST.x), torch.tensor(TEST.y)
CPU = torch.device("cpu")
SHORT = Aol(epochs=25)
BRIEF = {
    "cpl": Cpl(epochs=10),
    "cayley": Cayley(epochs=6),
    "spectral-norm": SpectralNorm(epochs=10),
    "bcop": Bcop(epochs=4, channels=8, batch=32),
    "soc": Soc(epochs=3, channels=8, batch=32),
    "aol convnet": Aol(epochs=6, arch="convnet", channels=8, batch=32),
    "cpl convnet": Cpl(epochs=4, arch="convnet", channels=8, batch=32, lr=0.1),
}


@pytest.fixture(scope="module")
def trained():
    return SHORT.train(TRAIN, TrainContext(0, CPU))


def radii(module, samples=TEST):
    """Margin over √2, from the definition."""
    x, y = torch.tensor(samples.x), torch.tensor(samples.y)
    logits = module(x).detach().double()
    label = logits.gather(1, y[:, None])
    rival = logits.scatter(1, y[:, None], -math.inf).amax(1)
    return (label[:, 0] - rival) / math.sqrt(2)


def certified(module, eps):
    return float((radii(module) > eps).float().mean())


def test_certified_accuracy_in_l2(trained):
    assert certified(trained.module, 0) >= 0.96
    assert certified(trained.module, 0.25) >= 0.87
    assert certified(trained.module, 0.5) >= 0.6


def test_layers_are_plain_and_one_lipschitz(trained):
    nodes = from_torch(trained.module, TEST.shape).nodes
    assert {node.op for node in nodes} == {"input", "reshape", "linear", "group_sort"}
    weights = [node.constants["weight"].double() for node in nodes if node.op == "linear"]
    assert [tuple(weight.shape) for weight in weights] == [(128, 64), (128, 128), (128, 128), (10, 128)]
    for weight in weights:
        values = torch.linalg.svdvals(weight)
        assert values[0] <= 1 + 1e-6
        assert values.median() > 0.8  # almost orthogonal: the bound is close for most directions
    expansion = (trained.module(X[1:]) - trained.module(X[:-1])).norm(dim=1) / (X[1:] - X[:-1]).flatten(1).norm(dim=1)
    assert expansion.max() <= 1 + 1e-5


def test_no_gradient_attack_beats_a_radius(trained):
    """Steepest ascent on the margin to just inside the radius, projected by hand: the label stays."""
    radius = radii(trained.module)
    correct = radius > 0
    x, y, budget = X[correct], Y[correct], (radius[correct] * (1 - 1e-5)).float().reshape(-1, 1, 1, 1)
    delta = torch.zeros_like(x)
    for _ in range(30):
        delta.requires_grad_()
        logits = trained.module(x + delta)
        rival = logits.scatter(1, y[:, None], -math.inf).amax(1)
        (gradient,) = torch.autograd.grad((rival - logits.gather(1, y[:, None])[:, 0]).sum(), delta)
        length = gradient.flatten(1).norm(dim=1).clamp_min(1e-12).reshape(-1, 1, 1, 1)
        delta = delta.detach() + budget * gradient / length / 4
        delta = delta * (budget / delta.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)).clamp_max(1)
        assert (trained.module(x + delta).argmax(1) == y).all()


def test_history(trained):
    assert isinstance(SHORT, Recipe)
    assert len(trained.history) == SHORT.epochs
    last = trained.history[-1]
    assert last["loss"] < trained.history[0]["loss"]
    assert 0.6 < last["certified"] < last["accuracy"] <= 1
    kept = float((radii(trained.module, TRAIN) > SHORT.offset / math.sqrt(2)).float().mean())
    assert last["certified"] == pytest.approx(kept, abs=0.03)


@pytest.mark.parametrize(
    ("name", "accuracy", "proven"),
    [
        ("cpl", 0.9, 0.8),
        ("cayley", 0.93, 0.86),
        ("spectral-norm", 0.85, 0.6),
        ("bcop", 0.75, 0.5),
        ("soc", 0.85, 0.7),
        ("aol convnet", 0.75, 0.5),
        ("cpl convnet", 0.6, 0.2),
    ],
)
def test_every_recipe_learns_digits_with_a_margin(name, accuracy, proven):
    result = BRIEF[name].train(TRAIN, TrainContext(0, CPU))
    assert certified(result.module, 0) >= accuracy
    assert certified(result.module, 36 / 255) >= proven
    assert not any(layer.training for layer in result.module.modules())


def test_t_trades_accuracy_for_certified_accuracy():
    """Prach & Lampert 2025, table 3 and figure 4: rank correlations over seeds."""
    rows = []
    for seed, t in itertools.product(range(3), (0.0, 0.1, 0.3, 1.0)):
        recipe = Aol(epochs=8, width=32, depth=3, loss="self-normalizing", t=t)
        module = recipe.train(TRAIN, TrainContext(seed, CPU)).module
        rows.append((t, certified(module, 0), certified(module, 0.75)))
    t, clean, proven = zip(*rows, strict=True)
    assert spearmanr(t, clean).statistic < -0.8
    assert spearmanr(t, proven).statistic > 0.8


@pytest.mark.parametrize("name", BRIEF)
def test_equal_seeds_give_equal_weights_and_touch_nothing_else(name):
    width = 64 if "cpl" in name else 8
    sizes = {"width": width} | ({"channels": 2} if name != "cayley" else {})
    recipe = replace(BRIEF[name], epochs=1, loss="self-normalizing", augment="crop", **sizes)
    few, results = TRAIN.select(slice(0, 100)), []
    for seed in (5, 5, 6):
        torch.manual_seed(seed + len(results))
        state = torch.get_rng_state()
        result = recipe.train(few, TrainContext(seed, CPU))
        assert torch.equal(torch.get_rng_state(), state)
        results.append((fingerprint(from_torch(result.module, TEST.shape), torch.float32), result.history))
    assert results[0] == results[1]
    assert results[0][0] != results[2][0]


def test_training_goes_on_with_the_estimates_of_norms_that_it_had():
    few, states = TRAIN.select(slice(0, 100)), []
    recipe = SpectralNorm(epochs=3, width=8)

    def keep(state):
        states.append(replace(state, tensors={name: tensor.clone() for name, tensor in state.tensors.items()}))

    whole = recipe.train(few, TrainContext(0, CPU, keep=keep))
    rest = recipe.train(few, TrainContext(0, CPU, resume=states[1]))
    assert rest.history == whole.history
    prints = [fingerprint(from_torch(result.module, TEST.shape), torch.float32) for result in (whole, rest)]
    assert prints[0] == prints[1]


def test_every_weight_is_trained_by_the_one_cycle_schedule(monkeypatch):
    """Warm-up to `lr` after 0.3 of the steps, momentum the other way: torch's defaults, as the authors use them."""
    seen = []
    step = torch.optim.SGD.step

    def watched(self, *args, **kwargs):
        (group,) = self.param_groups
        assert group["nesterov"]
        assert all(p.grad is not None and p.grad.any() for p in group["params"])
        seen.append((group["lr"], group["momentum"]))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    recipe = Aol(epochs=10, width=16, depth=3, lr=0.2)
    recipe.train(TRAIN.select(slice(0, 640)), TrainContext(0, CPU))
    rates, momenta = zip(*seen, strict=True)
    assert len(seen) == 100
    assert rates[0] == pytest.approx(0.2 / 25)
    assert rates.index(max(rates)) == 29
    assert max(rates) == pytest.approx(0.2)
    assert rates[-1] < 1e-5
    assert (momenta[0], min(momenta)) == (pytest.approx(0.95), pytest.approx(0.85))


def test_what_cannot_be_trained():
    with pytest.raises(ValueError, match="width=7 must be even"):
        Aol(width=7)
    with pytest.raises(ValueError, match="channels=5 must be even"):
        Bcop(channels=5)
    with pytest.raises(ValueError, match="arch=convnet: these layers have no convolution"):
        Cayley(arch="convnet")
    with pytest.raises(InputError, match="try a smaller learning rate"):
        replace(SHORT, epochs=3, lr=1e38).train(TRAIN, TrainContext(0, CPU))


def test_a_flat_input_and_one_layer():
    flat = replace(TRAIN.select(slice(0, 100)), x=TRAIN.x[:100].reshape(100, 64))
    module = Aol(epochs=1, depth=1).train(flat, TrainContext(0, CPU)).module
    assert module(torch.zeros(3, 64)).shape == (3, 10)
    assert sum(isinstance(layer, nn.Linear) for layer in module) == 1
