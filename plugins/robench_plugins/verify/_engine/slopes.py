"""Slopes and multipliers by gradient ascent on each row's bound.

alpha-CROWN (Xu et al. 2021) and beta-CROWN (Wang et al. 2021). Every row has slopes of its own. Adam with a decaying
step; a row keeps the best that it has seen, so more steps never make it worse.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robench_plugins.verify._engine.backward import Rows, Split, fitted, lower_bounds
from robench_plugins.verify._engine.owners import Owners
from robench_plugins.verify._engine.program import Program
from robench_plugins.verify._engine.region import Region
from robench_plugins.verify._engine.relax import Lines

__all__ = ["Chosen", "Decided", "Schedule", "default_slopes", "optimise"]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: Adam's steps, its rates for slopes and multipliers, and their decay per step.

    Defaults as published with alpha-beta-CROWN (rates .5 and .05; decay .98).
    """

    steps: int = 20
    slope_rate: float = 0.5
    split_rate: float = 0.05
    decay: float = 0.98


@dataclass(frozen=True, eq=False)
class Decided:
    """Signs decided at one ReLU's input, whose multipliers are to be found; [R, K] each.

    Attributes:
        unit: flat positions.
        sign: ±1, or 0 where there is none.
        push: multipliers ≥ 0 to start from.
        slope: of the line below while the sign was open, NaN for those to start from `push`. The others start where
            the constraint makes up for that line, so that a piece's first bound is not below that of the whole.
    """

    unit: Tensor
    sign: Tensor
    push: Tensor
    slope: Tensor

    @property
    def split(self) -> Split:
        """The constraints with the multipliers to start from."""
        return Split(self.unit, self.sign * self.push)

    def started(self, coefficients: Tensor) -> Tensor:
        """Return the multipliers to start from, for rows [R, ...] that arrive at the ReLU.

        Where a coefficient a is positive, a α x was below a r(x) and becomes a x − β x, or 0 + β x where x ≤ 0.
        """
        pull = coefficients.flatten(1).gather(1, self.unit).clamp_min(0)
        level = torch.where(self.sign > 0, 1 - self.slope, self.slope)
        return torch.where(self.slope.isnan(), self.push, pull * level)


@dataclass(frozen=True, eq=False)
class Chosen:
    """The best bound of each row [R] that was seen (rounded to nearest), with its slopes and split constraints."""

    bound: Tensor
    slopes: dict[int, Tensor]
    splits: dict[int, Split]

    def take(self, rows: Tensor) -> Chosen:
        """Return some rows, bool or int64."""
        return Chosen(
            self.bound[rows],
            {position: values[rows] for position, values in self.slopes.items()},
            {position: Split(one.unit[rows], one.push[rows]) for position, one in self.splits.items()},
        )


def default_slopes(program: Program, lines: Lines, rows: Rows) -> dict[int, Tensor]:
    """Return CROWN's own slopes of every activation before the rows, one set per row."""
    made = {}
    for position in program.activations:
        if position <= rows.at and position in lines:
            line = lines[position]
            low = rows.owners.of(line.lower_slope)
            made[position] = (
                low if line.lower_shift is None else torch.stack((low, rows.owners.of(line.upper_slope)), 1)
            )
    return made


def optimise(
    program: Program,
    region: Region,
    lines: Lines,
    rows: Rows,
    *,
    schedule: Schedule,
    slopes: Mapping[int, Tensor] | None = None,
    decided: Mapping[int, Decided] | None = None,
    enough: float | None = None,
    seconds: float = math.inf,
) -> Chosen:
    """Return slopes (and multipliers) that raise the rows' bounds; everything in one dtype, nothing proven.

    Args:
        program: constants in the dtype to compute in.
        region: the sets.
        lines: of every activation before the rows.
        rows: what is asked.
        schedule: steps and rates.
        slopes: where to start [R, ...]; CROWN's own by default.
        decided: signs by ReLU.
        enough: stop when every bound is above this.
        seconds: stop when they are over, after one step at least.
    """
    region, lines, rows = _per_row(region, lines, rows)
    start = default_slopes(program, lines, rows) if slopes is None else fitted(slopes, lines, rows.owners)
    climb = whole = _Climb.of(
        start, *_constraints(program, region, lines, rows, start, decided or {}), lines, rows, schedule
    )
    best = climb.values()
    top = torch.full((len(rows),), -torch.inf, dtype=region.lower.dtype, device=region.lower.device)
    alive = torch.arange(len(rows), device=top.device)
    deadline = time.perf_counter() + seconds
    for turn in range(schedule.steps + 1):
        last = turn == schedule.steps
        with torch.set_grad_enabled(not last), torch.inference_mode(False):
            made, pushed = climb.assembled(not last)
            bound = lower_bounds(program, region, lines, rows, slopes=made, splits=pushed).bound
        value = bound.detach()
        better = (value > top[alive]) | ((top[alive] == -torch.inf) & ~value.isnan())
        top[alive[better]] = value[better]
        for kept, now in zip(best, climb.values(), strict=True):
            kept[alive[better]] = now[better]
        if not bound.requires_grad:
            break
        done = torch.zeros_like(better) if enough is None else top[alive] > enough
        if bool(done.all()) or time.perf_counter() > deadline:
            break
        climb.step(bound, turn)
        if rows.owners.each == 1 and int(done.sum()) * 4 >= len(alive):
            left = (~done).nonzero()[:, 0]
            alive, climb = alive[left], climb.take(left)
            region, rows = region.at(left), rows.take(left)
            lines = {position: line.select(left) for position, line in lines.items()}
            rows = replace(rows, owners=Owners(torch.arange(len(left), device=left.device), 1))
    return Chosen(top, *whole.named(best))


