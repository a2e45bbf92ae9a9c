"""A traced module's graph computes what the module computes; what it cannot express is refused by name."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robench.errors import GraphError, InputError
from robench.graph import GraphModule, GroupSort, from_torch


class Written(nn.Module):
    """A forward pass given as a function of (module, x), with some layers and buffers at hand."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.norm = nn.BatchNorm1d(10)
        self.fc = nn.Linear(4, 10)
        self.wide = nn.Linear(108, 10)
        self.gain = nn.Parameter(torch.rand(3, 1, 1))
        self.register_buffer("mean", torch.rand(1, 3, 1, 1))
        self.register_buffer("std", torch.rand(3) + 0.5)
        self.bn.running_mean.normal_()
        self.bn.running_var.uniform_(0.5, 2)
        self.eval()

    def forward(self, x):
        return self.function(self, x)


def pooled(m, x):
    return m.fc(x.mean((2, 3)))


def in_place_residual(m, x):
    y = m.conv(x)
    z = F.relu(y, inplace=True)  # y is the rectified one from here on
    z += y
    return m.fc(z.mean([-1, -2]))


def python_on_shapes(m, x):
    if x.dim() != 4 or x.shape[1] != 3 or tuple(x.shape[2:]) != (6, 6):
        raise ValueError("unexpected input")
    channels = x.size(1) * 2
    y = F.avg_pool2d(x, x.size()[2:])
    return F.pad(y.view(x.shape[0], 3), (0, channels - 5)) @ m.fc.weight.t()


