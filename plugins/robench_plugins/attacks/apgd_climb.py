"""Auto-PGD over rows: the ascent of Croce & Hein 2020 (Algorithm 1) and 2021, several runs per sample side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robench.classifier import Classifier
from robench.numerics import per_sample
from robench_plugins.attacks._apgd_walk import Walk, select
from robench_plugins.attacks.apgd_losses import Look, look
from robench_plugins.attacks.apgd_rules import checkpoints, thinning_checkpoints
from robench_plugins.attacks.apgd_steps import widened
from robench_plugins.attacks.gradients import rounding
from robench_plugins.attacks.losses import Loss
from robench_plugins.attacks.regions import Region
from robench_plugins.attacks.search import Found, Noise, rank_of

__all__ = ["Ascent", "climb"]


@dataclass(frozen=True)
class Ascent:
    """How to ascend.

    Attributes:
        loss: the loss to increase.
        phases: (radius in units of ε, steps), one after the other; the last has radius 1 and looks for errors.
        size: the first step of each phase, in units of its radius.
        rho: the share of rising steps below which the step is halved.
        momentum: α, the weight of the new step against the last move.
        early_exit: whether an error ends all runs of its sample.
    """

    loss: Loss
    phases: Sequence[tuple[float, int]]
    size: float
    rho: float = 0.75
    momentum: float = 0.75
    early_exit: bool = True


@dataclass(eq=False)
class _Rows:
    """The rows still in the batch, and the point of lowest margin that each has met within ε."""

    id: Tensor
    owner: Tensor
    y: Tensor
    target: Tensor | None
    best: Tensor
    rank: Tensor
    margin: Tensor
    step: Tensor
    settled: Tensor
    walk: Walk = field(init=False)

    def record(self, now: Look, step: int) -> None:
        """Keep the current points where they are the best so far."""
        rank = rank_of(now.margin)
        better = rank < self.rank
        self.best = torch.where(per_sample(better, self.best), self.walk.point, self.best)
        self.rank = torch.minimum(rank, self.rank)
        self.margin = torch.where(better, now.margin, self.margin)
        self.step = self.step.masked_fill(better, step)
        self.settled = self.settled | (now.margin < -rounding(now.scale))

    def write(self, out: Found, forwards: int, backwards: int) -> None:
        """Put what these rows found into `out`."""
        for name in ("margin", "step", "settled"):
            getattr(out, name)[self.id] = getattr(self, name)
        out.points[self.id] = self.best
        out.forwards[self.id], out.backwards[self.id] = forwards, backwards


@dataclass(eq=False)
class _Climb:
    """One call of `climb`: what stays the same, and how much was done."""

    classifier: Classifier
    ascent: Ascent
    noise: Noise
    samples: int
    out: Found
    steps: int = 0
    forwards: int = 0
    backwards: int = 0

    def look(self, rows: _Rows, point: Tensor, unit: Tensor | float | None = None, steer: bool = True) -> Look:
        """Look at a point per row, counting the passes."""
        plan = self.ascent
        self.forwards += 1
        self.backwards += steer
        return look(self.classifier, point, rows.y, plan.loss, rows.target, unit=unit, steer=steer)

    def phase(self, rows: _Rows, region: Region, start: Tensor, steps: int, hunting: bool) -> Tensor:
        """Ascend for some steps and return the points of highest loss; `hunting`, put what is found into `out`."""
        now = self.look(rows, start)
        rows.walk = Walk.begin(region, start, now, self.ascent.size, informed=len(self.ascent.phases) > 1)
        marks = [0, *(thinning_checkpoints if region.norm == "l1" else checkpoints)(steps)]
        for step in range(steps):
            if hunting:
                rows.record(now, self.steps)
            if step < 4 or step % 4 == 0:
                left = self.tidy(rows, hunting)
                if left is None:
                    return start
                rows = left
            if len(marks) > 1 and step == marks[1]:
                rows.walk.revise(step - marks.pop(0), self.ascent.rho)
            rows.walk.advance(self.ascent.momentum if step else 1.0)
            self.steps += 1
            now = self.look(rows, rows.walk.point, rows.walk.unit, steer=step + 1 < steps)
            rows.walk.note(now)
        if hunting:
            rows.record(now, self.steps)
            rows.write(self.out, self.forwards, self.backwards)
        return rows.walk.top

    def tidy(self, rows: _Rows, hunting: bool) -> _Rows | None:
        """Let settled samples go, and draw a random way for rows without a direction; None when no row is left."""
        flat = rows.walk.flat
        broken = torch.zeros(self.samples, dtype=torch.int64, device=flat.device)
        broken.index_add_(0, rows.owner, rows.settled.long() * (hunting and self.ascent.early_exit))
        stays = broken[rows.owner] == 0
        staying, stuck = torch.stack([stays.sum(), (flat & stays).sum()]).tolist()
        if staying < len(stays):
            select(rows, ~stays).write(self.out, self.forwards, self.backwards)
            if not staying:
                return None
            rows, flat = select(rows, stays), flat[stays]
        if stuck:
            walk = rows.walk
            walk.noise = torch.zeros_like(walk.point) if walk.noise is None else walk.noise.clone()
            walk.noise[flat] = self.noise(rows.id[flat], self.steps)
        return rows


def climb(
    classifier: Classifier,
    region: Region,
    y: Tensor,
    owner: Tensor,
    start: Tensor,
    ascent: Ascent,
    noise: Noise,
    target: Tensor | None = None,
) -> Found:
    """Ascend from `start` [R, ...] and return the point of lowest margin that every row met, as `search` does.

    `owner` [R] says which sample a row works for: all rows of a sample leave as soon as one has broken it. The batch
    is compacted by step number alone, after the first four steps of the last phase and then after every fourth.
    """
    count, none = len(y), torch.zeros_like(y)
    out = Found(start.clone(), start.new_full((count,), torch.nan), none, none > 0, none.clone(), none.clone())
    if not count:
        return out
    run = _Climb(classifier, ascent, noise, int(owner.max()) + 1, out)
    for number, (radius, steps) in enumerate(ascent.phases):
        part = widened(region, radius)
        start = part.project(start)
        rows = _Rows(
            id=torch.arange(count, device=y.device),
            owner=owner,
            y=y,
            target=target,
            best=start,
            rank=torch.full_like(out.margin, torch.inf),
            margin=out.margin.clone(),
            step=none,
            settled=out.settled.clone(),
        )
        start = run.phase(rows, part, start, steps, hunting=number == len(ascent.phases) - 1)
    return out
