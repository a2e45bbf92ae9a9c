"""The linear parts of layers, with the best bound of their norms that the time allows.

An explicit matrix [outputs, inputs] holds the layer's weights and is exact, one for each group of a convolution. A
convolution for which that would take too long is bounded by its kernel alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robench.graph import Graph, Node
from robench.numerics import round_up
from robench_plugins.lipschitz._kernel import Kernel, factored
from robench_plugins.lipschitz._up import mul_up, scale_up
from robench_plugins.lipschitz.spectral import MAX_ELEMENTS, seconds, spectral_norm_upper
from robench_plugins.lipschitz.symbol import Plan, torus_of

__all__ = ["Matrix", "averages", "convolution", "layer_matrix", "linear", "overlap"]


_QUICK = 1.0
"""Seconds that an explicit matrix may take where its kernel gives nearly as much."""


@dataclass(frozen=True, eq=False)
class Matrix:
    """The linear part of one layer, block diagonal, with the diagonal operators that stand around it.

    Attributes:
        node: position of the layer in the graph.
        op: its operator.
        blocks: how many blocks there are.
        shape: [rows, columns] of each.
        build: number of a block to its entries, float64.
        kernel: the weights; None for averages, which are small.
        settings: what makes it the matrix that it is, beside the weights.
        columns: factors of the layer's inputs, flat, magnitudes rounded up; None for ones.
        rows: factors of its outputs.
    """

    node: int
    op: str
    blocks: int
    shape: tuple[int, int]
    build: Callable[[int], Tensor]
    kernel: Kernel | None = None
    settings: str = ""
    columns: Tensor | None = None
    rows: Tensor | None = None

    @property
    def is_convolution(self) -> bool:
        """Whether its kernel alone bounds it."""
        return self.kernel is not None and bool(self.kernel.stride)

    def seconds(self, limit: float) -> float:
        """Return about how long `norm` takes on one core, as measured; more than `limit` for what has no other way."""
        chosen = self._plan(limit)
        return self.blocks * seconds(*self.shape) if chosen is None else chosen.seconds

    def is_tight(self, limit: float) -> bool:
        """Whether `norm` is within about 1 % of the true norm, or of that of larger maps."""
        chosen = self._plan(limit)
        return chosen is None or chosen.is_tight

    def _plan(self, limit: float) -> Plan | None:
        """Return None for the explicit matrix: where it is quick, or there is time and nothing else is tight."""
        if not self.is_convolution:
            return None
        assert self.kernel is not None
        explicit = self.blocks * seconds(*self.shape) if math.prod(self.shape) <= MAX_ELEMENTS else math.inf
        if explicit <= min(limit, _QUICK):
            return None
        chosen = self.kernel.plan(limit)
        return chosen if chosen.is_tight or explicit > limit else None

    def norm(self, limit: float) -> tuple[float, str]:
        """Return an upper bound of the largest singular value of diag(rows) · M · diag(columns), and its source.

        Signs of the factors do not matter, and larger factors give a larger norm: D ≤ D′ is D = D′E with ‖E‖ ≤ 1. The
        explicit matrix (`matrix`) where it is quick or there is no other way.
        """
        if self._plan(limit) is not None:
            assert self.kernel is not None
            return self.kernel.norm(self.columns, self.rows, limit)
        return max(self._block_norm(block) for block in range(self.blocks)), "matrix"

    def rough(self) -> float:
        """Return a cheap upper bound of the same norm."""
        if self.kernel is None:
            return max(self._block_norm(block) for block in range(self.blocks))
        factors = (1.0 if given is None else float(given.max()) for given in (self.rows, self.columns))
        return mul_up(mul_up(self.kernel.rough(), next(factors)), next(factors))

    def _block_norm(self, block: int) -> float:
        entries = self.build(block).to("cpu", torch.float64)
        total, roundings = 0, 0
        for factors, axis in ((self.rows, 0), (self.columns, 1)):
            if factors is not None:
                size = self.shape[axis]
                part, exponent = factored(factors[block * size : (block + 1) * size])
                entries = entries * (part[:, None] if axis == 0 else part)
                total, roundings = total + exponent, roundings + 1
        return scale_up(spectral_norm_upper(entries, roundings), total)


def linear(position: int, node: Node) -> Matrix:
    """Return the weight of a `linear` node."""
    weight = node.constants["weight"].detach()
    rows, columns = weight.shape
    return Matrix(position, node.op, 1, (rows, columns), lambda block: weight.double(), Kernel(weight))


def layer_matrix(graph: Graph, position: int) -> Matrix:
    """Return the matrix of a `linear`, `conv1d` or `conv2d` node."""
    node = graph.nodes[position]
    if node.op == "linear":
        return linear(position, node)
    return convolution(position, node, graph.nodes[node.inputs[0]].shape)


def convolution(position: int, node: Node, shape: Sequence[int], begins: Sequence[int] | None = None) -> Matrix:
    """Return the operator of a `conv1d` or `conv2d` node on inputs of `shape` [channels, ...], one block per group.

    With `begins` it is that of a circular padding too, which puts so many positions in front of each axis; inputs are
    what is padded, and each axis is as `circular` asks for.
    """
    weight = node.constants["weight"].detach()
    groups = int(node.attributes["groups"])  # type: ignore[arg-type]
    out, inner = len(weight) // groups, weight.shape[1]
    taps = _taps(node, shape[1:], weight.shape[2:], begins)
    size = (out * math.prod(node.shape[1:]), inner * math.prod(shape[1:]))

    def build(block: int) -> Tensor:
        kernel = weight[block * out : (block + 1) * out].to("cpu", torch.float64).flatten(2)
        matrix = kernel.new_zeros(out, math.prod(node.shape[1:]), inner, math.prod(shape[1:]))
        for tap, (targets, sources) in enumerate(taps()):
            # Advanced indices apart from each other: the pairs come first, [pairs, out, inner].
            matrix[:, targets, :, sources] += kernel[:, :, tap]
        return matrix.reshape(size)

    torus = _torus(node, shape[1:]) if begins is None else _own_torus(node, shape[1:])
    kernel = Kernel(weight, _ints(node, "stride"), _ints(node, "dilation"), groups, torus)
    settings = repr((shape, sorted(node.attributes.items()), *([] if begins is None else [begins])))
    return Matrix(position, node.op, groups, size, build, kernel, settings)


def _own_torus(node: Node, spatial: Sequence[int]) -> tuple[int, int]:
    """Return the frequencies of the torus that the map is: those of the symbol of stride 1."""
    first, second, *_ = [*(size // s for size, s in zip(spatial, _ints(node, "stride"), strict=True)), 1]
    return first, second


def _torus(node: Node, spatial: Sequence[int]) -> tuple[int, int] | None:
    """Return the frequencies of a torus that the map lies in, along two axes."""
    stride, padding, dilation = (_ints(node, key) for key in ("stride", "padding", "dilation"))
    around = zip(padding[: len(spatial)], padding[len(spatial) :], strict=True)
    taps = node.constants["weight"].shape[2:]
    axes = zip(spatial, node.shape[1:], taps, stride, dilation, around, strict=True)
    first, second, *_ = [*(torus_of(*axis) for axis in axes), 1]
    return None if first is None or second is None else (first, second)


def _taps(
    node: Node, spatial: Sequence[int], kernel: Sequence[int], begins: Sequence[int] | None
) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
    """Return an iterator over the entries of a kernel: the (outputs, inputs) that each one joins, flat positions."""
    stride, padding, dilation = (_ints(node, key) for key in ("stride", "padding", "dilation"))
    fronts = padding[: len(spatial)] if begins is None else begins
    axes = [
        [_pairs(n, out, s, p, d * k, begins is not None) for k in range(taps)]
        for n, out, s, p, d, taps in zip(spatial, node.shape[1:], stride, fronts, dilation, kernel, strict=True)
    ]

    def iterate() -> Iterator[tuple[Tensor, Tensor]]:
        for tap in itertools.product(*(range(size) for size in kernel)):
            targets, sources = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
            for axis, k in enumerate(tap):
                to, of = axes[axis][k]
                targets = (targets[:, None] * node.shape[1 + axis] + to).flatten()
                sources = (sources[:, None] * spatial[axis] + of).flatten()
            yield targets, sources

    return iterate


def _pairs(
    size: int, windows: int, stride: int, padding: int, offset: int, wraps: bool = False
) -> tuple[Tensor, Tensor]:
    """Return (windows, positions) along an axis where the tap at `offset` of a window lies inside the input.

    Everywhere, where the input `wraps` around.
    """
    window = torch.arange(windows)
    position = window * stride - padding + offset
    if wraps:
        return window, position % size
    inside = (position >= 0) & (position < size)
    return window[inside], position[inside]


def averages(position: int, node: Node, spatial: Sequence[int], axis: int) -> Matrix:
    """Return what an `avg_pool2d` node does along one spatial axis: row i holds 1 / n_i, rounded up, in its window.

    The whole is the Kronecker product of both axes, also where padding is not counted. Entries are not negative, so
    that larger ones give a larger norm.
    """
    kernel, stride, padding = (_ints(node, key)[axis] for key in ("kernel", "stride", "padding"))
    shape = (node.shape[1 + axis], spatial[axis])

    def build(block: int) -> Tensor:
        matrix = torch.zeros(shape, dtype=torch.float64)
        for k in range(kernel):
            matrix[_pairs(spatial[axis], shape[0], stride, padding, k)] = 1.0
        inside = matrix.sum(1, keepdim=True)
        counted = torch.full_like(inside, kernel) if node.attributes["count_include_pad"] else inside
        return matrix * round_up(1 / counted)

    return Matrix(position, node.op, 1, shape, build, settings=repr((axis, sorted(node.attributes.items()))))


def overlap(node: Node, spatial: Sequence[int]) -> int:
    """Return how many windows of a `max_pool2d` node read one position at most."""
    most = 1
    for axis, size in enumerate(spatial):
        kernel, stride, padding, dilation = (_ints(node, k)[axis] for k in ("kernel", "stride", "padding", "dilation"))
        reads = torch.zeros(size, dtype=torch.int64)
        for k in range(kernel):
            reads[_pairs(size, node.shape[1 + axis], stride, padding, dilation * k)[1]] += 1
        most *= int(reads.max())
    return most


def _ints(node: Node, name: str) -> tuple[int, ...]:
    value = node.attributes[name]
    assert isinstance(value, tuple)
    return value
