"""Rows that are 0 outside a window of their own: what a single neuron behind convolutions depends on.

A unit row of an image of neurons stays a small window [C, h, w] at a place of its own until convolutions have made
it as large as the image; what it meets on the way, lines and errors, is gathered at its place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from robench_plugins.verify._engine.owners import Owners
from robench_plugins.verify._engine.program import Activation, Program, Step
from robench_plugins.verify._engine.region import Region
from robench_plugins.verify._engine.relax import Relaxed
from robench_plugins.verify._engine.steps import Concat, Conv, Mix, Scale, Shape

__all__ = ["Patches", "added", "unit_patches"]

WIDE = 0.4
"""Windows of more than this share of the image become whole rows."""

_LEAST = 25
"""Images of fewer places are not worth windows."""


@dataclass(frozen=True, eq=False)
class Patches:
    """Rows of a step whose shape is [C, H, W].

    Attributes:
        values: [R, C, h, w]; 0 where the window lies outside the image.
        top: place of the window's first line, int64 [R]; negative where it lies outside.
        left: of its first column [R].
        shape: the step's.
    """

    values: Tensor
    top: Tensor
    left: Tensor
    shape: Shape

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.values)

    @property
    def wide(self) -> bool:
        """Whether whole rows would be no more work."""
        return math.prod(self.values.shape[2:]) > WIDE * math.prod(self.shape[1:])

    @property
    def owners(self) -> Owners:
        """Owners for what was gathered row by row."""
        return Owners(torch.arange(len(self), device=self.values.device), 1)

    def dense(self) -> Tensor:
        """Return whole rows [R, C, H, W]."""
        height, width = self.shape[1:]
        lines, inside_y = self._places(self.top, self.values.shape[2], height)
        columns, inside_x = self._places(self.left, self.values.shape[3], width)
        flat = lines[:, :, None] * width + columns[:, None, :]
        # Places outside go to one that is cut off.
        flat = torch.where(inside_y[:, :, None] & inside_x[:, None, :], flat, height * width).flatten(1)
        out = self.values.new_zeros(len(self), self.shape[0], height * width + 1)
        out = out.scatter(2, flat[:, None].expand(-1, self.shape[0], -1), self.values.flatten(2))
        return out[:, :, :-1].reshape(len(self), *self.shape)

    @staticmethod
    def _places(start: Tensor, count: int, size: int) -> tuple[Tensor, Tensor]:
        places = start[:, None] + torch.arange(count, device=start.device)
        return places, (places >= 0) & (places < size)

    def gathered(self, maps: Sequence[Tensor], owners: Owners) -> list[Tensor]:
        """Return what each row's window shows of maps [B, C, H, W], [R, C, h, w] each; 0 outside."""
        size = self.values.shape[2:]
        over = [0, 0, 0, 0]
        if len(self):
            starts = torch.stack((self.left, self.top))
            low, high = starts.amin(1).tolist(), starts.amax(1).tolist()
            for axis, extent in ((0, 2), (1, 1)):
                over[2 * axis] = max(0, -low[axis])
                over[2 * axis + 1] = max(0, high[axis] + size[1 - axis] - self.shape[extent])
        stacked = torch.stack(list(maps), 1) if len(maps) > 1 else maps[0][:, None]
        padded = F.pad(stacked, over)
        windows = padded.unfold(3, size[0], 1).unfold(4, size[1], 1)
        chosen = windows.permute(0, 3, 4, 1, 2, 5, 6)[owners.index, self.top + over[2], self.left + over[0]]
        return list(chosen.unbind(1))

    def line(self, line: Relaxed, owners: Owners) -> Relaxed:
        """Return the lines in the windows, one set per row."""
        names = ["lower_slope", "upper_slope", "upper_shift"]
        names += [] if line.lower_shift is None else ["lower_shift", "lower", "upper"]
        found = dict(zip(names, self.gathered([getattr(line, name) for name in names], owners), strict=True))
        return replace(line, **found)

    def slope(self, slope: Tensor, line: Relaxed) -> Tensor:
        """Return optimised slopes of whole rows [R, C, H, W], or [R, 2, C, H, W], in the windows."""
        if line.lower_shift is None:
            return self.gathered((slope,), self.owners)[0]
        return torch.stack(self.gathered(slope.unbind(1), self.owners), 1)

    def region(self, region: Region, owners: Owners) -> Region:
        """Return the sets' projections on the windows, one per row."""
        lower, upper, centre = self.gathered((region.lower, region.upper, region.centre), owners)
        return Region(lower, upper, centre, None if region.eps is None else owners.of(region.eps), region.norm)

    def passes(self, step: Step) -> bool:
        """Whether rows at `step` can go back as windows."""
        if isinstance(step, Activation | Conv):
            return True
        if isinstance(step, Scale):
            constants = [one for one in (step.factor, step.shift) if one is not None]
            places = [one.shape[-2:] for one in constants if one.dim() >= 2]
            return step.source == step.shape and all(math.prod(one) == 1 for one in places) and all(
                one.dim() in (0, 3) for one in constants
            )  # fmt: skip
        if isinstance(step, Mix):
            return all(source == step.shape for source in step.sources)
        return isinstance(step, Concat) and step.axis == 0

    def back(self, step: Step) -> list[Patches]:
        """Return the rows at the step's inputs; `passes` says whether there is a way."""
        if isinstance(step, Conv):
            return [self._convolved(step)]
        assert not isinstance(step, Activation)
        parts = step.back(self.values)
        return [replace(self, values=part, shape=(part.shape[1], *self.shape[1:])) for part in parts]

    def _convolved(self, step: Conv) -> Patches:
        (down, right), (top, left) = step.stride, step.padding[:2]
        if self.values.shape[2:] == (1, 1) and step.groups == 1 and step.dilation == (1, 1):
            weight = step.weight
            values = (self.values.flatten(1) @ weight.flatten(1)).reshape(len(self), *weight.shape[1:])
        else:
            size = [
                (n - 1) * s + d * (k - 1) + 1
                for n, s, d, k in zip(
                    self.values.shape[2:], step.stride, step.dilation, step.weight.shape[2:], strict=True
                )
            ]
            values = step.spread(self.values, size, (0, 0))
        return Patches(values, self.top * down - top, self.left * right - left, step.source).inside()

    def inside(self) -> Patches:
        """Return the same windows with 0 where they lie outside the image."""
        _, lines = self._places(self.top, self.values.shape[2], self.shape[1])
        _, columns = self._places(self.left, self.values.shape[3], self.shape[2])
        mask = lines[:, None, :, None] & columns[:, None, None, :]
        return replace(self, values=torch.where(mask, self.values, 0.0))