FORWARDS = {
    "normalisation by buffers": lambda m, x: m.wide(((x - m.mean) / m.std[:, None, None]).flatten(1)),
    "normalisation by parameters": lambda m, x: m.wide((m.gain * x + m.gain.exp()).reshape(x.size(0), -1)),
    "normalisation by numbers": lambda m, x: m.wide(torch.flatten(2 * (x - 0.5), 1)),
    "numbers on the left": lambda m, x: m.wide(torch.flatten(1 - x * 3, 1)),
    "functions of arithmetic": lambda m, x: m.wide(
        torch.flatten(torch.div(torch.sub(torch.mul(torch.add(x, 1), 2), m.mean), 4), 1)
    ),
    "in place arithmetic": lambda m, x: m.wide(x.clone().sub_(m.mean).div_(2).mul_(3).add_(1).flatten(1)),
    "batch norm": lambda m, x: pooled(m, F.relu(m.bn(m.conv(x)))),
    "batch norm of vectors": lambda m, x: m.norm(pooled(m, m.conv(x))),
    "affine-free batch norm": lambda m, x: pooled(m, F.batch_norm(m.conv(x), m.bn.running_mean, m.bn.running_var)),
    "residual": lambda m, x: pooled(m, m.conv(x) + F.relu(m.conv(x))),
    "difference": lambda m, x: pooled(m, m.conv(x) - torch.tanh(m.conv(x))),
    "in place residual": in_place_residual,
    "python on shapes": python_on_shapes,
    "conv options": lambda m, x: pooled(m, F.conv2d(x, m.conv.weight, None, (2, 1), (0, 2), 2)),
    "same padding": lambda m, x: pooled(m, F.conv2d(x, m.conv.weight[:, :, :2, :2], padding="same")),
    "valid padding": lambda m, x: pooled(m, F.conv2d(x, m.conv.weight, padding="valid")),
    "grouped conv": lambda m, x: m.fc(F.conv2d(x, m.conv.weight[:3, :1], groups=3).flatten(1)[:, :4]),
    "conv1d": lambda m, x: m.fc(F.conv1d(x.flatten(2), m.conv.weight[:, :, 0]).mean(2)),
    "leaky relu": lambda m, x: pooled(m, F.leaky_relu(m.conv(x), 0.2)),
    "prelu": lambda m, x: pooled(m, F.prelu(m.conv(x), torch.tensor([-0.3]))),
    "prelu per channel": lambda m, x: pooled(m, F.prelu(m.conv(x), torch.tensor([0.1, 0.7, -0.5, 2.0]))),
    "prelu of features": lambda m, x: m.fc(
        torch.prelu(x.mean((2, 3)) @ torch.ones(3, 4), torch.tensor([-0.5, 0.0, 0.3, 1.0]))
    ),
    "absolute values": lambda m, x: m.wide((abs(x - 0.5) - (x - 0.3).abs() + torch.abs(x)).flatten(1)),
    "circular convolution": lambda m, x: pooled(
        m, F.conv2d(F.pad(x, (1, 2, 0, 1), mode="circular"), m.conv.weight, stride=2)
    ),
    "wrapped around once": lambda m, x: pooled(m, m.conv(F.pad(x, (6, 6, 2, 0), mode="circular"))),
    "pixels into channels": lambda m, x: m.wide(F.pixel_unshuffle(x, 3).flatten(1)),
    "channels into pixels": lambda m, x: m.wide(
        F.pixel_shuffle(torch.cat((x, x * 2, x, x - 1), 1), 2)[..., :6, :6].flatten(1)
    ),
    "leaky relu in place": lambda m, x: pooled(m, F.leaky_relu_(m.conv(x), 0.2)),
    "relu6": lambda m, x: pooled(m, F.relu6(20 * m.conv(x))),
    "hardtanh": lambda m, x: pooled(m, F.hardtanh(m.conv(x), -0.2, 0.3)),
    "clamp": lambda m, x: pooled(m, m.conv(x).clamp(min=-0.1).clamp_max(0.2)),
    "sigmoid": lambda m, x: pooled(m, m.conv(x).sigmoid()),
    "negation": lambda m, x: pooled(m, -m.conv(x)),
    "group sort": lambda m, x: pooled(m, GroupSort(2)(m.conv(x))),
    "max pool": lambda m, x: pooled(m, F.max_pool2d(m.conv(x), 3, 2, 1)),
    "max pool dilated": lambda m, x: pooled(m, F.max_pool2d(m.conv(x), 2, 1, 0, 2)),
    "max pool with ceil": lambda m, x: pooled(m, F.max_pool2d(m.conv(x), 3, 2, ceil_mode=True)),
    "avg pool": lambda m, x: pooled(m, F.avg_pool2d(m.conv(x), 3, 2, 1)),
    "avg pool without pads": lambda m, x: pooled(m, F.avg_pool2d(m.conv(x), 3, 2, 1, count_include_pad=False)),
    "adaptive avg pool": lambda m, x: m.fc(F.adaptive_avg_pool2d(m.conv(x), (1, 1)).squeeze(3).squeeze(2)),
    "adaptive avg pool to 2": lambda m, x: pooled(m, F.adaptive_avg_pool2d(m.conv(x), 2).relu()),
    "adaptive max pool": lambda m, x: m.fc(F.adaptive_max_pool2d(m.conv(x), 1).flatten(1)),
    "mean over one axis": lambda m, x: m.fc(m.conv(x).mean(3, keepdim=True).mean(dim=2).squeeze(-1)),
    "view with -1 first": lambda m, x: m.wide(x.view(-1, 108)),
    "view with shape": lambda m, x: m.wide(x.view(x.shape[0], 3, -1).reshape((-1, 108))),
    "permute": lambda m, x: m.wide(x.permute(0, 2, 3, 1).reshape(x.size(0), -1)),
    "transpose": lambda m, x: m.wide(x.transpose(1, 3).contiguous().flatten(1)),
    "unflatten": lambda m, x: m.wide(x.unflatten(1, (3, 1)).flatten(1)),
    "unsqueeze": lambda m, x: m.wide(x.unsqueeze(-1).unsqueeze(1).flatten(1)),
    "concat": lambda m, x: m.fc(torch.cat([x.mean((2, 3)), x[:, :1].mean((2, 3))], dim=1)),
    "stack": lambda m, x: m.fc(torch.stack([x.mean((1, 2, 3)), x[:, 0, 0, 0]] * 2, 1)),
    "split": lambda m, x: m.wide(torch.cat(list(reversed(x.split(2, 1))), 1).flatten(1)),
    "chunk": lambda m, x: m.wide(torch.cat(x.chunk(2, 3)[::-1], 3).flatten(1)),
    "unbind": lambda m, x: m.wide(torch.stack(x.unbind(1)[::-1], 1).flatten(1)),
    "slices": lambda m, x: m.wide(torch.cat([x[:, :, ::2], x[..., 1::2, :]], 2).flatten(1)),
    "selects": lambda m, x: m.fc(torch.cat([x[:, 0, 1, :2], x[:, -1, None, 2, -3:-1].squeeze(1)], 1)),
    "narrow": lambda m, x: m.fc(x.narrow(2, 1, 1).select(1, -1).flatten(1)[:, :4]),
    "pad": lambda m, x: pooled(m, m.conv(F.pad(x, (1, 0, 0, 2), value=0.3))),
    "zero pad": lambda m, x: pooled(m, m.conv(F.pad(x, (1, 0, 0, 2)))),
    "dropped": lambda m, x: pooled(m, F.dropout2d(nn.Identity()(m.conv(x)), training=m.training).float().detach()),
    "matmul": lambda m, x: x.flatten(1) @ m.wide.weight.T + m.wide.bias,
    "addmm": lambda m, x: torch.addmm(m.wide.bias, x.flatten(1), m.wide.weight.t()),
    "linear on a lone axis": lambda m, x: m.fc(x[:, :1, 0, :4]).squeeze(1),
    "casts to its own kind": lambda m, x: pooled(m, m.conv(x.to(m.mean.device).to(dtype=x.dtype).type_as(x))),
    "weights on the fly": lambda m, x: F.linear(x.flatten(1), m.wide.weight / m.wide.weight.norm(dim=1, keepdim=True)),
}


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel lengths")  # torch, about itself
@pytest.mark.parametrize("name", FORWARDS)
def test_the_graph_computes_what_the_module_computes(name):
    module = Written(FORWARDS[name])
    graph = from_torch(module, (3, 6, 6))
    for batch in (1, 5):
        x = torch.rand(batch, 3, 6, 6)
        with torch.no_grad():
            torch.testing.assert_close(GraphModule(graph)(x), module(x.clone()), rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_the_module():
    module = Written(FORWARDS["residual"])
    x = torch.rand(4, 3, 6, 6, requires_grad=True)
    ours, theirs = (
        torch.autograd.grad(f(x).square().sum(), x)[0] for f in (GraphModule(from_torch(module, (3, 6, 6))), module)
    )
    torch.testing.assert_close(ours, theirs)


def test_parametrised_and_hooked_layers_run_as_they_do():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 8)),
        nn.ReLU(inplace=True),
        nn.utils.parametrizations.orthogonal(nn.Linear(8, 3)),
    )
    net[0].register_forward_hook(lambda layer, args, out: out * 2)
    net.eval()
    x = torch.randn(5, 4)
    torch.testing.assert_close(GraphModule(from_torch(net, (4,)))(x), net(x).detach())


