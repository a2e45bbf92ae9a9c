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
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from robench.graph import OPERATORS, Graph, Node
from robench.numerics import UNIT_ROUNDOFF
from robench_plugins.verify._engine.steps import (
    Affine,
    AxisSum,
    Concat,
    Conv,
    Gather,
    Linear,
    Mix,
    Scale,
    Shape,
    View,
)

__all__ = ["Activation", "Program", "Step", "lower", "unsupported"]


_FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


@dataclass(frozen=True, eq=False)
class Activation:
    """An activation, entry by entry: `relu`, `sigmoid` or `tanh`."""

    op: str
    inputs: tuple[int]
    shape: Shape

    def forward(self, *values: Tensor) -> Tensor:
        """Return the activation of values [B, ...]."""
        return _FUNCTIONS[self.op](values[0])


Step = Affine | Activation


@dataclass(frozen=True, eq=False)
class Program:
    """Steps in topological order; step 0 is the input (an empty `View`), the last one holds the logits.

    Attributes:
        steps: the steps, float64 constants on the CPU unless cast.
        sources: the graph's node that a step equals, by step.
    """

    steps: tuple[Step, ...]
    sources: Mapping[int, int]
    _cast: dict[tuple[torch.dtype, torch.device], Program] = field(default_factory=dict, repr=False)

    @cached_property
    def uses(self) -> tuple[int, ...]:
        """How often each step is read."""
        read = Counter(source for step in self.steps for source in step.inputs)
        return tuple(read[position] for position in range(len(self.steps)))

    @property
    def activations(self) -> tuple[int, ...]:
        """Positions of the activations."""
        return tuple(i for i, step in enumerate(self.steps) if isinstance(step, Activation))

    @property
    def piecewise_linear(self) -> bool:
        """Whether every activation is a ReLU."""
        return all(step.op == "relu" for step in self.steps if isinstance(step, Activation))

    @cached_property
    def widest(self) -> int:
        """Numbers that the widest step's value has."""
        return max(math.prod(step.shape) for step in self.steps)

    def activation(self, position: int) -> Activation:
        """Return the activation at `position`."""
        step = self.steps[position]
        assert isinstance(step, Activation)
        return step

    @property
    def last(self) -> int:
        """Position of the logits."""
        return len(self.steps) - 1

    def to(self, dtype: torch.dtype, device: torch.device) -> Program:
        """Return the program with its constants in `dtype` on `device`; kept."""
        key = (dtype, device)
        if key not in self._cast:
            steps = tuple(step.cast(dtype, device) if isinstance(step, Affine) else step for step in self.steps)
            self._cast[key] = Program(steps, self.sources)
        return self._cast[key]

    def upto(self, last: int) -> Program:
        """Return the steps up to the one at `last`, whose value becomes the output."""
        return Program(self.steps[: last + 1], {step: node for step, node in self.sources.items() if step <= last})

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [B, classes] of `x` [B, ...] in the constants' dtype; differentiable."""
        values: list[Tensor | None] = [x, *[None] * self.last]
        left = list(self.uses)
        for position, step in enumerate(self.steps[1:], 1):
            arguments = [value for source in step.inputs if (value := values[source]) is not None]
            values[position] = step.forward(*arguments)
            for source in step.inputs:
                left[source] -= 1
                if not left[source]:
                    values[source] = None
        out = values[-1]
        assert out is not None
        return out


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
        _LOWERED[graph] = _Lowering(graph).program()
    return _LOWERED[graph]


