"""Rewrites a graph into a canonical form, so that one net gives one graph however it was written.

Every rule keeps the real-arithmetic function: no-ops go, reshapes and transposes merge, zero padding moves into the
convolution behind it, a constant added to a layer without bias becomes its bias, general operators
become the special ones that they equal. Nodes that the output does not need are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from robench.errors import GraphError
from robench.graph._ir import Graph, Node
from robench.graph.operators import apply
from robench.graph.operators._base import as_float, as_int, as_ints

__all__ = ["canonical"]


def canonical(graph: Graph) -> Graph:
    """Return the canonical form of `graph`."""
    while True:
        nodes = _prune(_simplify(graph.nodes))
        nodes = _prune(_fold_biases(nodes))
        if len(nodes) == len(graph.nodes) and all(a is b for a, b in zip(nodes, graph.nodes, strict=True)):
            return graph
        graph = Graph(tuple(nodes))


def _prune(nodes: Sequence[Node]) -> list[Node]:
    """Drop what the last node does not need, and renumber."""
    needed = {0, len(nodes) - 1}
    for position in reversed(range(len(nodes))):
        if position in needed:
            needed.update(nodes[position].inputs)
    new = {old: position for position, old in enumerate(sorted(needed))}
    return [_moved(nodes[old], tuple(new[i] for i in nodes[old].inputs)) for old in sorted(needed)]


def _moved(node: Node, inputs: tuple[int, ...]) -> Node:
    return node if node.inputs == inputs else replace(node, inputs=inputs)


def _simplify(old: Sequence[Node]) -> list[Node]:
    """Apply the rules that look at a node and its inputs; the last node stays last."""
    nodes, place = [old[0]], [0]
    for node in old[1:]:
        node = _moved(node, tuple(place[i] for i in node.inputs))
        target = _simpler(nodes, node)
        if isinstance(target, int):
            place.append(target)
        else:
            nodes.append(target)
            place.append(len(nodes) - 1)
    return nodes[: place[-1] + 1]


def _simpler(nodes: Sequence[Node], node: Node) -> Node | int:
    """Return a simpler node with the same value, the position of an earlier one, or (where it is simple) itself."""
    source = nodes[node.inputs[0]]
    match node.op:
        case "reshape":
            if node.shape == source.shape:
                return node.inputs[0]
            if source.op == "reshape":
                return _moved(node, source.inputs)
        case "transpose":
            axes = as_ints(node.attributes, "axes")
            if axes == tuple(range(len(axes))):
                return node.inputs[0]
            if source.op == "transpose":
                first = as_ints(source.attributes, "axes")
                return apply("transpose", nodes, source.inputs, {"axes": tuple(first[axis] for axis in axes)})
        case "pad" if not any(as_ints(node.attributes, "padding")):
            return node.inputs[0]
        case "slice" if node.shape == source.shape:
            return node.inputs[0]
        case "concat" if len(node.inputs) == 1:
            return node.inputs[0]
        case "conv1d" | "conv2d" | "max_pool2d":
            return _absorb_pad(nodes, node, source)
        case "clip":
            low, high = as_float(node.attributes, "min"), as_float(node.attributes, "max")
            if (low, high) == (-math.inf, math.inf):
                return node.inputs[0]
            if (low, high) == (0.0, math.inf):
                return apply("relu", nodes, node.inputs)
        case "leaky_relu" if as_float(node.attributes, "slope") == 0.0:
            return apply("relu", nodes, node.inputs)
        case "mean" if node.attributes["axes"] == (1, 2) and len(node.shape) == 3:
            return apply("global_avg_pool2d", nodes, node.inputs)
        case "avg_pool2d" if not any(as_ints(node.attributes, "padding")):
            if as_ints(node.attributes, "kernel") == source.shape[1:]:
                return apply("global_avg_pool2d", nodes, node.inputs)
            if not as_int(node.attributes, "count_include_pad"):
                return apply("avg_pool2d", nodes, node.inputs, {**node.attributes, "count_include_pad": 1})
            return _absorb_pad(nodes, node, source)
        case "avg_pool2d" if as_int(node.attributes, "count_include_pad"):
            return _absorb_pad(nodes, node, source)
    return node


def _absorb_pad(nodes: Sequence[Node], node: Node, pad: Node) -> Node:
    """Move padding of the spatial axes into the window behind it, which pads with 0, or −inf for a max pool."""
    if pad.op != "pad":
        return node
    padding, rank = as_ints(pad.attributes, "padding"), len(pad.shape)
    neutral = -math.inf if node.op == "max_pool2d" else 0.0
    if as_float(pad.attributes, "value") != neutral or padding[0] or padding[rank]:
        return node
    spatial = padding[1:rank] + padding[rank + 1 :]
    total = tuple(a + b for a, b in zip(as_ints(node.attributes, "padding"), spatial, strict=True))
    try:
        return apply(node.op, nodes, pad.inputs, {**node.attributes, "padding": total}, node.constants)
    except GraphError:  # a pool that would have a window in the padding alone
        return node


def _fold_biases(old: Sequence[Node]) -> list[Node]:
    """Make a constant that is added to a layer without bias its bias."""
    uses = [0] * len(old)
    for node in old:
        for position in node.inputs:
            uses[position] += 1
    nodes = list(old)
    for position, node in enumerate(old):
        if node.op != "add" or len(node.inputs) != 1:
            continue
        layer = nodes[node.inputs[0]]
        if layer.op not in ("linear", "conv1d", "conv2d") or "bias" in layer.constants or uses[node.inputs[0]] != 1:
            continue
        bias = _per_channel(node.constants["other"], layer.shape)
        if bias is not None:
            nodes[position] = apply(layer.op, nodes, layer.inputs, layer.attributes, {**layer.constants, "bias": bias})
    return nodes


def _per_channel(other: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """Return a constant of full rank as a vector [channels], or None where it varies along other axes."""
    if other.numel() != other.shape[0]:
        return None
    return other.reshape(-1).expand(shape[0]).contiguous() if other.shape[0] in (1, shape[0]) else None
