"""A graph lowered to affine steps, ReLU, sigmoid and tanh, exactly as a function of real numbers.

Every piecewise linear operator is written with ReLU, r(v) = max(v, 0):

    leaky(x) = s x + (1 − s) r(x),    clip(x) = lo + r(x − lo) − r(x − hi),
    max(a, b) = a + r(b − a),         min(a, b) = b − r(b − a)

so that one relaxation, one kind of split and one encoding serve them all. Sorting is a network of comparators, a max
pool a tournament over the elements of each window. The lowered form can only lose tightness in interval arithmetic:
`Program.sources` says which steps equal nodes of the graph, whose own interval rules apply to them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from robench.graph import OPERATORS, Graph, Node
from robench.numerics import UNIT_ROUNDOFF
from robench_plugins.verify._engine.lowering import Lowering, doubles, needed, number, sizes
from robench_plugins.verify._engine.program import Activation, Program, Step
from robench_plugins.verify._engine.steps import AxisSum, Concat, Conv, Linear, Scale, View

__all__ = ["Activation", "Program", "Step", "lower", "unsupported"]

_LOWERED: WeakKeyDictionary[Graph, Program] = WeakKeyDictionary()


def unsupported(graph: Graph) -> str | None:
    """Return None, or why `graph` cannot be lowered: the first operator without a rule, by name."""
    for position, node in enumerate(graph.nodes[1:], 1):
        if node.op not in _RULES:
            return f"node {position}: no linear bounds for {node.op}"
    if len(graph.nodes[-1].shape) != 1 or graph.classes < 2:
        return f"the output has the shape {list(graph.nodes[-1].shape)}: a margin needs at least two logits"
    return None


def lower(graph: Graph) -> Program:
    """Return the program of `graph`, which `unsupported` must not refuse; kept with the graph."""
    if graph not in _LOWERED:
        low, places = Lowering(graph.input_shape), [0]
        for node in graph.nodes[1:]:
            places.append(_RULES[node.op](low, node, *(places[source] for source in node.inputs)))
        if places[-1] != len(low.steps) - 1:  # an identity at the end
            places[-1] = low.add(View((places[-1],), graph.nodes[-1].shape, graph.nodes[-1].shape))
        _LOWERED[graph] = Program(tuple(low.steps), {place: node for node, place in enumerate(places)})
    return _LOWERED[graph]


def _linear(low: Lowering, node: Node, at: int) -> int:
    return low.add(Linear((at,), node.shape, needed(node, "weight"), doubles(node, "bias")))


def _conv(low: Lowering, node: Node, at: int) -> int:
    windows = (sizes(node, "stride"), sizes(node, "padding"), sizes(node, "dilation"))
    weight, bias = needed(node, "weight"), doubles(node, "bias")
    return low.add(Conv((at,), node.shape, weight, bias, low.shape(at), *windows, int(number(node, "groups"))))


def _lost(factor: Tensor, source: Tensor) -> Tensor:
    """Return +inf where a quotient is too small to have a relative error, or no number; 0 elsewhere."""
    lost = ((factor.abs() < 2.0**-960) & (source != 0)) | ~factor.isfinite()
    return torch.zeros_like(factor).masked_fill(lost, math.inf)


def _batch_norm(low: Lowering, node: Node, at: int) -> int:
    mean, weight, bias = (needed(node, name) for name in ("mean", "weight", "bias"))
    # Four roundings in the factor (sum, root, quotient), two more behind the shift.
    factor = weight / (needed(node, "var") + number(node, "eps")).sqrt()
    moved = mean * factor
    error = 16 * UNIT_ROUNDOFF * (bias.abs() + moved.abs()) + _lost(factor, weight)
    around = (-1, *[1] * (len(node.shape) - 1))
    factor, shift, error = (value.reshape(around) for value in (factor, bias - moved, error))
    return low.add(Scale((at,), node.shape, factor, shift, low.shape(at), 8, error))


def _relu(low: Lowering, node: Node, at: int) -> int:
    return low.relu(at)


def _smooth(low: Lowering, node: Node, at: int) -> int:
    return low.add(Activation(node.op, (at,), node.shape))


def _leaky_relu(low: Lowering, node: Node, at: int) -> int:
    slope = number(node, "slope")
    return low.mix((slope, 1.0 - slope), (at, low.relu(at)))


def _clip(low: Lowering, node: Node, at: int) -> int:
    least, most = number(node, "min"), number(node, "max")
    inputs, weights, shift = [at], [1.0], 0.0
    if math.isfinite(least):
        inputs, weights, shift = [low.relu(low.shifted(at, -least))], [1.0], least
    if math.isfinite(most):
        inputs.append(low.relu(low.shifted(at, -most)))
        weights.append(-1.0)
    return low.mix(tuple(weights), tuple(inputs), shift=shift)


def _group_sort(low: Lowering, node: Node, at: int) -> int:
    group, channels = int(number(node, "group")), node.shape[0]
    positions = torch.arange(math.prod(node.shape)).reshape(node.shape)
    members = [low.gather(at, positions[k::group]) for k in range(group)] if group > 1 else [at]
    for turn in range(group):  # odd-even transposition sort: `group` rounds sort
        for left in range(turn % 2, group - 1, 2):
            members[left], members[left + 1] = low.compared(members[left], members[left + 1])
    if group == 1:
        return at
    stacked = low.add(Concat(tuple(members), node.shape, (channels // group,) * group, 0))
    order = torch.arange(channels).reshape(group, -1).T.flatten()
    return low.gather(stacked, positions[order])


def _max_pool2d(low: Lowering, node: Node, at: int) -> int:
    channels, height, width = low.shape(at)
    (top, left, _, _), (down, right) = sizes(node, "padding"), sizes(node, "stride")
    kernel, (far, wide) = sizes(node, "kernel"), sizes(node, "dilation")
    rows = torch.arange(node.shape[1])[:, None] * down - top
    columns = torch.arange(node.shape[2])[None] * right - left
    planes = torch.arange(channels).reshape(-1, 1, 1) * (height * width)
    offsets = [(i * far, j * wide) for i in range(kernel[0]) for j in range(kernel[1])]
    flat = torch.stack([(rows + i) * width + columns + j for i, j in offsets])
    inside = torch.stack(
        [(rows + i >= 0) & (rows + i < height) & (columns + j >= 0) & (columns + j < width) for i, j in offsets]
    )
    # Padding never wins: in its place stands the window's first element inside, once more.
    first = flat.gather(0, inside.long().argmax(0, keepdim=True))
    taken = torch.where(inside, flat, first)
    players = [low.gather(at, planes + one[None]) for one in taken]
    while len(players) > 1:
        pairs = zip(players[::2], players[1::2], strict=False)
        players = [low.compared(a, b, least=False)[1] for a, b in pairs] + players[len(players) // 2 * 2 :]
    return players[0]


def _add(low: Lowering, node: Node, *at: int) -> int:
    if len(at) == 2:
        return low.mix((1.0, 1.0), at, node.shape)
    return low.add(Scale(at, node.shape, None, needed(node, "other"), low.shape(at[0])))


def _sub(low: Lowering, node: Node, *at: int) -> int:
    if len(at) == 2:
        return low.mix((1.0, -1.0), at, node.shape)
    other = needed(node, "other")
    if node.attributes.get("reverse"):
        return low.add(Scale(at, node.shape, torch.full_like(other[:0].sum(), -1.0), other, low.shape(at[0])))
    return low.add(Scale(at, node.shape, None, -other, low.shape(at[0])))


def _mul(low: Lowering, node: Node, at: int) -> int:
    return low.add(Scale((at,), node.shape, needed(node, "other"), None, low.shape(at)))


def _div(low: Lowering, node: Node, at: int) -> int:
    other = needed(node, "other")
    return low.add(Scale((at,), node.shape, 1.0 / other, None, low.shape(at), 1, _lost(1.0 / other, other)))


def _neg(low: Lowering, node: Node, at: int) -> int:
    return low.mix((-1.0,), (at,))


def _moved(low: Lowering, node: Node, at: int) -> int:
    """Reshape, transpose, slice and pad move elements: asked about positions, the operator tells where from."""
    source = low.shape(at)
    if node.op == "reshape":
        return low.add(View((at,), node.shape, source))
    positions = torch.arange(math.prod(source), dtype=torch.float64).reshape(1, *source)
    attributes = {**node.attributes, "value": -1.0} if node.op == "pad" else node.attributes
    index = OPERATORS[node.op].bind(attributes, {})(positions)[0].long()
    return low.gather(at, index.contiguous(), number(node, "value") if node.op == "pad" else 0.0)


def _concat(low: Lowering, node: Node, *at: int) -> int:
    axis = int(number(node, "axis"))
    return low.add(Concat(at, node.shape, tuple(low.shape(source)[axis] for source in at), axis))


def _divided(low: Lowering, at: int, counts: Tensor) -> int:
    return low.add(Scale((at,), low.shape(at), 1.0 / counts, None, low.shape(at), 1))


def _avg_pool2d(low: Lowering, node: Node, at: int) -> int:
    kernel, padding = sizes(node, "kernel"), sizes(node, "padding")
    source, channels = low.shape(at), low.shape(at)[0]
    ones = torch.ones(channels, 1, *kernel, dtype=torch.float64)
    conv = Conv((at,), node.shape, ones, None, source, sizes(node, "stride"), padding, (1, 1), channels)
    counts = torch.tensor(float(math.prod(kernel)), dtype=torch.float64)
    if not node.attributes["count_include_pad"]:
        counts = conv.forward(torch.ones(1, *source, dtype=torch.float64))[0]
    return _divided(low, low.add(conv), counts)


def _mean(low: Lowering, node: Node, at: int) -> int:
    source = low.shape(at)
    axes = (1, 2) if node.op == "global_avg_pool2d" else sizes(node, "axes")
    total = low.add(AxisSum((at,), node.shape, source, axes))
    return _divided(low, total, torch.tensor(float(math.prod(source[axis] for axis in axes)), dtype=torch.float64))


_RULES: Mapping[str, Callable[..., int]] = {
    "add": _add,
    "avg_pool2d": _avg_pool2d,
    "batch_norm": _batch_norm,
    "clip": _clip,
    "concat": _concat,
    "conv1d": _conv,
    "conv2d": _conv,
    "div": _div,
    "global_avg_pool2d": _mean,
    "group_sort": _group_sort,
    "leaky_relu": _leaky_relu,
    "linear": _linear,
    "max_pool2d": _max_pool2d,
    "mean": _mean,
    "mul": _mul,
    "neg": _neg,
    "pad": _moved,
    "relu": _relu,
    "reshape": _moved,
    "sigmoid": _smooth,
    "slice": _moved,
    "sub": _sub,
    "tanh": _smooth,
    "transpose": _moved,
}
