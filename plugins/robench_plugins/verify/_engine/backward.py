"""Rows of linear forms pushed back to the input (CROWN, Zhang et al. 2018; DeepPoly, Singh et al. 2019).

A row a at a step, with its constant, is a lower bound a·y + b of what is asked. Every step replaces it by a row at
its own inputs: affine steps exactly, activations by the line below where the coefficient is positive and the line
above where it is negative. A split constraint s·x ≥ 0 adds −β s to the row at x, with any β ≥ 0
(beta-CROWN, Wang et al. 2021).

With `Errors` the result is sound: whatever float64 rounded on the way is subtracted (`affine` has the inequality).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robench.graph.intervals import ieee_arithmetic
from robench.numerics import gamma
from robench_plugins.verify._engine.errors import Errors
from robench_plugins.verify._engine.owners import Owners
from robench_plugins.verify._engine.patches import Patches, added, unit_patches
from robench_plugins.verify._engine.program import Activation, Program, Step
from robench_plugins.verify._engine.region import Region, below
from robench_plugins.verify._engine.relax import Lines, Relaxed, shifts
from robench_plugins.verify._engine.steps import Conv, Linear

__all__ = ["Reached", "Rows", "Split", "fitted", "lower_bounds", "unit_rows"]


@dataclass(frozen=True, eq=False)
class Rows:
    """Linear forms at one step.

    Attributes:
        at: position of the step.
        owners: the sample of each row.
        coefficients: [R, *shape]; or None for signed unit rows.
        unit: flat position of the one entry [R], for unit rows.
        sign: +1 or −1 [R], for unit rows.
        constant: [R] or None.
    """

    at: int
    owners: Owners
    coefficients: Tensor | None = None
    unit: Tensor | None = None
    sign: Tensor | None = None
    constant: Tensor | None = None

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.owners.index)

    def to(self, dtype: torch.dtype) -> Rows:
        """Return the rows in `dtype`."""
        values = {name: getattr(self, name) for name in ("coefficients", "sign", "constant")}
        return replace(self, **{name: value.to(dtype) for name, value in values.items() if value is not None})

    def take(self, chosen: Tensor) -> Rows:
        """Return some of the rows, bool or int64."""
        names = ("coefficients", "unit", "sign", "constant")
        values = {name: value[chosen] for name in names if (value := getattr(self, name)) is not None}
        return replace(self, owners=self.owners.take(chosen), **values)


def unit_rows(at: int, owners: Owners, unit: Tensor, sign: Tensor) -> Rows:
    """Return rows that ask for ± one entry of a step's value: sign [R] · value.flat[unit [R]]."""
    return Rows(at, owners, unit=unit, sign=sign)


@dataclass(frozen=True, eq=False)
class Split:
    """Split constraints s · x ≥ 0 on an activation's input, and their multipliers.

    Attributes:
        unit: flat positions [R, K]; entries without a constraint may point anywhere.
        push: s · β [R, K], β ≥ 0; 0 where there is no constraint.
    """

    unit: Tensor
    push: Tensor


@dataclass(frozen=True, eq=False)
class Reached:
    """What arrived at the input.

    Attributes:
        bound: [R]; with errors float64 and sound, otherwise rounded to nearest.
    """

    bound: Tensor
    _rows: Tensor | Patches

    @property
    def rows(self) -> Tensor:
        """The coefficients that arrived, [R, *input shape]."""
        return _whole(self._rows)


def lower_bounds(
    program: Program,
    region: Region,
    lines: Lines,
    rows: Rows,
    *,
    slopes: Mapping[int, Tensor] | None = None,
    splits: Mapping[int, Split] | None = None,
    errors: Errors | None = None,
    seen: dict[int, Tensor] | None = None,
) -> Reached:
    """Return lower bounds of `rows` over the region.

    Args:
        program: constants in the dtype to compute in.
        region: of the same dtype.
        lines: lines of every activation before `rows.at`, same dtype.
        rows: what is asked.
        slopes: lower slopes by activation [R, ...] in place of the lines' own, `fitted` to them; for sigmoid and tanh
            [R, 2, ...], below and above.
        splits: split constraints by activation (on its input).
        errors: what each step may round; the result is sound then. float64 only.
        seen: filled with the coefficients that arrive at each activation's output [R, ...], for branching.
    """
    with nullcontext() if errors is None else ieee_arithmetic(region.lower.device):
        return _lower_bounds(program, region, lines, rows, slopes, splits, errors, seen)


