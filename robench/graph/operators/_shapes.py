"""Operators that move elements: reshape, transpose, concat, pad, slice. Axes leave the batch dimension out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from robench.errors import GraphError
from robench.graph.operators._base import (
    MAX_ELEMENTS,
    Attributes,
    Constants,
    Operator,
    Shape,
    as_float,
    as_int,
    as_ints,
)
from robench.graph.operators._windows import torch_padding

__all__ = ["SHAPES"]


def _infer_reshape(shapes: Sequence[Shape], attributes: Attributes, constants: Constants) -> Shape:
    shape = as_ints(attributes, "shape")
    if any(size < 1 for size in shape) or math.prod(shape) != math.prod(shapes[0]):
        raise GraphError(f"reshape: {list(shapes[0])} does not fit into {list(shape)}")
    return shape


def _bind_reshape(attributes: Attributes, constants: Constants) -> Callable[..., Tensor]:
    shape = as_ints(attributes, "shape")
    if len(shape) == 1:
        return lambda x: x.flatten(1) if x.dim() > 2 else x.reshape(x.shape[0], *shape)
    return lambda x: x.reshape(x.shape[0], *shape)


def _infer_transpose(shapes: Sequence[Shape], attributes: Attributes, constants: Constants) -> Shape:
    axes = as_ints(attributes, "axes")
    if sorted(axes) != list(range(len(shapes[0]))):
        raise GraphError(f"transpose: axes {list(axes)} are no order of the {len(shapes[0])} axes")
    return tuple(shapes[0][axis] for axis in axes)


def _bind_transpose(attributes: Attributes, constants: Constants) -> Callable[..., Tensor]:
    batched = (0, *(axis + 1 for axis in as_ints(attributes, "axes")))
    return lambda x: x.permute(batched)


def _infer_concat(shapes: Sequence[Shape], attributes: Attributes, constants: Constants) -> Shape:
    axis, first = as_int(attributes, "axis"), shapes[0]
    if not 0 <= axis < len(first) or any(
        len(shape) != len(first) or shape[:axis] + shape[axis + 1 :] != first[:axis] + first[axis + 1 :]
        for shape in shapes
    ):
        raise GraphError(f"concat: {[list(shape) for shape in shapes]} do not fit along axis {axis}")
    return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])


def _bind_concat(attributes: Attributes, constants: Constants) -> Callable[..., Tensor]:
    batched = as_int(attributes, "axis") + 1
    return lambda *inputs: torch.cat(inputs, batched)


def _infer_pad(shapes: Sequence[Shape], attributes: Attributes, constants: Constants) -> Shape:
    padding, rank = as_ints(attributes, "padding"), len(shapes[0])
    if len(padding) != 2 * rank or any(not 0 <= size <= MAX_ELEMENTS for size in padding):
        raise GraphError(f"pad: padding {list(padding)} does not fit the shape {list(shapes[0])}")
    if as_float(attributes, "value") == math.inf:
        raise GraphError("pad: value must not be +inf")
    return tuple(size + padding[axis] + padding[axis + rank] for axis, size in enumerate(shapes[0]))


def _bind_pad(attributes: Attributes, constants: Constants) -> Callable[..., Tensor]:
    around, value = torch_padding(as_ints(attributes, "padding")), as_float(attributes, "value")
    return lambda x: F.pad(x, around, value=value)


def _infer_slice(shapes: Sequence[Shape], attributes: Attributes, constants: Constants) -> Shape:
    axis, start, stop, step = (as_int(attributes, key) for key in ("axis", "start", "stop", "step"))
    if not (0 <= axis < len(shapes[0]) and 0 <= start < stop <= shapes[0][axis] and step >= 1):
        raise GraphError(f"slice: {start}:{stop}:{step} on axis {axis} does not fit the shape {list(shapes[0])}")
    return (*shapes[0][:axis], len(range(start, stop, step)), *shapes[0][axis + 1 :])


def _bind_slice(attributes: Attributes, constants: Constants) -> Callable[..., Tensor]:
    axis, start, stop, step = (as_int(attributes, key) for key in ("axis", "start", "stop", "step"))
    where = (*(slice(None),) * (axis + 1), slice(start, stop, step))
    return lambda x: x[where]


SHAPES = (
    Operator("reshape", _infer_reshape, _bind_reshape, attributes={"shape": "ints"}, affine=True),
    Operator("transpose", _infer_transpose, _bind_transpose, attributes={"axes": "ints"}, affine=True),
    Operator("concat", _infer_concat, _bind_concat, arity=(1, 2**16), attributes={"axis": "int"}, affine=True),
    Operator("pad", _infer_pad, _bind_pad, attributes={"padding": "ints", "value": "float"}, affine=True),
    Operator(
        "slice",
        _infer_slice,
        _bind_slice,
        attributes={"axis": "int", "start": "int", "stop": "int", "step": "int"},
        affine=True,
    ),
)
