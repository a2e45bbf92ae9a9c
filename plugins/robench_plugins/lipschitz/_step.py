"""What is known about a node's value, and what a rule is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from robench.graph import Graph, Node
from robench_plugins.lipschitz._matrices import Matrix
from robench_plugins.lipschitz._up import mul_up

__all__ = ["Reach", "Step"]


@dataclass(frozen=True, eq=False)
class Reach:
    """How far a node's value moves with the input.

    Attributes:
        constant: of the map h before `matrix` and `scale`.
        matrix: a layer whose norm is not taken yet, or None.
        scale: magnitudes of the factors after it, flat, rounded up; None for ones.
    """

    constant: float
    matrix: Matrix | None = None
    scale: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """One node of the graph under its rule.

    Attributes:
        graph: the whole graph.
        start: the node whose value L is about: 0 for the input.
        position: of the node in the graph.
        node: the node.
        inputs: what is known about its arguments.
        shapes: the arguments' shapes.
        reach: a position to what is known about an earlier node.
        settle: a Reach to its Lipschitz constant, which takes the norm of its matrix.
        measure: a matrix to its norm.
        note: called with a factor other than 1 that no matrix stands for, and its source.
    """

    graph: Graph
    start: int
    position: int
    node: Node
    inputs: Sequence[Reach]
    shapes: Sequence[tuple[int, ...]]
    reach: Callable[[int], Reach]
    settle: Callable[[Reach], float]
    measure: Callable[[Matrix], float]
    note: Callable[[float, str], None]

    def times(self, factor: float) -> Reach:
        """Return the constant of the only input times `factor`."""
        if factor != 1:
            self.note(factor, self.node.op)
        return Reach(mul_up(self.settle(self.inputs[0]), factor))