class _Lowering:
    """The steps so far, and where each node of the graph ended up."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.steps: list[Step] = [View((), graph.input_shape, graph.input_shape)]
        self.places = [0]

    def program(self) -> Program:
        for node in self.graph.nodes[1:]:
            self.places.append(_RULES[node.op](self, node, *(self.places[source] for source in node.inputs)))
        if self.places[-1] != len(self.steps) - 1:  # an identity at the end
            self.places[-1] = self.add(View((self.places[-1],), self.graph.nodes[-1].shape, self.graph.nodes[-1].shape))
        return Program(tuple(self.steps), {place: node for node, place in enumerate(self.places)})

    def add(self, step: Step) -> int:
        self.steps.append(step)
        return len(self.steps) - 1

    def shape(self, at: int) -> Shape:
        return self.steps[at].shape

    def relu(self, at: int) -> int:
        return self.add(Activation("relu", (at,), self.shape(at)))

    def mix(
        self, weights: tuple[float, ...], inputs: tuple[int, ...], shape: Shape | None = None, shift: float = 0.0
    ) -> int:
        sources = tuple(self.shape(source) for source in inputs)
        return self.add(Mix(inputs, shape or sources[0], weights, sources, shift))

    def shifted(self, at: int, shift: float) -> int:
        return at if shift == 0 else self.mix((1.0,), (at,), shift=shift)

    def gather(self, at: int, index: Tensor, fill: float = 0.0) -> int:
        inside = index[index >= 0].flatten()
        repeats = int(torch.bincount(inside).max()) if len(inside) else 1
        return self.add(Gather((at,), tuple(index.shape), index, self.shape(at), repeats, fill))

    def compared(self, a: int, b: int, least: bool = True) -> tuple[int, int]:
        """Return (min, max) of two steps; the minimum is left out (−1) where it is not wanted."""
        r = self.relu(self.mix((-1.0, 1.0), (a, b)))
        low = self.mix((1.0, -1.0), (b, r)) if least else -1
        return low, self.mix((1.0, 1.0), (a, r))


def _doubles(node: Node, name: str) -> Tensor | None:
    value = node.constants.get(name)
    return None if value is None else value.detach().to("cpu", torch.float64)


def _needed(node: Node, name: str) -> Tensor:
    return node.constants[name].detach().to("cpu", torch.float64)


def _sizes(node: Node, name: str) -> Shape:
    value = node.attributes[name]
    assert isinstance(value, tuple)
    return value


def _number(node: Node, name: str) -> float:
    value = node.attributes[name]
    assert isinstance(value, int | float)
    return float(value)


def _linear(low: _Lowering, node: Node, at: int) -> int:
    return low.add(Linear((at,), node.shape, _needed(node, "weight"), _doubles(node, "bias")))


def _conv(low: _Lowering, node: Node, at: int) -> int:
    windows = (_sizes(node, "stride"), _sizes(node, "padding"), _sizes(node, "dilation"))
    weight, bias = _needed(node, "weight"), _doubles(node, "bias")
    return low.add(Conv((at,), node.shape, weight, bias, low.shape(at), *windows, int(_number(node, "groups"))))


def _lost(factor: Tensor, source: Tensor) -> Tensor:
    """Return +inf where a quotient is too small to have a relative error, or no number; 0 elsewhere."""
    lost = ((factor.abs() < 2.0**-960) & (source != 0)) | ~factor.isfinite()
    return torch.zeros_like(factor).masked_fill(lost, math.inf)


def _batch_norm(low: _Lowering, node: Node, at: int) -> int:
    mean, weight, bias = (_needed(node, name) for name in ("mean", "weight", "bias"))
    # Four roundings in the factor (sum, root, quotient), two more behind the shift.
    factor = weight / (_needed(node, "var") + _number(node, "eps")).sqrt()
    moved = mean * factor
    error = 16 * UNIT_ROUNDOFF * (bias.abs() + moved.abs()) + _lost(factor, weight)
    around = (-1, *[1] * (len(node.shape) - 1))
    factor, shift, error = (value.reshape(around) for value in (factor, bias - moved, error))
    return low.add(Scale((at,), node.shape, factor, shift, low.shape(at), 8, error))


def _relu(low: _Lowering, node: Node, at: int) -> int:
    return low.relu(at)


def _smooth(low: _Lowering, node: Node, at: int) -> int:
    return low.add(Activation(node.op, (at,), node.shape))


def _leaky_relu(low: _Lowering, node: Node, at: int) -> int:
    slope = _number(node, "slope")
    return low.mix((slope, 1.0 - slope), (at, low.relu(at)))


def _clip(low: _Lowering, node: Node, at: int) -> int:
    least, most = _number(node, "min"), _number(node, "max")
    inputs, weights, shift = [at], [1.0], 0.0
    if math.isfinite(least):
        inputs, weights, shift = [low.relu(low.shifted(at, -least))], [1.0], least
    if math.isfinite(most):
        inputs.append(low.relu(low.shifted(at, -most)))
        weights.append(-1.0)
    return low.mix(tuple(weights), tuple(inputs), shift=shift)


def _group_sort(low: _Lowering, node: Node, at: int) -> int:
    group, channels = int(_number(node, "group")), node.shape[0]
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


def _max_pool2d(low: _Lowering, node: Node, at: int) -> int:
    channels, height, width = low.shape(at)
    (top, left, _, _), (down, right) = _sizes(node, "padding"), _sizes(node, "stride")
    kernel, (far, wide) = _sizes(node, "kernel"), _sizes(node, "dilation")
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


def _add(low: _Lowering, node: Node, *at: int) -> int:
    if len(at) == 2:
        return low.mix((1.0, 1.0), at, node.shape)
    return low.add(Scale(at, node.shape, None, _needed(node, "other"), low.shape(at[0])))


def _sub(low: _Lowering, node: Node, *at: int) -> int:
    if len(at) == 2:
        return low.mix((1.0, -1.0), at, node.shape)
    other = _needed(node, "other")
    if node.attributes.get("reverse"):
        return low.add(Scale(at, node.shape, torch.full_like(other[:0].sum(), -1.0), other, low.shape(at[0])))
    return low.add(Scale(at, node.shape, None, -other, low.shape(at[0])))


def _mul(low: _Lowering, node: Node, at: int) -> int:
    return low.add(Scale((at,), node.shape, _needed(node, "other"), None, low.shape(at)))


def _div(low: _Lowering, node: Node, at: int) -> int:
    other = _needed(node, "other")
    return low.add(Scale((at,), node.shape, 1.0 / other, None, low.shape(at), 1, _lost(1.0 / other, other)))


def _neg(low: _Lowering, node: Node, at: int) -> int:
    return low.mix((-1.0,), (at,))


def _moved(low: _Lowering, node: Node, at: int) -> int:
    """Reshape, transpose, slice and pad move elements: asked about positions, the operator tells where from."""
    source = low.shape(at)
    if node.op == "reshape":
        return low.add(View((at,), node.shape, source))
    positions = torch.arange(math.prod(source), dtype=torch.float64).reshape(1, *source)
    attributes = {**node.attributes, "value": -1.0} if node.op == "pad" else node.attributes
    index = OPERATORS[node.op].bind(attributes, {})(positions)[0].long()
    return low.gather(at, index.contiguous(), _number(node, "value") if node.op == "pad" else 0.0)


def _concat(low: _Lowering, node: Node, *at: int) -> int:
    axis = int(_number(node, "axis"))
    return low.add(Concat(at, node.shape, tuple(low.shape(source)[axis] for source in at), axis))


def _divided(low: _Lowering, at: int, counts: Tensor) -> int:
    return low.add(Scale((at,), low.shape(at), 1.0 / counts, None, low.shape(at), 1))


def _avg_pool2d(low: _Lowering, node: Node, at: int) -> int:
    kernel, padding = _sizes(node, "kernel"), _sizes(node, "padding")
    source, channels = low.shape(at), low.shape(at)[0]
    ones = torch.ones(channels, 1, *kernel, dtype=torch.float64)
    conv = Conv((at,), node.shape, ones, None, source, _sizes(node, "stride"), padding, (1, 1), channels)
    counts = torch.tensor(float(math.prod(kernel)), dtype=torch.float64)
    if not node.attributes["count_include_pad"]:
        counts = conv.forward(torch.ones(1, *source, dtype=torch.float64))[0]
    return _divided(low, low.add(conv), counts)


def _mean(low: _Lowering, node: Node, at: int) -> int:
    source = low.shape(at)
    axes = (1, 2) if node.op == "global_avg_pool2d" else _sizes(node, "axes")
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
