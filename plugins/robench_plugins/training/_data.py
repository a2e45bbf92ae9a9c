"""Training data: batches in a random order, and the constants that inputs are normalised with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np
import torch
from torch import Tensor

from robench.samples import Samples
from robench_plugins.training.networks import Normalise

__all__ = ["Batch", "Batches", "normalisation"]

_IN_MEMORY: Final = 2 << 30  # bytes up to which all inputs are kept as one tensor
_ROWS: Final = 1024


@dataclass(frozen=True)
class Batch:
    """Inputs [B, ...] and labels [B] on the training device, with the samples' positions [B] on the CPU."""

    x: Tensor
    y: Tensor
    rows: Tensor
    epoch: int


class Batches:
    """The batches of one epoch after another."""

    def __init__(self, samples: Samples, size: int, device: torch.device, generator: torch.Generator) -> None:
        """Take `size` samples at a time, in an order drawn from `generator` (on the CPU)."""
        self._samples, self._size, self._device, self._generator = samples, size, device, generator
        self._y = torch.from_numpy(np.asarray(samples.y)).to(device)
        self._x: Tensor | None = None
        if len(samples) * prod(samples.shape) * 4 <= _IN_MEMORY:
            self._x = torch.cat([_tensor(samples, start) for start in range(0, len(samples), _ROWS)]).to(device)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self._samples) // self._size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield every sample once; the last batch may be smaller."""
        order = torch.randperm(len(self._samples), generator=self._generator)
        for rows in torch.split(order, self._size):
            there = rows.to(self._device)
            if self._x is not None:
                x = self._x[there]
            else:
                chosen = self._samples.select(rows.numpy())
                x = torch.from_numpy(chosen.batch(0, len(rows)).astype(np.float32)).to(self._device)
            yield Batch(x, self._y[there], rows, number)


def normalisation(samples: Samples) -> Normalise:
    """Return (x − mean) / std over the samples, per index of the first input axis (channels, or features).

    Means and squared deviations of blocks are merged pairwise (Chan, Golub & LeVeque 1979), in float64. A constant
    channel is only shifted.
    """
    count, mean, deviation = 0, np.zeros(samples.shape[0]), np.zeros(samples.shape[0])
    for start in range(0, len(samples), _ROWS):
        x = samples.batch(start, start + _ROWS).astype(np.float64)
        x = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)
        n, block = x.shape[1], x.mean(1)
        total = count + n
        deviation = deviation + ((x - block[:, None]) ** 2).sum(1) + (block - mean) ** 2 * count * n / total
        mean = mean + (block - mean) * n / total
        count = total
    std = np.sqrt(deviation / count)
    shape = (-1, *[1] * (len(samples.shape) - 1))
    std = np.where(std > 0, std, 1.0)
    return Normalise(*(torch.from_numpy(side.astype(np.float32)).reshape(shape) for side in (mean, std)))


def _tensor(samples: Samples, start: int) -> Tensor:
    return torch.from_numpy(samples.batch(start, start + _ROWS).astype(np.float32))