def _lower_bounds(
    program: Program,
    region: Region,
    lines: Lines,
    rows: Rows,
    slopes: Mapping[int, Tensor] | None,
    splits: Mapping[int, Split] | None,
    errors: Errors | None,
    seen: dict[int, Tensor] | None,
) -> Reached:
    owners = rows.owners
    if errors is not None and slopes is not None:
        slopes = fitted(slopes, lines, owners)
    pending, total = _start(program, rows, windows=splits is None and seen is None)
    scale = total.abs()
    error = torch.zeros_like(total)
    narrow: dict[int, Tensor] = {}
    for position in range(rows.at, 0, -1):
        if position not in pending:
            continue
        step = program.steps[position]
        incoming, spot = _opened(pending.pop(position), step)
        own = owners if spot is None else spot.owners
        columns = narrow.get(position)
        if isinstance(step, Activation):
            if seen is not None:
                seen[position] = incoming
            line, slope = lines[position], None if slopes is None else slopes.get(position)
            if spot is not None:
                line, slope = spot.line(line, owners), None if slope is None else spot.slope(slope, line)
            elif splits is None or position not in splits:
                columns = _awake(program, position, line)
            if columns is not None:
                narrow[step.inputs[0]] = columns
                incoming, line = incoming[:, columns], line.columns(columns)
                slope = None if slope is None else slope[:, columns]
        elif columns is not None:
            assert isinstance(step, Linear)
            step = step.part(columns)
        # A single entry goes back through a convolution as it is.
        exact = spot is not None and position == rows.at and isinstance(step, Conv)
        if errors is not None and not exact and (known := errors.of.get(position)) is not None:
            if spot is not None:
                known = spot.gathered((known,), owners)[0]
            error = error + own.dot(incoming.abs(), known if columns is None else known[:, columns])
        if isinstance(step, Activation):
            through, part = _through(step, incoming, line, own, slope)
            if splits is not None and position in splits:
                split = splits[position]
                through = through.flatten(1).scatter_add(1, split.unit, -split.push).reshape(through.shape)
                if errors is not None:
                    error = error + owners.dot(through.abs(), errors.reach[step.inputs[0]])
            parts: Sequence[Tensor | Patches] = (through if spot is None else replace(spot, values=through),)
        else:
            parts = step.back(incoming) if spot is None else spot.back(step)
            offset = step.offset(incoming)
            part = total.new_zeros(()) if offset is None else offset
        total = total + part
        scale = scale + part.abs()
        for source, arriving in zip(step.inputs, parts, strict=True):
            if source not in pending:
                pending[source] = arriving
                continue
            pending[source] = together = _together(pending[source], arriving)
            if errors is not None and isinstance(together, Patches):
                reach = together.gathered((errors.reach[source],), owners)[0]
                error = error + together.owners.dot(together.values.abs(), reach)
            elif errors is not None:
                error = error + owners.dot(_whole(together).abs(), errors.reach[source])
    last = pending.get(0)
    if last is None:  # a constant
        last = total.new_zeros(len(rows), *program.steps[0].shape)
    if isinstance(last, Patches):
        sets, own, arrived = last.region(region, owners), last.owners, last.values
    else:
        sets, own, arrived = region, owners, last
    bound = sets.least(arrived, own) + total
    if errors is not None:
        error = error + scale * (4 * gamma(2 * len(program.steps) + 8))
        error = error + sets.error(arrived, own) + owners.of(errors.underflow)
        bound = below(bound, error)
    return Reached(bound, last)


