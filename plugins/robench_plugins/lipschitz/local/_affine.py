"""Rows back through affine operators: centre and radius, with every rounding error inside the radius.

For rows a in [c − r, c + r] and computed fl(Wᵀc), in any order of summation (Higham 2002, equation 3.5),

    |Wᵀa − fl(Wᵀc)| ≤ |W|ᵀ (r + γ_n |c|).

Underflow needs no term of its own: where a row is not 0 its radius counts as at least t, where a weight is not 0 it
counts as at least w, with t · w = `TINY` · `_LEAST`, far above what n products can lose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv1d_input, conv2d_input

from robench.graph import OPERATORS, Node
from robench.numerics import UNIT_ROUNDOFF, gamma
from robench_plugins.lipschitz.local._rows import TINY, Rows, sane

__all__ = ["AFFINE", "Build", "Shapes"]

Shapes = list[tuple[int, ...]]
"""The shapes of a node's arguments, without the batch dimension."""

Build = Callable[[Node, Shapes, torch.device], Callable[[Rows], list[Rows]]]
"""(node, shapes, device) to the rule: rows about the node's value to rows about each of its arguments."""

_LEAST = 2.0**-100

Map = Callable[[Tensor], Tensor]
"""A linear map of rows [N, ...]."""


@dataclass(frozen=True, eq=False)
class _Matrix:
    """An operator's matrix W.

    Attributes:
        back: rows to Wᵀ of them.
        back_magnitudes: the same with |W|.
        terms: products in a sum at most, and roundings of one factor.
        least: what a radius counts as at least.
    """

    back: Map
    back_magnitudes: Map
    terms: int
    least: float = TINY

    @classmethod
    def of(cls, back: Callable[[Tensor, Tensor], Tensor], weight: Tensor, source: Tensor, terms: int) -> _Matrix:
        """Return that of `back`(weight, rows), where a weight is 0 if `source` is."""
        # Factors that underflowed themselves err by less than γ_n times the least weight, 2**-600 or more.
        size = max(min(1.0, float(weight.abs().max())), 2.0**-500)
        magnitude = torch.where(source == 0, 0.0, weight.abs().clamp_min(_LEAST * size))
        return cls(partial(back, weight), partial(back, magnitude), terms, TINY / size)


def _through(matrix: _Matrix, rows: Rows) -> Rows:
    """Return Wᵀ of the rows."""
    shape, terms = rows.lower.shape, matrix.terms
    lower, upper = rows.lower.flatten(0, 1), rows.upper.flatten(0, 1)
    known = lower.isfinite() & upper.isfinite()
    centre = torch.where(known, lower / 2 + upper / 2, 0.0)
    radius = torch.where(known, torch.maximum(upper - centre, centre - lower), math.inf)
    spread = radius.add_(centre.abs(), alpha=gamma(terms + 4))
    spread = torch.where((lower == 0) & (upper == 0), 0.0, spread.clamp_min_(matrix.least))
    value = matrix.back(centre)
    reach = matrix.back_magnitudes(spread) * (1 + 4 * gamma(terms + 8))
    reach = reach.add_(value.abs(), alpha=8 * UNIT_ROUNDOFF)
    found = sane(value - reach, value + reach)
    return Rows(*(side.reshape(shape[:2] + side.shape[1:]) for side in (found.lower, found.upper)))


def _constant(node: Node, name: str, device: torch.device) -> Tensor:
    return node.constants[name].detach().to(device, torch.float64)


def _linear(node: Node, shapes: Shapes, device: torch.device) -> Callable[[Rows], list[Rows]]:
    weight = _constant(node, "weight", device)
    matrix = _Matrix.of(lambda weight, rows: rows @ weight, weight, weight, len(weight))
    return lambda rows: [_through(matrix, rows)]


def _ints(node: Node, name: str) -> tuple[int, ...]:
    value = node.attributes[name]
    assert isinstance(value, tuple)
    return value


def _convolution(node: Node, shapes: Shapes, device: torch.device) -> Callable[[Rows], list[Rows]]:
    weight, groups = _constant(node, "weight", device), node.attributes["groups"]
    assert isinstance(groups, int)
    stride, padding, dilation = (_ints(node, name) for name in ("stride", "padding", "dilation"))
    rank, (channels, *size) = len(stride), shapes[0]
    begin, end = padding[:rank], padding[rank:]
    even = begin == end
    crop = [] if even else [-p for i in reversed(range(rank)) for p in (begin[i], end[i])]
    grown = size if even else [s + a + b for s, a, b in zip(size, begin, end, strict=True)]
    transposed = conv1d_input if rank == 1 else conv2d_input

    def back(kernel: Tensor, rows: Tensor) -> Tensor:
        # In float64 and without cuDNN this is a matrix product and a sum over windows, so γ_n holds.
        full = (len(rows), channels, *grown)
        made: Tensor = transposed(full, kernel, rows, stride, begin if even else 0, dilation, groups)  # type: ignore[no-untyped-call]
        return F.pad(made, crop) if crop else made

    terms = weight.numel() // weight.shape[1] // groups
    matrix = _Matrix.of(back, weight, weight, terms)
    return lambda rows: [_through(matrix, rows)]


