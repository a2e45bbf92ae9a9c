"""From one node of a graph to its last, node by node under the rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from robench.graph import Graph
from robench_plugins.lipschitz._matrices import Matrix, layer_matrix
from robench_plugins.lipschitz._rules import RULES
from robench_plugins.lipschitz._series import Series, largest, series
from robench_plugins.lipschitz._step import Reach, Step
from robench_plugins.lipschitz._up import mul_up

__all__ = ["Layer", "Walk"]


@dataclass(frozen=True)
class Layer:
    """One factor of the product.

    Attributes:
        node: position in the graph.
        op: operator name.
        norm: upper bound of its largest singular value, the factors of normalisations beside it included; for other
            operators their factor.
        source: where it is from: `matrix`, `grid`, `rows` or `sums` for a matrix, `residual`, `series`, or the
            operator's name.
    """

    node: int
    op: str
    norm: float
    source: str


@dataclass(eq=False)
class Walk:
    """How the last value of `graph` moves with the value of the node `start`, those before it being fixed.

    Attributes:
        measure: a matrix to its norm and that bound's source.
        layers: every factor that was met.
        reaches: of every node.
    """

    graph: Graph
    measure: Callable[[Matrix], tuple[float, str]]
    start: int = 0
    layers: list[Layer] = field(default_factory=list)
    reaches: list[Reach] = field(default_factory=list)
    _settled: dict[int, float] = field(default_factory=dict)  # by identity: several nodes may read one

    def run(self) -> float:
        """Return the constant."""
        self.reaches = [Reach(0.0)] * self.start + [Reach(1.0)]
        sums = series(self.graph)
        skipped = frozenset[int]().union(*(one.nodes for one in sums.values()))
        for position in range(self.start + 1, len(self.graph.nodes)):
            if position in sums:
                self.reaches.append(self._sum_of_powers(sums[position]))
            else:
                # Nothing but the sum reads what is skipped, and +inf would be a bound.
                self.reaches.append(Reach(math.inf) if position in skipped else self._reach(position))
        return self._settle(self.reaches[-1])

    def _sum_of_powers(self, found: Series) -> Reach:
        start = self.start if self.start in found.nodes else found.source
        before = self.reaches[start]
        if before.constant == 0:
            return Reach(0.0)
        norm = self._norm(layer_matrix(self.graph, found.layer))
        factor = largest(found.coefficients(self.graph, start), norm)
        self.layers.append(Layer(found.end, self.graph.nodes[found.end].op, factor, "series"))
        return Reach(mul_up(self._settle(before), factor))

    def _reach(self, position: int) -> Reach:
        node = self.graph.nodes[position]

        def note(factor: float, source: str) -> None:
            self.layers.append(Layer(position, node.op, factor, source))

        inputs = [self.reaches[source] for source in node.inputs]
        shapes = [self.graph.nodes[source].shape for source in node.inputs]
        if self.start and all(reach.constant == 0 for reach in inputs):
            return Reach(0.0)
        return RULES[node.op](
            Step(
                self.graph,
                self.start,
                position,
                node,
                inputs,
                shapes,
                self.reaches.__getitem__,
                self._settle,
                self._norm,
                note,
            )
        )

    def _norm(self, matrix: Matrix) -> float:
        return self.measure(matrix)[0]

    def _settle(self, reach: Reach) -> float:
        """Return the Lipschitz constant of a value, with the norm of its matrix."""
        if id(reach) not in self._settled:
            norm = 1.0
            if reach.matrix is not None:
                matrix = replace(reach.matrix, rows=reach.scale)
                norm, source = self.measure(matrix)
                self.layers.append(Layer(matrix.node, matrix.op, norm, source))
            elif reach.scale is not None:
                norm = float(reach.scale.max())
                origin = self.reaches.index(reach)
                op = self.graph.nodes[origin].op
                self.layers.append(Layer(origin, op, norm, op))
            self._settled[id(reach)] = mul_up(reach.constant, norm)
        return self._settled[id(reach)]
