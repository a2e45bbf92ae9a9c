"""Margins proven by linear bounds, for one batch at one set of inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robench.graph import Graph
from robench.graph.intervals import ieee_arithmetic
from robench_plugins.verify._engine.backward import Rows, lower_bounds
from robench_plugins.verify._engine.bounds import CACHE, MEMORY, Bounded, bounded, pieces, refined
from robench_plugins.verify._engine.owners import Owners
from robench_plugins.verify._engine.region import Region
from robench_plugins.verify._engine.region import bounded as finite_sides
from robench_plugins.verify._engine.slopes import Schedule, optimise
from robench_plugins.verify._forms import Forms, interval_forms

__all__ = ["Proof", "Settings", "crown_bounds", "optimised_bounds", "prove"]


@dataclass(frozen=True)
class Settings:
    """How bounds are found.

    Attributes:
        backward: whether activations' inputs are bounded by rows too, not by interval arithmetic alone.
        schedule: of the slopes' optimisation; None: CROWN's own slopes.
        inside: whether slopes of the rows about activations' inputs are optimised as well.
    """

    backward: bool
    schedule: Schedule | None = None
    inside: bool = True


@dataclass(frozen=True, eq=False)
class Proof:
    """What was proven about each sample: a lower bound of its margin, float64 [B], and its open neurons, int64 [B]."""

    margin: Tensor
    open: Tensor


def prove(graph: Graph, region: Region, forms: Forms, settings: Settings) -> Proof:
    """Return lower bounds of the margins over the region; −inf where nothing is known.

    Rows are the better one of both, linear bounds and interval arithmetic. Slopes are optimised only for samples
    that CROWN's own leave open.
    """
    with ieee_arithmetic(region.lower.device):
        known = bounded(graph, region, "crown" if settings.backward else "ibp")
        bounds = torch.maximum(interval_forms(forms, graph, region, known.boxes[-1]), crown_bounds(known, forms))
        margin = forms.margin(bounds).masked_fill(~finite_sides(region), -torch.inf)
        count = known.open_neurons()
        left = ~(margin > 0)
        if settings.schedule is None or not left.any():
            return Proof(margin, count)
        some, mine = known.select(left.nonzero()[:, 0]), forms.select(left)
        bounds = bounds[left[forms.owners.index]]
        if settings.inside:
            some = refined(some, settings.schedule)
            bounds = torch.maximum(bounds, crown_bounds(some, mine))
        bounds = optimised_bounds(some, mine, bounds, settings.schedule)
        found = mine.margin(bounds).masked_fill(~finite_sides(some.region), -torch.inf)
        count[left] = some.open_neurons()
        return Proof(margin.masked_scatter(left, torch.maximum(margin[left], found)), count)


def crown_bounds(known: Bounded, forms: Forms) -> Tensor:
    """Return the rows' bounds [R] with the slopes of the lines themselves."""
    program, every, each = known.program, [], forms.owners.each
    if each:  # some samples at a time, all rows of each
        memory = CACHE if forms.constant.device.type == "cpu" else MEMORY // 8
        size = max(1, memory // (8 * program.widest * each))
        for at in range(0, forms.samples, size):
            some = known.select(slice(at, at + size))
            part = slice(at * each, (at + len(some.region)) * each)
            owners = Owners.uniform(len(some.region), each, forms.constant.device)
            rows = Rows(program.last, owners, forms.coefficients[part], constant=forms.constant[part])
            every.append(lower_bounds(program, some.region, some.lines, rows, errors=some.errors).bound)
    else:
        for part in pieces(program, len(forms)):
            rows = forms.rows(program.last, part)
            every.append(lower_bounds(program, known.region, known.lines, rows, errors=known.errors).bound)
    return torch.cat(every) if every else forms.constant


def optimised_bounds(known: Bounded, forms: Forms, bounds: Tensor, schedule: Schedule) -> Tensor:
    """Return better bounds [R] of the rows that are not above 0 yet."""
    bounds = bounds.clone()
    open_ = (~(bounds > 0)).nonzero()[:, 0]
    search = known.search()
    for part in pieces(known.program, len(open_)):
        index, slopes = open_[part], None
        # Where rounding in float32 ended the search too early, it goes on to the end.
        for enough in (0.0, None):
            rows = forms.rows(known.program.last, index).to(torch.float32)
            found = optimise(*search, rows, schedule=schedule, slopes=slopes, enough=enough)
            slopes = {position: values.double() for position, values in found.slopes.items()}
            rows = forms.rows(known.program.last, index)
            proven = lower_bounds(known.program, known.region, known.lines, rows, slopes=slopes, errors=known.errors)
            bounds[index] = torch.maximum(bounds[index], proven.bound)
            if not bool(((found.bound > 0) & ~(bounds[index] > 0)).any()):
                break
            slopes = {position: values.float() for position, values in slopes.items()}
    return bounds
