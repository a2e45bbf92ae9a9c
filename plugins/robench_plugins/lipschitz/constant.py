"""A proven upper bound of a network's l2 Lipschitz constant: the product over its graph of its layers' norms.

Szegedy et al. (2014, "Intriguing properties of neural networks", section 4.3), with every norm an upper bound. Power
iteration, the usual way, approaches the norm from below and proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from robench.errors import GraphError
from robench.graph import Graph
from robench_plugins.lipschitz._matrices import Matrix
from robench_plugins.lipschitz._rules import RULES, Reach, Step
from robench_plugins.lipschitz._up import mul_up
from robench_plugins.lipschitz.spectral import MAX_ELEMENTS, seconds

__all__ = ["Layer", "Lipschitz", "cost", "lipschitz_constant", "unsupported"]


@dataclass(frozen=True)
class Layer:
    """One factor of the product.

    Attributes:
        node: position in the graph.
        op: operator name.
        norm: upper bound of its largest singular value, the factors of normalisations beside it included; for other
            operators their factor.
    """

    node: int
    op: str
    norm: float


@dataclass(frozen=True)
class Lipschitz:
    """‖f(x) − f(x′)‖₂ ≤ value · ‖x − x′‖₂ for all x, x′; `layers` holds every factor that is not 1, in graph order."""

    value: float
    layers: tuple[Layer, ...]


_KNOWN: WeakKeyDictionary[Graph, Lipschitz] = WeakKeyDictionary()


def lipschitz_constant(graph: Graph) -> Lipschitz:
    """Return the bound for `graph`, about the real-arithmetic function of its constants; kept with the graph.

    Computed on the CPU, so that it does not depend on the device that the classifier runs on. Raises GraphError for
    what `unsupported` names.
    """
    if graph not in _KNOWN:
        reason = unsupported(graph)
        if reason is not None:
            raise GraphError(reason)
        layers: list[Layer] = []
        value = _walk(graph, Matrix.norm, layers)
        _KNOWN[graph] = Lipschitz(value, tuple(sorted(layers, key=lambda layer: layer.node)))
    return _KNOWN[graph]


def unsupported(graph: Graph) -> str | None:
    """Return None, or what has no proven bound: an operator without a rule, or a matrix that is too large."""
    for position, node in enumerate(graph.nodes[1:], 1):
        if node.op not in RULES:
            return f"node {position}: no Lipschitz rule for {node.op}"
    largest = max(_matrices(graph), key=lambda matrix: math.prod(matrix.shape), default=None)
    if largest is not None and math.prod(largest.shape) > MAX_ELEMENTS:
        return f"{_name(largest)} has more than {MAX_ELEMENTS} entries"
    return None


def cost(graph: Graph) -> tuple[float, str]:
    """Return about how many seconds `lipschitz_constant` takes on one core, and the matrix that most of them go to."""
    times = [(matrix.blocks * seconds(*matrix.shape), _name(matrix)) for matrix in _matrices(graph)]
    return math.fsum(time for time, _ in times), max(times, default=(0.0, ""))[1]


def _name(matrix: Matrix) -> str:
    rows, columns = matrix.shape
    return f"node {matrix.node}: the matrix of {matrix.op}, {rows} x {columns},"


def _matrices(graph: Graph) -> list[Matrix]:
    """Return every matrix whose norm is taken, none of them built."""
    found: list[Matrix] = []

    def count(matrix: Matrix) -> float:
        found.append(matrix)
        return 1.0

    _walk(graph, count, [])
    return found


def _walk(graph: Graph, measure: Callable[[Matrix], float], layers: list[Layer]) -> float:
    """Return the constant of the last node; `measure` gives the norm of a matrix."""
    reaches = [Reach(1.0)]
    settled: dict[int, float] = {}  # by identity: several nodes may read one

    def measured(matrix: Matrix) -> float:
        norm = measure(matrix)
        layers.append(Layer(matrix.node, matrix.op, norm))
        return norm

    def settle(reach: Reach) -> float:
        if id(reach) not in settled:
            norm = 1.0
            if reach.matrix is not None:
                norm = measured(replace(reach.matrix, rows=reach.scale))
            elif reach.scale is not None:
                norm = float(reach.scale.max())
                origin = reaches.index(reach)
                layers.append(Layer(origin, graph.nodes[origin].op, norm))
            settled[id(reach)] = mul_up(reach.constant, norm)
        return settled[id(reach)]

    for position, node in enumerate(graph.nodes[1:], 1):

        def note(factor: float, position: int = position, op: str = node.op) -> None:
            layers.append(Layer(position, op, factor))

        step = Step(
            position,
            node,
            [reaches[source] for source in node.inputs],
            [graph.nodes[source].shape for source in node.inputs],
            settle,
            measured,
            note,
        )
        reaches.append(RULES[node.op](step))
    return settle(reaches[-1])
