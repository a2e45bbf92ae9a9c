"""What the Square Attack in l2 and l1 proposes: bumps of either sign, paid for by a second window.

Andriushchenko et al. 2020, Algorithm 3 and eq. (3), for l2; Croce & Hein 2021 for l1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from robench.threat import Norm
from robench_plugins.attacks import projections
from robench_plugins.attacks._square_moves import Move, Moves, together
from robench_plugins.attacks._square_windows import Frame, Streams, corners, window
from robench_plugins.attacks.regions import Region

__all__ = ["Bumps", "bump"]

_TILES = 5
"""Bumps per side of the image at the start."""

_LEAST: dict[Norm, int] = {"l2": 3, "l1": 3}
"""Shortest side of a window."""


class Bumps(Moves):
    """A window gets a bump, added to what it holds in direction, with the budget of two windows and all that is unused.

    The other window is set back to the sample. So the norm stays at the budget but for what the domain cuts off, which
    the next proposal uses: as published, without touching the rest of the image.

    In l1 with several channels the published code gives the window that many times its budget and projects the whole
    image onto ball and box, so that other pixels pay; so does this.
    """

    def __init__(self, region: Region, frame: Frame) -> None:
        """Propose within `region`."""
        self.norm, self.frame, self.draws = region.norm, frame, 5 + frame.channels
        self.tiny = torch.finfo(region.x.dtype).tiny
        # As published, 1e-12 on norms of directions: a bump may cancel what its window holds.
        self.nothing = 1e-24 if region.norm == "l2" else 1e-12
        # A little less, since sums and points are rounded.
        self.eps = region.eps * (1 - 128 * torch.finfo(region.x.dtype).eps)
        self.budget = self.eps**2 if region.norm == "l2" else self.eps
        self.x, self.lower, self.upper = (side.flatten(1) for side in (region.x, region.lower, region.upper))
        self.used = self.after = self.x.new_zeros(len(self.x))
        self.ready = range(0)

    def start(self, streams: Streams) -> Tensor:
        """Return bumps of random sign and orientation all over the image, scaled to the budget, then clipped."""
        tiles, patterns = _tiling(self.norm, self.frame)
        tiles, patterns = tiles.to(self.x.device), patterns.to(self.x)
        flips = (streams.uniform((1 + self.frame.channels, int(tiles[-1]) + 1)) < 0.5)[:, :, tiles]
        delta = torch.where(flips[:, :1], patterns[0], patterns[1])
        delta = torch.where(flips[:, 1:], delta, -delta).reshape(self.x.shape)
        scale = self.eps / self._root(self._power(delta).sum(1, keepdim=True))
        return (self.x + delta * scale).clamp(self.lower, self.upper)

    def size(self, portion: float) -> tuple[int, int]:
        """Return the sides of a window that holds about `portion` of the pixels."""
        return window(portion, self.frame, _LEAST[self.norm], odd=True)

    def load(self, uniform: Tensor, sizes: Sequence[tuple[int, int]], points: Tensor) -> None:
        """Take the draws of the next steps: two windows, an orientation, and a sign per channel."""
        row, column = corners(uniform[..., :4].unflatten(2, (2, 2)), sizes, self.frame)
        self.sizes, self.corner = sizes, row * self.frame.width + column
        self.apart = torch.stack([row[..., 1] - row[..., 0], column[..., 1] - column[..., 0]], 2)
        self.turned = (uniform[..., 4] < 0.5).long()
        self.sign = torch.where(uniform[..., 5:, None] < 0.5, 1.0, -1.0).to(points)
        self.used, self.ready = self._power(points - self.x).sum(1), range(0)

    def propose(self, number: int, points: Tensor) -> Move:
        """Return the two windows of a loaded step, side by side: [R, C, 2, K] entries."""
        if number not in self.ready:
            self._prepare(number)
        at, channels = number - self.ready.start, self.frame.channels
        index, both, base, bumps = self.index[at], self.both[at], self.base[at], self.bumps[at]
        old = points.gather(1, index)
        delta = old.view_as(base) - base
        held = (self._power(delta) * self.own[at]).sum(3)
        both_held = held.sum(2)
        # The bump, plus what the first window holds, scaled to norm 1.
        way = torch.addcmul(bumps, delta[:, :, 0], 1 / self._root(held[:, :, :1] + self.tiny))
        spare = (self.budget - self.used).clamp_min(0)[:, None] / channels
        reach = (spare + both_held) / (self._power(way).sum(2) + self.nothing)
        wide = self.norm == "l1" and channels > 1
        first = torch.addcmul(base[:, :, 0], way, self._root(reach)[..., None], value=channels if wide else 1)
        first = first if wide else torch.minimum(torch.maximum(first, self.low[at]), self.high[at])
        second = torch.where(both, first[:, :, :1], base[:, :, 1])
        if wide:
            return self._everywhere(points, index, first, second)
        self.after = self.used + (self._power(first - base[:, :, 0]).sum(2) - both_held).sum(1)
        return Move(index, torch.stack([first, second], 2).flatten(1), old)

    def accept(self, better: Tensor) -> None:
        """Keep account of the budget that the points use."""
        self.used = torch.where(better, self.after, self.used)

    def select(self, rows: Tensor) -> None:
        """Keep the state of some rows."""
        steps = ("corner", "apart", "turned", "sign", "index", "both", "own", "base", "low", "high", "bumps")
        self._keep(rows, ("x", "lower", "upper", "used"), steps)

    def _prepare(self, number: int) -> None:
        """Look up what the next steps of one size need: the windows' places and samples, and the bumps."""
        size, rows, channels = self.sizes[number], len(self.x), self.frame.channels
        entries = size[0] * size[1]
        self.ready = together(self.sizes, number, self.x.shape[1], 2 * channels * entries)
        steps, count = slice(self.ready.start, self.ready.stop), len(self.ready)
        offsets = self.frame.offsets(size, self.x.device).view(channels, 1, -1)
        index = self.corner[steps, :, None, :, None] + offsets
        # What lies in both windows belongs to the first. The second then writes there what its first entry gets.
        self.both = _inside(self.apart[steps], size)[:, :, None]
        index[:, :, :, 1] = torch.where(self.both, index[:, :, :, 0, :1], index[:, :, :, 1])
        self.own = torch.stack([torch.ones_like(self.both), ~self.both], 3).to(self.x.dtype)
        self.index = index.flatten(2)

        def look_up(values: Tensor, places: Tensor) -> Tensor:
            found = values.gather(1, places.transpose(0, 1).reshape(rows, -1))
            return found.view(rows, count, channels, -1, entries).transpose(0, 1).contiguous()

        self.base = look_up(self.x, index)
        self.low, self.high = (look_up(side, index[:, :, :, 0])[:, :, :, 0] for side in (self.lower, self.upper))
        self.bumps = bump(self.norm, size, self.x)[self.turned[steps]][:, :, None] * self.sign[steps]

    def _everywhere(self, points: Tensor, index: Tensor, first: Tensor, second: Tensor) -> Move:
        """Return both windows written, over the budget and out of the box, and the image projected onto both."""
        wanted = points.scatter(1, index, torch.stack([first, second], 2).flatten(1)) - self.x
        delta = projections.project("l1", wanted, self.eps, self.lower - self.x, self.upper - self.x)
        new = (self.x + delta).clamp(self.lower, self.upper)
        self.after = (new - self.x).abs().sum(1)
        return Move(None, new, points.clone())

    def _power(self, values: Tensor) -> Tensor:
        return values.square() if self.norm == "l2" else values.abs()

    def _root(self, values: Tensor) -> Tensor:
        return values.sqrt() if self.norm == "l2" else values


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
    return out / out.norm(p=2 if norm == "l2" else 1).clamp_min(torch.finfo(out.dtype).tiny)


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
