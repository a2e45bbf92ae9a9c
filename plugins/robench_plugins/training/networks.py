"""The networks that recipes train: plain sequential ones, input normalisation included."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from robench.errors import InputError

__all__ = ["Architecture", "BatchNorm", "Divide", "Initialisation", "Normalise", "build"]

Architecture = Literal["mlp", "cnn", "simple-convnet"]
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


class BatchNorm(nn.BatchNorm2d):
    """torch's layer, which in training normalises a channel of a single value by the running statistics.

    It would refuse it: the last batch of an epoch may be a single image, of one pixel in the end.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        if self.training and x.numel() == self.num_features:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(x)


class Divide(nn.Module):
    """x / divisor: the temperature of a softmax, in front of it."""

    def __init__(self, divisor: float) -> None:
        """Keep the number."""
        super().__init__()
        self.divisor = divisor

    def forward(self, x: Tensor) -> Tensor:
        """Return the quotient."""
        return x / self.divisor


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

    `simple-convnet`, for images of at least 8 x 8: SimpleConvNet (Prach & Lampert 2025, sizes from their code). Eight
    3x3 convolutions without biases, to 1, 1, 2, 2, 4, 4, 8 and 8 times `width` channels, each with batch norm and ReLU;
    where channels double, 2x2 maxima are taken before the norm. Then the maximum of each channel, and a linear layer
    without bias. Weights are uniform between ±1/√fan-in, as in torch's layers, whatever `initialisation` says.

    Those of the others are normal with mean 0, biases 0. `he`: variance 2 / fan-in, which keeps the variance of
    activations (He et al. 2015). `ibp`: standard deviation √(2π) / fan-in, which keeps the width of interval bounds:
    |w| has mean σ√(2/π), and a ReLU halves the width (Shi et al. 2021).
    """
    makes = {"mlp": _mlp, "cnn": _cnn, "simple-convnet": _simple_convnet}
    network = nn.Sequential(normalise, *makes[architecture](width, shape, classes))
    with torch.no_grad():
        for layer in network:
            if isinstance(layer, nn.Linear | nn.Conv2d):
                fan_in = layer.weight[0].numel()
                if architecture == "simple-convnet":
                    layer.weight.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator)
                    continue
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


def _simple_convnet(width: int, shape: tuple[int, ...], classes: int) -> Iterable[nn.Module]:
    if len(shape) != 3 or min(shape[1:]) < 8:
        raise InputError(
            f"arch=simple-convnet needs images [C, H, W] from 8 x 8, these inputs are {list(shape)}: use arch=mlp"
        )
    channels, height, across = shape
    for before, factor in pairwise((1, 1, 1, 2, 2, 4, 4, 8, 8)):
        yield _blank(nn.Conv2d(channels, factor * width, 3, padding=1, bias=False, device="meta"))
        channels = factor * width
        if factor > before:
            yield nn.MaxPool2d(2)
            height, across = height // 2, across // 2
        yield BatchNorm(channels)
        yield nn.ReLU()
    if height * across > 1:
        yield nn.MaxPool2d((height, across))
    yield nn.Flatten()
    yield _blank(nn.Linear(channels, classes, bias=False, device="meta"))


def _blank(layer: nn.Module) -> nn.Module:
    """Give memory to a layer that was made without: the usual way would draw from the global generator."""
    return layer.to_empty(device="cpu")
