"""Rows back through operators that choose: maxima of windows, and sorting.

A choice φ is Lipschitz, so φ(v′) − φ(v) = M (v′ − v) with M in the convex hull of its generalised Jacobians on the way
from v to v′ (Clarke 1983, "Optimization and Nonsmooth Analysis", proposition 2.6.5). Those choose an element that is
largest somewhere on the way, or put each in a place of the order that it has somewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from robench.graph import Node
from robench_plugins.lipschitz.local._rows import Rows, added
from robench_plugins.lipschitz.local._slopes import Reach

__all__ = ["CHOICES"]


def _ints(node: Node, name: str) -> tuple[int, ...]:
    value = node.attributes[name]
    assert isinstance(value, tuple)
    return value


def _max_pool2d(node: Node, reach: Reach, rows: Rows) -> Rows:
    """An element that is never the largest of a window has no weight in it, one that always is has all."""
    kernel, stride, dilation = (_ints(node, name) for name in ("kernel", "stride", "dilation"))
    top, left, bottom, right = _ints(node, "padding")
    size, windows = reach.low.shape[-2:], rows.lower.shape[-2:]
    around = (left, right, top, bottom)
    low, high = (F.pad(side, around, value=-math.inf) for side in (reach.low, reach.high))

    def window(i: int, j: int) -> tuple[slice, slice]:
        return tuple(  # type: ignore[return-value]
            slice(k * d, k * d + (n - 1) * s + 1, s)
            for k, d, n, s in zip((i, j), dilation, windows, stride, strict=True)
        )

    places = [window(i, j) for i in range(kernel[0]) for j in range(kernel[1])]
    winner = torch.stack([low[..., h, w] for h, w in places]).amax(0)
    # Padding never wins, and has no place to pass rows on to.
    able = [(high[..., h, w] >= winner) & (high[..., h, w] > -math.inf) for h, w in places]
    alone = torch.stack(able).sum(0) == 1
    shape = (*rows.lower.shape[:-2], *low.shape[-2:])
    found = Rows(rows.lower.new_zeros(shape), rows.lower.new_zeros(shape))
    part = Rows(rows.lower.clamp_max(0.0), rows.upper.clamp_min(0.0))
    for (h, w), chosen in zip(places, able, strict=True):
        sure, maybe = (chosen & alone)[:, None], chosen[:, None]
        share = Rows(*(torch.where(sure, whole, torch.where(maybe, some, 0.0)) for whole, some in _sides(rows, part)))
        total = added(Rows(found.lower[..., h, w], found.upper[..., h, w]), share)
        found.lower[..., h, w], found.upper[..., h, w] = total.lower, total.upper
    inside = (..., slice(top, top + size[0]), slice(left, left + size[1]))
    return Rows(found.lower[inside], found.upper[inside])


def _sides(a: Rows, b: Rows) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return (a.lower, b.lower), (a.upper, b.upper)


def _group_sort(node: Node, reach: Reach, rows: Rows) -> Rows:
    """An element takes a convex combination of the rows about the places that it may have: columns of M sum to 1."""
    group = node.attributes["group"]
    assert isinstance(group, int)
    low, high = (_groups(side, 1, group) for side in (reach.low, reach.high))
    first, last = torch.zeros_like(low), torch.full_like(low, group - 1)
    for other in range(group):
        first += (high[:, :, other : other + 1] < low).double()
        last -= (low[:, :, other : other + 1] > high).double()
    lower, upper = (_groups(side, 2, group) for side in (rows.lower, rows.upper))
    least, most = torch.full_like(lower, math.inf), torch.full_like(upper, -math.inf)
    for place in range(group):
        able = ((first <= place) & (place <= last))[:, None]
        at = slice(place, place + 1)
        least = torch.where(able, torch.minimum(least, lower[:, :, :, at]), least)
        most = torch.where(able, torch.maximum(most, upper[:, :, :, at]), most)
    return Rows(least.flatten(2, 3), most.flatten(2, 3))


def _groups(values: Tensor, axis: int, group: int) -> Tensor:
    return values.reshape(*values.shape[:axis], -1, group, *values.shape[axis + 1 :])


CHOICES: Mapping[str, Callable[[Node, Reach, Rows], Rows]] = {"group_sort": _group_sort, "max_pool2d": _max_pool2d}
"""Operator to rule."""
