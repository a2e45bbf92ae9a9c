"""Branch and bound over the inputs, for few of them and for smooth activations: boxes are halved until proven."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from robench.graph import Graph
from robench.numerics import gamma
from robench_plugins.verify._engine.backward import lower_bounds
from robench_plugins.verify._engine.bounds import bounded
from robench_plugins.verify._engine.owners import Owners
from robench_plugins.verify._engine.region import Region
from robench_plugins.verify._memory import out_of_memory
from robench_plugins.verify._tree.attack import Refuter
from robench_plugins.verify._tree.query import Query
from robench_plugins.verify._tree.search import MEMORY, SPACE, TIME, Clock, Ended, crowded

__all__ = ["halve"]

STUCK = "a box can be halved no more"
"""Why a search stops without an answer."""


@dataclass(eq=False)
class _Boxes:
    sample: Tensor
    lower: Tensor
    upper: Tensor
    bound: Tensor
    depth: Tensor

    def take(self, chosen: Tensor) -> _Boxes:
        return _Boxes(*(getattr(self, one.name)[chosen] for one in fields(self)))

    def and_(self, other: _Boxes) -> _Boxes:
        return _Boxes(*(torch.cat((getattr(self, one.name), getattr(other, one.name))) for one in fields(self)))


def halve(graph: Graph, region: Region, query: Query, refuter: Refuter, clock: Clock, batch: int) -> Ended:
    """Halve the boxes of `region` [B] until every piece is proven, a point refutes the sample, or time is over."""
    samples, device = len(region), region.lower.device
    ended = Ended.of(samples, device)
    every = torch.arange(samples, device=device)
    unknown = torch.full((samples,), -math.inf, dtype=torch.float64, device=device)
    boxes = _Boxes(every, region.lower, region.upper, unknown, torch.zeros_like(every))
    while len(boxes.sample):
        start = time.perf_counter()
        late = clock.over().to(device) & ~refuter.found
        boxes = _dropped(boxes, refuter.found, ended, None)
        boxes = _dropped(boxes, late, ended, TIME)
        if len(boxes.sample) * (16 * region.lower[0].numel() + 32) > MEMORY:
            boxes = _dropped(boxes, crowded(boxes.sample, samples), ended, SPACE)
        if not len(boxes.sample):
            break
        order = boxes.bound.argsort(stable=True)
        taken, boxes = boxes.take(order[:batch]), boxes.take(order[batch:])
        try:
            left, points, slope = _bounded(graph, region, query, taken)
            refuter.consider(points, left.sample)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            alone = torch.zeros_like(late)
            alone[taken.sample] = len(taken.sample) == 1
            boxes = _dropped(taken.and_(boxes), alone, ended, SPACE)
            batch = max(1, len(taken.sample) // 2)
        else:
            ended.nodes += torch.bincount(taken.sample, minlength=samples)
            if len(left.sample):
                ended.depth = ended.depth.scatter_reduce(0, left.sample, left.depth, "amax")
                children, stuck = _halves(left, slope)
                ended.left(stuck.sample, stuck.bound, STUCK)
                boxes = boxes.and_(children)
        clock.charge(taken.sample, time.perf_counter() - start)
    return ended.settled(refuter.found)


def _bounded(graph: Graph, region: Region, query: Query, boxes: _Boxes) -> tuple[_Boxes, Tensor, Tensor]:
    """Return the boxes that stay open, the points where their bounds are met, and the rows that bound them."""
    part = region.select(boxes.sample)
    part = replace(part, lower=boxes.lower, upper=boxes.upper)
    if part.eps is None:
        part = replace(part, centre=boxes.lower / 2 + boxes.upper / 2)
    here = ~_apart(part)
    part, boxes = part.select(here.nonzero()[:, 0]), boxes.take(here)
    if not len(boxes.sample):
        return boxes, part.centre, part.centre
    known = bounded(graph, part, "crown")
    asked = query.select(boxes.sample)
    owner, row = (asked.disjunct >= 0).nonzero(as_tuple=True)
    rows = replace(asked.ask(known.program.last, owner, row), owners=Owners(owner))
    reached = lower_bounds(known.program, part, known.lines, rows, errors=known.errors)
    bound = torch.full(asked.disjunct.shape, math.inf, dtype=torch.float64, device=owner.device)
    bound[owner, row] = reached.bound
    still = asked.unsettled(bound > 0)
    bound = torch.where(still, bound, math.inf)
    least, worst = bound.min(1)
    place = torch.zeros(asked.disjunct.shape, dtype=torch.int64, device=owner.device)
    place[owner, row] = torch.arange(len(owner), device=owner.device)
    left = still.any(1).nonzero()[:, 0]
    slope = reached.rows[place[left, worst[left]]]
    open_ = replace(boxes.take(left), bound=least[left])
    points = part.select(left).minimiser(slope, Owners(torch.arange(len(left), device=left.device), 1))
    return open_, points, slope


def _apart(part: Region) -> Tensor:
    """Bool [N]: which boxes lie outside the ball, beyond rounding."""
    if part.eps is None:
        return torch.zeros(len(part), dtype=torch.bool, device=part.lower.device)
    away = torch.maximum(part.lower - part.centre, part.centre - part.upper).clamp_min(0).flatten(1)
    # In units of the radius, so that squares neither overflow nor vanish where it matters; inf / inf is not apart.
    share = away / part.eps.clamp_min(2.0**-1000)[:, None]
    far = share.sum(1) if part.norm == "l1" else share.clamp_max(2.0**500).square().sum(1).sqrt()
    return far * (1 - 4 * gamma(away.shape[1] + 12)) > 1


def _halves(boxes: _Boxes, slope: Tensor) -> tuple[_Boxes, _Boxes]:
    """Halve each box along the input that moves its bound most; return the halves and the boxes that are stuck."""
    width = (boxes.upper - boxes.lower).flatten(1)
    middle = (boxes.lower / 2 + boxes.upper / 2).flatten(1)
    able = (middle > boxes.lower.flatten(1)) & (middle < boxes.upper.flatten(1))
    # Where no slope tells, the widest side.
    score = torch.where(able, slope.flatten(1).abs() * width + 1e-9 * width / width.amax(1, keepdim=True), -1.0)
    axis = score.argmax(1)
    fine = able.any(1)
    stuck = boxes.take(~fine)
    boxes, axis, middle = boxes.take(fine), axis[fine], middle[fine]
    every = torch.arange(len(axis), device=axis.device)
    lower, upper = boxes.lower.flatten(1).clone(), boxes.upper.flatten(1).clone()
    lower[every, axis] = upper[every, axis] = middle[every, axis]
    shape = boxes.lower.shape
    deeper = boxes.depth + 1
    first = replace(boxes, upper=upper.reshape(shape), depth=deeper)
    return first.and_(replace(boxes, lower=lower.reshape(shape), depth=deeper)), stuck


def _dropped(boxes: _Boxes, gone: Tensor, ended: Ended, reason: str | None) -> _Boxes:
    out = gone[boxes.sample]
    if reason is not None and bool(out.any()):
        ended.left(boxes.sample[out], boxes.bound[out], reason)
    return boxes.take(~out)
