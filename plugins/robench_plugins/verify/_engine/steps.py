"""Affine steps of a program: how values go forward, how coefficient rows go back, and what both may round.

A step computes y = Σ_k L_k x_k + c in real arithmetic. Rows a [R, *shape] at y become rows L_kᵀ a at x_k and the
number a·c. With â the computed rows (dot products of at most `terms` products, Higham 2002, equation 3.5)

    |a·y − (Σ_k â_k·x_k + fl(a·c))| ≤ Σ_i |a_i| (γ_n (Σ_k |L_k||x_k| + |c|) + slack)_i,      n = terms + 2

so what a step rounds costs one inner product with a vector that does not depend on the rows. `slack` is what the
constants themselves were rounded by.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Affine", "AxisSum", "Concat", "Conv", "Gather", "Linear", "Mix", "Scale", "View"]

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Affine(ABC):
    """An affine step.

    Attributes:
        inputs: positions of the argument steps.
        shape: shape of the output without the batch dimension.
        terms: products that one entry of the result sums at most, forward or back, and roundings of its constants.
    """

    inputs: tuple[int, ...]
    shape: Shape

    @property
    def terms(self) -> int:
        """Roundings that a term goes through at most."""
        return 0

    @property
    def constants(self) -> tuple[str, ...]:
        """Names of the fields that hold tensors."""
        return ()

    def cast(self, dtype: torch.dtype, device: torch.device) -> Affine:
        """Return the step with constants of `dtype` on `device`."""
        return replace(
            self,
            **{name: value.to(device, dtype) for name in self.constants if (value := getattr(self, name)) is not None},
        )

    @abstractmethod
    def forward(self, *values: Tensor) -> Tensor:
        """Return y [B, ...] for values x_k [B, ...]."""

    @abstractmethod
    def magnitude(self, *values: Tensor, constant: bool = True) -> Tensor:
        """Return Σ_k |L_k| x_k (+ |c|) for values ≥ 0."""

    @abstractmethod
    def back(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return L_kᵀ a for rows a [R, ...], one per input."""

    def offset(self, rows: Tensor) -> Tensor | None:
        """Return a·c [R], None where c is 0."""
        return None

    def slack(self, *values: Tensor) -> Tensor | float:
        """Return how far the constants' own rounding moves y, given magnitudes of the values."""
        return 0.0

    def unit_rows(self, index: Tensor) -> Tensor | None:
        """Return `back` of unit rows at flat positions `index` [R] of a step with one input, where that saves work."""
        return None


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
class Conv(Affine):
    """A convolution in one or two dimensions; `padding` holds all begins, then all ends."""

    weight: Tensor
    bias: Tensor | None
    source: Shape
    stride: Shape
    padding: Shape
    dilation: Shape
    groups: int

    @property
    def terms(self) -> int:
        return max(self.weight[0].numel(), self.weight.numel() // (self.weight.shape[1] * self.groups))

    @property
    def constants(self) -> tuple[str, ...]:
        return ("weight", "bias")

    def _apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rank = len(self.stride)
        half: Shape | int = self.padding[:rank]
        if self.padding[rank:] != half:
            x = F.pad(x, [p for axis in reversed(range(rank)) for p in (self.padding[axis], self.padding[axis + rank])])
            half = 0
        convolve = F.conv1d if rank == 1 else F.conv2d
        return convolve(x, weight, bias, self.stride, half, self.dilation, self.groups)

    def forward(self, *values: Tensor) -> Tensor:
        return self._apply(values[0], self.weight, self.bias)

    def magnitude(self, *values: Tensor, constant: bool = True) -> Tensor:
        bias = self.bias.abs() if constant and self.bias is not None else None
        return self._apply(values[0], self.weight.abs(), bias)

    def back(self, rows: Tensor) -> tuple[Tensor, ...]:
        rank = len(self.stride)
        begin, end = self.padding[:rank], self.padding[rank:]
        if begin == end:
            return (self.spread(rows, self.source[1:], begin),)
        padded = [size + a + b for size, a, b in zip(self.source[1:], begin, end, strict=True)]
        crop = [-p for i in reversed(range(rank)) for p in (begin[i], end[i])]
        return (F.pad(self.spread(rows, padded, (0,) * rank), crop),)

    def spread(self, rows: Tensor, size: Sequence[int], padding: Shape) -> Tensor:
        """Return Lᵀ rows for an input of that `size` and even `padding`; windows may leave a rest at its end.

        In float64 on a CPU, which oneDNN leaves out, a convolution's gradient takes about half of the time that the
        transposed convolution takes.
        """
        if rows.dtype == torch.float64 and rows.device.type == "cpu" and len(rows):
            like, none = rows.new_empty(len(rows), self.source[0], *size), [0] * len(size)
            backward = torch.ops.aten.convolution_backward
            setting = (self.stride, padding, self.dilation, False, none, self.groups)
            made: Tensor = backward(rows, like, self.weight, None, *setting, [True, False, False])[0]
            return made
        rest = [
            length + 2 * p - (out - 1) * s - d * (k - 1) - 1
            for length, p, out, s, d, k in zip(
                size, padding, rows.shape[2:], self.stride, self.dilation, self.weight.shape[2:], strict=True
            )
        ]
        transpose = F.conv_transpose1d if len(size) == 1 else F.conv_transpose2d
        if all(r < max(s, d) for r, s, d in zip(rest, self.stride, self.dilation, strict=True)):
            return transpose(rows, self.weight, None, self.stride, padding, tuple(rest), self.groups, self.dilation)
        full = transpose(rows, self.weight, None, self.stride, padding, 0, self.groups, self.dilation)
        return F.pad(full, [p for r in reversed(rest) for p in (0, r)])

    def offset(self, rows: Tensor) -> Tensor | None:
        return None if self.bias is None else rows.flatten(2).sum(2) @ self.bias

    def unit_rows(self, index: Tensor) -> Tensor | None:
        places = math.prod(self.shape[1:])
        channel, place = index // places, index % places
        group = channel // (self.shape[0] // self.groups)
        inner = self.weight.shape[1]
        plane = math.prod(self.source[1:])
        start = (group * inner * plane)[:, None, None]
        within = torch.arange(inner, device=index.device)[None, :, None] * plane
        field = self._field(index.device)[place][:, None]
        # Positions in the padding go to a column that is cut off.
        target = torch.where(field < 0, self.source[0] * plane, field + within + start).flatten(1)
        rows = self.weight.new_zeros(len(index), self.source[0] * plane + 1)
        rows.scatter_(1, target, self.weight[channel].flatten(1))
        return rows[:, :-1].reshape(len(index), *self.source)

    def _field(self, device: torch.device) -> Tensor:
        """Return the flat positions within a channel that each window reads [windows, kernel], −1 in the padding."""
        steps, inside = [], []
        rank = len(self.stride)
        for i in range(rank):
            starts = torch.arange(self.shape[1 + i], device=device) * self.stride[i] - self.padding[i]
            at = starts[:, None] + torch.arange(self.weight.shape[2 + i], device=device) * self.dilation[i]
            steps.append(at)
            inside.append((at >= 0) & (at < self.source[1 + i]))
        if rank == 1:
            return torch.where(inside[0], steps[0], -1)
        flat = steps[0][:, None, :, None] * self.source[2] + steps[1][None, :, None, :]
        both = inside[0][:, None, :, None] & inside[1][None, :, None, :]
        return torch.where(both, flat, -1).reshape(math.prod(self.shape[1:]), -1)


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
