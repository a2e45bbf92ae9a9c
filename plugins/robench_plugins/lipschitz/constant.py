"""A network's Lipschitz constant from l2 to l2: the product over its graph of its layers' norms.

Szegedy et al. (2014, "Intriguing properties of neural networks", section 4.3), with every norm an upper bound. Power
iteration, the usual way, approaches the norm from below and proves nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from robench.errors import GraphError
from robench.graph import Graph
from robench_plugins.lipschitz._matrices import Matrix
from robench_plugins.lipschitz._rules import RULES
from robench_plugins.lipschitz._walk import Layer, Walk
from robench_plugins.lipschitz.spectral import MAX_ELEMENTS

__all__ = ["Head", "Layer", "Lipschitz", "cost", "lipschitz_constant", "unsupported"]

_LARGEST_SHARE = 5.0
"""Seconds for the norm of one convolution, at most, where that is enough for a tight bound."""

_KEPT = 2**16
"""Norms that are kept in the process."""


@dataclass(frozen=True, eq=False)
class Head:
    """The last layer: the logits are W diag(`factors`) h(x) + an offset, times ±1, with h `constant`-Lipschitz.

    Attributes:
        constant: of h, times the factors that all logits share.
        weight: W [classes, features], float64.
        factors: magnitudes [features], rounded up; None for ones.
    """

    constant: float
    weight: Tensor
    factors: Tensor | None


@dataclass(frozen=True, eq=False)
class Lipschitz:
    """‖f(x) − f(x′)‖₂ ≤ value · ‖x − x′‖₂ for all x, x′.

    Attributes:
        value: the constant L.
        layers: every factor that is not 1, in graph order; of two branches those of both.
        head: the last layer, where it is a linear one.
        tails: for each node of the same graph, the Lipschitz constant of the logits in its value, those before it being
            fixed; rougher where a norm is not known. It is given the graph, which would otherwise be kept for ever.
    """

    value: float
    layers: tuple[Layer, ...]
    head: Head | None
    tails: Callable[[Graph, Sequence[int]], dict[int, float]]

    @property
    def source(self) -> str:
        """Which bound was taken for which node, in short: `matrix 3 9, grid 1 5`; plain factors are left out."""
        nodes: dict[str, list[int]] = {}
        for layer in self.layers:
            if layer.source != layer.op and layer.node not in nodes.setdefault(layer.source, []):
                nodes[layer.source].append(layer.node)
        return ", ".join(f"{source} {' '.join(map(str, found))}" for source, found in nodes.items())


_KNOWN: WeakKeyDictionary[Graph, dict[float, Lipschitz]] = WeakKeyDictionary()

_NORMS: dict[tuple[bytes, float], tuple[float, str]] = {}

_Key = tuple[object, ...]


def lipschitz_constant(graph: Graph, seconds: float = 60.0) -> Lipschitz:
    """Return the bound for `graph`, about the real-arithmetic function of its constants; kept with the graph.

    `seconds`, as estimated for one core, is what convolutions share that other layers leave. Computed on the CPU, so
    that it does not depend on the device that the classifier runs on. Raises GraphError for what `unsupported` names.
    """
    kept = _KNOWN.setdefault(graph, {})
    if seconds not in kept:
        reason = unsupported(graph)
        if reason is not None:
            raise GraphError(reason)
        kept[seconds] = _analysed(graph, _limits(_matrices(graph), seconds))
    return kept[seconds]


def _analysed(graph: Graph, limits: dict[_Key, float]) -> Lipschitz:
    norms: dict[_Key, tuple[float, str]] = {}

    def measure(matrix: Matrix) -> tuple[float, str]:
        key = _local_key(matrix)
        if key not in norms:
            norms[key] = _norm(matrix, limits[key])
        return norms[key]

    def rough(matrix: Matrix) -> tuple[float, str]:
        return norms.get(_local_key(matrix)) or (matrix.rough(), "sums")

    walk = Walk(graph, measure)
    value = walk.run()
    layers = sorted(walk.layers, key=lambda layer: layer.node)

    def tails(whole: Graph, nodes: Sequence[int]) -> dict[int, float]:
        return {node: Walk(whole, rough, node).run() for node in nodes}

    return Lipschitz(value, tuple(layers), _head(graph, walk), tails)


def _head(graph: Graph, walk: Walk) -> Head | None:
    last = walk.reaches[-1]
    if last.matrix is None or last.matrix.op != "linear" or last.scale is not None:
        return None
    weight = graph.nodes[last.matrix.node].constants["weight"].detach().to("cpu", torch.float64)
    return Head(last.constant, weight, last.matrix.columns)


def _local_key(matrix: Matrix) -> _Key:
    factors = (None if given is None else given.numpy().tobytes() for given in (matrix.rows, matrix.columns))
    return (matrix.node, matrix.settings, *factors)


def _norm(matrix: Matrix, limit: float) -> tuple[float, str]:
    """Return the norm of a matrix, kept for all graphs by the hash of everything that it is made of."""
    sha = hashlib.sha256(repr((matrix.op, matrix.blocks, matrix.shape, matrix.settings)).encode())
    weight = None if matrix.kernel is None else matrix.kernel.weight
    for tensor in (weight, matrix.rows, matrix.columns):
        if tensor is not None:
            sha.update(repr(tuple(tensor.shape)).encode())
            sha.update(tensor.detach().to("cpu", torch.float64).contiguous().numpy().data)
        sha.update(b".")
    key = sha.digest(), limit
    if key not in _NORMS:
        if len(_NORMS) >= _KEPT:
            _NORMS.clear()
        _NORMS[key] = matrix.norm(limit)
    return _NORMS[key]


def unsupported(graph: Graph) -> str | None:
    """Return None, or what has no proven bound: an operator without a rule, or a dense layer that is too large."""
    for position, node in enumerate(graph.nodes[1:], 1):
        if node.op not in RULES:
            return f"node {position}: no Lipschitz rule for {node.op}"
    dense = [matrix for matrix in _matrices(graph) if not matrix.is_convolution]
    largest = max(dense, key=lambda matrix: math.prod(matrix.shape), default=None)
    if largest is not None and math.prod(largest.shape) > MAX_ELEMENTS:
        return f"{_name(largest)} has more than {MAX_ELEMENTS} entries"
    return None


def cost(graph: Graph, seconds: float = 60.0) -> tuple[float, str]:
    """Return about how many seconds `lipschitz_constant` takes on one core, and the matrix that most of them go to."""
    matrices = _matrices(graph)
    limits = _limits(matrices, seconds)
    times = [(matrix.seconds(limits[_local_key(matrix)]), _name(matrix)) for matrix in matrices]
    return math.fsum(time for time, _ in times), max(times, default=(0.0, ""))[1]


def _limits(matrices: Sequence[Matrix], seconds: float) -> dict[_Key, float]:
    """Return the seconds that each matrix may take: what is left goes to those that have no tight bound for less."""
    limits = {_local_key(matrix): 0.0 for matrix in matrices}
    convolutions = [matrix for matrix in matrices if matrix.is_convolution]
    left = max(0.0, seconds - math.fsum(matrix.seconds(0.0) for matrix in matrices if not matrix.is_convolution))
    share = min(_LARGEST_SHARE, left / max(1, len(convolutions)))
    left -= math.fsum(matrix.seconds(share) for matrix in convolutions)
    loose = [matrix for matrix in convolutions if not matrix.is_tight(share)]
    limits |= {_local_key(matrix): share for matrix in convolutions}
    more = max(0.0, left) / max(1, len(loose))
    return limits | {_local_key(matrix): max(share, matrix.seconds(share) + more) for matrix in loose}


def _name(matrix: Matrix) -> str:
    rows, columns = matrix.shape
    return f"node {matrix.node}: the matrix of {matrix.op}, {rows} x {columns},"


def _matrices(graph: Graph) -> list[Matrix]:
    """Return every matrix whose norm is taken, none of them built."""
    found: dict[tuple[object, ...], Matrix] = {}

    def count(matrix: Matrix) -> tuple[float, str]:
        found.setdefault(_local_key(matrix), matrix)
        return 1.0, ""

    Walk(graph, count).run()
    return list(found.values())
