"""Polynomials of a skew-symmetric layer, such as x + Ax + A²x/2 + …, of which the sum of norms would be a poor bound.

A real matrix with Aᵀ = −A has orthogonal eigenvectors and eigenvalues iθ with |θ| ≤ ‖A‖₂, so that for real c

    ‖Σ_k c_k Aᵏ‖₂ ≤ max_{|θ| ≤ ‖A‖₂} |Σ_k c_k (iθ)ᵏ|,

the square of which is a polynomial in s = θ² with rational coefficients. Its coefficients in the Bernstein basis of an
interval bound it there. For the truncated exponential series of skew orthogonal convolutions (Singla & Feizi 2021) the
maximum is 1 where the last power is the 12th, say, and ‖A‖₂ ≤ 3.3; after the 5th it is above 1 for every A.

This needs A itself in every layer of the sum, entry by entry, and entries of opposite sign: one rounding more, and the
general rule stands. A convolution of stride 1 is skew-symmetric if it is the transposed one with all signs changed, its
padding being that one's too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from weakref import WeakKeyDictionary

import torch

from robench.graph import Graph, Node
from robench_plugins.lipschitz._residual import are_transposed
from robench_plugins.lipschitz._up import sqrt_up

__all__ = ["Series", "largest", "series"]

_MAX_DEGREE = 32
_SPLITS = 40
_ENOUGH = Fraction(1, 2**20)
_LAYERS = ("conv1d", "conv2d", "linear")


@dataclass(frozen=True, eq=False)
class Series:
    """A sum of powers of one skew-symmetric layer, applied to one value.

    Attributes:
        source: the node that the powers are applied to.
        layer: the first of the layers, all of which have its matrix.
        nodes: what lies between the source and the sum; nothing else reads it.
        end: the sum.
    """

    source: int
    layer: int
    nodes: frozenset[int]
    end: int

    def coefficients(self, graph: Graph, start: int) -> tuple[Fraction, ...]:
        """Return how the sum depends on the value of `start` (the source, or one of `nodes`), the others being fixed.

        Number k belongs to the k-th power.
        """
        terms: dict[int, tuple[Fraction, ...]] = {start: (Fraction(1),)}
        for position in sorted(node for node in (*self.nodes, self.end) if node > start):
            node = graph.nodes[position]
            read = [terms.get(source, ()) for source in node.inputs]
            factor = _factor(node)
            if node.op == "add":
                length = max(map(len, read))
                padded = [(*one, *[Fraction(0)] * (length - len(one))) for one in read]
                terms[position] = tuple(map(sum, zip(*padded, strict=True)))  # type: ignore[arg-type]
            elif factor is not None:
                terms[position] = tuple(factor * one for one in read[0])
            else:
                terms[position] = (Fraction(0), *read[0]) if read[0] else ()
        return terms[self.end]


_KNOWN: WeakKeyDictionary[Graph, dict[int, Series]] = WeakKeyDictionary()


def series(graph: Graph) -> dict[int, Series]:
    """Return the sums of powers in `graph` by their end; kept with the graph. Of nested ones the longest."""
    if graph not in _KNOWN:
        readers: list[list[int]] = [[] for _ in graph.nodes]
        for position, node in enumerate(graph.nodes):
            for source in node.inputs:
                readers[source].append(position)
        found: dict[int, Series] = {}
        inside: set[int] = set()
        for position in reversed(range(len(graph.nodes))):
            one = None if position in inside else _series(graph, position, readers)
            if one is not None:
                found[position] = one
                inside |= one.nodes
        _KNOWN[graph] = found
    return _KNOWN[graph]


def _series(graph: Graph, end: int, readers: Sequence[Sequence[int]]) -> Series | None:
    """Return the longest sum that ends in `end`, or None.

    Going back in the order of the graph, all that is read still goes through the nodes of `open_`: where there is one
    only, it is a source.
    """
    nodes = graph.nodes
    if not _is_sum(nodes[end]):
        return None
    found: Series | None = None
    layer: int | None = None
    between: set[int] = set()
    degree = 0
    open_ = {end}
    while open_:
        position = max(open_)
        node = nodes[position]
        if node.shape != nodes[end].shape:
            break
        if len(open_) == 1 and layer is not None and position != end:
            inner = frozenset(between - {end})
            if all(reader in between for one in inner for reader in readers[one]):
                found = Series(position, layer, inner, end)
        if node.op in _LAYERS:
            if not _is_same(node, nodes[layer or position]) or not _is_skew(node) or degree == _MAX_DEGREE:
                break
            layer, degree = position, degree + 1
        elif not _is_sum(node) and _factor(node) is None:
            break
        between.add(position)
        open_ = open_ - {position} | set(node.inputs)
    return found


def _is_sum(node: Node) -> bool:
    return node.op == "add" and len(node.inputs) > 1


def _factor(node: Node) -> Fraction | None:
    """Return the number that a node multiplies its input with, where it does no more."""
    if node.op not in ("mul", "div") or len(node.inputs) != 1 or node.constants["other"].numel() != 1:
        return None
    other = float(node.constants["other"])
    if not math.isfinite(other) or (node.op == "div" and other == 0):
        return None
    return Fraction(other) if node.op == "mul" else 1 / Fraction(other)


def _is_same(node: Node, layer: Node) -> bool:
    """Whether two layers have one matrix; biases do not matter."""
    if node is layer:
        return True
    weight, other = node.constants.get("weight"), layer.constants["weight"]
    if node.op != layer.op or node.attributes != layer.attributes or weight is None:
        return False
    return weight.shape == other.shape and weight.dtype == other.dtype and torch.equal(weight, other)


def _is_skew(layer: Node) -> bool:
    negative = {**layer.constants, "weight": -layer.constants["weight"]}
    return are_transposed(layer, replace(layer, constants=negative))


@lru_cache(maxsize=2**14)
def largest(coefficients: tuple[Fraction, ...], radius: float) -> float:
    """Return an upper bound of max |Σ_k c_k (iθ)ᵏ| over |θ| ≤ radius: the maximum but for about 1e-6 of it."""
    if not math.isfinite(radius) and any(coefficients[1:]):
        return math.inf
    if not any(coefficients[1:]):
        coefficients, radius = coefficients[:1], 0.0
    parts = [_bernstein(_squared_modulus(coefficients), Fraction(radius) ** 2)]
    for _ in range(_SPLITS):
        reached = max(max(part[0], part[-1]) for part in parts)  # values at the ends
        worst = max(parts, key=max)
        if max(worst) <= reached * (1 + _ENOUGH):
            break
        parts.remove(worst)
        parts += _halves(worst)
    return _root_up(max(max(part) for part in parts))


def _squared_modulus(coefficients: Sequence[Fraction]) -> list[Fraction]:
    """Return the coefficients in s = θ² of |Σ_k c_k (iθ)ᵏ|² = (Σ_j (−1)ʲ c_2j sʲ)² + s (Σ_j (−1)ʲ c_2j+1 sʲ)²."""
    square = [Fraction(0)] * len(coefficients)
    for parity in (0, 1):
        signed = [(-1) ** j * c for j, c in enumerate(coefficients[parity::2])]
        for i, first in enumerate(signed):
            for j, second in enumerate(signed):
                square[i + j + parity] += first * second
    return square


def _bernstein(powers: Sequence[Fraction], end: Fraction) -> list[Fraction]:
    """Return the coefficients of Σ_j a_j sʲ in the Bernstein basis of [0, end]."""
    degree = len(powers) - 1
    scaled = [a * end**j / math.comb(degree, j) for j, a in enumerate(powers)]
    return [sum((math.comb(i, j) * a for j, a in enumerate(scaled[: i + 1])), Fraction(0)) for i in range(degree + 1)]


def _halves(values: Sequence[Fraction]) -> tuple[list[Fraction], list[Fraction]]:
    """Return the coefficients of the same polynomial on both halves of the interval (de Casteljau)."""
    rows = [list(values)]
    while len(rows[-1]) > 1:
        rows.append([(a + b) / 2 for a, b in pairwise(rows[-1])])
    return [row[0] for row in rows], [row[-1] for row in reversed(rows)]


def _root_up(square: Fraction) -> float:
    """Return the root, rounded up."""
    try:
        rounded = float(square)
    except OverflowError:
        return math.inf
    return sqrt_up(math.nextafter(rounded, math.inf) if Fraction(rounded) < square else rounded)
