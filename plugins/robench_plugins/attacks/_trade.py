"""The searches of Carlini & Wagner (2017): Adam on distance + c · hinge, and a binary search on c, per row."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from robench import Passes
from robench.classifier import Classifier
from robench.numerics import per_sample
from robench.threat import Norm
from robench_plugins.attacks._nearest import Nearest, Slope, slope
from robench_plugins.attacks._runs import Rows
from robench_plugins.attacks._variables import Change, Variables

__all__ = ["Plan", "trade"]

_DECAY = (0.9, 0.999)
_STUCK = 0.9999


@dataclass(frozen=True)
class Plan:
    """Steps per value of c, values of c, the first of them, Adam's rate, the variable, and whether to end early."""

    steps: int
    search: int
    first: float
    rate: float
    change: Change
    abort_early: bool


@dataclass(eq=False)
class _State:
    """Per row [R, ...]: where the descent stands, Adam's moments, and the search on c.

    `unit` and `length` are the value and the distance that count as 1, `stride` the step of Adam at rate 1.
    """

    id: Tensor
    x: Tensor
    y: Tensor
    target: Tensor
    unit: Tensor
    length: Tensor
    stride: Tensor
    begin: Tensor
    w: Tensor
    mean: Tensor
    square: Tensor
    c: Tensor
    low: Tensor
    high: Tensor
    round: Tensor
    taken: Tensor
    loss: Tensor
    before: Tensor
    hit: Tensor

    def select(self, rows: Tensor) -> _State:
        return _State(*[getattr(self, item.name)[rows] for item in fields(self)])

    def turn(self, over: Tensor) -> None:
        """End the descents `over`: halve the interval of c, or take ten times as much where none has worked yet."""
        self.high = torch.where(over & self.hit, torch.minimum(self.high, self.c), self.high)
        self.low = torch.where(over & ~self.hit, torch.maximum(self.low, self.c), self.low)
        following = torch.where(self.high.isfinite(), (self.low + self.high) / 2, self.c * 10)
        self.c = torch.where(over, following, self.c)
        self.round = self.round + over.long()
        self.taken = torch.where(over, 0, self.taken)
        self.before = torch.where(over, torch.inf, self.loss)
        self.hit = self.hit & ~over
        again = per_sample(over, self.w)
        self.w = torch.where(again, self.begin, self.w)
        self.mean, self.square = self.mean.masked_fill(again, 0), self.square.masked_fill(again, 0)

    def descend(self, now: Slope, point: Tensor, variables: Variables, rate: float) -> None:
        """Take a step of Adam (Kingma & Ba 2015) on ‖δ‖²/length² + c · max(value, 0)/unit, met at `point`."""
        delta, above = point - self.x, now.value > 0
        self.hit = self.hit | (now.value <= 0)
        distance = torch.linalg.vector_norm(delta.flatten(1), dim=1) / self.length
        self.loss = distance.square() + self.c * now.value.clamp_min(0) / self.unit
        pull = delta / per_sample(self.length / 2, delta) / per_sample(self.length, delta)
        push = torch.where(above, self.c * (now.peak / self.unit), 0)
        g = variables.gradient(self.w, pull - per_sample(push, delta) * now.steepest)
        self.taken = self.taken + 1
        self.mean = _DECAY[0] * self.mean + (1 - _DECAY[0]) * g
        self.square = _DECAY[1] * self.square + (1 - _DECAY[1]) * g.square()
        first, second = (1 - decay ** self.taken.to(g.dtype) for decay in _DECAY)
        step = self.mean / per_sample(first, g) / ((self.square / per_sample(second, g)).sqrt() + 1e-8)
        self.w = variables.kept(self.w - per_sample(rate * self.stride, g) * step)


def trade(classifier: Classifier, rows: Rows, plan: Plan) -> tuple[Nearest, Passes]:
    """Search from `rows.start`; returns the nearest point of every row and the passes spent.

    A tenth of the steps at a time, each row for itself: is its descent over, or stuck, and is its search? All that
    happens in between is the same for every row, so that none depends on the others.
    """
    norm: Norm = "l2"
    best, window = Nearest.none(rows.x, norm), -(-plan.steps // 10)
    out, cost = best.select(rows.id), torch.zeros_like(rows.id)
    now = slope(classifier, rows.x, rows.y, rows.target)
    best.record(rows.x, now.margin, now.scale, 0)
    variables = Variables(plan.change, rows.lower, rows.upper)
    state = _begin(rows, now, variables, plan.first)
    for step in range(10 * window * plan.search + 1):
        if step % window == 0:
            over = state.taken >= plan.steps
            state.turn(over | (state.loss > _STUCK * state.before) if plan.abort_early else over)
            gone = (state.round >= plan.search) | (best.sure == 0)
            if bool(gone.any()):
                out.put(state.id[gone], best.select(gone))
                cost[state.id[gone]] = step + 1
                state, best, variables = state.select(~gone), best.select(~gone), variables.select(~gone)
                if not len(state.id):
                    break
        point = variables.point(state.w)
        now = slope(classifier, point, state.y, state.target)
        best.record(point, now.margin, now.scale, step)
        state.descend(now, point, variables, plan.rate)
    return out, Passes(cost, cost.clone())


def _begin(rows: Rows, now: Slope, variables: Variables, first: float) -> _State:
    """Return the state before the first step; `now` is the slope at the clean inputs.

    1 is the value there, and the distance at which it would be 0 if it were linear. A linear classifier without a box
    then needs c > 2 whatever the scale of inputs and logits.
    """
    boundary = now.boundary("l2")
    nowhere = torch.minimum(rows.reach, rows.length)
    length = torch.where(boundary.isfinite(), torch.minimum(boundary, rows.reach), nowhere)
    tiny = torch.finfo(length.dtype).tiny
    length, unit = length.clamp_min(tiny), now.value.clamp_min(tiny)
    size = torch.linalg.vector_norm(now.steepest.flatten(1), dim=1).clamp_min(1)
    one, none, w = torch.ones_like(unit), torch.zeros_like(rows.id), variables.of(rows.start)
    return _State(
        id=rows.id,
        x=rows.x,
        y=rows.y,
        target=rows.target,
        unit=unit,
        length=length,
        # Where x is the variable: what the largest entry moves on the way to the boundary.
        stride=length / size if variables.change == "direct" else one,
        begin=w,
        w=w,
        mean=torch.zeros_like(w),
        square=torch.zeros_like(w),
        c=first * one,
        low=0 * one,
        high=torch.inf * one,
        round=none,
        taken=none,
        loss=torch.inf * one,
        before=torch.inf * one,
        hit=none > 0,
    )
