"""Misclassified points to start from, when only decisions are known: tries of several kinds, far from the sample."""

from __future__ import annotations

import torch
from torch import Tensor

from robench.streams import Stream
from robench.threat import Norm
from robench_plugins.attacks._decisions import Decisions, down, nearest, size

__all__ = ["starts"]

_COARSE = 4
"""Halvings when starts are compared."""


def starts(
    asked: Decisions, norm: Norm, shape: torch.Size, stream: Stream, tries: int, waves: int, rivals: int, halvings: int
) -> tuple[Tensor, Tensor]:
    """Return misclassified points next to the boundary [R, D] and their samples [R], ascending, up to `rivals` each.

    All errors among the `tries` are brought near; the nearest of each class, and of these the nearest, go on to the
    boundary. A sample without an error tries again, up to `waves` times in all; in the end it has no row. Costs
    tries · (waves + 4) + halvings · rivals queries at most.
    """
    left = torch.arange(len(asked.x), device=asked.x.device)
    points, owners = [], []
    for wave in range(waves):
        found = _first_errors(asked, norm, shape, stream, range(wave * tries, (wave + 1) * tries), left, rivals)
        points.append(found[0])
        owners.append(found[1])
        met = torch.bincount(found[1], minlength=len(asked.x)) > 0
        left = left[~met[left]]
        if not len(left):
            break
    owner, order = torch.cat(owners).sort(stable=True)
    near = torch.cat(points)[order]
    path = down(asked, norm, near, owner)
    return nearest(asked, path, size(norm, near - asked.x[owner]), owner, halvings)[0], owner


def _first_errors(
    asked: Decisions, norm: Norm, shape: torch.Size, stream: Stream, numbers: range, samples: Tensor, rivals: int
) -> tuple[Tensor, Tensor]:
    """Return, of some tries for `samples`, the nearest errors [R, D] of different classes, and whose they are."""
    tries = len(numbers)
    points = torch.stack([_try(asked, shape, stream.select(samples), number, samples) for number in numbers], 1)
    found = asked.classes(points.flatten(0, 1), samples.repeat_interleave(tries)).reshape(-1, tries)
    row, number = (found != asked.y[samples, None]).nonzero(as_tuple=True)
    first, owner = points[row, number], samples[row]
    near, _ = nearest(asked, down(asked, norm, first, owner), size(norm, first - asked.x[owner]), owner, _COARSE)
    far = torch.full(found.shape, torch.inf, dtype=near.dtype, device=near.device)
    far[row, number] = size(norm, near - asked.x[owner])
    order = far.argsort(dim=1, stable=True)
    classes = found.gather(1, order)
    again = (classes[:, :, None] == classes[:, None, :]).tril(-1).any(2)  # a class that comes nearer elsewhere
    far = torch.full_like(far, torch.inf).scatter(1, order, far.gather(1, order).masked_fill(again, torch.inf))
    kept = (far.argsort(dim=1, stable=True).argsort(dim=1) < rivals) & far.isfinite()
    kept = kept[row, number]
    return near[kept], owner[kept]


def _try(asked: Decisions, shape: torch.Size, stream: Stream, number: int, samples: Tensor) -> Tensor:
    """Return a point per sample [S, D]: uniform noise (as published), corners of the box, blocks, one value everywhere.

    In a domain with an open side, the room on that side is 2^k times the sample's own scale, k rising with each round.
    """
    own, dtype = stream.child("start", number), asked.x.dtype
    kind, turn = number % 4, number // 4
    reach = asked.x[samples].abs().amax(1, keepdim=True).clamp_min(1) * 2.0 ** min(turn, 20)
    low, high = torch.maximum(asked.low[samples], -reach), torch.minimum(asked.high[samples], reach)
    if kind == 0:
        share = own.uniform((asked.x.shape[1],), dtype=dtype)
    elif kind == 1:
        share = (own.uniform((asked.x.shape[1],), dtype=dtype) < 0.5).to(dtype)
    elif kind == 2:
        share = _blocks(own, shape, (2, 4, 8)[turn % 3], dtype)
    else:
        share = own.uniform((1,), dtype=dtype) if turn > 1 else own.uniform((1,), dtype=dtype) * 0 + turn
    return asked.place(low + (high - low) * share, samples)


def _blocks(stream: Stream, shape: torch.Size, parts: int, dtype: torch.dtype) -> Tensor:
    """Return 0 or 1 per pixel [S, D], the same over blocks: `parts` along each of the last two axes."""
    *channels, height, width = (1, *shape) if len(shape) == 1 else shape
    down, across = min(height, parts), min(width, parts)
    coarse = (stream.uniform((*channels, down, across), dtype=dtype) < 0.5).to(dtype)
    rows = torch.arange(height, device=coarse.device) * down // height
    columns = torch.arange(width, device=coarse.device) * across // width
    return coarse.index_select(-2, rows).index_select(-1, columns).flatten(1)
