"""Builds a graph node by node; both importers lower onto it, so that equal nets give equal graphs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from robench.errors import GraphError
from robench.graph._canonical import canonical
from robench.graph._ir import Attribute, Graph, Node
from robench.graph.operators import apply, validate
from robench.graph.operators._base import MAX_ELEMENTS, Shape
from robench.graph.operators._windows import ceil_padding

__all__ = ["Builder"]


class Builder:
    """A graph under construction. Nodes are named by their position; the input is 0."""

    def __init__(self, input_shape: Sequence[int]) -> None:
        """Start with an input of `input_shape` (without the batch dimension). Raises GraphError."""
        shape = tuple(int(size) for size in input_shape)
        if any(size < 1 for size in shape) or math.prod(shape) > MAX_ELEMENTS:
            raise GraphError(f"input shape {list(shape)}: sizes must be positive, and their product at most 2**28")
        self.nodes = [Node("input", shape=shape)]

    def shape(self, node: int) -> Shape:
        """Return the shape of a node without the batch dimension."""
        return self.nodes[node].shape

    def add(self, op: str, *inputs: int, constants: Mapping[str, Tensor] | None = None, **attributes: Attribute) -> int:
        """Append an operator and return its position. Constants are copied to the CPU."""
        stored = {name: _stored(tensor) for name, tensor in (constants or {}).items()}
        self.nodes.append(apply(op, self.nodes, inputs, attributes, stored))
        return len(self.nodes) - 1

    def finish(self, output: int) -> Graph:
        """Return the graph that ends in `output`, in canonical form."""
        graph = canonical(Graph(tuple(self.nodes[: output + 1])))
        validate(graph)
        return graph

    def arithmetic(self, op: str, left: int | Tensor, right: int | Tensor, batched: bool = True) -> int:
        """Append add, sub, mul or div of two nodes, or of a node and a constant (batch dimension 1, or none).

        Where activations have no batch dimension in front (`batched` is False), nor have constants.
        """
        attributes: dict[str, Any] = {"reverse": int(not isinstance(left, int))} if op == "sub" else {}
        if isinstance(left, int) and isinstance(right, int):
            if op not in ("add", "sub"):
                raise GraphError(f"{op} of two activations is not supported")
            return self.add(op, left, right, **attributes)
        node, other = (left, right) if isinstance(left, int) else (right, left)
        assert isinstance(node, int) and isinstance(other, Tensor)
        if op == "div" and node is right:
            raise GraphError("a constant divided by an activation is not supported")
        rank = len(self.shape(node))
        if batched and other.dim() == rank + 1 and other.shape[0] == 1:
            other = other[0]
        elif not batched and other.dim() > rank:
            node = self.reshape(node, (1,) * (other.dim() - rank) + self.shape(node))
            rank = other.dim()
        if other.dim() > rank:
            raise GraphError(f"{op}: a constant of shape {list(other.shape)} does not fit every batch")
        other = other.reshape((1,) * (rank - other.dim()) + tuple(other.shape))
        other = other if other.is_floating_point() else other.double()
        return self.add(op, node, constants={"other": other}, **attributes)

    def linear(self, node: int, weight: Tensor, bias: Tensor | None = None) -> int:
        """Append a linear layer on the last axis, which must be the only one larger than 1."""
        shape = self.shape(node)
        constants = {"weight": weight} | ({} if bias is None else {"bias": bias})
        if len(shape) < 2:
            return self.add("linear", node, constants=constants)
        if math.prod(shape[:-1]) != 1:
            raise GraphError(f"linear on the last axis of {list(shape)} is not supported: flatten the input before")
        out = self.add("linear", self.reshape(node, shape[-1:]), constants=constants)
        return self.reshape(out, (*shape[:-1], *self.shape(out)))

    def reshape(self, node: int, shape: Sequence[int]) -> int:
        """Append a reshape; one size may be −1."""
        size, known = math.prod(self.shape(node)), math.prod(item for item in shape if item != -1)
        if list(shape).count(-1) > 1 or known < 1 or size % known:
            raise GraphError(f"reshape: {list(self.shape(node))} does not fit into {list(shape)}")
        return self.add("reshape", node, shape=tuple(size // known if item == -1 else item for item in shape))

    def mean(self, node: int, axes: Sequence[int], keepdim: bool) -> int:
        """Append a mean over unbatched axes."""
        shape = self.shape(node)
        out = self.add("mean", node, axes=tuple(sorted(axes)))
        return out if keepdim else self.reshape(out, [size for axis, size in enumerate(shape) if axis not in axes])

    def select(self, node: int, axis: int, position: int) -> int:
        """Append a slice of one position, without its axis."""
        shape = self.shape(node)
        if not 0 <= axis < len(shape) or not -shape[axis] <= position < shape[axis]:
            raise GraphError(f"position {position} of axis {axis} is outside the shape {list(shape)}")
        start = position % shape[axis]
        out = self.add("slice", node, axis=axis, start=start, stop=start + 1, step=1)
        return self.reshape(out, shape[:axis] + shape[axis + 1 :])

    def split(self, node: int, axis: int, sections: Sequence[int]) -> list[int]:
        """Append slices of consecutive `sections` along an axis."""
        shape = self.shape(node)
        if not 0 <= axis < len(shape) or sum(sections) != shape[axis]:
            raise GraphError(f"split: sections {list(sections)} of axis {axis} do not fit the shape {list(shape)}")
        starts = [sum(sections[:i]) for i in range(len(sections))]
        return [
            self.add("slice", node, axis=axis, start=start, stop=start + size, step=1)
            for start, size in zip(starts, sections, strict=True)
        ]

    def max_pool(
        self,
        node: int,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        ceil: bool,
    ) -> int:
        """Append a max pool; `ceil_mode` becomes padding, which −inf makes the same."""
        if ceil:
            self._check_rank("max_pool2d", node)
            padding = ceil_padding(self.shape(node)[1:], kernel, stride, padding, dilation)
        return self.add("max_pool2d", node, kernel=kernel, stride=stride, padding=padding, dilation=dilation)

    def avg_pool(
        self,
        node: int,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        ceil: bool,
        include: bool,
    ) -> int:
        """Append an average pool; refuse a `ceil_mode` that adds windows."""
        self._check_rank("avg_pool2d", node)
        if ceil and ceil_padding(self.shape(node)[1:], kernel, stride, padding, (1, 1)) != padding:
            raise GraphError("avg_pool2d with ceil_mode is not supported where it adds windows: pad explicitly")
        return self.add(
            "avg_pool2d", node, kernel=kernel, stride=stride, padding=padding, count_include_pad=int(include)
        )

    def _check_rank(self, name: str, node: int) -> None:
        if len(self.shape(node)) != 3:
            raise GraphError(f"{name} needs an input [channels, height, width], not {list(self.shape(node))}")


def _stored(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
