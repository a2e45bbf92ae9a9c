"""The networks that are trained to expand no distance, and what is kept of them: plain layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

from robench.errors import InputError
from robench.graph import GroupSort
from robench_plugins.training.lipschitz.layers import Affine, Constrained
from robench_plugins.training.lipschitz.shapes import Centre, FirstChannels, PixelUnshuffle, ZeroChannels

__all__ = ["Family", "convnet", "freeze", "mlp"]

_BLOCKS: Final = 5


@dataclass(frozen=True)
class Family:
    """How layers are made that keep the constraint, their weights drawn from a generator.

    Attributes:
        dense: (outputs, inputs, generator) to a layer.
        conv: (out, in, k, spatial size, generator) to a k × k convolution, odd k, that keeps the size of images; None
            where there is none.
        residual: layers give as many channels as they get; networks append zeros and keep first channels.
    """

    dense: Callable[[int, int, torch.Generator], nn.Module]
    conv: Callable[[int, int, int, tuple[int, int], torch.Generator], nn.Module] | None
    residual: bool = False


def mlp(
    family: Family,
    mean: Tensor,
    shape: tuple[int, ...],
    classes: int,
    width: int,
    depth: int,
    generator: torch.Generator,
) -> nn.Sequential:
    """Return `depth` dense layers, `width` (even) units in each but the last, with MaxMin in between.

    `mean` broadcasts against an input of `shape`. Residual layers are all `width` wide. Raises InputError.
    """
    inputs = math.prod(shape)
    layers: list[nn.Module] = [Centre(mean), nn.Flatten()]
    if family.residual:
        _refuse_narrow(width, inputs, classes, "width", "inputs")
        layers.append(ZeroChannels(width - inputs))
        sizes = [width] * (depth + 1)
    else:
        sizes = [inputs, *[width] * (depth - 1), classes]
    for before, after in pairwise(sizes):
        layers += [family.dense(after, before, generator), GroupSort()]
    return nn.Sequential(*layers[:-1], *_head(family, classes))


def convnet(
    family: Family,
    mean: Tensor,
    shape: tuple[int, ...],
    classes: int,
    channels: int,
    convolutions: int,
    blocks: int | None,
    generator: torch.Generator,
) -> nn.Sequential:
    """Return the convolutional network of Prach & Lampert 2025 for images of `shape` [C, H, W].

    A 1 × 1 convolution to `channels` (even); `blocks` times `convolutions` 3 × 3 ones, of which the first half of the
    channels goes on, as four times as many of half the size; the maximum of what is left of each channel; a
    dense layer. MaxMin after each convolution. Images get a frame of zeros where they cannot be halved so often
    (28 × 28 five times: 32 × 32). `blocks` None: until one pixel is left, but at most 5. Raises InputError.
    """
    assert family.conv is not None
    if len(shape) != 3:
        raise InputError(f"arch=convnet needs images [C, H, W], these inputs are {list(shape)}: use arch=mlp")
    most = (min(shape[1:]) - 1).bit_length()
    blocks = min(_BLOCKS, most) if blocks is None else blocks
    if blocks > most:
        raise InputError(f"blocks={blocks}: images of {shape[1]} x {shape[2]} are one pixel wide after {most}")
    frame = [-size % 2**blocks for size in shape[1:]]
    high, wide = (size + more for size, more in zip(shape[1:], frame, strict=True))
    layers: list[nn.Module] = [Centre(mean)]
    if any(frame):
        layers.append(nn.ZeroPad2d((frame[1] // 2, -(-frame[1] // 2), frame[0] // 2, -(-frame[0] // 2))))
    before = shape[0]
    if family.residual:
        _refuse_narrow(channels, before, classes, "channels", "channels of the images", 2**blocks)
        layers.append(ZeroChannels(channels - before))
        before = channels
    layers += [family.conv(channels, before, 1, (high, wide), generator), GroupSort()]
    for _ in range(blocks):
        for _ in range(convolutions):
            layers += [family.conv(channels, channels, 3, (high, wide), generator), GroupSort()]
        layers += [FirstChannels(channels // 2), PixelUnshuffle()]
        channels, high, wide = 2 * channels, high // 2, wide // 2
    if high * wide > 1:
        layers.append(nn.MaxPool2d((high, wide)))
    dense = family.dense(channels if family.residual else classes, channels, generator)
    return nn.Sequential(*layers, nn.Flatten(), dense, *_head(family, classes))


def _head(family: Family, classes: int) -> list[nn.Module]:
    return [FirstChannels(classes)] if family.residual else []


def _refuse_narrow(size: int, inputs: int, classes: int, name: str, what: str, grows: int = 1) -> None:
    """Residual layers cannot narrow: all inputs must fit, and all classes into the last of them."""
    if size < inputs:
        raise InputError(f"{name}={size} is less than the {inputs} {what}: these layers cannot narrow")
    if size * grows < classes:
        raise InputError(f"{name}={size} leaves {size * grows} logits for {classes} classes")


def freeze(network: nn.Sequential, shape: tuple[int, ...]) -> nn.Sequential:
    """Return a network for inputs of `shape` as plain layers with the exact effective weights, in evaluation mode.

    Weights are computed in float64 and rounded once; a mean before a dense layer goes into its bias.
    """
    return nn.Sequential(*_frozen(list(network), shape)).eval()


def _is_dense(following: list[nn.Module]) -> bool:
    """Whether a dense layer sees the inputs themselves."""
    kinds = (nn.Flatten, Affine)
    return len(following) == 2 and all(map(isinstance, following, kinds))


def _frozen(layers: list[nn.Module], shape: tuple[int, ...]) -> Iterator[nn.Module]:
    shift: Tensor | None = None
    for number, layer in enumerate(layers):
        if isinstance(layer, Centre) and _is_dense(layers[number + 1 : number + 3]):
            shift = layer.mean.detach().double().expand(shape).flatten()
        elif isinstance(layer, Affine):
            yield layer.frozen(shift)
            shift = None
        else:
            yield layer.frozen() if isinstance(layer, Constrained) else layer
