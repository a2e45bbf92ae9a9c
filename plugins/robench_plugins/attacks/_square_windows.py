"""The windows of the Square Attack: how inputs are read as images, how large windows are, and where they lie."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from robench.streams import Stream

__all__ = ["Frame", "Streams", "corners", "share", "window"]

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True)
class Frame:
    """The image that an input is read as."""

    channels: int
    height: int
    width: int

    @classmethod
    def of(cls, shape: Sequence[int]) -> Frame:
        """Return how inputs of `shape` are read: [..., H, W] with all leading axes as channels, [D] as one row."""
        if len(shape) < 2:
            return cls(1, 1, math.prod(shape))
        return cls(math.prod(shape[:-2]), shape[-2], shape[-1])

    @property
    def pixels(self) -> int:
        """Positions in the image."""
        return self.height * self.width

    def offsets(self, size: tuple[int, int], device: torch.device) -> Tensor:
        """Return where the entries of a window of `size` lie in the flat input, from its corner, int64 [C · h · w]."""
        return _offsets(self, size, device)


@lru_cache(maxsize=64)
def _offsets(frame: Frame, size: tuple[int, int], device: torch.device) -> Tensor:
    channel, row, column = (torch.arange(n, device=device) for n in (frame.channels, *size))
    return (channel[:, None, None] * frame.pixels + row[:, None] * frame.width + column).flatten()


def share(step: int, queries: int, first: float) -> float:
    """Return p, the share of the pixels that the proposal after `step` others changes.

    Andriushchenko et al. 2020, section 4: `first` halved at 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of
    10,000 iterations, those points scaled with the number of queries.
    """
    return first * 0.5 ** bisect_left(_HALVINGS, step * 10_000 // queries)


def window(portion: float, frame: Frame, least: int = 1, odd: bool = False) -> tuple[int, int]:
    """Return the sides (height, width) of a window that holds about `portion` of the pixels.

    A square of side √(p H W), rounded, at least `least`, to the next odd number if `odd`. Where one side of the
    image is shorter than that, the other side of the window makes up for it: on an image of one row a window is an
    interval. (The published code cuts it to a square of the shorter side, which changes too little, or fails.)
    """
    side = _length(math.sqrt(portion * frame.pixels), least, odd)
    height, width = min(side, frame.height), min(side, frame.width)
    if height < side:
        width = min(_length(portion * frame.pixels / height, least, odd), frame.width)
    elif width < side:
        height = min(_length(portion * frame.pixels / width, least, odd), frame.height)
    return height, width


def _length(value: float, least: int, odd: bool) -> int:
    side = max(round(value), least)
    return side + 1 if odd and side % 2 == 0 else side


def corners(uniform: Tensor, sizes: Sequence[tuple[int, int]], frame: Frame) -> tuple[Tensor, Tensor]:
    """Return (row, column), int64 [T, ...] each, of windows of `sizes` [T] from `uniform` [T, ..., 2] draws of [0, 1).

    Every position at which the window lies in the image is as likely. (The published codes exclude the last row and
    the last column of positions, so that no window ever touches the image's lower and right edge.)
    """
    room = [[frame.height - height + 1, frame.width - width + 1] for height, width in sizes]
    # u ≤ 1 − 2⁻²⁴ in float32: u · n rounds to n for no n.
    count = torch.tensor(room, dtype=uniform.dtype, device=uniform.device)
    at = (uniform * count.view(-1, *[1] * (uniform.ndim - 2), 2)).long()
    return at[..., 0], at[..., 1]


class Streams:
    """The streams of several runs side by side, one after another: rows keep their own draws when others leave."""

    def __init__(self, parts: Sequence[Stream]) -> None:
        """Join `parts`, which must have made as many draws each."""
        self._parts = list(parts)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Draw float32 [R, *shape] from the uniform distribution on [0, 1)."""
        return torch.cat([part.uniform(shape) for part in self._parts])

    def select(self, rows: Tensor) -> Streams:
        """Return the streams of some rows (bool mask)."""
        masks = torch.split(rows, [len(part) for part in self._parts])
        return Streams([part.select(mask) for part, mask in zip(self._parts, masks, strict=True)])
