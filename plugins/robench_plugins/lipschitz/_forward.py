"""Logits in float64 with a bound of their error, at the price of one forward pass.

Let value ℓ be computed as z_ℓ = fl(op_ℓ(…)), and let H_ℓ be the logits that follow exactly from the computed values of
the nodes up to ℓ. H_ℓ and H_{ℓ−1} differ by the rounding of node ℓ alone, so that with T_ℓ the Lipschitz constant of
the logits in the value of node ℓ

    ‖fl f(x) − f(x)‖₂ ≤ Σ_ℓ T_ℓ ‖z_ℓ − op_ℓ(computed inputs)‖₂.

The local error is at most reads · ‖inputs‖₂ + writes · ‖z_ℓ‖₂ + fixed, three numbers for each node: of a layer of n
products γ_{n+1} (‖|W|‖₂ ‖z‖₂ + ‖b‖₂) (Higham 2002, section 3.5). Componentwise bounds, as interval arithmetic has
them, grow with ‖|W|‖ from layer to layer, by 25 in a dense orthogonal layer of width 1024; this one with ‖W‖, which is
1 there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from robench.graph import OPERATORS, Graph, Node
from robench.graph.intervals import ieee_arithmetic
from robench.numerics import LIBRARY_ERROR, UNIT_ROUNDOFF, gamma
from robench_plugins.lipschitz._kernel import Kernel
from robench_plugins.lipschitz._up import add_up, mul_up, sqrt_up
from robench_plugins.lipschitz.constant import Lipschitz

__all__ = ["local_error", "logits"]

_UNDERFLOW = 2.0**-1000
"""Far above what the underflow of all operations of one node can add up to, and far below any margin."""

_SLACK = 1 + 2.0**-20
"""For the rounding of norms and of the error's own sum."""

_EXACT = (0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class _Step:
    run: Callable[..., Tensor]
    inputs: tuple[int, ...]
    last: tuple[int, ...]
    reads: float
    writes: float


@dataclass(frozen=True, eq=False)
class _Program:
    steps: tuple[_Step, ...]
    fixed: float


_PREPARED: WeakKeyDictionary[Graph, dict[torch.device, _Program]] = WeakKeyDictionary()


def logits(graph: Graph, constant: Lipschitz, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits [B, classes] at `x` [B, ...] and a bound [B] of their error in l2, float64.

    The bound is +inf or NaN where it, or the point, is not finite.
    """
    kept = _PREPARED.setdefault(graph, {})
    if x.device not in kept:
        kept[x.device] = _program(graph, constant, x.device)
    program = kept[x.device]
    with ieee_arithmetic(x.device):
        values: dict[int, Tensor] = {0: x.detach().double()}
        error = values[0].new_full((len(x),), program.fixed)
        error.masked_fill_(~values[0].flatten(1).isfinite().all(1), math.inf)
        for position, step in enumerate(program.steps, 1):
            arguments = [values[source] for source in step.inputs]
            result = values[position] = step.run(*arguments)
            for factor, measured in [(step.reads, value) for value in arguments] + [(step.writes, result)]:
                if factor:
                    error = error + factor * torch.linalg.vector_norm(measured.flatten(1), dim=1)
            for source in step.last:
                del values[source]
    return result, error * _SLACK


def _program(graph: Graph, constant: Lipschitz, device: torch.device) -> _Program:
    errors = [local_error(graph, position) for position in range(len(graph.nodes))]
    tails = constant.tails(graph, [position for position, error in enumerate(errors) if error != _EXACT])
    steps, fixed = [], 0.0
    for position, last in enumerate(graph.last_uses()):
        if position:
            node = graph.nodes[position]
            constants = {name: value.detach().to(device, torch.float64) for name, value in node.constants.items()}
            reads, writes, always = (mul_up(tails.get(position, 0.0), part) for part in errors[position])
            steps.append(_Step(OPERATORS[node.op].bind(node.attributes, constants), node.inputs, last, reads, writes))
            fixed = add_up(fixed, always)
    return _Program(tuple(steps), fixed)


def local_error(graph: Graph, position: int) -> tuple[float, float, float]:
    """Return (reads, writes, fixed) of a node. Raises KeyError for an operator without a rule."""
    node = graph.nodes[position]
    shapes = [graph.nodes[source].shape for source in node.inputs]
    return _ERRORS[node.op](node, shapes)


def _exact(node: Node, shapes: list[tuple[int, ...]]) -> tuple[float, float, float]:
    return _EXACT


def _rounded(node: Node, shapes: list[tuple[int, ...]]) -> tuple[float, float, float]:
    return 0.0, UNIT_ROUNDOFF * _SLACK, _UNDERFLOW


def _library(node: Node, shapes: list[tuple[int, ...]]) -> tuple[float, float, float]:
    return 0.0, 2 * LIBRARY_ERROR, _UNDERFLOW


def _products(node: Node, shapes: list[tuple[int, ...]]) -> tuple[float, float, float]:
    weight, bias = node.constants["weight"].detach(), node.constants.get("bias")
    groups = node.attributes.get("groups", 1)
    assert isinstance(groups, int)
    error = gamma(weight[0].numel() + 2)
    each = 0.0 if bias is None else _norm(bias) * math.sqrt(math.prod(node.shape[1:])) * _SLACK
    return mul_up(error, Kernel(weight, groups=groups).rough()), 0.0, add_up(error * each, _UNDERFLOW)


def _batch_norm(node: Node, shapes: list[tuple[int, ...]]) -> tuple[float, float, float]:
    """(x − mean) · s + b or x · s + (b − mean · s), s = weight / √(var + eps): fewer than 16 roundings in each term."""
    mean, var, weight, bias = (node.constants[k].detach().double() for k in ("mean", "var", "weight", "bias"))
    eps = node.attributes["eps"]
    assert isinstance(eps, float)
    scale = (weight / (var + eps).sqrt()).abs() * _SLACK
    each = _norm(scale * mean.abs() + bias.abs()) * math.sqrt(math.prod(node.shape[1:])) * _SLACK
    return gamma(16) * float(scale.max()) * _SLACK, 0.0, add_up(gamma(16) * each, _UNDERFLOW)


def _average(node: Node, shapes: list[tuple[int, ...]]) -> tuple[float, float, float]:
    """Means of k elements each: rows sum to at most 1, and columns to at most k."""
    kernel = node.attributes.get("kernel")
    terms = math.prod(kernel) if isinstance(kernel, tuple) else math.prod(shapes[0]) // math.prod(node.shape)
    return mul_up(gamma(terms + 4), sqrt_up(float(terms))), 0.0, _UNDERFLOW


def _norm(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values.detach().double()))


_ERRORS: dict[str, Callable[[Node, list[tuple[int, ...]]], tuple[float, float, float]]] = {
    "input": _exact,
    **dict.fromkeys(
        ("clip", "concat", "group_sort", "max_pool2d", "neg", "pad", "relu", "reshape", "slice", "transpose"), _exact
    ),
    **dict.fromkeys(("add", "sub", "mul", "div", "leaky_relu"), _rounded),
    **dict.fromkeys(("sigmoid", "tanh"), _library),
    **dict.fromkeys(("linear", "conv1d", "conv2d"), _products),
    **dict.fromkeys(("avg_pool2d", "global_avg_pool2d", "mean"), _average),
    "batch_norm": _batch_norm,
}
"""Operator to its local error."""
