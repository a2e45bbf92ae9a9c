"""The network graph: operators, shapes and constants of one classifier.

A graph is a list of nodes in topological order. Node 0 is the input; every other node applies one
operator to earlier nodes. Shapes leave the batch dimension out: a graph runs on any batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

__all__ = ["Graph", "Node"]

Attribute = int | float | str | tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """One operator application.

    Attributes:
        op: operator name, a key of `robench.graph.OPERATORS` (or `input`).
        inputs: positions of the argument nodes, all smaller than this node's own.
        attributes: the operator's settings.
        constants: the operator's tensors by name (`weight`, `bias`, …).
        shape: shape of the output without the batch dimension.
    """

    op: str
    inputs: tuple[int, ...] = ()
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Graph:
    """A classifier as a graph. The last node holds the logits [classes]."""

    nodes: tuple[Node, ...]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.nodes[0].shape

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.nodes[-1].shape[0]

    @property
    def parameters(self) -> int:
        """How many numbers the constants hold."""
        return sum(tensor.numel() for node in self.nodes for tensor in node.constants.values())

    def last_uses(self) -> Sequence[tuple[int, ...]]:
        """Return for each node the nodes that it is the last to read: their values can be freed after it."""
        last = {source: position for position, node in enumerate(self.nodes) for source in node.inputs}
        done: list[list[int]] = [[] for _ in self.nodes]
        for source, position in last.items():
            done[position].append(source)
        return [tuple(sources) for sources in done]
