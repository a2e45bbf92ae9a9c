"""The networks of the benchmark of bounds, as torch modules that both sides read, and points of their data."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

__all__ = ["NETS", "Net"]


@dataclass(frozen=True)
class Net:
    """A network, its inputs without a batch dimension, ε in linf, and how many samples are bounded at once."""

    name: str
    make: Callable[[], tuple[nn.Module, Tensor]]
    eps: float
    samples: int


class Residual(nn.Module):
    """resnet_2b of VNN-COMP 2021-2022: two residual blocks, one with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.a1, self.a2, self.short = nn.Conv2d(8, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(8, 16, 1, 2)
        self.b1, self.b2 = nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(16, 16, 3, 1, 1)
        self.linear1, self.linear2 = nn.Linear(1024, 100), nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.conv1(x))
        h = torch.relu(self.a2(torch.relu(self.a1(h))) + self.short(h))
        h = torch.relu(self.b2(torch.relu(self.b1(h))) + h)
        return self.linear2(torch.relu(self.linear1(h.flatten(1))))


def _folder() -> Path:
    return Path(os.environ["ROBENCH_DATA"])


def _weights(file: Path) -> dict[str, Tensor]:
    raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    graph = onnx.load_from_string(raw).graph
    return {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in graph.initializer}


def _mnist(shape: tuple[int, ...]) -> Tensor:
    with gzip.open(_folder() / "mnist" / "t10k-images-idx3-ubyte.gz") as file:
        raw = np.frombuffer(file.read(16 + 784 * 64), np.uint8, offset=16)
    return torch.from_numpy(raw.reshape(-1, *shape).astype(np.float32) / 255)


def _cifar() -> Tensor:
    with np.load(_folder() / "cifar10" / "test1k.npz") as data:
        x = data["x"][:64].astype(np.float32)
    x = x / 255 if x.max() > 1 else x
    return torch.from_numpy(x if x.shape[1] == 3 else x.transpose(0, 3, 1, 2).copy())


def _mlp(layers: int) -> Callable[[], tuple[nn.Module, Tensor]]:
    def make() -> tuple[nn.Module, Tensor]:
        weights = _weights(_folder() / "vnncomp" / "mnist_fc" / "onnx" / f"mnist-net_256x{layers}.onnx.gz")
        sizes = [784, *[256] * layers, 10]
        parts: list[nn.Module] = []
        for i in range(len(sizes) - 1):
            parts += [nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU()]
        module = nn.Sequential(*parts[:-1])
        module.load_state_dict({name.removeprefix("layers."): value for name, value in weights.items()})
        return module, _mnist((784,))

    return make


def _conv() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1024, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )
    return module, _cifar()


def _resnet() -> tuple[nn.Module, Tensor]:
    weights = _weights(_folder() / "vnncomp" / "cifar10_resnet" / "onnx" / "resnet_2b.onnx")
    blocks = {"layer1.0.conv1": "a1", "layer1.0.conv2": "a2", "layer1.0.shortcut.0": "short"}
    blocks |= {"layer1.1.conv1": "b1", "layer1.1.conv2": "b2"}
    module = Residual()
    state = {}
    for name, value in weights.items():
        layer, kind = name.rsplit(".", 1)
        state[f"{blocks.get(layer, layer)}.{kind}"] = value
    module.load_state_dict(state)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)))
    return module, (_cifar() - mean) / std


NETS = (
    Net("mnist 256x2", _mlp(2), 0.03, 8),
    Net("mnist 256x4", _mlp(4), 0.03, 8),
    Net("conv, 11,364 neurons", _conv, 2 / 255, 2),
    Net("resnet_2b", _resnet, 0.032, 2),
)
"""mnist and resnet_2b are of VNN-COMP; the convolutional one has random weights. ε of resnet_2b is in its own units."""