def added(a: Patches, b: Patches) -> Patches | None:
    """Return the sum of rows at one step; None where their windows do not lie in the same way in every row."""
    offsets = torch.stack((b.top - a.top, b.left - a.left))
    if not len(a) or bool((offsets != offsets[:, :1]).any()):
        return None
    place = offsets[:, 0].tolist()
    low = [min(0, one) for one in place]
    high = [max(a.values.shape[2 + i], place[i] + b.values.shape[2 + i]) for i in range(2)]

    def grown(values: Tensor, at: Sequence[int]) -> Tensor:
        return F.pad(values, [
            at[1] - low[1], high[1] - at[1] - values.shape[3], at[0] - low[0], high[0] - at[0] - values.shape[2],
        ])  # fmt: skip

    return Patches(grown(a.values, (0, 0)) + grown(b.values, place), a.top + low[0], a.left + low[1], a.shape)


def unit_patches(program: Program, at: int, unit: Tensor, sign: Tensor) -> Patches | None:
    """Return signed unit rows of the step `at` as windows of one place, where it is an image large enough."""
    shape = program.steps[at].shape
    if len(shape) != 3 or math.prod(shape[1:]) < _LEAST:
        return None
    places = math.prod(shape[1:])
    values = sign.new_zeros(len(unit), shape[0])
    values = values.scatter(1, (unit // places)[:, None], sign[:, None])
    place = unit % places
    return Patches(values[:, :, None, None], place // shape[2], place % shape[2], shape)
