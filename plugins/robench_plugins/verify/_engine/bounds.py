"""Proven bounds of every activation's input, layer by layer, each intersected with interval arithmetic's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from robench.graph import Graph
from robench.graph.intervals import ieee_arithmetic
from robench_plugins.verify._engine.backward import lower_bounds, unit_rows
from robench_plugins.verify._engine.errors import Errors, errors_of
from robench_plugins.verify._engine.forward import Interval, step_boxes
from robench_plugins.verify._engine.lower import lower
from robench_plugins.verify._engine.owners import Owners
from robench_plugins.verify._engine.program import Program
from robench_plugins.verify._engine.region import Region
from robench_plugins.verify._engine.relax import Lines, relax
from robench_plugins.verify._engine.slopes import Schedule, optimise

__all__ = ["Bounded", "bounded", "pieces", "refined", "tightened"]

MEMORY = 2**28
"""Bytes that one pass of rows may take: more rows go in pieces."""

CACHE = 2**22
"""Bytes of the widest rows in a piece on a CPU: what is read many times should stay near."""


@dataclass(frozen=True, eq=False)
class Kept:
    """Optimised slopes of an activation's input bounds, to start from where they are asked for again.

    Attributes:
        place: the row of each entry, int64 [B, n]; −1 where there is none.
        below: slopes of the lower bounds by earlier activation [rows, ...].
        above: slopes of the upper bounds.
    """

    place: Tensor
    below: dict[int, Tensor]
    above: dict[int, Tensor]

    def select(self, index: Tensor | slice) -> Kept:
        """Return the samples at `index` [N]."""
        return Kept(self.place[index], self.below, self.above)

    def slopes(self, sample: Tensor, entry: Tensor) -> dict[int, Tensor]:
        """Return the slopes for lower, then upper bounds of entries [R] of samples [R], [2 R, ...]."""
        at = self.place[sample, entry].clamp_min(0)
        return {position: torch.cat((self.below[position][at], self.above[position][at])) for position in self.below}


@dataclass(frozen=True, eq=False)
class Bounded:
    """A network over one region per sample, everything proven in float64.

    Attributes:
        program: constants in float64 on the region's device.
        region: the inputs.
        boxes: around every step, by interval arithmetic.
        errors: what float64 rounds.
        inputs: (lower, upper) of each activation's input, by the activation's position.
        lines: the default lines that follow from them.
        kept: the slopes with which each activation's input was bounded, where they were optimised.
    """

    program: Program
    region: Region
    boxes: Sequence[Interval]
    errors: Errors
    inputs: dict[int, Interval]
    lines: Lines
    kept: dict[int, Kept] = field(default_factory=dict)

    def select(self, index: Tensor | slice) -> Bounded:
        """Return the samples at `index` [N]; a region that all share stays one."""
        inputs = {position: (low[index], high[index]) for position, (low, high) in self.inputs.items()}
        return Bounded(
            self.program,
            self.region.at(index),
            [(low[index], high[index]) for low, high in self.boxes],
            self.errors.at(index),
            inputs,
            {position: line.select(index) for position, line in self.lines.items()},
            {position: one.select(index) for position, one in self.kept.items()},
        )

    def open_neurons(self) -> Tensor:
        """Return how many ReLUs have an open sign, int64 [B]."""
        count = torch.zeros(len(self.region), dtype=torch.int64, device=self.region.lower.device)
        for line in self.lines.values():
            if line.lower_shift is None:
                count += line.unstable.flatten(1).sum(1)
        return count

    def search(self, dtype: torch.dtype = torch.float32) -> tuple[Program, Region, Lines]:
        """Return program, region and lines in the precision to search in."""
        lines = {position: line.to(dtype) for position, line in self.lines.items()}
        return self.program.to(dtype, self.region.lower.device), self.region.to(dtype), lines


def _parts(program: Program, owner: Tensor) -> Iterator[tuple[slice, int | None]]:
    """Yield slices of entries, of two rows each, and the sample that all of one belong to; `owner` ascends.

    Where samples have many entries each gets pieces of its own: nothing is gathered then.
    """
    if not len(owner):
        return
    size = max(1, (CACHE if owner.device.type == "cpu" else MEMORY // 8) // (16 * program.widest))
    counts = torch.bincount(owner).tolist()
    if len(owner) < 16 * sum(count > 0 for count in counts):
        yield from ((slice(at, min(at + size, len(owner))), None) for at in range(0, len(owner), size))
        return
    first = 0
    for sample, count in enumerate(counts):
        for at in range(first, first + count, size):
            yield slice(at, min(at + size, first + count)), sample
        first += count


def pieces(program: Program, count: int) -> Iterator[slice]:
    """Yield slices of `count` rows, each of which fits into `MEMORY`; even ones, for rows that come in pairs."""
    size = 2 * max(1, MEMORY // (8 * 16 * program.widest))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def bounded(graph: Graph, region: Region, method: Literal["ibp", "crown"]) -> Bounded:
    """Return bounds by interval arithmetic alone, or with CROWN; `refined` optimises slopes from there.

    Only neurons whose sign is open are asked about. Every bound is the better one of both methods.
    """
    program = lower(graph).to(torch.float64, region.lower.device)
    with ieee_arithmetic(region.lower.device):
        boxes = step_boxes(program, graph, region)
        made = Bounded(program, region, boxes, errors_of(program, boxes), {}, {})
        for position in program.activations:
            made.inputs[position] = boxes[program.steps[position].inputs[0]]
            _relaxed(made, position, method != "ibp", None)
    return made


def refined(known: Bounded, schedule: Schedule) -> Bounded:
    """Return the same bounds, or better ones, with every open neuron's slopes optimised."""
    made = Bounded(known.program, known.region, known.boxes, known.errors, dict(known.inputs), {})
    with ieee_arithmetic(known.region.lower.device):
        for position in known.program.activations:
            _relaxed(made, position, True, schedule)
    return made


