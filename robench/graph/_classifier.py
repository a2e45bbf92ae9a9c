"""The classifier that a graph is, in one precision on one device."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robench.errors import GraphError, InputError
from robench.graph._fingerprint import fingerprint
from robench.graph._ir import Graph
from robench.graph._precision import in_precision
from robench.graph.operators import OPERATORS, validate

__all__ = ["GraphClassifier", "check_input", "shape_of"]


def check_input(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Raise InputError unless `x` is a batch [B, *shape] of `dtype`."""
    if x.shape[1:] != shape or x.dtype != dtype:
        raise InputError(
            f"inputs are {list(x.shape)} of {x.dtype}; the classifier takes "
            f"[{', '.join(('batch', *map(str, shape)))}] of {dtype}"
        )


def shape_of(input_shape: Sequence[int] | int) -> tuple[int, ...]:
    """Return the shape of one input as a tuple; a number stands for a flat input. Raises InputError."""
    try:
        given = [input_shape] if not hasattr(input_shape, "__iter__") else input_shape
        shape = tuple(operator.index(size) for size in given)
    except TypeError:
        shape = ()
    if not shape or min(shape) < 1:
        raise InputError(f"input_shape {input_shape!r}: give the shape of one input, like (3, 32, 32)")
    return shape


class GraphClassifier:
    """Runs a graph: logits [B, classes], differentiable in the input.

    `graph` is the graph in the stated precision, so that a certificate is about the function that runs.
    """

    def __init__(self, graph: Graph, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        """Put the constants on `device` in `dtype`. Raises GraphError for a graph that is no classifier."""
        validate(graph)
        if graph.classes < 2:
            raise GraphError("a classifier needs at least 2 logits: this net has 1")
        if not dtype.is_floating_point:
            raise InputError(f"{dtype} is no floating point type: choose float32 or float64")
        self._graph = in_precision(graph, dtype)
        self._device = torch.device(device)
        self._dtype = dtype
        self._fingerprint = fingerprint(graph, dtype)
        validate(self._graph)  # a cast can overflow a weight or round a divisor to zero
        self._steps: list[tuple[Callable[..., Tensor], tuple[int, ...], tuple[int, ...]]] = []
        last = graph.last_uses()
        for position, node in enumerate(self._graph.nodes[1:], 1):
            constants = {name: tensor.to(self._device) for name, tensor in node.constants.items()}
            self._steps.append((OPERATORS[node.op].bind(node.attributes, constants), node.inputs, last[position]))

    @property
    def graph(self) -> Graph:
        """The graph in the classifier's precision."""
        return self._graph

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self._graph.input_shape

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self._graph.classes

    @property
    def dtype(self) -> torch.dtype:
        """Input dtype."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """Where inputs must be."""
        return self._device

    @property
    def fingerprint(self) -> str:
        """The function's identity."""
        return self._fingerprint

    def logits(self, x: Tensor) -> Tensor:
        """Return logits [B, classes] for `x` [B, ...]. Raises InputError for another shape or dtype."""
        check_input(x, self._graph.input_shape, self._dtype)
        values: list[Tensor | None] = [x]
        for run, inputs, done in self._steps:
            values.append(run(values[inputs[0]]) if len(inputs) == 1 else run(*(values[i] for i in inputs)))
            for position in done:
                values[position] = None
        out = values[-1]
        assert out is not None
        return out

    def __repr__(self) -> str:
        """Shapes, precision and identity."""
        return (
            f"GraphClassifier({list(self.input_shape)} to {self.classes} classes, {self._dtype}, "
            f"{self._device}, {self._fingerprint[:12]})"
        )
