"""What the Square Attack in l2 and l1 proposes: bumps of either sign, paid for by a second window.

Andriushchenko et al. 2020, Algorithm 3 and eq. (3), for l2; Croce & Hein 2021 for l1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from robench.threat import Domain, Norm
from robench_plugins.attacks import projections
from robench_plugins.attacks._square_moves import Move, Moves, together
from robench_plugins.attacks._square_windows import Frame, Streams, corners, window
from robench_plugins.attacks.regions import Region

__all__ = ["Bumps", "bump"]

_TILES = 5
"""Bumps per side of the image at the start."""

_LEAST = 3
"""Shortest side of a window."""


class _Ready(NamedTuple):
    """A step's two windows: [R, C, 2, K] entries, first window first."""

    place: Tensor
    """Their positions in the flat points, [R, C · 2 · K]; those in both windows are the first window's first entry."""
    both: Tensor
    """Which entries of the second window lie in the first, bool [R, 1, K]."""
    own: Tensor
    """1, or 0 where the second window's entry lies in the first, [R, 1, 2, K]."""
    x: Tensor
    """The sample there."""
    bumps: Tensor
    """What the first window gets, up to sign and scale, [R, C, K]."""


class Bumps(Moves):
    """A window gets a bump, added to what it holds in direction, with the budget of two windows and all that is unused.

    The other window is set back to the sample. So the norm stays at the budget but for what the domain cuts off, which
    the next proposal uses: as published, without touching the rest of the image.

    In l1 with several channels the published code gives the window that many times its budget and projects the whole
    image onto ball and box, so that other pixels pay; so does this.
    """

    def __init__(self, region: Region, frame: Frame, domain: Domain) -> None:
        """Propose within `region`, whose box is that of `domain`."""
        self.norm, self.frame, self.draws = region.norm, frame, 5 + frame.channels
        self.tiny = torch.finfo(region.x.dtype).tiny
        # As published, 1e-12 on norms of directions: a bump may cancel what its window holds.
        self.nothing = 1e-24 if region.norm == "l2" else 1e-12
        # A little less, since sums and points are rounded.
        self.eps = region.eps * (1 - 128 * torch.finfo(region.x.dtype).eps)
        self.x = region.x.flatten(1)
        # The sides of the domain alone, without the samples' own roundings: numbers are faster to clamp to.
        self.low, self.high = (
            domain.box(self.x.new_full((1,), far))[side].item() for side, far in enumerate((torch.inf, -torch.inf))
        )
        self.free = self.after = self._free(self.x)
        # The loaded steps that are prepared, and what they are prepared with.
        self.ready, self.prepared = range(0), list[_Ready]()
        self.load(self.x.new_zeros((0, len(self.x), self.draws)), (), self.x)

    def start(self, streams: Streams) -> Tensor:
        """Return bumps of random sign and orientation all over the image, scaled to the budget, then clipped."""
        tiles, patterns = _tiling(self.norm, self.frame)
        tiles, patterns = tiles.to(self.x.device), patterns.to(self.x)
        flips = (streams.uniform((1 + self.frame.channels, int(tiles[-1]) + 1)) < 0.5)[:, :, tiles]
        delta = torch.where(flips[:, :1], patterns[0], patterns[1])
        delta = torch.where(flips[:, 1:], delta, -delta).reshape(self.x.shape)
        scale = self.eps / self._root(self._power(delta).sum(1, keepdim=True))
        return (self.x + delta * scale).clamp(self.low, self.high)

    def size(self, portion: float) -> tuple[int, int]:
        """Return the sides of a window that holds about `portion` of the pixels."""
        return window(portion, self.frame, _LEAST, odd=True)

    def load(self, uniform: Tensor, sizes: Sequence[tuple[int, int]], points: Tensor) -> None:
        """Take the draws of the next steps: two windows, an orientation, and a sign per channel."""
        row, column = corners(uniform[..., :4].reshape(*uniform.shape[:2], 2, 2), sizes, self.frame)
        self.sizes, self.corner = sizes, row * self.frame.width + column
        self.apart = torch.stack([row[..., 1] - row[..., 0], column[..., 1] - column[..., 0]], 2)
        self.turned = (uniform[..., 4] < 0.5).long()
        self.sign = torch.where(uniform[..., 5:, None] < 0.5, 1.0, -1.0).to(points)
        self.free, self.ready = self._free(points), range(0)

    def propose(self, number: int, points: Tensor) -> Move:
        """Return the two windows of a loaded step, side by side: [R, C, 2, K] entries."""
        if number not in self.ready:
            self._prepare(number)
        ready, wide = self.prepared[number - self.ready.start], self.norm == "l1" and self.frame.channels > 1
        old = points.gather(1, ready.place)
        delta = old.view_as(ready.x) - ready.x
        held = (self._power(delta) * ready.own).sum(3)
        free = self.free + held.sum(2)
        # The bump, plus what the first window holds, each of norm 1; then with all that is free.
        way = torch.addcmul(ready.bumps, delta[:, :, 0], self._inverse(held[:, :, :1] + self.tiny))
        reach = self._root(free / (self._power(way).sum(2) + self.nothing))[..., None]
        x = ready.x[:, :, 0]
        if wide:
            return self._everywhere(points, ready, x + way * reach * self.frame.channels)
        first = torch.addcmul(x, way, reach).clamp(self.low, self.high)
        left = free - self._power(first - x).sum(2)
        self.after = left if self.frame.channels == 1 else (left.sum(1, keepdim=True) / self.frame.channels)
        return Move(ready.place, _both(ready, first), old)

    def accept(self, better: Tensor) -> None:
        """Keep account of the budget that the points leave."""
        self.free = torch.where(better, self.after.clamp_min(0), self.free)

    def select(self, rows: Tensor) -> None:
        """Keep the state of some rows."""
        self._keep(rows, ("x", "free"))
        for name in ("corner", "apart", "turned", "sign"):
            setattr(self, name, getattr(self, name)[:, rows])
        self.ready = range(0)

    def _prepare(self, number: int) -> None:
        """Look up what the next steps of one size need: the windows' places and samples, and the bumps."""
        size, rows, channels = self.sizes[number], len(self.x), self.frame.channels
        entries = size[0] * size[1]
        self.ready = together(self.sizes, number, self.x.shape[1], 2 * channels * entries)
        steps, count = slice(self.ready.start, self.ready.stop), len(self.ready)
        offsets = self.frame.offsets(size, self.x.device).view(channels, 1, -1)
        index = self.corner[steps, :, None, :, None] + offsets
        # What lies in both windows belongs to the first. The second then writes there what its first entry gets.
        both = _inside(self.apart[steps], size)[:, :, None]
        index[:, :, :, 1] = torch.where(both, index[:, :, :, 0, :1], index[:, :, :, 1])
        own = torch.stack([torch.ones_like(both), ~both], 3).to(self.x.dtype)

        x = self.x.gather(1, index.transpose(0, 1).reshape(rows, -1)).view(rows, count, channels, 2, entries)
        bumps = bump(self.norm, size, self.x)[self.turned[steps]][:, :, None] * self.sign[steps]
        parts = (index.flatten(2), both, own, x.transpose(0, 1).contiguous(), bumps)
        self.prepared = [_Ready(*part) for part in zip(*(part.unbind() for part in parts), strict=True)]

    def _everywhere(self, points: Tensor, ready: _Ready, first: Tensor) -> Move:
        """Return both windows written, over the budget and out of the box, and the image projected onto both."""
        wanted = points.scatter(1, ready.place, _both(ready, first)) - self.x
        delta = projections.project(
            "l1", wanted, self.eps, (self.low - self.x).clamp_max(0), (self.high - self.x).clamp_min(0)
        )
        new = (self.x + delta).clamp(self.low, self.high)
        self.after = self._free(new)
        return Move(None, new, points.clone())

    def _free(self, points: Tensor) -> Tensor:
        """Return the budget that `points` leave to each channel, [R, 1], in terms of `_power`."""
        used = self._power(points - self.x).sum(1, keepdim=True)
        whole = self.eps**2 if self.norm == "l2" else self.eps
        return (whole - used).clamp_min(0) / self.frame.channels

    def _power(self, values: Tensor) -> Tensor:
        return values.square() if self.norm == "l2" else values.abs()

    def _root(self, values: Tensor) -> Tensor:
        return values.sqrt() if self.norm == "l2" else values

    def _inverse(self, values: Tensor) -> Tensor:
        return values.rsqrt() if self.norm == "l2" else values.reciprocal()


