"""The networks that recipes train: plain sequential ones, input normalisation included."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from robench.errors import InputError

__all__ = ["Architecture", "Initialisation", "Normalise", "build"]

Architecture = Literal["mlp", "cnn"]
Initialisation = Literal["he", "ibp"]


class Normalise(nn.Module):
    """(x − mean) / std with constant mean and std, broadcast against one input."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        """Keep both as buffers: they move with the network and are not trained."""
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised inputs [B, ...]."""
        return (x - self.mean) / self.std


def build(
    architecture: Architecture,
    width: int,
    normalise: Normalise,
    shape: tuple[int, ...],
    classes: int,
    initialisation: Initialisation,
    generator: torch.Generator,
) -> nn.Sequential:
    """Return a network for inputs of `shape`, initialised from `generator` alone.

    `mlp`: two hidden layers of 8·width units. `cnn`, for small images [C, H, W]: a 3x3 convolution to `width`
    channels, a 4x4 one of stride 2 to 2·width, and a hidden layer of 8·width units. ReLU in between.

    Weights are normal with mean 0, biases 0. `he`: variance 2 / fan-in, which keeps the variance of activations
    (He et al. 2015). `ibp`: standard deviation √(2π) / fan-in, which keeps the width of interval
    bounds: |w| has mean σ√(2/π), and a ReLU halves the width (Shi et al. 2021).
    """
    layers = _mlp(width, shape, classes) if architecture == "mlp" else _cnn(width, shape, classes)
    network = nn.Sequential(normalise, *layers)
    with torch.no_grad():
        for layer in network:
            if isinstance(layer, nn.Linear | nn.Conv2d):
                fan_in = layer.weight[0].numel()
                std = math.sqrt(2 * math.pi) / fan_in if initialisation == "ibp" else math.sqrt(2 / fan_in)
                layer.weight.normal_(0, std, generator=generator)
                if layer.bias is not None:
                    layer.bias.zero_()
    return network


def _mlp(width: int, shape: tuple[int, ...], classes: int) -> Iterable[nn.Module]:
    hidden = 8 * width
    yield nn.Flatten()
    yield _blank(nn.Linear(math.prod(shape), hidden, device="meta"))
    yield nn.ReLU()
    yield _blank(nn.Linear(hidden, hidden, device="meta"))
    yield nn.ReLU()
    yield _blank(nn.Linear(hidden, classes, device="meta"))


def _cnn(width: int, shape: tuple[int, ...], classes: int) -> Iterable[nn.Module]:
    if len(shape) != 3 or min(shape[1:]) < 2:
        raise InputError(f"arch=cnn needs images [C, H, W], these inputs are {list(shape)}: use arch=mlp")
    channels, height, across = shape
    yield _blank(nn.Conv2d(channels, width, 3, padding=1, device="meta"))
    yield nn.ReLU()
    yield _blank(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, device="meta"))
    yield nn.ReLU()
    yield nn.Flatten()
    yield _blank(nn.Linear(2 * width * (height // 2) * (across // 2), 8 * width, device="meta"))
    yield nn.ReLU()
    yield _blank(nn.Linear(8 * width, classes, device="meta"))


def _blank(layer: nn.Module) -> nn.Module:
    """Give memory to a layer that was made without: the usual way would draw from the global generator."""
    return layer.to_empty(device="cpu")
