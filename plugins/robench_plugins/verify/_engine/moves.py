"""Affine steps that move, repeat or leave out numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robench_plugins.verify._engine.affine import Affine, Shape

__all__ = ["Concat", "Gather", "View"]


@dataclass(frozen=True, eq=False)
class View(Affine):
    """A reshape."""

    source: Shape

    def forward(self, *values: Tensor) -> Tensor:
        return values[0].reshape(len(values[0]), *self.shape)

    def magnitude(self, *values: Tensor, constant: bool = True) -> Tensor:
        return self.forward(*values)

    def back(self, rows: Tensor) -> tuple[Tensor, ...]:
        return (rows.reshape(len(rows), *self.source),)


@dataclass(frozen=True, eq=False)
class Gather(Affine):
    """Elements moved, repeated or left out: y_i = x[index_i], or `fill` where the index is −1.

    Attributes:
        index: int64, of the output's shape, into the flat input.
        source: the input's shape.
        repeats: how often the most frequent input occurs.
        fill: the constant of what is not taken from the input.
    """

    index: Tensor
    source: Shape
    repeats: int
    fill: float = 0.0

    @property
    def terms(self) -> int:
        return self.repeats

    def cast(self, dtype: torch.dtype, device: torch.device) -> Affine:
        return replace(self, index=self.index.to(device))

    def forward(self, *values: Tensor) -> Tensor:
        taken = values[0].flatten(1)[:, self.index.clamp_min(0).flatten()].reshape(len(values[0]), *self.shape)
        return taken.masked_fill(self.index < 0, self.fill)

    def magnitude(self, *values: Tensor, constant: bool = True) -> Tensor:
        taken = values[0].flatten(1)[:, self.index.clamp_min(0).flatten()].reshape(len(values[0]), *self.shape)
        return taken.masked_fill(self.index < 0, abs(self.fill) if constant else 0.0)

    def back(self, rows: Tensor) -> tuple[Tensor, ...]:
        flat, index = rows.flatten(1), self.index.flatten()
        if bool((index < 0).any()):
            flat, index = flat[:, index >= 0], index[index >= 0]
        out = rows.new_zeros(len(rows), math.prod(self.source)).index_add(1, index, flat)
        return (out.reshape(len(rows), *self.source),)

    def offset(self, rows: Tensor) -> Tensor | None:
        return rows.masked_fill(self.index >= 0, 0.0).flatten(1).sum(1) * self.fill if self.fill else None


@dataclass(frozen=True, eq=False)
class Concat(Affine):
    """Inputs one behind the other along an axis."""

    sizes: tuple[int, ...]
    axis: int

    def forward(self, *values: Tensor) -> Tensor:
        return torch.cat(values, self.axis + 1)

    def magnitude(self, *values: Tensor, constant: bool = True) -> Tensor:
        return self.forward(*values)

    def back(self, rows: Tensor) -> tuple[Tensor, ...]:
        return torch.split(rows, list(self.sizes), self.axis + 1)
