"""A net and its ONNX export, by either of torch's exporters, are one function with one fingerprint."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from oracles.export import export
from oracles.random_graphs import random_graph, step_names
from robench.graph import GraphModule, GroupSort, fingerprint, from_onnx, from_torch

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def onnx_logits(path, x):
    session = onnxruntime.InferenceSession(str(path))
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


class Normalised(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
        self.std = torch.tensor([0.2, 0.3, 0.25]).view(3, 1, 1)

    def forward(self, x):
        return self.net((x - self.mean) / self.std)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.side = (nn.Conv2d(8, 8, k, padding=k // 2) for k in (3, 3, 1))

    def forward(self, x):
        return F.relu(self.second(F.relu(self.first(x))) + self.side(x))


def nets():
    torch.manual_seed(0)
    return {
        "mlp": (nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)), (1, 8, 8)),
        "cnn": (
            Normalised(
                nn.Sequential(
                    nn.Conv2d(3, 8, 3, stride=2, padding=1),
                    nn.LeakyReLU(0.1),
                    nn.MaxPool2d(2),
                    nn.Dropout(),
                    nn.Flatten(),
                    nn.Linear(32, 10),
                )
            ),
            (3, 8, 8),
        ),
        "residual": (
            nn.Sequential(
                nn.Conv2d(3, 8, 3, padding="same"),
                nn.ReLU6(),
                Residual(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(8, 10, bias=False),
            ),
            (3, 8, 8),
        ),
        "pools": (
            nn.Sequential(
                nn.Conv2d(3, 4, 3, bias=False),
                nn.Sigmoid(),
                nn.AvgPool2d(3, 2, 1),
                nn.MaxPool2d(2, 1, 1),
                nn.Flatten(),
                nn.Linear(64, 10),
                nn.Tanh(),
            ),
            (3, 8, 8),
        ),
        "conv1d": (nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 10)), (3, 8)),
    }


EXPORTERS = [pytest.param(True, id="dynamo"), pytest.param(False, id="torchscript")]


# The dynamo exporter takes seconds, so that it sees one net with a batch of one.
WAYS = [
    pytest.param(name, dynamo, free_batch, id=f"{name}-{'dynamo' if dynamo else 'torchscript'}-{batch}")
    for name in nets()
    for dynamo in (True, False)
    for free_batch, batch in ((True, "any batch"), (False, "batch of one"))
    if free_batch or not dynamo or name == "cnn"
]


@pytest.mark.parametrize(("name", "dynamo", "free_batch"), WAYS)
def test_an_export_has_the_logits_and_the_fingerprint_of_the_net(name, dynamo, free_batch, tmp_path):
    net, shape = nets()[name]
    net.eval()
    path = export(net, shape, tmp_path / "net.onnx", dynamo=dynamo, free_batch=free_batch)
    graph = from_onnx(path)
    x = torch.rand(5, *shape)
    with torch.no_grad():
        torch.testing.assert_close(GraphModule(graph)(x), net(x), rtol=0, atol=1e-6)
    rows = x if free_batch else x[:1]
    torch.testing.assert_close(GraphModule(graph)(rows), onnx_logits(path, rows), rtol=0, atol=2e-6)
    for dtype in (torch.float32, torch.bfloat16):
        assert fingerprint(graph, dtype) == fingerprint(from_torch(net, shape), dtype)


@pytest.mark.parametrize("dynamo", EXPORTERS)
def test_an_exporter_that_folds_batch_norm_keeps_the_function(dynamo, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10), nn.BatchNorm1d(10)
    )
    net(torch.rand(64, 3, 8, 8))
    net.eval()
    graph = from_onnx(export(net, (3, 8, 8), tmp_path / "net.onnx", dynamo=dynamo, free_batch=True))
    x = torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(GraphModule(graph)(x), net(x), rtol=0, atol=2e-6)


def test_batch_norm_that_is_not_folded_keeps_the_fingerprint(tmp_path):
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, 10)).eval()
    path = export(net, (3, 8, 8), tmp_path / "net.onnx", dynamo=False, free_batch=True)
    assert fingerprint(from_onnx(path), torch.float32) == fingerprint(from_torch(net, (3, 8, 8)), torch.float32)


@pytest.mark.parametrize("seed", range(12))
def test_any_graph_exports_and_comes_back_as_itself(seed, tmp_path):
    rng = np.random.default_rng(seed)
    names = [name for name in step_names() if name != "group_sort"]  # ONNX has no such operator
    graph = random_graph(list(rng.permutation(names)[:14]), rng, shape=(2, 5, 4))
    module = GraphModule(graph)
    path = export(module, graph.input_shape, tmp_path / "net.onnx", dynamo=False, free_batch=True)
    again = GraphModule(from_onnx(path))
    x = torch.from_numpy(rng.normal(size=(7, *graph.input_shape)).astype(np.float32))
    torch.testing.assert_close(again(x), module(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(onnx_logits(path, x), module(x), rtol=1e-4, atol=1e-5)


def test_group_sort_exports_for_runtimes_and_is_refused_as_input(tmp_path):
    torch.manual_seed(0)
    module = GraphModule(from_torch(nn.Sequential(nn.Linear(6, 8), GroupSort(2), nn.Linear(8, 3)).eval(), (6,)))
    path = export(module, (6,), tmp_path / "net.onnx", dynamo=False, free_batch=True)
    x = torch.randn(9, 6)
    torch.testing.assert_close(onnx_logits(path, x), module(x), rtol=0, atol=1e-6)
    with pytest.raises(Exception, match="operator 'Min' is not supported"):
        from_onnx(path)
