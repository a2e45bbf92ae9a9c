"""Projected gradient ascent over rows: several runs per sample side by side, settled samples leaving early."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from robench.classifier import Classifier, margins
from robench.numerics import per_sample
from robench_plugins.attacks.gradients import Ascent, ascent, rounding
from robench_plugins.attacks.losses import Loss
from robench_plugins.attacks.regions import Region
from robench_plugins.attacks.steps import move

__all__ = ["Found", "Noise", "Plan", "rank_of", "search"]

Noise = Callable[[Tensor, int], Tensor]
"""(positions of rows [n], step) → a random direction for each [n, ...], from its own stream."""


@dataclass(frozen=True)
class Plan:
    """How to ascend: the loss, the step sizes in units of eps, the momentum, and whether success ends a run."""

    loss: Loss
    sizes: Sequence[float]
    momentum: float = 0.0
    early_exit: bool = True


@dataclass(frozen=True, eq=False)
class Found:
    """The best point of each row [R, ...], its margin and step, whether it settles the sample, and the row's passes.

    The lowest margin wins, NaN ranked by `rank_of`.
    """

    points: Tensor
    margin: Tensor
    step: Tensor
    settled: Tensor
    forwards: Tensor
    backwards: Tensor


def rank_of(margin: Tensor) -> Tensor:
    """Return what points are compared by, lowest best: the margin, with NaN between 0 and every positive one.

    Logits that are not finite are no success, but come before correct ones: reported, such a point is
    counted as an error of the classifier; passed over, it would be hidden.
    """
    return margin.masked_fill(margin.isnan(), torch.finfo(margin.dtype).tiny)


@dataclass(eq=False)
class _Rows:
    """The rows still in the batch; every field has one entry per row."""

    id: Tensor
    owner: Tensor
    y: Tensor
    target: Tensor | None
    region: Region
    point: Tensor
    best: Tensor
    rank: Tensor
    margin: Tensor
    step: Tensor
    settled: Tensor
    velocity: Tensor | None = None
    noise: Tensor | None = None

    def select(self, rows: Tensor) -> _Rows:
        picked: dict[str, Any] = {item.name: _pick(getattr(self, item.name), rows) for item in fields(self)}
        return _Rows(**picked)

    def record(self, margin: Tensor, scale: Tensor, step: int) -> None:
        """Keep the current points where they are the best so far."""
        rank = rank_of(margin)
        better = rank < self.rank
        self.best = torch.where(per_sample(better, self.best), self.point, self.best)
        self.rank = torch.where(better, rank, self.rank)
        self.margin = torch.where(better, margin, self.margin)
        self.step = self.step.masked_fill(better, step)
        self.settled = self.settled | (margin < -rounding(scale))

    def write(self, out: Found, forwards: int, backwards: int) -> None:
        """Put what these rows found into `out`."""
        for name in ("margin", "step", "settled"):
            getattr(out, name)[self.id] = getattr(self, name)
        out.points[self.id] = self.best
        out.forwards[self.id], out.backwards[self.id] = forwards, backwards

    def advance(self, now: Ascent, plan: Plan, size: float) -> None:
        """Take a step; rows without a direction go their own random way, from x where logits are not finite."""
        way, base = now.direction, torch.where(per_sample(now.margin.isnan(), self.point), self.region.x, self.point)
        if self.velocity is not None:
            # MI-FGSM (Dong et al. 2018, eq. 6), with the mean of |∇| for its sum: only the unit differs.
            mean = way.abs().flatten(1).mean(1).clamp_min(torch.finfo(way.dtype).tiny)
            self.velocity = way = plan.momentum * self.velocity + way / per_sample(mean, way)
        if self.noise is not None:
            way = torch.where(per_sample(now.flat, way), self.noise, way)
        self.point = move(self.region, base, way, size)


def search(
    classifier: Classifier,
    region: Region,
    y: Tensor,
    owner: Tensor,
    start: Tensor,
    plan: Plan,
    noise: Noise,
    target: Tensor | None = None,
) -> Found:
    """Ascend from `start` [R, ...] and return the best point of every row.

    `owner` [R] says which sample a row works for: all rows of a sample leave as soon as one has broken it.
    The batch is compacted after the first four steps, then after every fourth: by step number alone, so
    that the fate of a sample does not depend on the others, and seldom, as an accelerator must be waited for.
    """
    count = len(y)

    def column(value: float, dtype: torch.dtype) -> Tensor:
        return torch.full((count,), value, dtype=dtype, device=start.device)

    out = Found(
        points=start.clone(),
        margin=column(torch.nan, start.dtype),
        step=column(0, torch.int64),
        settled=column(False, torch.bool),
        forwards=column(0, torch.int64),
        backwards=column(0, torch.int64),
    )
    if not count:
        return out
    rows = _Rows(
        id=torch.arange(count, device=start.device),
        owner=owner,
        y=y,
        target=target,
        region=region,
        point=start,
        best=start,
        rank=column(torch.inf, start.dtype),
        margin=out.margin,
        step=out.step,
        settled=out.settled,
        velocity=torch.zeros_like(start) if plan.momentum else None,
    )
    samples = int(owner.max()) + 1
    for step, size in enumerate(plan.sizes):
        now = ascent(classifier, rows.point, rows.y, plan.loss, rows.target)
        rows.record(now.margin, now.scale, step)
        if step < 4 or step % 4 == 0:
            broken = torch.zeros(samples, dtype=torch.int64, device=y.device)
            broken = broken.index_add_(0, rows.owner, rows.settled.long() * plan.early_exit)
            stays = broken[rows.owner] == 0
            staying, flat = torch.stack([stays.sum(), (now.flat & stays).sum()]).tolist()
            if staying < len(stays):
                rows.select(~stays).write(out, step + 1, step + 1)
                if not staying:
                    return out
                rows, now = rows.select(stays), now.select(stays)
            if flat:
                rows.noise = torch.zeros_like(rows.point) if rows.noise is None else rows.noise.clone()
                rows.noise[now.flat] = noise(rows.id[now.flat], step)
        rows.advance(now, plan, size)
    with torch.no_grad():
        logits = classifier.logits(rows.point)
    rows.record(margins(logits, rows.y), logits.abs().amax(1), len(plan.sizes))
    rows.write(out, len(plan.sizes) + 1, len(plan.sizes))
    return out


def _pick(value: Tensor | Region | None, rows: Tensor) -> Tensor | Region | None:
    if value is None:
        return None
    return value.select(rows) if isinstance(value, Region) else value[rows]
