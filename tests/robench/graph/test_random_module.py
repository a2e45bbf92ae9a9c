"""Modules that draw from global generators: declared, seeded row by row, and nothing left behind."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from robench import InputError, from_module
from robench.api import evaluate
from robench.classifier import is_random
from robench.metrics import random_results
from robench.streams import Stream


class Noisy(nn.Module):
    """Draws from all three generators; other draws for every row of a batch, one for all of them from Python."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        scale = 1 + random.random() + np.random.random()
        return self.layer(x + 0.1 * torch.randn_like(x)) * scale


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Noisy().eval()


def stream(rows=5, seed=0):
    return Stream.for_samples(seed, "e", range(rows))


def test_a_row_has_its_draws_in_any_batch(net):
    model = from_module(net, (4,), randomized=True)
    assert is_random(model)
    x = torch.rand(5, 4)
    whole = model.sample(x, stream())
    assert torch.equal(model.sample(x, stream()), whole)
    order = torch.tensor([3, 1])
    assert torch.equal(model.sample(x[order], stream().select(order)), whole[order])
    same = model.sample(x[:1].repeat(5, 1), stream())
    assert len({tuple(row) for row in same.tolist()}) == 5
    assert not torch.equal(model.sample(x, stream(seed=1)), whole)
    assert model.sample(x[:0], stream(0)).shape == (0, 3)


def test_global_generators_and_the_module_stay_as_they_were(net):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    model = from_module(net, (4,), randomized=True)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    x = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(model.sample(x, stream(3)).sum(), x)
    assert gradient.abs().min() > 0
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())


def test_it_is_another_function_than_the_module_without_its_draws(net):
    one, two = from_module(net, (4,), randomized=True), from_module(net, (4,), randomized=True)
    assert one.fingerprint == two.fingerprint
    plain = nn.Linear(4, 3).eval()
    assert from_module(plain, (4,), randomized=True).fingerprint != from_module(plain, (4,)).fingerprint
    with torch.no_grad():
        net.layer.weight[0, 0] += 1
    assert from_module(net, (4,), randomized=True).fingerprint != one.fingerprint


def test_dropout_may_draw_and_batch_norm_may_not():
    net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3)).eval()
    net[2].train()
    drawn = from_module(net, (4,), randomized=True).sample(torch.rand(1, 4).repeat(50, 1), stream(50))
    assert drawn.std(0).min() > 0
    with pytest.raises(InputError, match=r"0 \(BatchNorm1d\) is in training mode"):
        norm = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)).eval()
        norm[0].train()
        from_module(norm, (4,), randomized=True)


def test_what_is_no_classifier_is_refused(net):
    for module, message in ((nn.Linear(4, 1).eval(), r"gives \[1, 1\]"), ("net", "no torch.nn.Module")):
        with pytest.raises(InputError, match=message):
            from_module(module, (4,), randomized=True)


def test_an_evaluation_says_how_to_declare_it_and_then_runs(net, tmp_path):
    x = np.random.default_rng(0).random((8, 4), dtype=np.float32)
    y = net.layer(torch.from_numpy(x)).argmax(1).numpy()
    with pytest.raises(InputError, match=r"from_module\(module, input_shape, randomized=True\)"):
        evaluate(net, (x, y), eps="0.01", attacks=["fgsm"], out=tmp_path)
    model = from_module(net, (4,), randomized=True)
    run = evaluate(model, (x, y), eps="0.01", attacks=["fgsm"], draws=20, out=tmp_path).run
    (result,) = random_results([run])
    assert 0 < result.attacked.value <= result.clean.value <= 1
    assert [one.evaluator for one in result.evaluators] == ["clean", "fgsm | eot"]