@dataclass(eq=False)
class _Climb:
    """Variables of some rows, their moments, and how far each may move: not at all, or in units of its scale."""

    names: list[tuple[str, int]]
    variables: list[Tensor]
    free: list[Tensor]
    splits: dict[int, tuple[Tensor, Tensor]]
    first: list[Tensor]
    second: list[Tensor]
    schedule: Schedule

    @classmethod
    def of(
        cls,
        slopes: Mapping[int, Tensor],
        decided: Mapping[int, Decided],
        scales: Mapping[int, Tensor],
        lines: Lines,
        rows: Rows,
        schedule: Schedule,
    ) -> _Climb:
        names = [("slope", position) for position in slopes] + [("split", position) for position in decided]
        variables = [*slopes.values(), *(one.push for one in decided.values())]
        variables = [value.detach().clone() for value in variables]
        free = [_free(lines, rows, position, value) for position, value in slopes.items()]
        free += [(one.sign != 0) * scales[position] for position, one in decided.items()]
        zeros = [torch.zeros_like(value) for value in variables]
        fixed = {position: (one.unit, one.sign) for position, one in decided.items()}
        return cls(names, variables, free, fixed, zeros, [value.clone() for value in zeros], schedule)

    def values(self) -> list[Tensor]:
        """Return copies of the variables."""
        return [value.detach().clone() for value in self.variables]

    def assembled(self, differentiable: bool) -> tuple[dict[int, Tensor], dict[int, Split]]:
        """Return slopes and split constraints made of the variables."""
        self.variables = [value.detach().requires_grad_(differentiable) for value in self.variables]
        return self.named(self.variables)

    def named(self, values: Sequence[Tensor]) -> tuple[dict[int, Tensor], dict[int, Split]]:
        """Return slopes and split constraints made of `values`, whichever rows are left."""
        slopes, pushed = {}, {}
        for (kind, position), value in zip(self.names, values, strict=True):
            if kind == "slope":
                slopes[position] = value
            else:
                unit, sign = self.splits[position]
                pushed[position] = Split(unit, sign * value)
        return slopes, pushed

    def step(self, bound: Tensor, turn: int) -> None:
        """Take one step of Adam up the bounds' gradients."""
        gradients: Sequence[Tensor | None] = torch.autograd.grad(
            bound, self.variables, torch.ones_like(bound), allow_unused=True
        )
        with torch.no_grad():
            for k, (gradient, (kind, _)) in enumerate(zip(gradients, self.names, strict=True)):
                if gradient is None:
                    continue
                rate = self.schedule.slope_rate if kind == "slope" else self.schedule.split_rate
                self.first[k].lerp_(gradient, 0.1)
                self.second[k].lerp_(gradient.square(), 0.001)
                root = (self.second[k] / (1 - 0.999 ** (turn + 1))).sqrt_().add_(1e-8)
                step = (self.first[k] / root).mul_(rate * self.schedule.decay**turn / (1 - 0.9 ** (turn + 1)))
                moved = (self.variables[k].detach() + step.mul_(self.free[k])).clamp_min_(0)
                self.variables[k] = moved.clamp_max_(1) if kind == "slope" else moved

    def take(self, rows: Tensor) -> _Climb:
        """Return some rows [int64]."""
        return _Climb(
            self.names,
            [value.detach()[rows] for value in self.variables],
            [mask[rows] for mask in self.free],
            {position: (unit[rows], sign[rows]) for position, (unit, sign) in self.splits.items()},
            [value[rows] for value in self.first],
            [value[rows] for value in self.second],
            self.schedule,
        )


def _per_row(region: Region, lines: Lines, rows: Rows) -> tuple[Region, Lines, Rows]:
    """Give every row a region and lines of its own where they would be gathered in every step otherwise."""
    if rows.owners.each:
        return region, lines, rows
    index = rows.owners.index
    taken = {position: line.select(index) for position, line in lines.items() if position <= rows.at}
    own = Owners(torch.arange(len(index), device=index.device), 1)
    return region.at(index), taken, replace(rows, owners=own)


def _constraints(
    program: Program,
    region: Region,
    lines: Lines,
    rows: Rows,
    slopes: Mapping[int, Tensor],
    decided: Mapping[int, Decided],
) -> tuple[dict[int, Decided], dict[int, Tensor]]:
    """Return the signs with multipliers to start from, and the size of the coefficients they compete with [R, 1]."""
    if not decided:
        return {}, {}
    seen: dict[int, Tensor] = {}
    pushed = {position: one.split for position, one in decided.items()}
    with torch.no_grad():
        lower_bounds(program, region, lines, rows, slopes=slopes, splits=pushed, seen=seen)
    made, scales = {}, {}
    for position, one in decided.items():
        if position in seen:
            made[position] = replace(one, push=one.started(seen[position]))
            scales[position] = seen[position].flatten(1).abs().amax(1, keepdim=True)
    return made, scales


def _free(lines: Lines, rows: Rows, position: int, value: Tensor) -> Tensor:
    """Return 1 where a slope may move, 0 elsewhere."""
    unstable = rows.owners.of(lines[position].unstable).to(value)
    return unstable if lines[position].lower_shift is None else unstable[:, None].expand_as(value)
