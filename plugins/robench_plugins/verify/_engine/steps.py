"""The affine steps: matrices, factors and sums here, beside convolutions and moves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from robench_plugins.verify._engine.affine import Affine, Shape
from robench_plugins.verify._engine.conv import Conv
from robench_plugins.verify._engine.moves import Concat, Gather, View

__all__ = ["Affine", "AxisSum", "Concat", "Conv", "Gather", "Linear", "Mix", "Scale", "Shape", "View"]


@dataclass(frozen=True, eq=False)
class Linear(Affine):
    """W x + b."""

    weight: Tensor
    bias: Tensor | None

    @property
    def terms(self) -> int:
        return max(self.weight.shape)

    @property
    def constants(self) -> tuple[str, ...]:
        return ("weight", "bias")

    def forward(self, *values: Tensor) -> Tensor:
        return F.linear(values[0], self.weight, self.bias)

    def magnitude(self, *values: Tensor, constant: bool = True) -> Tensor:
        bias = self.bias.abs() if constant and self.bias is not None else None
        return F.linear(values[0], self.weight.abs(), bias)

    def back(self, rows: Tensor) -> tuple[Tensor, ...]:
        return (rows @ self.weight,)

    def offset(self, rows: Tensor) -> Tensor | None:
        return None if self.bias is None else rows @ self.bias

    def unit_rows(self, index: Tensor) -> Tensor | None:
        return self.weight[index]

    def part(self, index: Tensor) -> Linear:
        """Return the outputs at `index` [k] alone."""
        bias = None if self.bias is None else self.bias[index]
        return replace(self, shape=(len(index),), weight=self.weight[index], bias=bias)


@dataclass(frozen=True, eq=False)
class Scale(Affine):
    """factor · x + shift, entry by entry.

    Attributes:
        factor: broadcast against the output; None is 1.
        shift: broadcast against the output; None is 0.
        source: the input's shape, which the constants may broadcast.
        rounds: roundings in `factor`, relative.
        error: how far `shift` is from the real number it stands for, or None where it is exact.
    """

    factor: Tensor | None
    shift: Tensor | None
    source: Shape
    rounds: int = 0
    error: Tensor | None = None

    @property
    def terms(self) -> int:
        repeats = math.prod(self.shape) // max(1, math.prod(self.source))
        return repeats + self.rounds

    @property
    def constants(self) -> tuple[str, ...]:
        return ("factor", "shift", "error")

    def _expand(self, values: Tensor) -> Tensor:
        return values if self.source == self.shape else values.expand(len(values), *self.shape)

    def forward(self, *values: Tensor) -> Tensor:
        scaled = values[0] if self.factor is None else values[0] * self.factor
        return self._expand(scaled if self.shift is None else scaled + self.shift)

    def magnitude(self, *values: Tensor, constant: bool = True) -> Tensor:
        scaled = values[0] if self.factor is None else values[0] * self.factor.abs()
        return self._expand(scaled + self.shift.abs() if constant and self.shift is not None else scaled)

    def back(self, rows: Tensor) -> tuple[Tensor, ...]:
        scaled = rows if self.factor is None else rows * self.factor
        return (scaled if self.source == self.shape else scaled.sum_to_size(len(rows), *self.source),)

    def offset(self, rows: Tensor) -> Tensor | None:
        return None if self.shift is None else (rows * self.shift).flatten(1).sum(1)

    def slack(self, *values: Tensor) -> Tensor | float:
        return 0.0 if self.error is None else self.error


@dataclass(frozen=True, eq=False)
class Mix(Affine):
    """Σ_k weight_k x_k + shift, weights being numbers of which each was rounded at most once."""

    weights: tuple[float, ...]
    sources: tuple[Shape, ...]
    shift: float = 0.0

    @property
    def terms(self) -> int:
        repeats = max(math.prod(self.shape) // max(1, math.prod(source)) for source in self.sources)
        return len(self.weights) + repeats + 1

    def forward(self, *values: Tensor) -> Tensor:
        return self._sum(values, self.weights, self.shift)

    def magnitude(self, *values: Tensor, constant: bool = True) -> Tensor:
        return self._sum(values, [abs(weight) for weight in self.weights], abs(self.shift) if constant else 0.0)

    def _sum(self, values: Sequence[Tensor], weights: Sequence[float], shift: float) -> Tensor:
        total = values[0] if weights[0] == 1 else values[0] * weights[0]
        for value, weight in zip(values[1:], weights[1:], strict=True):
            total = total + value if weight == 1 else total + value * weight
        total = total + shift if shift else total
        return total if tuple(total.shape[1:]) == self.shape else total.expand(len(total), *self.shape)

    def back(self, rows: Tensor) -> tuple[Tensor, ...]:
        parts = []
        for weight, source in zip(self.weights, self.sources, strict=True):
            part = rows if weight == 1 else rows * weight
            parts.append(part if source == self.shape else part.sum_to_size(len(rows), *source))
        return tuple(parts)

    def offset(self, rows: Tensor) -> Tensor | None:
        return rows.flatten(1).sum(1) * self.shift if self.shift else None


@dataclass(frozen=True, eq=False)
class AxisSum(Affine):
    """The sum over axes, which stay with size 1."""

    source: Shape
    axes: tuple[int, ...]

    @property
    def terms(self) -> int:
        return math.prod(self.source[axis] for axis in self.axes)

    def forward(self, *values: Tensor) -> Tensor:
        return values[0].sum([axis + 1 for axis in self.axes], keepdim=True)

    def magnitude(self, *values: Tensor, constant: bool = True) -> Tensor:
        return self.forward(*values)

    def back(self, rows: Tensor) -> tuple[Tensor, ...]:
        return (rows.expand(len(rows), *self.source),)
