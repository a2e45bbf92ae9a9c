"""The state of Auto-PGD's rows while they ascend: where they are, the highest point so far, the step size rule."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

from robench.numerics import per_sample
from robench_plugins.attacks.apgd_losses import Look
from robench_plugins.attacks.apgd_rules import Halving, Thinning
from robench_plugins.attacks.apgd_steps import momentum_step, sparse_step
from robench_plugins.attacks.regions import Region

__all__ = ["Walk", "select"]

_T = TypeVar("_T")


@dataclass(eq=False)
class Walk:
    """One entry per row; `top` is the point of highest loss so far, with its gradient and its loss."""

    region: Region
    point: Tensor
    last: Tensor
    way: Tensor
    loss: Tensor
    unit: Tensor | float
    top: Tensor
    top_way: Tensor
    top_loss: Tensor
    rule: Halving | Thinning
    noise: Tensor | None = None

    @classmethod
    def begin(cls, region: Region, start: Tensor, now: Look, size: float, informed: bool) -> Walk:
        """Return the state at `start` [R, ...], seen as `now`; `informed`: see `Thinning.begin`."""
        assert now.way is not None
        rule: Halving | Thinning
        if region.norm == "l1":
            rule = Thinning.begin(size, _changed(start, region), start[0].numel(), informed)
        else:
            rule = Halving.begin(size, now.loss)
        return cls(region, start, start, now.way, now.loss, now.unit, start, now.way, now.loss, rule)

    def select(self, rows: Tensor) -> Walk:
        """Return some rows (bool mask)."""
        return select(self, rows)

    @property
    def flat(self) -> Tensor:
        """The rows without a direction, bool [R]."""
        return ~self.way.flatten(1).any(1)

    def note(self, now: Look) -> None:
        """Take in what was seen at the points of the last step."""
        if isinstance(self.rule, Halving):
            self.rule.note(now.loss > self.loss + now.blur)
        higher = now.loss > self.top_loss + now.blur
        mask = per_sample(higher, self.point)
        self.top, self.top_loss = torch.where(mask, self.point, self.top), torch.where(higher, now.loss, self.top_loss)
        self.loss = now.loss
        if now.way is not None:
            self.way, self.top_way = now.way, torch.where(mask, now.way, self.top_way)

    def revise(self, interval: int, rho: float) -> None:
        """Pass a checkpoint, `interval` steps after the last one: rows that the rule sends back go to their top."""
        if isinstance(self.rule, Halving):
            back = self.rule.revise(interval, rho, self.top_loss)
        else:
            back = self.rule.revise(_changed(self.top, self.region))
        mask = per_sample(back, self.point)
        self.point, self.way = torch.where(mask, self.top, self.point), torch.where(mask, self.top_way, self.way)

    def advance(self, momentum: float) -> None:
        """Take a step; rows without a direction go their own random way, from x where logits are not finite."""
        way, point = self.way, self.point
        if self.noise is not None:
            way = torch.where(per_sample(self.flat, way), self.noise, way)
            point = torch.where(per_sample(self.loss == -torch.inf, point), self.region.x, point)
        if isinstance(self.rule, Halving):
            self.point = momentum_step(self.region, point, self.last, way, self.rule.size, momentum)
        else:
            self.point = sparse_step(self.region, point, way, self.rule.size, self.rule.moved)
        self.last = point


def select(value: _T, rows: Tensor) -> _T:
    """Return a copy of a dataclass with some rows (bool mask) of every field that has any."""
    out = copy.copy(value)
    for item in fields(value):  # type: ignore[arg-type]
        part = getattr(value, item.name)
        if isinstance(part, Tensor):
            setattr(out, item.name, part[rows])
        elif isinstance(part, Region | Walk):
            setattr(out, item.name, part.select(rows))
        elif isinstance(part, Halving | Thinning):
            setattr(out, item.name, select(part, rows))
    return out


def _changed(point: Tensor, region: Region) -> Tensor:
    """Return in how many coordinates the points differ from the clean input, int64 [R]."""
    return (point != region.x).flatten(1).sum(1)