UNSUPPORTED = {
    "gelu": (lambda m, x: pooled(m, F.gelu(m.conv(x))), "gelu is not supported"),
    "softmax": (lambda m, x: pooled(m, m.conv(x)).softmax(1), "return its input, the logits"),
    "product of activations": (lambda m, x: pooled(m, m.conv(x) * m.conv(x)), "mul of two activations"),
    "constant over activation": (lambda m, x: m.wide((1 / x).flatten(1)), "a constant divided by"),
    "reflect padding": (lambda m, x: pooled(m, m.conv(F.pad(x, (1, 1), mode="reflect"))), "mode 'reflect'"),
    "circular padding beyond the image": (
        lambda m, x: pooled(m, m.conv(F.pad(x, (7, 1), mode="circular"))),
        "circular padding by 7 and 1 does not fit an axis of 6",
    ),
    "pixels that do not divide": (lambda m, x: pooled(m, F.pixel_unshuffle(x, 4)), "sizes must be multiples"),
    "channels that do not divide": (lambda m, x: pooled(m, F.pixel_shuffle(x, 2)), "must be a multiple of 4"),
    "statistics of the batch": (
        lambda m, x: pooled(m, nn.BatchNorm2d(4, track_running_stats=False).eval()(m.conv(x))),
        "track_running_stats",
    ),
    "active dropout": (lambda m, x: pooled(m, F.dropout(m.conv(x))), "dropout is active"),
    "noise like the input": (lambda m, x: m.wide((x + torch.randn_like(x)).flatten(1)), "random numbers are drawn"),
    "noise of its shape": (lambda m, x: m.wide((x + torch.rand(x.shape)).flatten(1)), "of the batch size"),
    "noise of torch": (lambda m, x: m.wide((x + torch.rand(1)).flatten(1)), "random numbers are drawn"),
    "noise of numpy": (lambda m, x: m.wide((x + float(np.random.rand())).flatten(1)), "random numbers are drawn"),
    "noise of python": (lambda m, x: m.wide((x + random.random()).flatten(1)), "random numbers are drawn"),
    "branch on values": (lambda m, x: pooled(m, m.conv(x)) if x.sum() > 0 else 0, "sum is not supported"),
    "branch on the batch": (lambda m, x: m.wide(x.flatten(1)) * (2 if x.size(0) > 1 else 1), "batch size"),
    "size of the batch": (lambda m, x: m.wide(x.flatten(1)) * x.size(0), "batch size|not supported"),
    "mean of the batch": (lambda m, x: m.wide((x - x.mean(0)).flatten(1)), "is the batch"),
    "mixing view": (lambda m, x: m.wide(x.reshape(-1, 36).reshape(-1, 108)), "does not keep the batch"),
    "permuted batch": (lambda m, x: m.wide(x.permute(1, 0, 2, 3).flatten(1)), "moves the batch"),
    "cast to half": (lambda m, x: pooled(m, m.conv(x)).to(torch.float16), "cast to torch.float16"),
    "half": (lambda m, x: pooled(m, m.conv(x)).half(), "half is not supported"),
    "indexing by tensors": (lambda m, x: m.wide(x[:, torch.tensor([2, 1, 0])].flatten(1)), "indexing with tensors"),
    "avg pool with ceil": (lambda m, x: pooled(m, F.avg_pool2d(m.conv(x), 4, 3, ceil_mode=True)), "ceil_mode"),
    "an image": (lambda m, x: m.conv(x), "one axis"),
    "the batch as output": (lambda m, x: x.size(0), "not a tensor of logits"),
    "several outputs": (lambda m, x: (m.wide(x.flatten(1)), x), "returns tuple"),
    "its own exception": (lambda m, x: {}["missing"], "cannot be traced: KeyError: 'missing'"),
    "write into a view": (
        lambda m, x: m.wide(F.relu_(x.flatten(1)) + x.flatten(1)),
        "in place on a tensor that has views",
    ),
    "write to items": (lambda m, x: x.__setitem__(0, 1.0), "__setitem__ is not supported"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_a_graph_cannot_express_is_refused_by_name(name):
    function, message = UNSUPPORTED[name]
    with pytest.raises(GraphError, match=message) as raised:
        from_torch(Written(function), (3, 6, 6))
    assert "\n" not in str(raised.value)


def test_the_message_names_the_layer():
    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.GELU())).eval()
    with pytest.raises(GraphError, match=r"in layer 1\.1 \(GELU\)"):
        from_torch(net, (4,))


