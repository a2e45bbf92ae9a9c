"""How far a graph executed in floating point can be from the real-arithmetic function (Higham 2002, section 3.1).

Errors are carried forward through the operators: an affine operator with n terms turns errors e into
|A| e + γ_n |A| (|v| + e), the others are Lipschitz. Any order of summation is covered; underflow and
algorithms that multiply less often (Winograd, FFT, TF32) are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from robench.graph._ir import Graph, Node
from robench.graph._precision import in_precision
from robench.graph.operators import OPERATORS
from robench.graph.operators._base import as_float, as_int, as_ints

__all__ = ["forward_error"]

# A value in float64 and the bound on the error of its computed counterpart.
Pair = tuple[Tensor, Tensor]
Rule = Callable[[Node, Sequence[Pair], Tensor, float], Tensor]


def forward_error(graph: Graph, x: Tensor, dtype: torch.dtype) -> Pair:
    """Return (logits, bound), float64 [B, classes]: an execution in `dtype` is within `bound` of `logits`.

    `x` [B, ...] is taken as it is after the cast to `dtype`; the constants likewise. The logits are computed in
    float64, whose own error the bound includes.
    """
    rounded = in_precision(graph, dtype)
    unit = torch.finfo(dtype).eps  # twice the roundoff: covers the float64 pass
    with torch.no_grad():
        start = x.to(dtype).double()
        values: list[Pair] = [(start, torch.zeros_like(start))]
        for node in rounded.nodes[1:]:
            node = Node(
                node.op,
                node.inputs,
                node.attributes,
                {name: tensor.to(x.device).double() for name, tensor in node.constants.items()},
                node.shape,
            )
            inputs = [values[i] for i in node.inputs]
            out = OPERATORS[node.op].bind(node.attributes, node.constants)(*(value for value, _ in inputs))
            values.append((out, _RULES[node.op](node, inputs, out, unit)))
    return values[-1]


def _gamma(terms: int, unit: float) -> float:
    return terms * unit / (1 - terms * unit) if terms * unit < 1 else math.inf


def _sum_of(terms: Callable[[Node, tuple[int, ...]], int]) -> Rule:
    """Rule of operators that sum products: |A| e + γ_n (|A| (|v| + e) + |b|)."""

    def rule(node: Node, inputs: Sequence[Pair], out: Tensor, unit: float) -> Tensor:
        value, error = inputs[0]
        absolute = {name: tensor.abs() for name, tensor in node.constants.items()}
        bare = {name: tensor for name, tensor in absolute.items() if name != "bias"}
        bind = OPERATORS[node.op].bind
        moved = bind(node.attributes, bare)(error)
        size = bind(node.attributes, absolute)(value.abs() + error)
        return moved + _gamma(terms(node, tuple(value.shape[1:])) + 4, unit) * size

    return rule


def _batch_norm(node: Node, inputs: Sequence[Pair], out: Tensor, unit: float) -> Tensor:
    value, error = inputs[0]
    sides = (1, -1, *(1,) * (value.dim() - 2))
    mean, var, weight, bias = (node.constants[name].reshape(sides) for name in ("mean", "var", "weight", "bias"))
    scale = weight.abs() / (var + as_float(node.attributes, "eps")).sqrt()
    return scale * error + _gamma(8, unit) * (scale * (value.abs() + error + mean.abs()) + bias.abs())


def _arithmetic(node: Node, inputs: Sequence[Pair], out: Tensor, unit: float) -> Tensor:
    error = inputs[0][1] + (inputs[1][1] if len(inputs) == 2 else 0.0)
    if node.op in ("mul", "div"):
        error = OPERATORS[node.op].bind({}, {"other": node.constants["other"].abs()})(error)
    return error + unit * (out.abs() + error)


def _moved(node: Node, inputs: Sequence[Pair], out: Tensor, unit: float) -> Tensor:
    """Rule of operators that move elements or take maxima: they do the same to the errors."""
    attributes = {**node.attributes, "value": 0.0} if node.op == "pad" else node.attributes
    return OPERATORS[node.op].bind(attributes, {})(*(error for _, error in inputs))


def _lipschitz(constant: float) -> Rule:
    return lambda node, inputs, out, unit: constant * inputs[0][1] + _gamma(8, unit) * out.abs()


def _leaky_relu(node: Node, inputs: Sequence[Pair], out: Tensor, unit: float) -> Tensor:
    slope = max(1.0, abs(as_float(node.attributes, "slope")))
    return slope * inputs[0][1] + unit * (out.abs() + slope * inputs[0][1])


def _group_sort(node: Node, inputs: Sequence[Pair], out: Tensor, unit: float) -> Tensor:
    error, group = inputs[0][1], as_int(node.attributes, "group")
    grouped = error.reshape(error.shape[0], error.shape[1] // group, group, *error.shape[2:])
    return grouped.amax(2, keepdim=True).expand_as(grouped).reshape(error.shape)


def _same(node: Node, inputs: Sequence[Pair], out: Tensor, unit: float) -> Tensor:
    return inputs[0][1]


_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "linear": _sum_of(lambda node, shape: shape[0]),
        "conv1d": _sum_of(lambda node, shape: math.prod(node.constants["weight"].shape[1:])),
        "conv2d": _sum_of(lambda node, shape: math.prod(node.constants["weight"].shape[1:])),
        "avg_pool2d": _sum_of(lambda node, shape: math.prod(as_ints(node.attributes, "kernel"))),
        "global_avg_pool2d": _sum_of(lambda node, shape: math.prod(shape[1:])),
        "mean": _sum_of(lambda node, shape: math.prod(shape[axis] for axis in as_ints(node.attributes, "axes"))),
        "batch_norm": _batch_norm,
        **dict.fromkeys(("add", "sub", "mul", "div"), _arithmetic),
        **dict.fromkeys(("reshape", "transpose", "concat", "pad", "slice", "max_pool2d"), _moved),
        **dict.fromkeys(("relu", "clip", "neg"), _same),
        "leaky_relu": _leaky_relu,
        "sigmoid": _lipschitz(0.25),
        "tanh": _lipschitz(1.0),
        "group_sort": _group_sort,
    }
)
