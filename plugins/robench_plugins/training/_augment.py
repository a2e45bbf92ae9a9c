"""Augmentation of images: random crops, flips and erased squares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from robench.errors import InputError
from robench.samples import Samples
from robench.streams import Stream
from robench.threat import Domain
from robench_plugins.training._data import Batch

__all__ = ["Augment", "Augmentation", "augmentation", "black", "cropped", "erased", "flipped"]

Augmentation = Literal["none", "crop", "crop-flip", "crop-flip-erase", "crop-flip-erase-16th"]
Augment = Callable[[Batch], Tensor]


def augmentation(kind: Augmentation, samples: Samples, seed: int, device: torch.device) -> Augment | None:
    """Return what changes the inputs of a batch, or None for `none`. Raises InputError where inputs are no images.

    Prach & Lampert 2025 crop out of a frame of 4 black pixels, flip left and right, and erase a square: 2x2 in
    their text (`crop-flip-erase`), 1/16 of the area, 8x8 of 32x32, in their code (`crop-flip-erase-16th`). The frame
    is an eighth of the side, rounded up: 4 pixels at 28 and 32. A sample's draws are its own in each epoch.
    """
    if kind == "none":
        return None
    if len(samples.shape) != 3:
        raise InputError(f"augment={kind} needs images [C, H, W], these inputs are {list(samples.shape)}")
    height, width = samples.shape[1:]
    streams = Stream.for_samples(seed, "augment", samples.index, device)
    fill = black(samples.domain)
    sides = {"crop-flip-erase": (2, 2), "crop-flip-erase-16th": (max(1, height // 4), max(1, width // 4))}.get(kind)

    def augment(batch: Batch) -> Tensor:
        draws = streams.select(batch.rows.to(device)).child(batch.epoch).uniform((5,), dtype=torch.float64)
        x = cropped(batch.x, draws[:, :2], fill)
        if kind != "crop":
            x = flipped(x, draws[:, 2])
        return x if sides is None else erased(x, draws[:, 3:], sides, fill)

    return augment


def black(domain: Domain) -> float:
    """Return the value of what is not there: 0, or what is nearest to it in the domain."""
    return min(max(0.0, domain.lower), domain.upper)


def cropped(x: Tensor, draws: Tensor, fill: float) -> Tensor:
    """Return windows of the size of `x` [B, C, H, W] out of a frame, at places given by `draws` [B, 2] in [0, 1)."""
    height, width = x.shape[2:]
    top, left = -(-height // 8), -(-width // 8)
    framed = F.pad(x, (left, left, top, top), value=fill)
    down, right = (draws * draws.new_tensor([2 * top + 1, 2 * left + 1])).long().unbind(1)
    rows = down[:, None] + torch.arange(height, device=x.device)
    columns = right[:, None] + torch.arange(width, device=x.device)
    batch = torch.arange(len(x), device=x.device)[:, None, None]
    return framed.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2).contiguous()


def flipped(x: Tensor, draws: Tensor) -> Tensor:
    """Return `x` with left and right exchanged where `draws` [B] are below 1/2."""
    return torch.where((draws < 0.5)[:, None, None, None], x.flip(3), x)


def erased(x: Tensor, draws: Tensor, sides: tuple[int, int], fill: float) -> Tensor:
    """Return `x` with a rectangle of `sides` blackened, at places given by `draws` [B, 2] in [0, 1)."""
    inside = []
    for axis, side in enumerate(sides, 2):
        size = x.shape[axis]
        first = (draws[:, axis - 2] * (size - min(side, size) + 1)).long()[:, None]
        place = torch.arange(size, device=x.device)
        inside.append((place >= first) & (place < first + side))
    return x.masked_fill((inside[0][:, :, None] & inside[1][:, None])[:, None], fill)
