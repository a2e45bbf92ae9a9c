"""Boxes around every node of a graph."""

from __future__ import annotations

from torch import Tensor

from robench.errors import GraphError
from robench.graph._ir import Graph
from robench.graph.intervals._arithmetic import ieee_arithmetic
from robench.graph.intervals._layers import layers
from robench.graph.intervals._propagate import propagate_all, unsupported
from robench.graph.intervals._sets import Ball, Box

__all__ = ["node_boxes"]


def node_boxes(graph: Graph, start: Box | Ball) -> list[tuple[Tensor, Tensor]]:
    """Return (lower, upper), float64 [B, ...], around the values of every node for inputs in `start`.

    Interval bound propagation, rounded outward; what is not known is (−inf, inf). Raises GraphError for an operator
    without an interval rule.
    """
    reason = unsupported(graph)
    if reason is not None:
        raise GraphError(reason)
    device = (start.box if isinstance(start, Ball) else start).lower.device
    with ieee_arithmetic(device):
        found = propagate_all(layers(graph, device), start)
    boxes = [value.box if isinstance(value, Ball) else value for value in found]
    return [(box.lower, box.upper) for box in boxes]
