"""Questions about the structure of a graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from robench.graph._ir import Graph
from robench.graph.operators import OPERATORS

__all__ = ["describe", "is_affine", "parameters", "successors"]


def successors(graph: Graph) -> Sequence[tuple[int, ...]]:
    """Return for each node the positions of the nodes that read it (a node's `inputs` are its predecessors)."""
    readers: list[list[int]] = [[] for _ in graph.nodes]
    for position, node in enumerate(graph.nodes):
        for source in dict.fromkeys(node.inputs):
            readers[source].append(position)
    return [tuple(positions) for positions in readers]


def is_affine(graph: Graph) -> bool:
    """Whether the logits are an affine function of the input, operator by operator."""
    return all(OPERATORS[node.op].affine for node in graph.nodes[1:])


def parameters(graph: Graph) -> int:
    """Return how many numbers the constants hold."""
    return sum(tensor.numel() for node in graph.nodes for tensor in node.constants.values())


def describe(graph: Graph) -> str:
    """Return one line: shapes, operators in the order of their first use, constants."""
    counts = Counter(node.op for node in graph.nodes[1:])
    layers = ", ".join(op if count == 1 else f"{count} {op}" for op, count in counts.items())
    shape = "x".join(map(str, graph.input_shape))
    return f"{shape} to {graph.classes} classes: {layers}; {parameters(graph):,} parameters"
