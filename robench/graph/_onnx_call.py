"""One operator of an ONNX file while it is imported: its inputs, its attributes, what has been read of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from robench.errors import GraphError
from robench.graph._builder import Builder

__all__ = ["BATCH", "Call", "Value", "vector"]

# A value is a node of the graph under construction, or a constant.
Value = int | Tensor

# Stands for the batch size in shape vectors; no size can be this number.
BATCH = -(2**62)


@dataclass
class Call:
    """One node of the file.

    Attributes:
        op: operator name.
        inputs: values of the inputs; None where left out.
        attributes: decoded attributes.
        outputs: how many outputs something reads.
        last: whether the first output is the network's output.
        opset: version of the standard operators.
        builder: the graph under construction.
        batched: whether activations have a batch dimension in front (a net on a bare vector has none).
        batch: the batch size that the file was exported with, None where it is free.
    """

    op: str
    inputs: Sequence[Value | None]
    attributes: Mapping[str, Any]
    outputs: int
    last: bool
    opset: int
    builder: Builder
    batched: bool
    batch: int | None
    read: set[str] = field(default_factory=set)

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute; bytes become text."""
        self.read.add(name)
        value = self.attributes.get(name, default)
        return value.decode(errors="replace") if isinstance(value, bytes) else value

    def ints(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        """Return an attribute that is a list of integers."""
        return tuple(int(item) for item in self.attribute(name, default))

    def value(self, position: int) -> Value | None:
        """Return an input, None where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def operand(self, position: int) -> Value:
        """Return an input that must be given."""
        value = self.value(position)
        if value is None:
            raise GraphError(f"{self.op}: input {position} is missing")
        return value

    def node(self, position: int = 0) -> int:
        """Return an input that must be an activation."""
        value = self.value(position)
        if not isinstance(value, int):
            raise GraphError(f"{self.op}: input {position} must be an activation")
        return value

    def constant(self, position: int) -> Tensor:
        """Return an input that must be a constant."""
        value = self.value(position)
        if not isinstance(value, Tensor):
            raise GraphError(f"{self.op}: input {position} must be a constant")
        return value

    def optional(self, position: int) -> Tensor | None:
        """Return an input that must be a constant where it is given."""
        return None if self.value(position) is None else self.constant(position)

    def listed(self, position: int, name: str) -> list[int] | None:
        """Return integers that newer versions pass as input and older ones as attribute; None where left out."""
        old = self.attribute(name)
        tensor = self.optional(position)
        if tensor is None:
            return None if old is None else [int(item) for item in old]
        if tensor.is_floating_point() or tensor.dim() > 1:
            raise GraphError(f"{self.op}: {name} must be a list of integers")
        return [int(item) for item in tensor.reshape(-1).tolist()]

    def scalar(self, position: int, name: str, default: float) -> float:
        """Return a number that newer versions pass as input and older ones as attribute."""
        old = self.attribute(name)
        tensor = self.optional(position)
        if tensor is None:
            return default if old is None else float(old)
        if tensor.numel() != 1:
            raise GraphError(f"{self.op}: {name} must be one number")
        return float(tensor)

    def shape(self, node: int) -> tuple[int, ...]:
        """Return the shape of an activation without the batch dimension."""
        return self.builder.shape(node)

    def full_shape(self, node: int) -> list[int]:
        """Return the shape as the file sees it, `BATCH` for the batch."""
        return [BATCH, *self.shape(node)] if self.batched else list(self.shape(node))

    def axis(self, node: int, dim: int) -> int:
        """Return the unbatched axis of a dimension. Raises GraphError for the batch."""
        offset = int(self.batched)
        rank = len(self.shape(node)) + offset
        if not -rank <= dim < rank or dim % rank < offset:
            raise GraphError(f"{self.op}: dimension {dim} is the batch, or outside the {rank} dimensions")
        return dim % rank - offset

    def is_batch(self, size: int) -> bool:
        """Whether a size in a shape vector stands for the batch."""
        return size == BATCH or (self.batch is not None and size == self.batch)

    def finish(self) -> None:
        """Refuse attributes that nothing has read: their meaning would be lost."""
        unread = sorted(set(self.attributes) - self.read)
        if unread:
            raise GraphError(f"{self.op}: attribute {unread[0]!r} is not supported")


def vector(items: Sequence[int]) -> Tensor:
    """Return integers as a constant."""
    return torch.tensor(list(items), dtype=torch.int64)
