"""Misclassified points to start from, when only decisions are known: tries of several kinds, far from the sample."""

from __future__ import annotations

import torch
from torch import Tensor

from robench.streams import Stream
from robench.threat import Norm
from robench_plugins.attacks._decisions import Decisions, down, nearest, size

__all__ = ["starts"]

_COARSE = 6
"""Halvings when starts are compared."""


def starts(
    asked: Decisions, norm: Norm, shape: torch.Size, stream: Stream, tries: int, rivals: int, halvings: int
) -> tuple[Tensor, Tensor]:
    """Return misclassified points next to the boundary [R, D] and their samples [R], ascending, up to `rivals` each.

    The first errors of different classes among the `tries`, twice as many as `rivals`, brought near; the nearest go on
    to the boundary. Samples without an error have no row. Costs tries + (12 + halvings)·rivals queries at most.
    """
    count, device = len(asked.x), asked.x.device
    everyone = torch.arange(count, device=device)
    points = torch.stack([_try(asked, shape, stream, number) for number in range(tries)], 1)
    owner = everyone.repeat_interleave(tries)
    found = asked.classes(points.flatten(0, 1), owner).reshape(count, tries)
    wrong = found != asked.y[:, None]
    same = (found[:, :, None] == found[:, None, :]).tril(-1).any(2)  # a class that an earlier try has met
    fresh = wrong & ~same
    fresh &= fresh.cumsum(1) <= 2 * rivals
    row, number = fresh.nonzero(as_tuple=True)
    if not len(row):
        return asked.x[:0], everyone[:0]
    first = points[row, number]
    near, _ = nearest(asked, down(asked, norm, first, row), size(norm, first - asked.x[row]), row, _COARSE)
    far = torch.full((count, tries), torch.inf, dtype=near.dtype, device=device)
    far[row, number] = size(norm, near - asked.x[row])
    kept = far.argsort(dim=1, stable=True).argsort(dim=1)[row, number] < rivals
    near, row = near[kept], row[kept]
    path = down(asked, norm, near, row)
    return nearest(asked, path, size(norm, near - asked.x[row]), row, halvings)[0], row


def _try(asked: Decisions, shape: torch.Size, stream: Stream, number: int) -> Tensor:
    """Return a point per sample [S, D]: uniform noise (as published), noise in large blocks, or one value everywhere.

    In a domain with an open side, the room on that side is 2^k times the sample's own scale, k rising with each round.
    """
    own = stream.child("start", number)
    kind, turn = number % 3, number // 3
    reach = asked.x.abs().amax(1, keepdim=True).clamp_min(1) * 2.0 ** min(turn, 20)
    low, high = torch.maximum(asked.low, -reach), torch.minimum(asked.high, reach)
    if kind == 0:
        share = own.uniform((asked.x.shape[1],), dtype=asked.x.dtype)
    elif kind == 1:
        share = _blocks(own, shape, asked.x.dtype)
    else:
        share = own.uniform((1,), dtype=asked.x.dtype)
        if turn < 2:
            share = torch.full_like(share, float(turn))  # all low, then all high
    return asked.place(low + (high - low) * share, torch.arange(len(asked.x), device=asked.x.device))


def _blocks(stream: Stream, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return 0 or 1 per pixel [S, D], the same over blocks of a quarter of each of the last two axes."""
    *channels, height, width = (1, *shape) if len(shape) == 1 else shape
    coarse = (stream.uniform((*channels, min(height, 4), min(width, 4)), dtype=dtype) < 0.5).to(dtype)
    rows = torch.arange(height, device=coarse.device) * min(height, 4) // height
    columns = torch.arange(width, device=coarse.device) * min(width, 4) // width
    return coarse.index_select(-2, rows).index_select(-1, columns).flatten(1)
