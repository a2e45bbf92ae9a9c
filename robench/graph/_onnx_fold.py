"""ONNX operators on constants, computed while importing: shape arithmetic of exporters, transposed weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from robench.errors import GraphError
from robench.graph._onnx_call import BATCH, Call

__all__ = ["FOLDERS", "TYPES"]

_MAX_ELEMENTS = 2**28

# Element types by their number in the ONNX standard.
TYPES: Mapping[int, torch.dtype] = MappingProxyType(
    {
        1: torch.float32,
        2: torch.uint8,
        3: torch.int8,
        5: torch.int16,
        6: torch.int32,
        7: torch.int64,
        9: torch.bool,
        10: torch.float16,
        11: torch.float64,
        16: torch.bfloat16,
    }
)


def _limited(op: str, shape: Sequence[int]) -> None:
    if any(size < 0 for size in shape) or math.prod(shape) > _MAX_ELEMENTS:
        raise GraphError(f"{op}: a constant of shape {list(shape)} is too large")


def _identity(call: Call) -> Tensor:
    return call.constant(0)


def _cast(call: Call) -> Tensor:
    dtype = TYPES.get(call.attribute("to", 0))
    call.attribute("saturate")
    if dtype is None:
        raise GraphError(f"Cast to type {call.attribute('to')} is not supported")
    return call.constant(0).to(dtype)


def _constant_of_shape(call: Call) -> Tensor:
    shape = [int(size) for size in call.constant(0).reshape(-1).tolist()]
    _limited(call.op, shape)
    value = call.attribute("value")
    return torch.zeros(shape) if value is None else value.reshape(-1)[:1].expand(math.prod(shape)).reshape(shape)


def _gather(call: Call) -> Tensor:
    data, index, axis = call.constant(0), call.constant(1), call.attribute("axis", 0)
    if data.dim() == 0:
        raise GraphError("Gather from a scalar")
    size = data.shape[axis]
    if index.is_floating_point() or bool(((index < -size) | (index >= size)).any()):
        raise GraphError("Gather: an index is outside the constant")
    axis %= data.dim()
    _limited(call.op, [*data.shape[:axis], *index.shape, *data.shape[axis + 1 :]])
    picked = data.index_select(axis, (index % size).reshape(-1))
    return picked.reshape((*data.shape[:axis], *index.shape, *data.shape[axis + 1 :]))


def _concat(call: Call) -> Tensor:
    parts = [call.constant(i) for i in range(len(call.inputs))]
    _limited(call.op, [sum(part.numel() for part in parts)])
    return torch.cat(parts, call.attribute("axis"))


def _unsqueeze(call: Call) -> Tensor:
    data, axes = call.constant(0), call.listed(1, "axes") or []
    rank = data.dim() + len(axes)
    for axis in sorted(a % rank for a in axes):
        data = data.unsqueeze(axis)
    return data


def _squeeze(call: Call) -> Tensor:
    data, axes = call.constant(0), call.listed(1, "axes")
    return data.squeeze() if axes is None else data.squeeze(tuple(axes))


def _slice(call: Call) -> Tensor:
    data = call.constant(0)
    starts, ends = call.listed(1, "starts") or [], call.listed(2, "ends") or []
    axes, steps = call.listed(3, "axes") or list(range(len(starts))), call.listed(4, "steps") or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        rows = torch.tensor(list(range(*slice(start, end, step).indices(data.shape[axis]))), dtype=torch.int64)
        data = data.index_select(axis, rows)
    return data


def _reshape(call: Call) -> Tensor:
    data, shape = call.constant(0), call.listed(1, "shape") or []
    if not call.attribute("allowzero", 0):
        shape = [data.shape[i] if size == 0 else size for i, size in enumerate(shape)]
    return data.reshape(shape)


def _transpose(call: Call) -> Tensor:
    data = call.constant(0)
    return data.permute(call.ints("perm", tuple(reversed(range(data.dim())))))


def _expand(call: Call) -> Tensor:
    data, shape = call.constant(0), [int(size) for size in call.constant(1).reshape(-1).tolist()]
    _limited(call.op, shape)
    full = torch.broadcast_shapes(data.shape, tuple(shape))  # type: ignore[no-untyped-call]
    _limited(call.op, full)
    return data.expand(full)


def _arithmetic(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Call], Tensor]:
    def fold(call: Call) -> Tensor:
        left, right = call.constant(0), call.constant(1)
        if any(not x.is_floating_point() and bool((x == BATCH).any()) for x in (left, right)):
            raise GraphError(f"{call.op} computes with the batch size: the net must treat every batch alike")
        _limited(call.op, torch.broadcast_shapes(left.shape, right.shape))  # type: ignore[no-untyped-call]
        return function(left, right)

    return fold


def _divide(left: Tensor, right: Tensor) -> Tensor:
    return left / right if left.is_floating_point() else torch.div(left, right, rounding_mode="trunc")


def _constant(call: Call) -> Tensor:
    kinds = {
        "value_float": torch.float32,
        "value_floats": torch.float32,
        "value_int": torch.int64,
        "value_ints": torch.int64,
    }
    for name, dtype in kinds.items():
        if (number := call.attribute(name)) is not None:
            return torch.tensor(number, dtype=dtype)
    tensor = call.attribute("value")
    if not isinstance(tensor, Tensor):
        raise GraphError("Constant without a numeric value")
    return tensor


FOLDERS: Mapping[str, Callable[[Call], Tensor]] = MappingProxyType(
    {
        "Add": _arithmetic(torch.add),
        "Cast": _cast,
        "Concat": _concat,
        "Constant": _constant,
        "ConstantOfShape": _constant_of_shape,
        "Div": _arithmetic(_divide),
        "Expand": _expand,
        "Gather": _gather,
        "Identity": _identity,
        "Mul": _arithmetic(torch.mul),
        "Neg": lambda call: -call.constant(0),
        "Reshape": _reshape,
        "Shape": lambda call: torch.tensor(
            list(call.constant(0).shape)[call.attribute("start", 0) : call.attribute("end")]
        ),
        "Slice": _slice,
        "Sqrt": lambda call: call.constant(0).sqrt(),
        "Squeeze": _squeeze,
        "Sub": _arithmetic(torch.sub),
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
    }
)
