"""Boxes around every node of a graph over balls: interval arithmetic's, tightened where CROWN bounds neurons."""

from __future__ import annotations

import torch
from torch import Tensor

from robench.graph import Graph
from robench.graph.intervals import node_boxes
from robench.threat import Domain, Norm, Threat
from robench_plugins.verify._engine.bounds import bounded
from robench_plugins.verify._engine.lower import unsupported
from robench_plugins.verify._engine.region import region_of

__all__ = ["crown_boxes", "unsupported"]


def crown_boxes(graph: Graph, x: Tensor, norm: Norm, eps: Tensor, domain: Domain) -> list[tuple[Tensor, Tensor]]:
    """Return (lower, upper), float64 [B, ...], around every node over the balls of radius `eps` [B] within the domain.

    Inputs of relu, sigmoid, tanh and leaky_relu are bounded by CROWN too (Zhang et al. 2018) where intervals leave them
    open; other nodes by intervals alone. `unsupported` must not refuse the graph, and `x` [B, ...] must be finite.
    """
    region = region_of(x, Threat(norm, None, domain), eps)
    made = bounded(graph, region, "crown")
    boxes = list(node_boxes(graph, region.start))
    for position, (low, high) in made.inputs.items():
        node = made.program.sources.get(made.program.steps[position].inputs[0])
        if node is not None:
            boxes[node] = torch.maximum(boxes[node][0], low), torch.minimum(boxes[node][1], high)
    return boxes
