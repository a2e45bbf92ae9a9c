"""What the Square Attack proposes, and how in linf: a window at a side of the region.

Andriushchenko et al. 2020, Algorithm 2.

A proposal changes one window per row: of one size for all rows of a step, at a place and with signs of the row's
own. Nothing else is read or written.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robench_plugins.attacks._square_windows import Frame, Streams, corners, window
from robench_plugins.attacks.regions import Region

__all__ = ["Corners", "Move", "Moves", "together"]


@dataclass(frozen=True, eq=False)
class Move:
    """A proposal per row: `new` for `old` at positions `index` of the flat points, [R, K] each; None: everywhere."""

    index: Tensor | None
    new: Tensor
    old: Tensor

    def make(self, points: Tensor) -> None:
        """Write the proposals into `points` [R, D]."""
        self._write(points, self.new)

    def keep(self, points: Tensor, better: Tensor) -> None:
        """Take the proposals back, except in the rows that are `better` for them, bool [R, 1]."""
        self._write(points, torch.where(better, self.new, self.old))

    def before(self, after: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return (points before, points proposed) of some `rows` from the points `after` the step."""
        if self.index is None:
            return self.old[rows], self.new[rows]
        old = after.scatter(1, self.index[rows], self.old[rows])
        return old, old.scatter(1, self.index[rows], self.new[rows])

    def _write(self, points: Tensor, values: Tensor) -> None:
        if self.index is None:
            points.copy_(values)
        else:
            points.scatter_(1, self.index, values)


class Moves(ABC):
    """How proposals are drawn. All state has one entry per row, and belongs to that row alone."""

    draws: int
    """Uniform numbers that one proposal takes."""

    @abstractmethod
    def start(self, streams: Streams) -> Tensor:
        """Return random starting points [R, D]."""

    @abstractmethod
    def size(self, portion: float) -> tuple[int, int]:
        """Return the sides of a window that holds about `portion` of the pixels."""

    @abstractmethod
    def load(self, uniform: Tensor, sizes: Sequence[tuple[int, int]], points: Tensor) -> None:
        """Take the draws [T, R, draws] of the next steps, whose windows have `sizes` [T], from `points` on."""

    @abstractmethod
    def propose(self, number: int, points: Tensor) -> Move:
        """Return the proposals of the loaded step of that `number` for `points` [R, D]."""

    def accept(self, better: Tensor) -> None:
        """Learn in which rows the last proposal was kept, bool [R, 1]."""
        return None

    def spent(self, first: int, changed: Tensor, points: Tensor) -> Tensor | None:
        """Return the rows whose `points` no further proposal can improve, bool [R]; None where that is not known.

        Asked when all loaded steps have been made: the first was step number `first`; `changed` [R, 1] are the steps at
        which the points came to be.
        """
        return None

    @abstractmethod
    def select(self, rows: Tensor) -> None:
        """Keep the state of some rows (bool mask), loaded steps included."""

    def _keep(self, rows: Tensor, names: Sequence[str]) -> None:
        for name in names:
            setattr(self, name, getattr(self, name)[rows])