def _both(ready: _Ready, first: Tensor) -> Tensor:
    """Return what both windows get where the first gets `first`: the second goes back to the sample."""
    second = torch.where(ready.both, first[:, :, :1], ready.x[:, :, 1])
    return torch.stack([first, second], 2).flatten(1)


def bump(norm: Norm, size: tuple[int, int], like: Tensor) -> Tensor:
    """Return η of the paper for a window of `size`, one half up and one down, [2, h · w] of norm 1 each.

    The first is divided across the height, the second across the width; a window one pixel wide can only be divided one
    way, a single pixel not at all.
    """
    return _bump(norm, size).to(like)


@lru_cache(maxsize=64)
def _bump(norm: Norm, size: tuple[int, int]) -> Tensor:
    height, width = size
    across = [_divided(norm, height, width), _divided(norm, width, height).T]
    return torch.stack([across[height == 1], across[width > 1]]).flatten(1)


def _divided(norm: Norm, height: int, width: int) -> Tensor:
    """Return two pyramids above each other, the upper one positive."""
    half = height // 2
    halves = [_pyramid(norm, half, width), -_pyramid(norm, height - half, width)]
    out = torch.cat(halves)
    return out / out.abs().pow(2 if norm == "l2" else 1).sum().pow(0.5 if norm == "l2" else 1)


