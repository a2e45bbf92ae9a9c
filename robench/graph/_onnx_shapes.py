"""How ONNX operators that look at shapes or move elements become graph operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from robench.errors import GraphError
from robench.graph._onnx_call import BATCH, Call, Value, vector

__all__ = ["SHAPE_IMPORTERS"]


def _shape(call: Call) -> Value:
    full = call.full_shape(call.node())
    return vector(full[call.attribute("start", 0) : call.attribute("end")])


def _reshape(call: Call) -> Value:
    node = call.node()
    target = call.listed(1, "shape")
    if target is None:
        raise GraphError("Reshape without a shape")
    full = call.full_shape(node)
    if not call.attribute("allowzero", 0):
        if any(size == 0 for size in target[len(full) :]):
            raise GraphError(f"Reshape to {target} copies a size that is not there")
        target = [full[i] if size == 0 else size for i, size in enumerate(target)]
    if not call.batched:
        return call.builder.reshape(node, target)
    rest = target[1:]
    # A leading −1 is the batch where the rest holds one sample exactly.
    whole = -1 not in rest and math.prod(rest) == math.prod(call.shape(node))
    if not target or not (call.is_batch(target[0]) or (target[0] == -1 and whole)) or BATCH in rest:
        shown = ", ".join("batch" if size == BATCH else str(size) for size in target)
        raise GraphError(f"Reshape to [{shown}] does not keep the batch as first dimension")
    return call.builder.reshape(node, rest)


def _flatten(call: Call) -> Value:
    node, axis = call.node(), int(call.attribute("axis", 1))
    shape = call.shape(node)
    rank = len(shape) + int(call.batched)
    axis = axis + rank if axis < 0 else axis
    if not call.batched:
        if not 0 <= axis <= rank:
            raise GraphError(f"Flatten: axis {axis} is outside the {rank} dimensions")
        return call.builder.reshape(node, (math.prod(shape[:axis]), math.prod(shape[axis:])))
    # Flattening from axis 0 gives [1, everything]: the batch of one that the file was exported with.
    if not (axis == 1 or (axis == 0 and call.batch == 1) or (1 < axis <= rank and math.prod(shape[: axis - 1]) == 1)):
        raise GraphError(f"Flatten from axis {axis} mixes the batch")
    return call.builder.reshape(node, (math.prod(shape),))


def _squeeze(call: Call) -> Value:
    node, dims = call.node(), call.listed(1, "axes")
    if dims is None:
        raise GraphError("Squeeze without axes would drop a batch of one")
    axes, shape = {call.axis(node, dim) for dim in dims}, call.shape(node)
    return call.builder.reshape(node, [size for axis, size in enumerate(shape) if axis not in axes])


def _unsqueeze(call: Call) -> Value:
    node, dims = call.node(), call.listed(1, "axes") or []
    shape = call.full_shape(node)
    rank = len(shape) + len(dims)
    if any(not -rank <= dim < rank for dim in dims):
        raise GraphError(f"Unsqueeze: axes {dims} are outside the {rank} dimensions")
    for axis in sorted(dim % rank for dim in dims):
        shape.insert(axis, 1)
    if call.batched and shape[0] != BATCH:
        raise GraphError("Unsqueeze before the batch dimension is not supported")
    return call.builder.reshape(node, shape[int(call.batched) :])


def _transpose(call: Call) -> Value:
    node = call.node()
    rank = len(call.full_shape(node))
    order = call.ints("perm", tuple(reversed(range(rank))))
    if call.batched:
        if len(order) != rank or order[0] != 0:
            raise GraphError(f"Transpose {list(order)} moves the batch dimension")
        order = order[1:]
    return call.builder.add("transpose", node, axes=tuple(call.axis(node, dim) for dim in order))


def _concat(call: Call) -> Value:
    nodes = [call.node(position) for position in range(len(call.inputs))]
    return call.builder.add("concat", *nodes, axis=call.axis(nodes[0], int(call.attribute("axis"))))


def _split(call: Call) -> Sequence[Value]:
    node, parts = call.node(), call.listed(1, "split")
    axis = call.axis(node, int(call.attribute("axis", 0)))
    count, size = int(call.attribute("num_outputs", call.outputs)), call.shape(node)[axis]
    if parts is None:
        step = -(-size // max(count, 1))
        parts = [min(step, size - start) for start in range(0, size, step)]
    if len(parts) != call.outputs:
        raise GraphError(f"Split into {len(parts)} parts for {call.outputs} outputs")
    return call.builder.split(node, axis, parts)


def _slice(call: Call) -> Value:
    node = call.node()
    starts, ends = call.listed(1, "starts") or [], call.listed(2, "ends") or []
    dims = call.listed(3, "axes") or list(range(len(starts)))
    steps = call.listed(4, "steps") or [1] * len(starts)
    if not len(starts) == len(ends) == len(dims) == len(steps):
        raise GraphError("Slice: starts, ends, axes and steps differ in length")
    for start, end, dim, step in zip(starts, ends, dims, steps, strict=True):
        if call.batched and dim % len(call.full_shape(node)) == 0 and (start, step) == (0, 1) and end >= 2**31 - 1:
            continue
        axis = call.axis(node, dim)
        if step < 1:
            raise GraphError(f"Slice with step {step} is not supported")
        first, stop, _ = slice(start, end, step).indices(call.shape(node)[axis])
        node = call.builder.add("slice", node, axis=axis, start=first, stop=stop, step=step)
    return node


def _gather(call: Call) -> Value:
    node, index = call.node(), call.constant(1)
    axis = call.axis(node, int(call.attribute("axis", 0)))
    if index.is_floating_point() or index.dim() > 1 or not index.numel():
        raise GraphError("Gather is supported with one position, or with neighbouring ones")
    rows = [int(item) for item in index.reshape(-1).tolist()]
    if index.dim() == 0:
        return call.builder.select(node, axis, rows[0])
    size = call.shape(node)[axis]
    start = rows[0] + size if rows[0] < 0 else rows[0]
    if [row + size if row < 0 else row for row in rows] != list(range(start, start + len(rows))):
        raise GraphError("Gather is supported with one position, or with neighbouring ones")
    return call.builder.add("slice", node, axis=axis, start=start, stop=start + len(rows), step=1)


def _pad(call: Call) -> Value:
    node, mode = call.node(), call.attribute("mode", "constant")
    if mode != "constant":
        raise GraphError(f"Pad in mode {mode!r} is not supported: only a constant")
    sizes, value, dims = call.listed(1, "pads"), call.scalar(2, "value", 0.0), call.listed(3, "axes")
    rank = len(call.full_shape(node))
    places = list(range(rank)) if dims is None else [dim % rank for dim in dims]
    if sizes is None or len(sizes) != 2 * len(places):
        raise GraphError(f"Pad: pads {sizes} do not fit {rank} dimensions")
    begins, ends = [0] * rank, [0] * rank
    for position, place in enumerate(places):
        begins[place], ends[place] = sizes[position], sizes[position + len(places)]
    if call.batched and (begins[0] or ends[0]):
        raise GraphError("Pad of the batch dimension is not supported")
    begins, ends = begins[int(call.batched) :], ends[int(call.batched) :]
    return call.builder.add("pad", node, padding=tuple(begins + ends), value=value)


SHAPE_IMPORTERS: Mapping[str, Callable[[Call], Value | Sequence[Value]]] = MappingProxyType(
    {
        "Concat": _concat,
        "Flatten": _flatten,
        "Gather": _gather,
        "Pad": _pad,
        "Reshape": _reshape,
        "Shape": _shape,
        "Slice": _slice,
        "Split": _split,
        "Squeeze": _squeeze,
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
    }
)
