"""Boxes around every step of a program by interval arithmetic, rounded outward."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robench.graph import Graph
from robench.graph.intervals import node_boxes
from robench.numerics import gamma
from robench_plugins.verify._engine.program import Activation, Program
from robench_plugins.verify._engine.region import Region
from robench_plugins.verify._engine.steps import Affine, View

__all__ = ["Interval", "step_boxes"]

Interval = tuple[Tensor, Tensor]


def step_boxes(program: Program, graph: Graph, region: Region) -> list[Interval]:
    """Return (lower, upper), float64 [B, *shape], around every step; `program` is `lower(graph)` in float64.

    Steps that equal a node of the graph take that node's own interval rule, which knows sorting and pooling whole.
    """
    known = node_boxes(graph, region.start)
    boxes: list[Interval] = []
    for position, step in enumerate(program.steps):
        if position in program.sources:
            boxes.append(known[program.sources[position]])
        elif isinstance(step, Activation):
            low, high = boxes[step.inputs[0]]
            boxes.append((step.forward(low), step.forward(high)))  # ReLUs alone are inner steps: exact
        else:
            boxes.append(_affine(step, [boxes[source] for source in step.inputs]))
    return boxes


def _affine(step: Affine, arguments: list[Interval]) -> Interval:
    if isinstance(step, View):
        return step.forward(arguments[0][0]), step.forward(arguments[0][1])
    centres = [low / 2 + high / 2 for low, high in arguments]
    radii = [torch.maximum(high - centre, centre - low) for (low, high), centre in zip(arguments, centres, strict=True)]
    most = [torch.maximum(low.abs(), high.abs()) for low, high in arguments]
    rounding = 4 * gamma(step.terms + 16)
    centre = step.forward(*centres)
    spread = step.magnitude(*radii, constant=False) + (step.magnitude(*most) * rounding + step.slack(*most)) * 1.01
    spread = spread + spread * rounding + 2.0**-960
    low, high = centre - spread, centre + spread
    inf = math.inf
    return low.nan_to_num(nan=-inf, posinf=-inf, neginf=-inf), high.nan_to_num(nan=inf, posinf=inf, neginf=inf)