def _together(a: Tensor | Patches, b: Tensor | Patches) -> Tensor | Patches:
    """Return the sum of rows at one step."""
    if isinstance(a, Patches) and isinstance(b, Patches) and (sum_ := added(a, b)) is not None:
        return sum_
    return _whole(a) + _whole(b)


def _whole(rows: Tensor | Patches) -> Tensor:
    return rows.dense() if isinstance(rows, Patches) else rows


def _opened(rows: Tensor | Patches, step: Step) -> tuple[Tensor, Patches | None]:
    """Return (coefficients, windows): whole rows and None where windows cannot pass the step, or need not."""
    if isinstance(rows, Patches) and rows.passes(step) and not rows.wide:
        return rows.values, rows
    return _whole(rows), None


def _start(program: Program, rows: Rows, windows: bool) -> tuple[dict[int, Tensor | Patches], Tensor]:
    """Return the pending rows and the constants so far; unit rows skip their first step where that is exact."""
    step = program.steps[rows.at]
    if rows.coefficients is not None:
        zeros = rows.coefficients.new_zeros(len(rows))
        return {rows.at: rows.coefficients}, zeros if rows.constant is None else rows.constant
    assert rows.unit is not None
    assert rows.sign is not None
    spots = unit_patches(program, rows.at, rows.unit, rows.sign) if windows else None
    if spots is not None:
        return {rows.at: spots}, torch.zeros_like(rows.sign)
    exact = None if isinstance(step, Activation) else step.unit_rows(rows.unit)
    if exact is not None:
        around = [-1, *[1] * (exact.dim() - 1)]
        bias = step.bias if isinstance(step, Linear | Conv) else None
        places = math.prod(step.shape[1:])
        constant = torch.zeros_like(rows.sign) if bias is None else bias[rows.unit // places] * rows.sign
        return {step.inputs[0]: exact * rows.sign.reshape(around)}, constant
    units = rows.sign.new_zeros(len(rows), math.prod(step.shape))
    units.scatter_(1, rows.unit[:, None], rows.sign[:, None])
    return {rows.at: units.reshape(len(rows), *step.shape)}, torch.zeros_like(rows.sign)


def fitted(slopes: Mapping[int, Tensor], lines: Lines, owners: Owners) -> dict[int, Tensor]:
    """Return slopes that are valid for `lines`: within [0, 1], and a ReLU's own where its sign is known."""
    made = {}
    for position, slope in slopes.items():
        line, free = lines[position], slope.nan_to_num(nan=0.0).clamp(0, 1)
        if line.lower_shift is None:
            free = torch.where(owners.of(line.unstable), free, owners.of(line.lower_slope))
        made[position] = free
    return made


def _awake(program: Program, position: int, line: Relaxed) -> Tensor | None:
    """Return the neurons of a ReLU that are not off, where leaving out the others saves work.

    Nothing goes through those. One sample's rows alone, and a linear layer before the ReLU that nothing else reads.
    """
    source = program.steps[position].inputs[0]
    if len(line.lower) > 1 or program.uses[source] > 1 or not isinstance(program.steps[source], Linear):
        return None
    awake = (line.unstable | (line.lower_slope != 0))[0]
    if line.lower_shift is not None or int(awake.sum()) > 0.9 * len(awake):
        return None
    return awake.nonzero()[:, 0]


def _through(
    step: Activation, rows: Tensor, lines: Relaxed, owners: Owners, slope: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return (rows at the activation's input, constants [R])."""
    if slope is None or step.op == "relu":
        low = owners.fit(lines.lower_slope) if slope is None else slope
        through = torch.where(rows > 0, low, owners.fit(lines.upper_slope)) * rows
        constant = owners.dot(rows.clamp_max(0), lines.upper_shift)
        if lines.lower_shift is None:
            return through, constant
        return through, constant + owners.dot(rows.clamp_min(0), lines.lower_shift)
    down, up = rows.clamp_min(0), rows.clamp_max(0)
    low, high = slope.unbind(1)
    below_shift, above_shift = shifts(step.op, owners.of(lines.lower), owners.of(lines.upper), low, high)
    return down * low + up * high, (down * below_shift + up * above_shift).flatten(1).sum(1)
