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


class TwoFaced(nn.Module):
    """A small convolutional net with one setting that is another while it is traced."""

    def __init__(self, setting, traced, run, spread=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.bn, self.fc = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Linear(16, 3)
        self.bn.running_mean.normal_()
        self.bn.running_var.uniform_(0.5, 2.0).mul_(spread)
        self.settings = {"eps": (1e-5, 1e-5), "padding": (0, 0), "slope": (0.01, 0.01), "scale": (1.0, 1.0)}
        self.settings[setting] = (traced, run)
        self.eval()

    def forward(self, x):
        eps, padding, slope, scale = (pair[type(x) is torch.Tensor] for pair in self.settings.values())
        z = F.conv2d(x, self.conv.weight, self.conv.bias, padding=1 + padding, stride=1 + padding)
        bn = self.bn
        z = F.batch_norm(z, bn.running_mean, bn.running_var, bn.weight, bn.bias, False, 0.0, eps)
        return self.fc(F.adaptive_avg_pool2d(F.leaky_relu(z, slope), 2).flatten(1)) * scale


DIFFERENCES = {
    "eps of batch normalisation": ("eps", 1e-5, 1e-3),
    "eps beside a large variance": ("eps", 1e-5, 1e-3, 1e3),
    "eps in its last digits": ("eps", 1e-5, 1.01e-5),
    "padding and stride": ("padding", 0, 1),
    "slope": ("slope", 0.01, 0.011),
    "last digits of float32": ("scale", 1.0, 1.0 + 2e-8),
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_a_trace_that_is_not_the_function_is_not_believed(case):
    setting, traced, run, *spread = DIFFERENCES[case]
    assert isinstance(from_module(TwoFaced(setting, traced, traced, *spread), (2, 6, 6)), GraphClassifier)
    liar = from_module(TwoFaced(setting, traced, run, *spread), (2, 6, 6))
    assert isinstance(liar, ModuleClassifier)
    assert "the trace is not the module" in liar.why
    assert "\n" not in liar.why


def test_a_trace_with_another_number_of_logits_is_not_believed():
    liar = from_module(Net(lambda m, x: m.fc(x) if type(x) is torch.Tensor else m.fc(x)[:, :2]), (4,))
    assert liar.why == "the trace gives 2 logits, the module 3"


def test_the_reason_for_being_opaque_is_kept():
    assert from_module(Curved(), (4,)).why == "gelu is not supported"


class Unregistered(nn.Module):
    """Its weights do not follow `double()`."""

    def __init__(self, slope=0.01):
        super().__init__()
        self.weight, self.slope = torch.eye(4), slope

    def forward(self, x):
        return F.leaky_relu(F.linear(x - 0.5, self.weight), self.slope if type(x) is torch.Tensor else 0.01)


class Uncopied(Unregistered):
    def __deepcopy__(self, memo):
        raise TypeError("no copies")


def weight_norm():
    torch.manual_seed(0)
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 8)), nn.ReLU(), nn.Linear(8, 3))


OF_ITS_OWN_PRECISION = {
    "weights computed on the fly": weight_norm,
    "spectral norm": lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))),
    "logits cast to float32": lambda: Net(lambda m, x: m.fc(x).float()),
    "input cast to float32": lambda: Net(lambda m, x: m.fc(x.float())),
    "weights that stay float32": Unregistered,
    "no copies": Uncopied,
    "bfloat16": lambda: weight_norm().bfloat16(),
}


@pytest.mark.parametrize("case", OF_ITS_OWN_PRECISION)
def test_what_rounds_otherwise_in_float64_is_a_graph_all_the_same(case):
    classifier = from_module(OF_ITS_OWN_PRECISION[case]().eval(), (4,))
    assert isinstance(classifier, GraphClassifier), classifier.why


def test_without_a_float64_copy_half_of_the_digits_must_agree():
    assert isinstance(from_module(Unregistered(0.011).eval(), (4,)), ModuleClassifier)


class Residual(nn.Module):
    def __init__(self, depth):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(16, 16) for _ in range(depth)])
        self.norms = nn.ModuleList([nn.BatchNorm1d(16) for _ in range(depth)])
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + F.relu(norm(layer(x)))
        return self.fc(x)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_deep_nets_are_graphs_whatever_their_scale(scale):
    net = Residual(60)
    for _ in range(3):  # statistics as training leaves them
        net(torch.rand(200, 16))
    net.fc.weight.data *= scale
    net.fc.bias.data *= scale
    assert isinstance(from_module(net.eval(), (16,)), GraphClassifier)


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


class Counts(nn.Module):
    def __init__(self, copies=True):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.fc, self.copies, self.calls = nn.Linear(4, 3), copies, []
        self.eval()

    def forward(self, x):
        self.count.add_(1)
        self.calls.append(1)
        return self.fc(x)

    def __deepcopy__(self, memo):
        if not self.copies:
            raise TypeError("no copies")
        new = Counts()
        new.load_state_dict(self.state_dict())
        return new


@pytest.mark.parametrize("copies", [True, False])
def test_buffers_that_the_forward_pass_changes_are_put_back(copies):
    net = Counts(copies)
    buffer = net.count
    from_module(net, (4,))
    assert net.count is buffer
    assert float(buffer) == 0
    assert not (copies and net.calls)


CAST = {
    "double": lambda x: x.double(),
    "to": lambda x: x.to(torch.float64),
    "copy": lambda x: x.to(torch.float32, copy=True),
    "contiguous": lambda x: x.contiguous(),
}


@pytest.mark.parametrize("bound", [1.0, 1e3])
@pytest.mark.parametrize("case", CAST)
def test_an_operation_in_place_on_what_may_be_a_copy_leaves_the_input_alone(case, bound):
    def run(m, x):
        other = CAST[case](x)
        other.clamp_(-bound, bound)
        return m.fc(x)

    classifier = from_module(Net(run), (4,))
    assert classifier.graph is None or all(node.op != "clip" for node in classifier.graph.nodes)
    assert (classifier.graph is None) == (case != "copy")


def test_an_operation_in_place_on_a_cast_that_takes_the_place_of_the_input_is_traced():
    def run(m, x):
        x = x.float()
        x.clamp_(-1, 1).relu_()
        return m.fc(x)

    graph = from_module(Net(run), (4,)).graph
    assert graph is not None
    assert [node.op for node in graph.nodes][-1] == "linear"
