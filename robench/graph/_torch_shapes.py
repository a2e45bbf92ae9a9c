"""How torch functions that look at shapes or move elements become graph operators, by the function's name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import EllipsisType
from typing import Any, cast

from torch import Tensor

from robench.errors import GraphError
from robench.graph._trace import BATCH, Handler, Traced, Tracer

__all__ = ["SHAPE_HANDLERS"]

Size = int | Sequence[int]


def _full_shape(t: Tracer, x: Traced) -> tuple[int, ...]:
    return (BATCH, *t.shape(x))


def _size(t: Tracer, x: Traced, dim: int | None = None) -> int | tuple[int, ...]:
    shape = _full_shape(t, x)
    return shape if dim is None else shape[dim]


def _dim(t: Tracer, x: Traced) -> int:
    return len(t.shape(x)) + 1


def _listed(sizes: tuple[Any, ...]) -> list[int]:
    """Return sizes given as arguments or as one sequence."""
    return list(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else list(sizes)


def _reshape(t: Tracer, x: Traced, *sizes: Any, shape: Sequence[int] = ()) -> Traced:
    target = list(shape) or _listed(sizes)
    if not target or not all(isinstance(size, int) for size in target):
        raise GraphError("view to another dtype is not supported")
    rest = target[1:]
    # A leading −1 is the batch where the rest holds one sample exactly.
    ours = target[0] is BATCH or (target[0] == -1 and -1 not in rest and math.prod(rest) == math.prod(t.shape(x)))
    if not ours or any(size is BATCH for size in rest):
        raise GraphError(f"reshape to {_shown(target)} does not keep the batch as first dimension: use x.size(0)")
    return t.made(t.builder.reshape(x.node, [int(size) for size in rest]), view_of=x)


def _shown(target: Sequence[int]) -> str:
    return "[" + ", ".join("batch" if size is BATCH else str(size) for size in target) + "]"


def _flatten(t: Tracer, x: Traced, start_dim: int = 0, end_dim: int = -1) -> Traced:
    shape = t.shape(x)
    first, last = t.axis(x, start_dim), t.axis(x, end_dim)
    merged = (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])
    return t.made(t.builder.reshape(x.node, merged), view_of=x)


def _unflatten(t: Tracer, x: Traced, dim: int, sizes: Sequence[int]) -> Traced:
    shape, axis = t.shape(x), t.axis(x, dim)
    known = math.prod(size for size in sizes if size != -1)
    inner = [shape[axis] // max(known, 1) if size == -1 else size for size in sizes]
    return t.made(t.builder.reshape(x.node, (*shape[:axis], *inner, *shape[axis + 1 :])), view_of=x)


def _squeeze(t: Tracer, x: Traced, dim: Size | None = None) -> Traced:
    if dim is None:
        raise GraphError("squeeze without dim would drop a batch of one: name the dimension")
    shape = t.shape(x)
    axes = {t.axis(x, d) for d in ((dim,) if isinstance(dim, int) else dim)}
    kept = [size for axis, size in enumerate(shape) if axis not in axes or size != 1]
    return t.made(t.builder.reshape(x.node, kept), view_of=x)


def _unsqueeze(t: Tracer, x: Traced, dim: int) -> Traced:
    shape = t.shape(x)
    rank = len(shape) + 2
    if not -rank < dim < rank or dim % rank == 0:
        raise GraphError("unsqueeze before the batch dimension is not supported")
    axis = dim % rank - 1
    return t.made(t.builder.reshape(x.node, (*shape[:axis], 1, *shape[axis:])), view_of=x)


def _permute(t: Tracer, x: Traced, *dims: Any) -> Traced:
    order = _listed(dims)
    rank = len(t.shape(x)) + 1
    if not order or order[0] % rank != 0:
        raise GraphError(f"permute {order} moves the batch dimension")
    node = t.builder.add("transpose", x.node, axes=tuple(t.axis(x, d) for d in order[1:]))
    return t.made(node, view_of=x)


def _transpose(t: Tracer, x: Traced, first: int, second: int) -> Traced:
    axes = list(range(len(t.shape(x))))
    a, b = t.axis(x, first), t.axis(x, second)
    axes[a], axes[b] = axes[b], axes[a]
    return t.made(t.builder.add("transpose", x.node, axes=tuple(axes)), view_of=x)


def _cat(t: Tracer, tensors: Sequence[Tensor], dim: int = 0) -> Traced:
    if not all(isinstance(x, Traced) for x in tensors):
        raise GraphError("concat of activations with constants is not supported")
    inputs = [cast(Traced, x) for x in tensors]
    return t.emit("concat", *inputs, axis=t.axis(inputs[0], dim))


def _stack(t: Tracer, tensors: Sequence[Tensor], dim: int = 0) -> Traced:
    if not all(isinstance(x, Traced) for x in tensors):
        raise GraphError("stack of activations with constants is not supported")
    parts = [_unsqueeze(t, cast(Traced, x), dim) for x in tensors]
    return t.emit("concat", *parts, axis=t.axis(parts[0], dim))


def _split(t: Tracer, x: Traced, split_size_or_sections: Size, dim: int = 0) -> tuple[Traced, ...]:
    axis = t.axis(x, dim)
    size, step = t.shape(x)[axis], split_size_or_sections
    if isinstance(step, int):
        if step < 1:
            raise GraphError(f"split into parts of {step}")
        sections = [min(step, size - start) for start in range(0, size, step)]
    else:
        sections = list(step)
    return tuple(t.made(node, view_of=x) for node in t.builder.split(x.node, axis, sections))


def _chunk(t: Tracer, x: Traced, chunks: int, dim: int = 0) -> tuple[Traced, ...]:
    return _split(t, x, -(-t.shape(x)[t.axis(x, dim)] // chunks), dim)


def _unbind(t: Tracer, x: Traced, dim: int = 0) -> tuple[Traced, ...]:
    axis = t.axis(x, dim)
    return tuple(t.made(t.builder.select(x.node, axis, i), view_of=x) for i in range(t.shape(x)[axis]))


def _select(t: Tracer, x: Traced, dim: int, index: int) -> Traced:
    return t.made(t.builder.select(x.node, t.axis(x, dim), index), view_of=x)


def _narrow(t: Tracer, x: Traced, dim: int, start: int, length: int) -> Traced:
    axis = t.axis(x, dim)
    first = start % t.shape(x)[axis] if start < 0 else start
    return t.made(t.builder.add("slice", x.node, axis=axis, start=first, stop=first + length, step=1), view_of=x)


def _getitem(t: Tracer, x: Traced, where: Any) -> Traced:
    items = list(where) if isinstance(where, tuple) else [where]
    if not all(item is None or isinstance(item, int | slice | EllipsisType) for item in items):
        raise GraphError("indexing with tensors or lists is not supported: use slices")
    rank = len(t.shape(x)) + 1
    used = sum(item is not None and item is not Ellipsis for item in items)
    fill: list[Any] = [slice(None)] * (rank - used)
    at = items.index(Ellipsis) if Ellipsis in items else len(items)
    items = items[:at] + fill + items[at + 1 :]
    if not items or items[0] != slice(None):
        raise GraphError("indexing of the batch dimension is not supported")
    node, axis = x.node, 0
    for item in items[1:]:
        shape = t.builder.shape(node)
        if item is None:
            node = t.builder.reshape(node, (*shape[:axis], 1, *shape[axis:]))
        elif isinstance(item, int):
            node = t.builder.select(node, axis, item)
            continue
        else:
            start, stop, step = item.indices(shape[axis])
            node = t.builder.add("slice", node, axis=axis, start=start, stop=stop, step=step)
        axis += 1
    return t.made(node, view_of=x)


def _pad(t: Tracer, x: Traced, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Traced:
    if mode not in ("constant", "circular"):
        raise GraphError(f"padding in mode {mode!r} is not supported: only zeros, a constant, or circular")
    rank = len(t.shape(x))
    sizes = [int(size) for size in pad]
    if len(sizes) % 2 or len(sizes) > 2 * rank:
        raise GraphError(f"pad {sizes} does not fit the shape {list(t.shape(x))}")
    if mode == "circular":
        return _wrapped(t, x, sizes)
    sizes += [0] * (2 * rank - len(sizes))
    begins, ends = sizes[0::2][::-1], sizes[1::2][::-1]
    return t.emit("pad", x, padding=tuple(begins + ends), value=float(value or 0.0))


def _wrapped(t: Tracer, x: Traced, sizes: Sequence[int]) -> Traced:
    """Continue axes periodically, the last one first: its end, itself, its start."""
    for axis, begin, end in zip(range(len(t.shape(x)) - 1, -1, -1), sizes[0::2], sizes[1::2], strict=False):
        size = t.shape(x)[axis]
        if not (0 <= begin <= size and 0 <= end <= size):
            raise GraphError(f"circular padding by {begin} and {end} does not fit an axis of {size}")
        before, after = ((size - begin, size), (0, end))
        parts = [
            x if part is None else t.emit("slice", x, axis=axis, start=part[0], stop=part[1], step=1)
            for part in (before, None, after)
            if part is None or part[0] < part[1]
        ]
        x = t.emit("concat", *parts, axis=axis) if len(parts) > 1 else x
    return t.made(x.node)


def _pixel_unshuffle(t: Tracer, x: Traced, downscale_factor: int) -> Traced:
    channels, height, width = _image(t, x)
    r = downscale_factor
    if height % r or width % r:
        raise GraphError(f"pixel_unshuffle by {r} of {height} x {width}: sizes must be multiples")
    split = t.builder.reshape(x.node, (channels, height // r, r, width // r, r))
    moved = t.builder.add("transpose", split, axes=(0, 2, 4, 1, 3))
    return t.made(t.builder.reshape(moved, (channels * r * r, height // r, width // r)))


def _pixel_shuffle(t: Tracer, x: Traced, upscale_factor: int) -> Traced:
    channels, height, width = _image(t, x)
    r = upscale_factor
    if channels % (r * r):
        raise GraphError(f"pixel_shuffle by {r} of {channels} channels: they must be a multiple of {r * r}")
    split = t.builder.reshape(x.node, (channels // (r * r), r, r, height, width))
    moved = t.builder.add("transpose", split, axes=(0, 3, 1, 4, 2))
    return t.made(t.builder.reshape(moved, (channels // (r * r), height * r, width * r)))


def _image(t: Tracer, x: Traced) -> tuple[int, int, int]:
    shape = t.shape(x)
    if len(shape) != 3:
        raise GraphError(f"images are [channels, height, width], not {list(shape)}")
    return shape[0], shape[1], shape[2]


def _constant(value: object) -> Handler:
    return lambda t, x, *args: value


SHAPE_HANDLERS: Mapping[str, Handler] = {
    "size": _size,
    ".shape": _size,
    "dim": _dim,
    "ndimension": _dim,
    ".ndim": _dim,
    ".dtype": lambda t, x: t.like.dtype,
    ".device": lambda t, x: t.like.device,
    ".is_cuda": lambda t, x: t.like.is_cuda,
    ".requires_grad": _constant(False),
    ".is_sparse": _constant(False),
    ".is_quantized": _constant(False),
    ".is_nested": _constant(False),
    "is_floating_point": _constant(True),
    "is_complex": _constant(False),
    "__hash__": lambda t, x: id(x),
    "__repr__": _constant("<traced tensor>"),
    "view": _reshape,
    "reshape": _reshape,
    "flatten": _flatten,
    "unflatten": _unflatten,
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "permute": _permute,
    "transpose": _transpose,
    "swapaxes": _transpose,
    "swapdims": _transpose,
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    "stack": _stack,
    "split": _split,
    "chunk": _chunk,
    "unbind": _unbind,
    "select": _select,
    "narrow": _narrow,
    "__getitem__": _getitem,
    "pad": _pad,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
}
