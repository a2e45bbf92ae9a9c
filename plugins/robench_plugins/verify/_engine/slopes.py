"""Slopes and multipliers by gradient ascent on each row's bound (alpha-CROWN, Xu et al. 2021; beta-CROWN, Wang et al. 2021).

Every row has slopes of its own. Adam with a decaying step; a row keeps the best that it has seen, so more steps never
make it worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robench_plugins.verify._engine.backward import Rows, Split, fitted, lower_bounds
from robench_plugins.verify._engine.lower import Program
from robench_plugins.verify._engine.region import Region
from robench_plugins.verify._engine.relax import Lines

__all__ = ["Chosen", "Schedule", "default_slopes", "optimise"]


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
        if position < rows.at and position in lines:
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
    splits: Mapping[int, tuple[Tensor, Tensor, Tensor]] | None = None,
    enough: float | None = None,
) -> Chosen:
    """Return slopes (and multipliers) that raise the rows' bounds; everything in one dtype, nothing proven.

    Args:
        program: constants in the dtype to compute in.
        region: the sets.
        lines: of every activation before the rows.
        rows: what is asked.
        schedule: steps and rates.
        slopes: where to start [R, ...]; CROWN's own by default.
        splits: by activation (unit [R, K], sign ±1 or 0 where there is none [R, K], multiplier ≥ 0 to start from [R, K]).
        enough: stop when every bound is above this.
    """
    start = default_slopes(program, lines, rows) if slopes is None else fitted(slopes, lines, rows.owners)
    variables = [value.clone() for value in start.values()]
    names: list[tuple[str, int]] = [("slope", position) for position in start]
    free = [_free(lines, rows, position, value) for position, value in start.items()]
    for position, (_, _, multiplier) in (splits or {}).items():
        names.append(("split", position))
        variables.append(multiplier.clone())
        free.append(None)
    first = [torch.zeros_like(value) for value in variables]
    second = [torch.zeros_like(value) for value in variables]
    best = [value.clone() for value in variables]
    top = torch.full((len(rows),), -torch.inf, dtype=variables[0].dtype if variables else region.lower.dtype)
    top = top.to(region.lower.device)
    for turn in range(schedule.steps + 1):
        last = turn == schedule.steps or not variables
        with torch.set_grad_enabled(not last):
            used = [value.requires_grad_(not last) for value in variables]
            made, pushed = _assemble(names, used, splits)
            bound = lower_bounds(program, region, lines, rows, slopes=made, splits=pushed).bound
        better = ~(bound.detach() <= top) & ~bound.detach().isnan()
        top = torch.where(better, bound.detach(), top)
        for kept, value in zip(best, variables, strict=True):
            shape = [-1, *[1] * (value.dim() - 1)]
            kept.copy_(torch.where(better.reshape(shape), value.detach(), kept))
        if not bound.requires_grad or (enough is not None and bool((top > enough).all())):
            break
        gradients = torch.autograd.grad(bound, variables, torch.ones_like(bound), allow_unused=True)
        decay = schedule.decay**turn
        with torch.no_grad():
            for k, gradient in enumerate(gradients):
                if gradient is None:
                    continue
                kind, _ = names[k]
                rate = (schedule.slope_rate if kind == "slope" else schedule.split_rate) * decay
                first[k].mul_(0.9).add_(gradient, alpha=0.1)
                second[k].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
                step = (first[k] / (1 - 0.9 ** (turn + 1))) / ((second[k] / (1 - 0.999 ** (turn + 1))).sqrt() + 1e-8)
                mask = free[k]
                step = step if mask is None else step * mask
                moved = (variables[k].detach() + rate * step).clamp_min(0)
                variables[k] = moved.clamp_max(1) if kind == "slope" else moved
    made, pushed = _assemble(names, best, splits)
    return Chosen(top, made, pushed)


def _free(lines: Lines, rows: Rows, position: int, value: Tensor) -> Tensor:
    """Return 1 where a slope may move, 0 elsewhere."""
    unstable = rows.owners.of(lines[position].unstable).to(value)
    return unstable if lines[position].lower_shift is None else unstable[:, None].expand_as(value)


def _assemble(
    names: list[tuple[str, int]], values: list[Tensor], splits: Mapping[int, tuple[Tensor, Tensor, Tensor]] | None
) -> tuple[dict[int, Tensor], dict[int, Split]]:
    slopes = {position: value for (kind, position), value in zip(names, values, strict=True) if kind == "slope"}
    pushed = {}
    for (kind, position), value in zip(names, values, strict=True):
        if kind == "split":
            assert splits is not None
            unit, sign, _ = splits[position]
            pushed[position] = Split(unit, sign * value)
    return slopes, pushed
