"""What float64 rounds while rows go back: one vector per step, computed once per sample and region."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robench.numerics import UNIT_ROUNDOFF, gamma
from robench_plugins.verify._engine.program import Activation, Program
from robench_plugins.verify._engine.steps import Concat, View

__all__ = ["Errors", "errors_of"]

LEAST = 2.0**-1000
"""Added to every vector, which a coefficient of 1e300 may multiply: its own entries may have been flushed to 0."""

Interval = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Errors:
    """Bounds of rounding errors for inputs in one region per sample.

    Attributes:
        of: e_v by step [B, *shape]: passing rows a through step v errs by at most |a|·e_v. Steps that only move
            numbers are left out.
        reach: by step [B, *shape], where rows are added or split constraints pushed: adding two rows there errs by
            at most |sum|·reach_v.
        underflow: [B], above what numbers flushed to 0 can make in all.
    """

    of: Mapping[int, Tensor]
    reach: Mapping[int, Tensor]
    underflow: Tensor

    def select(self, index: Tensor | slice) -> Errors:
        """Return the samples at `index` [N]."""
        of = {position: values[index] for position, values in self.of.items()}
        reach = {position: values[index] for position, values in self.reach.items()}
        return Errors(of, reach, self.underflow[index])

    def at(self, index: Tensor | slice) -> Errors:
        """Return the samples at `index` [N]; one alone stands for all, and stays one."""
        return self if len(self.underflow) == 1 else self.select(index)


def errors_of(program: Program, boxes: Sequence[Interval]) -> Errors:
    """Return the errors for values within `boxes`, float64 [B, *shape] by step; `program` is in float64.

    Each is inflated by a percent, which covers the rounding of the bound itself and of the inner products with it.
    """
    most = [torch.maximum(low.abs(), high.abs()) for low, high in boxes]
    of: dict[int, Tensor] = {}
    for position, step in enumerate(program.steps[1:], 1):
        size = math.prod(step.shape)
        if isinstance(step, Activation):
            # Slopes are at most 1, intercepts at most |f| + |x| ≤ 1 + 2 |x|.
            reached = most[step.inputs[0]] * 2 + (0.0 if step.op == "relu" else 1.0)
            of[position] = reached * (1.01 * gamma(size + 8)) + LEAST
            continue
        if isinstance(step, View | Concat):
            continue
        arguments = [most[source] for source in step.inputs]
        rounding = gamma(max(step.terms, size) + 8)
        of[position] = (step.magnitude(*arguments) * rounding + step.slack(*arguments)) * 1.01 + LEAST
    summed = {source for source, uses in enumerate(program.uses) if uses > 1}
    summed |= {program.steps[position].inputs[0] for position in program.activations}
    reach = {source: most[source] * (4 * UNIT_ROUNDOFF) + LEAST for source in summed}
    total = torch.stack([values.flatten(1).sum(1) + values[0].numel() for values in most]).sum(0)
    return Errors(of, reach, total * 2.0**-960)
