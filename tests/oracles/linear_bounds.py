"""What linear bounds must never do, and what they owe: checks of the bound-propagation engine on one graph.

`complaint` returns the first claim that a point of the set refutes. Points are searched in float64; the worst one of
each sample is evaluated in exact rational arithmetic, from the operators' definitions alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from oracles.random_graphs import evaluate, random_graph, step_names
from oracles.rational import rational_logits
from oracles.soundness import ball_points
from robench.graph import Graph
from robench.graph.intervals import ball_margin_lower
from robench.threat import NORMS, Domain, Norm, Threat
from robench_plugins.verify._engine.backward import Rows, lower_bounds
from robench_plugins.verify._engine.bounds import Bounded, bounded, refined
from robench_plugins.verify._engine.lower import Program, lower
from robench_plugins.verify._engine.owners import Owners
from robench_plugins.verify._engine.region import region_of
from robench_plugins.verify._engine.slopes import Schedule, optimise
from robench_plugins.verify._forms import label_forms

__all__ = ["Case", "complaint", "random_case", "random_slopes", "step_values"]

ROOM = 1e-9
"""Relative room where float64 is compared with float64."""


@dataclass(frozen=True)
class Case:
    """A graph, samples of it and a threat."""

    graph: Graph
    x: Tensor
    y: Tensor
    norm: Norm
    eps: float
    domain: Domain

    @property
    def threat(self) -> Threat:
        return Threat(self.norm, self.eps, self.domain)


def random_case(seed: int, steps: list[str] | None = None, samples: int = 2, shape=(2, 3, 3)) -> Case:
    """Return a case of random operators (or of `steps`), norm, ε and domain."""
    rng = np.random.default_rng(seed)
    if steps is None:
        steps = [str(one) for one in rng.choice(step_names(), int(rng.integers(1, 7)))]
    graph = random_graph(steps, rng, shape)
    x = torch.tensor(rng.random((samples, *graph.input_shape)), dtype=torch.float32).double()
    x[x < 0.1] = 0.0
    y = torch.tensor(rng.integers(0, graph.classes, samples))
    eps = float(rng.choice([1e-6, 0.02, 0.1, 0.4, 2.0]))
    domain = Domain() if rng.random() < 0.5 else Domain.unbounded()
    return Case(graph, x, y, NORMS[seed % 3], eps, domain)


def step_values(program: Program, x: Tensor) -> list[Tensor]:
    """Return the values of every step at `x` [B, ...]."""
    values = [x]
    for step in program.steps[1:]:
        values.append(step.forward(*(values[source] for source in step.inputs)))
    return values


def random_slopes(known: Bounded, rows: Rows, generator: torch.Generator) -> dict[int, Tensor]:
    """Return slopes for every activation, some of them no valid ones: outside [0, 1], not numbers."""
    made = {}
    for position, line in known.lines.items():
        shape = (
            [len(rows), *line.lower.shape[1:]] if line.lower_shift is None else [len(rows), 2, *line.lower.shape[1:]]
        )
        slope = torch.rand(shape, dtype=torch.float64, generator=generator) * 3 - 1
        slope[torch.rand(shape, generator=generator) < 0.05] = math.nan
        made[position] = slope
    return made


def complaint(case: Case, schedule: Schedule | None = None) -> str | None:
    """Return None, or what is wrong with a bound."""
    return next(_complaints(case, schedule or Schedule(3)), None)


def _complaints(case: Case, schedule: Schedule) -> Iterator[str]:
    graph, generator = case.graph, torch.Generator().manual_seed(0)
    program = lower(graph)
    points = [
        ball_points(graph, x, y, case.norm, case.eps, case.domain, generator)
        for x, y in zip(case.x, case.y.tolist(), strict=True)
    ]
    values = [step_values(program, one) for one in points]
    for one, found in zip(points, values, strict=True):
        yield from _differs("the lowered form", found[-1], evaluate(graph, one))
    region = region_of(case.x, case.threat)
    states = {name: bounded(graph, region, name) for name in ("ibp", "crown")}  # type: ignore[arg-type]
    states["alpha"] = refined(states["crown"], schedule)
    for name, known in states.items():
        yield from _outside(name, known, values)
        yield from _loose(name, known)
    forms = label_forms(case.y, graph.classes)
    rows = forms.rows(program.last)
    interval = ball_margin_lower(graph, case.x, case.y, case.norm, case.eps, case.domain)
    worst = _worst(case, points)
    for name, known in states.items():
        found = optimise(*known.search(), rows.to(torch.float32), schedule=schedule)
        choices = {
            "own": None,
            "optimised": {position: slope.double() for position, slope in found.slopes.items()},
            "random": random_slopes(known, rows, generator),
        }
        reached = {}
        for kind, slopes in choices.items():
            bound = lower_bounds(program, region, known.lines, rows, slopes=slopes, errors=known.errors).bound
            reached[kind] = bound
            for i, margin in enumerate(forms.margin(bound).tolist()):
                if not margin <= worst[i]:
                    yield f"{name} with {kind} slopes: margin {float(worst[i])} of sample {i}, claimed {margin}"
        room = 1e-4 * (1 + interval.abs().amax())
        if not (forms.margin(reached["optimised"]) >= forms.margin(reached["own"]) - room).all():
            yield f"{name}: optimised slopes are worse than the ones that they start from"
        yield from _random_rows(case, known, values, generator)


def _differs(what: str, made: Tensor, right: Tensor) -> Iterator[str]:
    off = (made - right).abs().amax().item()
    if not off <= ROOM * (1 + right.abs().amax().item()):
        yield f"{what} is off by {off}"


def _outside(name: str, known: Bounded, values: list[list[Tensor]]) -> Iterator[str]:
    for i, found in enumerate(values):
        sides = {f"box of step {k}": (box, found[k]) for k, box in enumerate(known.boxes)}
        for position, box in known.inputs.items():
            sides[f"input of step {position}"] = (box, found[known.program.steps[position].inputs[0]])
        for what, ((low, high), value) in sides.items():
            room = ROOM * (1 + value.abs().amax())
            if not ((low[i] <= value + room) & (value - room <= high[i])).all():
                yield f"{name}: a value of sample {i} is outside the {what}"


def _loose(name: str, known: Bounded) -> Iterator[str]:
    """Whether lines above open ReLUs are the chords, which meet them at both ends."""
    for position, line in known.lines.items():
        if line.lower_shift is None:
            for x in (line.lower, line.upper):
                gap = (line.upper_slope * x + line.upper_shift - x.clamp_min(0)).abs() * line.unstable
                if not (gap <= ROOM * (1 + x.abs())).all():
                    yield f"{name}: a line above a ReLU of step {position} does not meet it"


def _worst(case: Case, points: list[Tensor]):
    """Return the exact margin at the worst point of each sample."""
    exact = []
    for one, y in zip(points, case.y.tolist(), strict=True):
        logits = evaluate(case.graph, one)
        margin = logits[:, y] - torch.cat([logits[:, :y], logits[:, y + 1 :]], 1).amax(1)
        at = rational_logits(case.graph, one[margin.argmin()])
        exact.append(at[y] - max(value for j, value in enumerate(at) if j != y))
    return exact


def _random_rows(case: Case, known: Bounded, values: list[list[Tensor]], generator: torch.Generator) -> Iterator[str]:
    """Ask for random forms of a random step, with own and with random slopes."""
    program = known.program
    at = int(torch.randint(1, len(program.steps), (), generator=generator))
    owners = Owners.uniform(len(case.x), 2, case.x.device)
    shape = (len(owners.index), *program.steps[at].shape)
    constant = torch.randn(shape[0], dtype=torch.float64, generator=generator)
    asked = torch.randn(shape, dtype=torch.float64, generator=generator)
    rows = Rows(at, owners, asked, constant=constant)
    for kind, slopes in (("own", None), ("random", random_slopes(known, rows, generator))):
        bound = lower_bounds(program, known.region, known.lines, rows, slopes=slopes, errors=known.errors).bound
        for k, i in enumerate(owners.index.tolist()):
            least = ((values[i][at] * asked[k]).flatten(1).sum(1) + constant[k]).amin()
            size = 1 + (values[i][at] * asked[k]).abs().flatten(1).sum(1).amax()
            if not bound[k] <= least + ROOM * size:
                yield f"a form of step {at} of sample {i} is {least}, with {kind} slopes claimed {bound[k]}"
