"""Collapses an affine graph to one matrix, enclosed by float64 bounds.

A linear layer behind elementwise operators (a normalisation) is scaled column by column. Other graphs take one unit
vector per input through all their layers: quadratic in the size of the images.
"""

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

__all__ = ["Collapsed", "collapse", "seconds"]

_CHUNK_ELEMENTS = 2**23
"""Elements of the widest layer that are computed at once: the memory needed besides the matrix."""

_KEEP_PLACE = frozenset({"add", "batch_norm", "div", "mul", "neg", "reshape", "sub"})
"""Affine operators whose output i depends on input i alone, where they keep the size."""


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
    """Return the matrix of the homogeneous part of an affine `graph`."""
    homogeneous = Graph(tuple(_without_offset(node) for node in graph.nodes))
    return _scaled(homogeneous, device) if _is_scaled(graph) else _pushed(homogeneous, device)


def seconds(graph: Graph) -> float:
    """Return about how long `collapse` and the slopes of all labels take on one core.

    Measured: 2e9 products a second, and 100 products' time for each element of an activation.
    """
    inputs = math.prod(graph.input_shape)
    work = 20.0 * graph.classes**2 * inputs
    if not _is_scaled(graph):
        work += inputs * sum(math.prod(node.shape) * (100.0 + _terms(node)) for node in graph.nodes)
    return work / 2e9


def _terms(node: Node) -> int:
    """Return how many products an output of a layer with weights sums."""
    weight = node.constants.get("weight")
    return 0 if weight is None else math.prod(weight.shape[1:])


def _is_scaled(graph: Graph) -> bool:
    """Whether the graph is a linear layer of the inputs in their order, each with a factor."""
    *before, last = graph.nodes
    return (
        last.op == "linear"
        and all(node.inputs == (position,) for position, node in enumerate(graph.nodes[1:]))
        and all(node.op in _KEEP_PLACE for node in before[1:])
        and {math.prod(node.shape) for node in before} == {math.prod(graph.input_shape)}
        and last.constants["weight"].shape[1] > 1
    )


def _scaled(graph: Graph, device: torch.device) -> Collapsed:
    """Multiply the last layer's columns with the factors, which are what the layers before make of all ones."""
    ones = torch.ones(1, *graph.input_shape, dtype=torch.float64, device=device)
    factors = torch.stack(logit_bounds(Graph(graph.nodes[:-1]), ones, ones))
    weight = graph.nodes[-1].constants["weight"].to(device, torch.float64)
    products = weight * factors
    exact = (weight == 0) | (factors == 1).all(0)
    return Collapsed(
        torch.where(exact, weight, round_down(products.amin(0))), torch.where(exact, weight, round_up(products.amax(0)))
    )


def _pushed(graph: Graph, device: torch.device) -> Collapsed:
    """Push the unit vectors through the graph, a chunk of them at a time: the columns of its matrix."""
    size = math.prod(graph.input_shape)
    widest = max(math.prod(node.shape) for node in graph.nodes)
    chunk = max(1, _CHUNK_ELEMENTS // max(widest, 1))
    lower, upper = [], []
    for start in range(0, size, chunk):
        rows = range(start, min(start + chunk, size))
        units = torch.zeros(len(rows), size, dtype=torch.float64, device=device)
        units[range(len(rows)), rows] = 1.0
        units = units.reshape(-1, *graph.input_shape)
        low, high = logit_bounds(graph, units, units)
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