def test_training_mode_is_refused_wherever_it_is():
    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Dropout(), nn.Linear(4, 3)))
    with pytest.raises(InputError, match=r"it is in training mode: call module.eval"):
        from_torch(net, (4,))
    net.eval()[1][0].train()
    with pytest.raises(InputError, match=r"layer 1\.0 \(Dropout\) is in training mode"):
        from_torch(net, (4,))
    with pytest.raises(InputError, match=r"is no torch\.nn\.Module"):
        from_torch(torch.relu, (4,))


@pytest.mark.parametrize("shape", [(0,), (-1, 3), (2**15, 2**15)])
def test_impossible_input_shapes_are_refused(shape):
    with pytest.raises(GraphError, match="input shape"):
        from_torch(nn.Flatten().eval(), shape)


def test_a_trace_leaves_the_module_and_all_random_state_alone():
    module = Written(FORWARDS["batch norm"])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    attributes = set(vars(module))
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    first = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    graph = from_torch(module, (3, 6, 6))
    with pytest.raises(GraphError):
        from_torch(Written(UNSUPPORTED["noise of torch"][0]), (3, 6, 6))
    torch.manual_seed(7)
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == first
    assert set(vars(module)) == attributes
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    assert not any(c.requires_grad for node in graph.nodes for c in node.constants.values())
    module.fc.weight.data.zero_()  # training goes on: the graph has copies
    assert graph.nodes[-1].constants["weight"].abs().sum() > 0


def test_a_module_that_keeps_activations_is_not_misled():
    module = Written(lambda m, x: setattr(m, "kept", x) or pooled(m, m.conv(x)))
    from_torch(module, (3, 6, 6))
    with pytest.raises(GraphError, match="finished trace"):
        module.kept + 1
