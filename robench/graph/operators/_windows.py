"""Sliding windows, shared by convolutions and pools: output sizes, padding in torch's order.

Paddings are kept like ONNX does, all begins and then all ends: (top, left, bottom, right).
"""

from __future__ import annotations

from collections.abc import Sequence

from robench.errors import GraphError

__all__ = ["ceil_padding", "check_window", "extents", "is_symmetric", "sizes", "torch_padding"]


def check_window(
    name: str, rank: int, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> None:
    """Refuse settings of the wrong length or sign. Raises GraphError."""
    if not len(kernel) == len(stride) == len(dilation) == rank or len(padding) != 2 * rank:
        raise GraphError(f"{name}: kernel, stride and dilation need {rank} numbers, padding {2 * rank}")
    if min((*kernel, *stride, *dilation)) < 1 or min(padding) < 0:
        raise GraphError(f"{name}: kernel, stride and dilation must be at least 1, padding at least 0")


def extents(kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """Return how far a window reaches along each axis."""
    return [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]


def sizes(
    name: str,
    spatial: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, ...]:
    """Return the number of windows along each axis. Raises GraphError where none fits."""
    rank = len(spatial)
    reach = extents(kernel, dilation)
    out = [(size + padding[i] + padding[i + rank] - reach[i]) // stride[i] + 1 for i, size in enumerate(spatial)]
    if min(out) < 1:
        raise GraphError(f"{name}: a window of {reach} does not fit into {list(spatial)} with padding {list(padding)}")
    return tuple(out)


def is_symmetric(padding: Sequence[int]) -> bool:
    """Whether begin and end padding agree on every axis."""
    half = len(padding) // 2
    return tuple(padding[:half]) == tuple(padding[half:])


def torch_padding(padding: Sequence[int]) -> list[int]:
    """Return the padding in the order of `torch.nn.functional.pad`: last axis first, (begin, end) each."""
    half = len(padding) // 2
    return [size for i in reversed(range(half)) for size in (padding[i], padding[i + half])]


def ceil_padding(
    spatial: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, ...]:
    """Return the padding that gives the windows of `ceil_mode` in ordinary rounding.

    A last window that would start beyond the input and its begin padding is left out, like torch does.
    """
    rank, out = len(spatial), list(padding)
    for axis, (size, reach) in enumerate(zip(spatial, extents(kernel, dilation), strict=True)):
        total = size + padding[axis] + padding[axis + rank]
        windows = -(-(total - reach) // stride[axis]) + 1
        if (windows - 1) * stride[axis] >= size + padding[axis]:
            windows -= 1
        out[axis + rank] += max(0, (windows - 1) * stride[axis] + reach - total)
    return tuple(out)
