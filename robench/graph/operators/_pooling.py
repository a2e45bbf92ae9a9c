"""Pools and means over axes. Max pools pad with −inf."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from robench.errors import GraphError
from robench.graph.operators._base import Attributes, Constants, Operator, Shape, as_int, as_ints
from robench.graph.operators._windows import check_window, extents, is_symmetric, sizes, torch_padding

__all__ = ["POOLING"]


def _infer_pool(name: str) -> Callable[[Sequence[Shape], Attributes, Constants], Shape]:
    def infer(shapes: Sequence[Shape], attributes: Attributes, constants: Constants) -> Shape:
        if len(shapes[0]) != 3:
            raise GraphError(f"{name} needs an input [channels, height, width], not {list(shapes[0])}")
        kernel, stride, padding = (as_ints(attributes, key) for key in ("kernel", "stride", "padding"))
        dilation = as_ints(attributes, "dilation") if "dilation" in attributes else (1, 1)
        check_window(name, 2, kernel, stride, padding, dilation)
        if any(pad >= reach for pad, reach in zip(padding, extents(kernel, dilation) * 2, strict=True)):
            raise GraphError(f"{name}: padding {list(padding)} leaves a window without input")
        if attributes.get("count_include_pad", 1) not in (0, 1):
            raise GraphError(f"{name}: count_include_pad must be 0 or 1")
        return (shapes[0][0], *sizes(name, shapes[0][1:], kernel, stride, padding, dilation))

    return infer


def _is_native(kernel: Sequence[int], padding: Sequence[int]) -> bool:
    """Whether torch's own pools take this padding: symmetric, at most half of the kernel."""
    return is_symmetric(padding) and all(2 * pad <= size for pad, size in zip(padding[:2], kernel, strict=True))


def _bind_max_pool(attributes: Attributes, constants: Constants) -> Callable[..., Tensor]:
    kernel, stride, padding, dilation = (as_ints(attributes, k) for k in ("kernel", "stride", "padding", "dilation"))
    if _is_native(kernel, padding):
        half = padding[:2]
        return lambda x: F.max_pool2d(x, kernel, stride, half, dilation)
    around = torch_padding(padding)
    return lambda x: F.max_pool2d(F.pad(x, around, value=-math.inf), kernel, stride, 0, dilation)


def _bind_avg_pool(attributes: Attributes, constants: Constants) -> Callable[..., Tensor]:
    kernel, stride, padding = (as_ints(attributes, key) for key in ("kernel", "stride", "padding"))
    include = bool(as_int(attributes, "count_include_pad"))
    if _is_native(kernel, padding):
        half = padding[:2]
        return lambda x: F.avg_pool2d(x, kernel, stride, half, False, include)
    around = torch_padding(padding)
    if include:
        return lambda x: F.avg_pool2d(F.pad(x, around), kernel, stride)

    area = math.prod(kernel)
    scales: dict[tuple[object, ...], Tensor] = {}  # area over covered positions, per window

    def average_inside(x: Tensor) -> Tensor:
        height, width = (int(size) for size in x.shape[2:])
        key = (height, width, x.dtype, x.device)
        if key not in scales:
            rows = _covered(height, kernel[0], stride[0], padding[0], padding[2])
            columns = _covered(width, kernel[1], stride[1], padding[1], padding[3])
            scales[key] = torch.tensor(
                [[area / (a * b) for b in columns] for a in rows], dtype=x.dtype, device=x.device
            )
        return F.avg_pool2d(F.pad(x, around), kernel, stride) * scales[key]

    return average_inside


def _covered(size: int, kernel: int, stride: int, begin: int, end: int) -> list[int]:
    """Return how many positions of each window along an axis lie in the input."""
    starts = range(-begin, size + end - kernel + 1, stride)
    return [min(start + kernel, size) - max(start, 0) for start in starts]


def _infer_global(shapes: Sequence[Shape], attributes: Attributes, constants: Constants) -> Shape:
    if len(shapes[0]) != 3:
        raise GraphError(f"global_avg_pool2d needs an input [channels, height, width], not {list(shapes[0])}")
    return (shapes[0][0], 1, 1)


def _bind_global(attributes: Attributes, constants: Constants) -> Callable[..., Tensor]:
    return lambda x: F.adaptive_avg_pool2d(x, 1)


def _infer_mean(shapes: Sequence[Shape], attributes: Attributes, constants: Constants) -> Shape:
    axes, rank = as_ints(attributes, "axes"), len(shapes[0])
    if not axes or list(axes) != sorted(set(axes)) or not 0 <= axes[0] <= axes[-1] < rank:
        raise GraphError(f"mean: axes {list(axes)} do not fit the shape {list(shapes[0])}")
    return tuple(1 if axis in axes else size for axis, size in enumerate(shapes[0]))


def _bind_mean(attributes: Attributes, constants: Constants) -> Callable[..., Tensor]:
    batched = [axis + 1 for axis in as_ints(attributes, "axes")]
    return lambda x: x.mean(batched, keepdim=True)


POOLING = (
    Operator(
        "max_pool2d",
        _infer_pool("max_pool2d"),
        _bind_max_pool,
        attributes={"kernel": "ints", "stride": "ints", "padding": "ints", "dilation": "ints"},
    ),
    Operator(
        "avg_pool2d",
        _infer_pool("avg_pool2d"),
        _bind_avg_pool,
        attributes={"kernel": "ints", "stride": "ints", "padding": "ints", "count_include_pad": "int"},
        affine=True,
    ),
    Operator("global_avg_pool2d", _infer_global, _bind_global, affine=True),
    Operator("mean", _infer_mean, _bind_mean, attributes={"axes": "ints"}, affine=True),
)