class Corners(Moves):
    """linf: a window in which every pixel of a channel moves to the same side of the region.

    The published step of ±2 eps, clipped to the region, always ends there. A draw that would change nothing is
    replaced by the opposite signs (the first published code draws again; AutoAttack's asks the same again).

    Once windows are single pixels of one channel, a proposal is a pixel that moves to its other side. When each has
    failed since the point last changed, the point is a local optimum, and a deterministic classifier would answer
    every further query as it did before. That is noticed where so few pixels are likely to be all met.
    """

    def __init__(self, region: Region, frame: Frame, single: int) -> None:
        """Propose within `region`; `single` is the number of steps with windows of one pixel."""
        self.frame, self.draws = frame, 2 + frame.channels
        self.lower, self.upper = region.lower.flatten(1), region.upper.flatten(1)
        noticed = frame.channels == 1 and frame.pixels * (math.log(max(frame.pixels, 1)) + 1) <= single
        # The last step at which each pixel was tried alone; no columns where that is not noticed.
        self.tried = torch.zeros((len(self.lower), frame.pixels * noticed), dtype=torch.int64, device=region.x.device)
        # The loaded steps that are prepared, and what they are prepared with.
        self.ready, self.prepared = range(0), list[tuple[Tensor, Tensor, Tensor]]()
        self.load(self.lower.new_zeros((0, len(self.lower), self.draws)), (), self.lower)

    def start(self, streams: Streams) -> Tensor:
        """Return vertical stripes one pixel wide, each channel of each at a random side of the region (section 4)."""
        frame = self.frame
        up = streams.uniform((frame.channels, 1, frame.width)) < 0.5
        up = up.expand(-1, -1, frame.height, -1).reshape(self.lower.shape)
        return torch.where(up, self.upper, self.lower)

    def size(self, portion: float) -> tuple[int, int]:
        """Return the sides of a window that holds about `portion` of the pixels."""
        return window(portion, self.frame)

    def load(self, uniform: Tensor, sizes: Sequence[tuple[int, int]], points: Tensor) -> None:
        """Take the draws of the next steps: row, column, and a sign per channel."""
        row, column = corners(uniform[..., :2], sizes, self.frame)
        self.sizes, self.corner, self.up = sizes, row * self.frame.width + column, uniform[..., 2:] < 0.5
        self.ready = range(0)

    def propose(self, number: int, points: Tensor) -> Move:
        """Return the windows of a loaded step."""
        if number not in self.ready:
            self._prepare(number)
        index, new, other = self.prepared[number - self.ready.start]
        old = points.gather(1, index)
        idle = new == old
        idle = idle if idle.shape[1] == 1 else idle.all(1, keepdim=True)
        return Move(index, torch.where(idle, other, new), old)

    def _prepare(self, number: int) -> None:
        """Look up what the next steps of one size write: it does not depend on the points."""
        size, rows = self.sizes[number], len(self.lower)
        entries = self.frame.channels * size[0] * size[1]
        self.ready = together(self.sizes, number, self.lower.shape[1], entries)
        steps = slice(self.ready.start, self.ready.stop)
        offsets = self.frame.offsets(size, self.lower.device)
        flat = (self.corner[steps].t()[:, :, None] + offsets).flatten(1)
        low, high = (side.gather(1, flat) for side in (self.lower, self.upper))
        up = self.up[steps].transpose(0, 1).repeat_interleave(size[0] * size[1], 2).flatten(1)
        whole = (flat, torch.where(up, high, low), torch.where(up, low, high))
        parts = (part.view(rows, len(self.ready), entries).transpose(0, 1).contiguous() for part in whole)
        self.prepared = list(zip(*(part.unbind() for part in parts), strict=True))

    def spent(self, first: int, changed: Tensor, points: Tensor) -> Tensor | None:
        """Return the rows in which every change of one pixel has failed since the last success."""
        if not self.tried.shape[1]:
            return None
        alone = [number for number, size in enumerate(self.sizes) if size == (1, 1)]
        when = first + torch.tensor(alone, dtype=torch.int64, device=points.device).expand(len(points), -1)
        self.tried.scatter_reduce_(1, self.corner[alone].t(), when, "amax")
        cornered = ((points == self.lower) | (points == self.upper)).all(1)
        return (self.tried > changed).all(1) & cornered

    def select(self, rows: Tensor) -> None:
        """Keep the state of some rows."""
        self._keep(rows, ("lower", "upper", "tried"))
        self.corner, self.up, self.ready = self.corner[:, rows], self.up[:, rows], range(0)


def together(sizes: Sequence[tuple[int, int]], first: int, inputs: int, entries: int) -> range:
    """Return the steps from `first` on that are prepared at once: windows of one size, of `entries` numbers each.

    One step at least, and not so many that they take much more memory than the points, with `inputs` numbers each.
    """
    most, last = max(1024, inputs // 4) // entries, first + 1
    while last < min(len(sizes), first + most) and sizes[last] == sizes[first]:
        last += 1
    return range(first, last)
