"""A program under construction, and what the rules of lowering read of a node."""

from __future__ import annotations

import torch
from torch import Tensor

from robench.graph import Node
from robench_plugins.verify._engine.program import Activation, Step
from robench_plugins.verify._engine.steps import Gather, Mix, Shape, View

__all__ = ["Lowering", "doubles", "needed", "number", "sizes"]


class Lowering:
    """The steps so far, of which the first is the input. What appends one returns its position."""

    def __init__(self, shape: Shape) -> None:
        self.steps: list[Step] = [View((), shape, shape)]

    def add(self, step: Step) -> int:
        """Append a step."""
        self.steps.append(step)
        return len(self.steps) - 1

    def shape(self, at: int) -> Shape:
        """Return the shape of the step at a position."""
        return self.steps[at].shape

    def relu(self, at: int) -> int:
        """Append the positive part of a step."""
        return self.add(Activation("relu", (at,), self.shape(at)))

    def mix(
        self, weights: tuple[float, ...], inputs: tuple[int, ...], shape: Shape | None = None, shift: float = 0.0
    ) -> int:
        """Append Σ_k weight_k x_k + shift."""
        sources = tuple(self.shape(source) for source in inputs)
        return self.add(Mix(inputs, shape or sources[0], weights, sources, shift))

    def shifted(self, at: int, shift: float) -> int:
        """Append x + shift, unless that is x."""
        return at if shift == 0 else self.mix((1.0,), (at,), shift=shift)

    def gather(self, at: int, index: Tensor, fill: float = 0.0) -> int:
        """Append elements of a step, by flat position; `fill` where that is negative."""
        inside = index[index >= 0].flatten()
        repeats = int(torch.bincount(inside).max()) if len(inside) else 1
        return self.add(Gather((at,), tuple(index.shape), index, self.shape(at), repeats, fill))

    def compared(self, a: int, b: int, least: bool = True) -> tuple[int, int]:
        """Return (min, max) of two steps; the minimum is left out (−1) where it is not wanted."""
        r = self.relu(self.mix((-1.0, 1.0), (a, b)))
        low = self.mix((1.0, -1.0), (b, r)) if least else -1
        return low, self.mix((1.0, 1.0), (a, r))


def doubles(node: Node, name: str) -> Tensor | None:
    """Return a constant in float64 on the CPU, None where the node has none."""
    value = node.constants.get(name)
    return None if value is None else value.detach().to("cpu", torch.float64)


def needed(node: Node, name: str) -> Tensor:
    """Return a constant in float64 on the CPU."""
    return node.constants[name].detach().to("cpu", torch.float64)


def sizes(node: Node, name: str) -> Shape:
    """Return an attribute that is a tuple."""
    value = node.attributes[name]
    assert isinstance(value, tuple)
    return value


def number(node: Node, name: str) -> float:
    """Return an attribute that is a number."""
    value = node.attributes[name]
    assert isinstance(value, int | float)
    return float(value)