def _pyramid(norm: Norm, height: int, width: int) -> Tensor:
    """Return eq. (3): Σ_k (k + 1)^−2 over the squares k around the centre that hold a pixel; in l1 (k + 1)^−4.

    Each has norm 1.
    """
    row, column = (torch.arange(n, dtype=torch.float64) - n // 2 for n in (height, width))
    ring = torch.maximum(row.abs()[:, None], column.abs())
    terms = torch.arange(1, max(height, width) // 2 + 2, dtype=torch.float64) ** (-2 if norm == "l2" else -4)
    out = terms.flip(0).cumsum(0).flip(0)[ring.long()]
    size: Tensor = out.norm(p=2 if norm == "l2" else 1)
    return out / size.clamp_min(torch.finfo(out.dtype).tiny)


@lru_cache(maxsize=8)
def _tiling(norm: Norm, frame: Frame) -> tuple[Tensor, Tensor]:
    """Return which tile each pixel is in, int64 [H · W], and the tiles' bumps divided either way, [2, H · W].

    Five tiles per side, or as many as there are pixels, that together cover the image. (The published code leaves out
    up to four rows and columns, or fails, where the sides are no multiples of five.)
    """
    edges = [[i * n // min(_TILES, n) for i in range(min(_TILES, n) + 1)] for n in (frame.height, frame.width)]
    tiles = torch.zeros(frame.height, frame.width, dtype=torch.int64)
    patterns = torch.zeros(2, frame.height, frame.width, dtype=torch.float64)
    number = 0
    for top, bottom in zip(edges[0], edges[0][1:], strict=False):
        for left, right in zip(edges[1], edges[1][1:], strict=False):
            size = bottom - top, right - left
            tiles[top:bottom, left:right] = number
            patterns[:, top:bottom, left:right] = _bump(norm, size).view(2, *size)
            number += 1
    return tiles.flatten(), patterns.flatten(1)


def _inside(apart: Tensor, size: tuple[int, int]) -> Tensor:
    """Return which entries of the second of two windows of `size` lie in the first, bool [..., h · w].

    `apart` [..., 2] is how far the second is below and right of the first.
    """
    down, right = (apart[..., axis, None] + torch.arange(size[axis], device=apart.device) for axis in (0, 1))
    down, right = (down >= 0) & (down < size[0]), (right >= 0) & (right < size[1])
    return (down[..., :, None] & right[..., None, :]).flatten(-2)
