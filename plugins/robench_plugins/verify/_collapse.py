"""Collapses an affine graph to one matrix, enclosed by float64 bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from robench.graph import Graph, Node
from robench.graph.intervals import dual_norm_up, logit_bounds
from robench.numerics import round_down, round_up
from robench.threat import Norm

__all__ = ["Collapsed", "collapse"]

_CHUNK_ELEMENTS = 2**23


@dataclass(frozen=True, eq=False)
class Collapsed:
    """The matrix of an affine graph, within `lower` ≤ W ≤ `upper`, float64 [classes, inputs]."""

    lower: Tensor
    upper: Tensor
    _slopes: dict[tuple[int, Norm], Tensor] = field(default_factory=dict)

    def slopes(self, label: int, norm: Norm) -> Tensor:
        """Return the dual norm of w_label − w_j for every j [classes], rounded up; +inf where not known."""
        key = (label, norm)
        if key not in self._slopes:
            high = round_up(self.upper[label] - self.lower).clamp_min(0)
            low = round_down(self.lower[label] - self.upper).clamp_max(0)
            same = (self.lower == self.upper) & (self.lower == self.lower[label]) & (self.upper == self.upper[label])
            reach = torch.where(same, 0.0, torch.maximum(high, -low))
            self._slopes[key] = dual_norm_up(reach, norm).nan_to_num(nan=math.inf)
        return self._slopes[key]


def collapse(graph: Graph, device: torch.device) -> Collapsed:
    """Push the unit vectors through the homogeneous part of an affine `graph`: the columns of its matrix."""
    homogeneous = Graph(tuple(_without_offset(node) for node in graph.nodes))
    size = math.prod(graph.input_shape)
    widest = max(math.prod(node.shape) for node in graph.nodes)
    chunk = max(1, _CHUNK_ELEMENTS // max(widest, 1))
    lower, upper = [], []
    for start in range(0, size, chunk):
        rows = range(start, min(start + chunk, size))
        units = torch.zeros(len(rows), size, dtype=torch.float64, device=device)
        units[range(len(rows)), rows] = 1.0
        units = units.reshape(-1, *graph.input_shape)
        low, high = logit_bounds(homogeneous, units, units)
        lower.append(low)
        upper.append(high)
    return Collapsed(torch.cat(lower).T.contiguous(), torch.cat(upper).T.contiguous())


def _without_offset(node: Node) -> Node:
    """Return the operator's linear part: f(v) − f(0)."""
    constants: Mapping[str, Tensor] = node.constants
    if node.op in ("linear", "conv1d", "conv2d"):
        return replace(node, constants={name: value for name, value in constants.items() if name != "bias"})
    if node.op == "batch_norm":
        zero = {name: torch.zeros_like(constants[name]) for name in ("mean", "bias")}
        return replace(node, constants={**constants, **zero})
    if node.op in ("add", "sub") and "other" in constants:
        return replace(node, constants={"other": torch.zeros_like(constants["other"])})
    if node.op == "pad":
        return replace(node, attributes={**node.attributes, "value": 0.0})
    return node
