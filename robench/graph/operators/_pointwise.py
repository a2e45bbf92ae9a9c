"""Activations and arithmetic: elementwise operators, sums with constants or between nodes, group sorting."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from robench.errors import GraphError
from robench.graph.operators._base import Attributes, Constants, Operator, Shape, as_float, as_int

__all__ = ["POINTWISE", "group_sort"]


def _same(shapes: Sequence[Shape], attributes: Attributes, constants: Constants) -> Shape:
    return shapes[0]


def _plain(function: Callable[[Tensor], Tensor]) -> Callable[[Attributes, Constants], Callable[..., Tensor]]:
    return lambda attributes, constants: function


def _infer_leaky(shapes: Sequence[Shape], attributes: Attributes, constants: Constants) -> Shape:
    if not math.isfinite(as_float(attributes, "slope")):
        raise GraphError("leaky_relu: slope must be finite")
    return shapes[0]


def _bind_leaky(attributes: Attributes, constants: Constants) -> Callable[..., Tensor]:
    slope = as_float(attributes, "slope")
    return lambda x: F.leaky_relu(x, slope)


def _infer_clip(shapes: Sequence[Shape], attributes: Attributes, constants: Constants) -> Shape:
    if not as_float(attributes, "min") <= as_float(attributes, "max"):
        raise GraphError("clip: min must not be above max")
    return shapes[0]


def _bind_clip(attributes: Attributes, constants: Constants) -> Callable[..., Tensor]:
    low, high = as_float(attributes, "min"), as_float(attributes, "max")
    least, most = (low if math.isfinite(low) else None), (high if math.isfinite(high) else None)
    if least is None and most is None:
        return lambda x: x
    return lambda x: torch.clamp(x, least, most)


def _infer_group_sort(shapes: Sequence[Shape], attributes: Attributes, constants: Constants) -> Shape:
    group = as_int(attributes, "group")
    if not shapes[0] or group < 1 or shapes[0][0] % group:
        raise GraphError(f"group_sort: the first axis of {list(shapes[0])} is no multiple of group {group}")
    return shapes[0]


def group_sort(x: Tensor, group: int) -> Tensor:
    """Sort neighbours along axis 1 of `x` [B, C, ...] in groups of `group`, ascending (Anil et al. 2019)."""
    if torch.overrides.has_torch_function_unary(x):
        return torch.overrides.handle_torch_function(group_sort, (x,), x, group)
    grouped = x.reshape(x.shape[0], x.shape[1] // group, group, *x.shape[2:])
    if group == 2:  # MaxMin: cheaper than sorting, and ONNX can express it
        first, second = grouped.unbind(2)
        return torch.stack((torch.minimum(first, second), torch.maximum(first, second)), 2).flatten(1, 2)
    return grouped.sort(2).values.flatten(1, 2)


def _bind_group_sort(attributes: Attributes, constants: Constants) -> Callable[..., Tensor]:
    group = as_int(attributes, "group")
    return lambda x: group_sort(x, group)


def _infer_arithmetic(name: str, nodes: bool) -> Callable[[Sequence[Shape], Attributes, Constants], Shape]:
    def infer(shapes: Sequence[Shape], attributes: Attributes, constants: Constants) -> Shape:
        other = constants.get("other")
        if (other is None) != (len(shapes) == 2) or (len(shapes) == 2 and not nodes):
            raise GraphError(f"{name} takes one input and a constant" + (", or two inputs" if nodes else ""))
        right = shapes[1] if other is None else tuple(other.shape)
        # Equal ranks keep the batch dimension out of the broadcast.
        if len(shapes[0]) != len(right):
            raise GraphError(f"{name}: the ranks of {list(shapes[0])} and {list(right)} differ")
        if attributes.get("reverse", 0) not in ((0, 1) if other is not None else (0,)):
            raise GraphError("sub: reverse is 1 for a constant minus the input, otherwise 0")
        if name == "div" and other is not None and bool((other == 0).any()):
            raise GraphError("div: the divisor holds a zero")
        if any(a != b and 1 not in (a, b) for a, b in zip(shapes[0], right, strict=True)):
            raise GraphError(f"{name}: {list(shapes[0])} and {list(right)} do not broadcast")
        return tuple(max(a, b) for a, b in zip(shapes[0], right, strict=True))

    return infer


def _bind_arithmetic(
    function: Callable[[Tensor, Tensor], Tensor],
) -> Callable[[Attributes, Constants], Callable[..., Tensor]]:
    def bind(attributes: Attributes, constants: Constants) -> Callable[..., Tensor]:
        other = constants.get("other")
        if other is None:
            return function
        if attributes.get("reverse"):
            return lambda x: function(other, x)
        return lambda x: function(x, other)

    return bind


POINTWISE = (
    Operator("relu", _same, _plain(torch.relu), elementwise=True),
    Operator("leaky_relu", _infer_leaky, _bind_leaky, attributes={"slope": "float"}, elementwise=True),
    Operator("sigmoid", _same, _plain(torch.sigmoid), elementwise=True),
    Operator("tanh", _same, _plain(torch.tanh), elementwise=True),
    Operator("clip", _infer_clip, _bind_clip, attributes={"min": "float", "max": "float"}, elementwise=True),
    Operator("neg", _same, _plain(torch.neg), affine=True, elementwise=True),
    Operator("group_sort", _infer_group_sort, _bind_group_sort, attributes={"group": "int"}),
    Operator(
        "add",
        _infer_arithmetic("add", nodes=True),
        _bind_arithmetic(operator.add),
        arity=(1, 2),
        optional=("other",),
        affine=True,
    ),
    Operator(
        "sub",
        _infer_arithmetic("sub", nodes=True),
        _bind_arithmetic(operator.sub),
        arity=(1, 2),
        attributes={"reverse": "int"},
        optional=("other",),
        affine=True,
    ),
    Operator(
        "mul", _infer_arithmetic("mul", nodes=False), _bind_arithmetic(operator.mul), required=("other",), affine=True
    ),
    Operator(
        "div",
        _infer_arithmetic("div", nodes=False),
        _bind_arithmetic(operator.truediv),
        required=("other",),
        affine=True,
    ),
)
