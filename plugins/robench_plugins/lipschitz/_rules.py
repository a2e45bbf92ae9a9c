"""What each operator does to distances: the rules of the product.

A node's value is followed as diag(scale) · M · h(x) + an offset, with h `constant`-Lipschitz from l2 to l2 in the
network's input x. Factors that stand beside a layer's matrix are thus bounded together with it, which can only be
tighter: ‖diag(s) M‖ ≤ max s · ‖M‖. Everything else multiplies; branches add in a sum, their squares in a concatenation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor

from robench.graph import OPERATORS, Node
from robench.numerics import UNIT_ROUNDOFF, round_up
from robench_plugins.lipschitz._circular import circular
from robench_plugins.lipschitz._matrices import Matrix, averages, convolution, layer_matrix, linear, overlap
from robench_plugins.lipschitz._residual import potential_step, stretch
from robench_plugins.lipschitz._step import Reach, Step
from robench_plugins.lipschitz._up import TINY, add_up, div_up, mul_up, sqrt_up

__all__ = ["RULES"]


def _matrix(build: Callable[[Step], Matrix]) -> Callable[[Step], Reach]:
    return lambda step: _after(step, step.inputs[0], build(step))


def _after(step: Step, before: Reach, matrix: Matrix) -> Reach:
    if before.matrix is None:
        return Reach(before.constant, replace(matrix, columns=before.scale))
    return Reach(step.settle(before), matrix)


def _linear(step: Step) -> Matrix:
    return linear(step.position, step.node)


def _convolution(step: Step) -> Reach:
    """With the circular padding before it, where there is one, it is an operator on what was padded."""
    found = circular(step.graph, step.position)
    if found is None or step.start in found.chain:
        return _after(step, step.inputs[0], convolution(step.position, step.node, step.shapes[0]))
    shape = step.graph.nodes[found.source].shape
    return _after(step, step.reach(found.source), convolution(step.position, step.node, shape, found.begins))


def _factors(step: Step, magnitudes: Tensor, signs: Tensor) -> Reach:
    """Multiply with `magnitudes` (rounded up, broadcast against the input), whose factors have `signs`.

    What is one factor leaves the matrix before it as it is; of factors that differ in sign alone not even differences
    of its rows stay what they were.
    """
    (before,) = step.inputs
    shape = step.node.shape
    if shape != step.shapes[0]:
        return step.times(mul_up(float(magnitudes.max()), _repeats(step, 0)))
    if all(bool((values == values.flatten()[0]).all()) for values in (magnitudes, signs)):
        factor = float(magnitudes.flatten()[0])
        if factor != 1:
            step.note(factor, step.node.op)
        return replace(before, constant=mul_up(before.constant, factor))
    scale = magnitudes.broadcast_to(shape).flatten()
    if before.scale is not None:
        scale = _positive(round_up(scale * before.scale), (scale == 0) | (before.scale == 0))
    return replace(before, scale=scale)


def _positive(values: Tensor, zero: Tensor) -> Tensor:
    """Return magnitudes that were rounded up; 0 where `zero` says so and nowhere else, +inf where not known."""
    return torch.where(zero, 0.0, values.nan_to_num(nan=math.inf, posinf=math.inf).clamp_min(TINY))


def _repeats(step: Step, which: int) -> float:
    """Return √(how often broadcasting repeats each element of an argument)."""
    return sqrt_up(float(math.prod(step.node.shape) // math.prod(step.shapes[which])))


def _constant(node: Node, name: str) -> Tensor:
    return node.constants[name].detach().to("cpu", torch.float64)


def _mul(step: Step) -> Reach:
    other = _constant(step.node, "other")
    return _factors(step, _positive(other.abs(), other == 0), other.sign())


def _div(step: Step) -> Reach:
    # A division by 0 is not a function: +inf.
    other = _constant(step.node, "other")
    magnitudes = _positive(round_up(1 / other.abs()), torch.zeros_like(other, dtype=torch.bool))
    return _factors(step, magnitudes, other.sign())


def _batch_norm(step: Step) -> Reach:
    """|weight| / √(var + eps): three roundings, of which the sum is one between a variance and a positive number."""
    weight, var = _constant(step.node, "weight"), _constant(step.node, "var")
    eps = step.node.attributes["eps"]
    assert isinstance(eps, float)
    factor = weight.abs() / (var + eps).sqrt() * (1 + 16 * UNIT_ROUNDOFF)
    factor = _positive(round_up(factor), weight == 0)
    return _factors(step, factor.reshape(-1, *[1] * (len(step.node.shape) - 1)), weight.sign())


def _sum(step: Step) -> Reach:
    if len(step.inputs) == 1:
        return _same(step) if step.node.shape == step.shapes[0] else step.times(_repeats(step, 0))
    total = 0.0
    for which, reach in enumerate(step.inputs):
        total = add_up(total, mul_up(step.settle(reach), _repeats(step, which)))
    return Reach(total)


def _difference(step: Step) -> Reach:
    found = potential_step(step.graph, step.position)
    if found is None or step.start in found.chain:
        return _sum(step)
    factor = stretch(step.measure(layer_matrix(step.graph, found.chain[0])), found.slope)
    step.note(factor, "residual")
    return Reach(mul_up(step.settle(step.inputs[0]), factor))


def _concat(step: Step) -> Reach:
    if len(step.inputs) == 1:
        return _same(step)
    constants = [step.settle(reach) for reach in step.inputs]
    largest = max(constants)
    if largest in (0, math.inf):
        return Reach(largest)
    squares = 0.0
    for constant in constants:
        part = div_up(constant, largest)
        squares = add_up(squares, mul_up(part, part))
    return Reach(mul_up(largest, sqrt_up(squares)))


def _same(step: Step) -> Reach:
    """The operator moves distances as they are, and keeps the elements in their order."""
    return step.inputs[0]


def _moved(step: Step) -> Reach:
    """The operator moves, drops or adds elements; factors go with them."""
    (before,) = step.inputs
    if before.matrix is not None:
        return Reach(step.settle(before))
    if before.scale is None:
        return before
    attributes = dict(step.node.attributes)
    if step.node.op == "pad":
        attributes["value"] = 0.0
    move = OPERATORS[step.node.op].bind(attributes, {})
    return replace(before, scale=move(before.scale.reshape(1, *step.shapes[0])).flatten())


def _at_most(factor: float) -> Callable[[Step], Reach]:
    return lambda step: step.times(factor)


def _leaky_relu(step: Step) -> Reach:
    slope = step.node.attributes["slope"]
    assert isinstance(slope, float)
    return step.times(max(1.0, abs(slope)))


def _max_pool(step: Step) -> Reach:
    """Maxima are 1-Lipschitz in the largest change of their window, and a position counts for each window it is in."""
    return step.times(sqrt_up(float(overlap(step.node, step.shapes[0][1:]))))


def _avg_pool(step: Step) -> Reach:
    constant = step.settle(step.inputs[0])
    for axis in range(2):
        norm = step.measure(averages(step.position, step.node, step.shapes[0][1:], axis))
        step.note(norm, "matrix")
        constant = mul_up(constant, norm)
    return Reach(constant)


def _mean(step: Step) -> Reach:
    """The mean of k elements: 1 / √k, exactly the norm of the row (1/k, …, 1/k)."""
    terms = Fraction(math.prod(step.shapes[0]), math.prod(step.node.shape))
    return step.times(sqrt_up(div_up(1.0, float(terms))))


RULES: Mapping[str, Callable[[Step], Reach]] = {
    "add": _sum,
    "avg_pool2d": _avg_pool,
    "batch_norm": _batch_norm,
    "clip": _at_most(1.0),
    "concat": _concat,
    "conv1d": _convolution,
    "conv2d": _convolution,
    "div": _div,
    "global_avg_pool2d": _mean,
    "group_sort": _at_most(1.0),
    "leaky_relu": _leaky_relu,
    "linear": _matrix(_linear),
    "max_pool2d": _max_pool,
    "mean": _mean,
    "mul": _mul,
    "neg": _same,
    "pad": _moved,
    "relu": _at_most(1.0),
    "reshape": _same,
    "sigmoid": _at_most(0.25),
    "slice": _moved,
    "sub": _difference,
    "tanh": _at_most(1.0),
    "transpose": _moved,
}
"""Operator to rule. What is not here is refused by name."""
