"""A user's module becomes a graph where that is the same function, stays as it is elsewhere, or is refused."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robench.classifier import Classifier
from robench.errors import InputError
from robench.graph import GraphClassifier, ModuleClassifier, fingerprint, from_module, from_torch


class Net(nn.Module):
    def __init__(self, function=lambda m, x: m.fc(x), scale=2.0):
        super().__init__()
        torch.manual_seed(0)
        self.function, self.scale = function, scale
        self.fc = nn.Linear(4, 3)
        self.calls = 0
        self.eval()

    def forward(self, x):
        self.calls += 1
        return self.function(self, x)


class Curved(nn.Module):
    """What graphs have no operator for."""

    def __init__(self, scale=2.0):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.scale = nn.Linear(4, 3), scale
        self.eval()

    def forward(self, x):
        return F.gelu(self.fc(x)) * self.scale


def test_a_net_becomes_a_graph_with_the_fingerprint_of_its_graph():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    classifier = from_module(net, (3, 2, 2))
    assert isinstance(classifier, GraphClassifier)
    assert classifier.fingerprint == fingerprint(from_torch(net, (3, 2, 2)), torch.float32)
    x = torch.rand(5, 3, 2, 2)
    torch.testing.assert_close(classifier.logits(x), net(x).detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_graphs_cannot_express_stays_opaque(dtype):
    net = Curved()
    classifier = from_module(net, (4,), "cpu", dtype)
    assert isinstance(classifier, ModuleClassifier)
    assert isinstance(classifier, Classifier)
    assert (classifier.graph, classifier.classes, classifier.dtype) == (None, 3, dtype)
    x = torch.rand(5, 4, dtype=dtype, requires_grad=True)
    logits = classifier.logits(x)
    torch.testing.assert_close(logits.float(), net(x.float()))
    logits.sum().backward()
    assert x.grad is not None
    assert net.fc.weight.dtype == torch.float32
    assert net.fc.weight.requires_grad
    assert net.fc.weight.grad is None
    before = logits.detach().clone()
    net.fc.weight.data.zero_()
    torch.testing.assert_close(classifier.logits(x).detach(), before)
    with pytest.raises(InputError, match=r"takes \[batch, 4\]"):
        classifier.logits(torch.rand(5, 3, dtype=dtype))


def test_a_trace_that_is_not_the_function_is_not_believed():
    # The trace sees the first call; later ones do something else.
    liar = Net(lambda m, x: m.fc(x) * (1.0 if type(x) is not torch.Tensor else 2.0))
    assert isinstance(from_module(liar, (4,)), ModuleClassifier)


def test_a_trace_of_a_deep_net_is_not_believed_either():
    layers = [layer for _ in range(30) for layer in (nn.Linear(4, 4), nn.ReLU())]
    deep = nn.Sequential(*layers)
    for layer in layers[::2]:
        nn.init.uniform_(layer.weight, 0.2, 0.6)
    honest = Net(lambda m, x: m.fc(deep(x))).eval()
    liar = Net(lambda m, x: m.fc(deep(x) * (1.0 if type(x) is not torch.Tensor else 1.01))).eval()
    honest.deep = liar.deep = deep.eval()
    assert isinstance(from_module(honest, (4,)), GraphClassifier)
    assert isinstance(from_module(liar, (4,)), ModuleClassifier)


def test_a_compiled_module_is_traced_as_what_it_compiles():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    compiled = torch.compile(net, backend="eager").eval()
    assert fingerprint(from_torch(compiled, (4,)), torch.float32) == fingerprint(from_torch(net, (4,)), torch.float32)


def test_the_opaque_fingerprint_names_state_tree_plain_values_and_code():
    def of(module, dtype=torch.float32):
        return from_module(module, (4,), dtype=dtype).fingerprint

    class Other(Curved):
        def forward(self, x):
            return F.silu(self.fc(x)) * self.scale

    base = of(Curved())
    assert base == of(Curved())
    changed = Curved()
    changed.fc.bias.data[0] += 1
    deeper = nn.Sequential(Curved(), nn.Identity()).eval()
    others = [of(changed), of(deeper), of(Other()), of(Curved(scale=3.0)), of(Curved(), torch.float64)]
    assert len({base, *others}) == 6


REFUSED = {
    "noise of torch": (Net(lambda m, x: m.fc(x) + torch.randn(3)), "it is random"),
    "noise of the input's shape": (Net(lambda m, x: m.fc(x + torch.rand_like(x))), "it is random"),
    "noise of numpy": (Net(lambda m, x: m.fc(x) + float(np.random.rand())), "it is random"),
    "noise of python": (Net(lambda m, x: m.fc(x) + random.random()), "it is random"),
    "noise of its own": (Net(lambda m, x: m.fc(x) + m.calls), "it is random"),
    "active dropout": (Net(lambda m, x: F.dropout(m.fc(x), 0.9)), "it is random"),
    "statistics of the batch": (Net(lambda m, x: m.fc(x - x.mean(0))), "depend on the others in its batch"),
    "batch norm without statistics": (
        nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)).eval(),
        "fails on inputs of shape|depend on the others",
    ),
    "an image": (Net(lambda m, x: m.fc(x)[..., None]), r"gives \[6, 3, 1\] for 6 inputs"),
    "one logit": (nn.Linear(4, 1).eval(), r"gives \[6, 1\] for 6 inputs"),
    "a tuple": (Net(lambda m, x: (m.fc(x), x)), "gives tuple"),
    "another input shape": (nn.Linear(5, 3).eval(), r"fails on inputs of shape \[6, 4\]"),
    "training mode": (nn.Linear(4, 3), r"call module\.eval\(\)"),
    "part in training mode": (
        nn.Sequential(nn.Linear(4, 3), nn.Dropout()).eval(),
        "layer 1 .Dropout. is in training mode",
    ),
}
REFUSED["part in training mode"][0][1].train()


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_classifier_is_refused_in_one_line(case):
    module, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as raised:
        from_module(module, (4,))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("make", [lambda: Net(), lambda: Curved(), lambda: Net(lambda m, x: m.fc(x) + torch.randn(3))])
def test_the_module_and_all_random_state_stay_as_they_are(make):
    net = make()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.fc.bias.requires_grad_(False)

    def draw():
        return torch.rand(1).item(), np.random.rand(), random.random()

    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    expected = draw()
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
    try:
        from_module(net, (4,))
    except InputError as error:
        assert "random" in str(error)
    assert draw() == expected
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    assert (net.fc.weight.requires_grad, net.fc.bias.requires_grad) == (True, False)
    assert net.fc.weight.grad is None
    assert not net.training


def test_a_module_that_cannot_be_copied_is_refused():
    net = Curved()
    net.handle = (i for i in range(3))  # generators cannot be copied
    with pytest.raises(InputError, match="Curved cannot be copied"):
        from_module(net, (4,))


@pytest.mark.gpu
def test_a_module_on_the_gpu_becomes_a_graph_anywhere():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 900, 10)).eval().cuda()
    for device in ("cpu", "cuda"):
        classifier = from_module(net, (3, 32, 32), device)
        assert isinstance(classifier, GraphClassifier)
        assert classifier.device.type == device
    assert next(net.parameters()).is_cuda