def _times(factor: Tensor, source: Tensor, node: Node, shapes: Shapes) -> Callable[[Rows], list[Rows]]:
    """Multiplication with `factor`, of at most eight roundings and 0 where `source` is; it may repeat its argument."""
    terms = 8 + math.prod(node.shape) // math.prod(shapes[0])

    def back(factor: Tensor, rows: Tensor) -> Tensor:
        return (rows * factor).sum_to_size(len(rows), *shapes[0])

    matrix = _Matrix.of(back, factor, source, terms)
    return lambda rows: [_through(matrix, rows)]


def _mul(node: Node, shapes: Shapes, device: torch.device) -> Callable[[Rows], list[Rows]]:
    other = _constant(node, "other", device)
    return _times(other, other, node, shapes)


def _div(node: Node, shapes: Shapes, device: torch.device) -> Callable[[Rows], list[Rows]]:
    # A division by 0 is not a function: its quotient is +inf here, and nothing is known behind it.
    other = _constant(node, "other", device)
    return _times(1 / other, torch.ones_like(other), node, shapes)


def _batch_norm(node: Node, shapes: Shapes, device: torch.device) -> Callable[[Rows], list[Rows]]:
    weight, var = (_constant(node, name, device) for name in ("weight", "var"))
    eps = node.attributes["eps"]
    assert isinstance(eps, float)
    factor = weight / (var + eps).sqrt()
    around = (-1, *[1] * (len(node.shape) - 1))
    return _times(factor.reshape(around), weight.reshape(around), node, shapes)


def _sum(node: Node, shapes: Shapes, device: torch.device) -> Callable[[Rows], list[Rows]]:
    """Sums and differences, whose arguments may be repeated."""
    negative = {"neg": [True], "add": [False, False], "sub": [bool(node.attributes.get("reverse")), True]}[node.op]

    def rule(rows: Rows) -> list[Rows]:
        return [
            _gathered(-rows if minus else rows, shape, node.shape)
            for minus, shape in zip(negative, shapes, strict=False)
        ]

    return rule


def _gathered(rows: Rows, shape: tuple[int, ...], spread: tuple[int, ...]) -> Rows:
    if shape == spread:
        return rows
    back = partial(_to_size, shape=shape)
    return _through(_Matrix(back, back, math.prod(spread) // math.prod(shape)), rows)


def _to_size(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
    return rows.sum_to_size(len(rows), *shape)


def _transposed(run: Callable[..., Tensor], shapes: Shapes, rows: Tensor) -> tuple[Tensor, ...]:
    """Return the adjoint of a linear function of arguments with `shapes`, applied to `rows` [N, ...]."""
    with torch.enable_grad():
        inputs = [rows.new_zeros(len(rows), *shape).requires_grad_() for shape in shapes]
        return torch.autograd.grad(run(*inputs), inputs, rows)


def _average(node: Node, shapes: Shapes, device: torch.device) -> Callable[[Rows], list[Rows]]:
    """Means: an entry counts for each window that it is in, with a weight of at most three roundings."""
    run = OPERATORS[node.op].bind(node.attributes, {})
    terms = 4 + (math.prod(_ints(node, "kernel")) if "kernel" in node.attributes else 1)

    def back(rows: Tensor) -> Tensor:
        return _transposed(run, shapes, rows)[0]

    return lambda rows: [_through(_Matrix(back, back, terms), rows)]


def _moved(node: Node, shapes: Shapes, device: torch.device) -> Callable[[Rows], list[Rows]]:
    """Entries change their places, are left out, or get others beside them: exact."""
    run = OPERATORS[node.op].bind(node.attributes, {})

    def rule(rows: Rows) -> list[Rows]:
        sides = [_transposed(run, shapes, side.flatten(0, 1)) for side in (rows.lower, rows.upper)]
        return [
            Rows(*(side.reshape(rows.lower.shape[:2] + side.shape[1:]) for side in pair))
            for pair in zip(*sides, strict=True)
        ]

    return rule


AFFINE: Mapping[str, Build] = {
    "add": _sum,
    "avg_pool2d": _average,
    "batch_norm": _batch_norm,
    "concat": _moved,
    "conv1d": _convolution,
    "conv2d": _convolution,
    "div": _div,
    "global_avg_pool2d": _average,
    "linear": _linear,
    "mean": _average,
    "mul": _mul,
    "neg": _sum,
    "pad": _moved,
    "reshape": _moved,
    "slice": _moved,
    "sub": _sum,
    "transpose": _moved,
}
"""Operator to rule."""