def _relaxed(made: Bounded, position: int, tight: bool, schedule: Schedule | None) -> None:
    """Add the lines of the activation at `position`, whose input bounds may be tightened with the lines before it."""
    if tight and any(earlier < position for earlier in made.lines):
        made.inputs[position] = tightened(made, position, schedule)
    made.lines[position] = relax(made.program.activation(position).op, *made.inputs[position])


def tightened(
    known: Bounded, position: int, schedule: Schedule | None, among: Tensor | None = None, start: Tensor | None = None
) -> Interval:
    """Return the input bounds of the activation at `position`, its open entries asked again with the lines known.

    `among` bool [B] leaves the other samples as they are. With `start`, the sample of each region at the root where
    slopes were kept [B], those are used; with a `schedule` slopes are optimised, and kept.
    """
    program, step = known.program, known.program.activation(position)
    low, high = known.inputs[position]
    shape = low.shape
    low, high = low.flatten(1).clone(), high.flatten(1).clone()
    open_ = (low < 0) & (high > 0) if step.op == "relu" else high > low
    if among is not None:
        open_ &= among[:, None]
    owner, unit = open_.nonzero(as_tuple=True)
    kept: list[dict[int, Tensor]] = []
    for part, sample in _parts(program, owner):
        index, entry = owner[part], unit[part]
        own = known if sample is None else known.select(slice(sample, sample + 1))
        whose = Owners(torch.cat((index, index))) if sample is None else Owners.uniform(1, 2 * len(index), low.device)
        ones = torch.ones(len(index), dtype=torch.float64, device=low.device)
        rows = unit_rows(step.inputs[0], whose, torch.cat((entry, entry)), torch.cat((ones, -ones)))
        slopes = None
        if schedule is not None:
            chosen = optimise(*own.search(), rows.to(torch.float32), schedule=schedule)
            slopes = chosen.slopes
            kept.append(slopes)
        elif start is not None and position in known.kept:
            slopes = known.kept[position].slopes(start[index], entry)
        exact = None if slopes is None else {earlier: values.double() for earlier, values in slopes.items()}
        found = lower_bounds(program, own.region, own.lines, rows, slopes=exact, errors=own.errors).bound
        low[index, entry] = torch.maximum(low[index, entry], found[: len(index)])
        high[index, entry] = torch.minimum(high[index, entry], -found[len(index) :])
    if kept:
        place = torch.full(low.shape, -1, dtype=torch.int64, device=low.device)
        place[owner, unit] = torch.arange(len(owner), device=low.device)
        halves = [{e: torch.cat([one[e].chunk(2)[half] for one in kept]) for e in kept[0]} for half in (0, 1)]
        known.kept[position] = Kept(place, halves[0], halves[1])
    return low.reshape(shape), high.reshape(shape)
