"""Convolutions as affine steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from robench_plugins.verify._engine.affine import Affine, Shape

__all__ = ["Conv"]


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
