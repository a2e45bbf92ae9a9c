"""A graph made ready for interval arithmetic: float64 constants on a device, and what follows from them alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from robench.graph._ir import Attribute, Graph, Node
from robench.graph.operators import OPERATORS

__all__ = ["Layer", "layers"]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Layer:
    """One node of a graph.

    Attributes:
        op: operator name.
        inputs: positions of the argument nodes.
        attributes: the operator's settings.
        constants: float64, on the device.
        shape: shape of the output without the batch dimension.
        last: positions of the nodes that this one is the last to read.
        finite: whether every constant is; otherwise nothing is known about the output.
        memo: what was computed from the constants alone.
    """

    op: str
    inputs: tuple[int, ...]
    attributes: Mapping[str, Attribute]
    constants: Mapping[str, Tensor]
    shape: tuple[int, ...]
    last: tuple[int, ...]
    finite: bool
    memo: dict[object, Any] = field(default_factory=dict)

    def once(self, key: object, compute: Callable[[], T]) -> T:
        """Return compute(), kept under `key`; it must depend on the graph alone."""
        if key not in self.memo:
            self.memo[key] = compute()
        return cast(T, self.memo[key])

    def evaluate(self, *values: Tensor, constants: Mapping[str, Tensor] | None = None) -> Tensor:
        """Apply the operator itself to `values` [B, ...], in float64, with `constants` in place of its own."""
        return OPERATORS[self.op].bind(self.attributes, self.constants if constants is None else constants)(*values)

    def number(self, name: str) -> float:
        """Return a numeric attribute."""
        value = self.attributes[name]
        assert isinstance(value, int | float)
        return value

    def sizes(self, name: str) -> tuple[int, ...]:
        """Return an attribute that is a tuple of integers."""
        value = self.attributes[name]
        assert isinstance(value, tuple)
        return value


_PREPARED: WeakKeyDictionary[Graph, dict[torch.device, tuple[Layer, ...]]] = WeakKeyDictionary()


def layers(graph: Graph, device: torch.device) -> tuple[Layer, ...]:
    """Return the layers of `graph` with their constants, exact in float64 on `device`; kept with the graph."""
    kept = _PREPARED.setdefault(graph, {})
    if device not in kept:
        pairs = zip(graph.nodes, graph.last_uses(), strict=True)
        kept[device] = tuple(_layer(node, last, device) for node, last in pairs)
    return kept[device]


def _layer(node: Node, last: tuple[int, ...], device: torch.device) -> Layer:
    constants = {name: value.detach().to(device, torch.float64) for name, value in node.constants.items()}
    finite = all(bool(value.isfinite().all()) for value in constants.values())
    return Layer(node.op, node.inputs, node.attributes, constants, node.shape, last, finite)
