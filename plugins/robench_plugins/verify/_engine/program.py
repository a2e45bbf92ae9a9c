"""A network as affine steps and activations: what `lower` makes of a graph."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from robench_plugins.verify._engine.steps import Affine, Shape

__all__ = ["Activation", "Program", "Step"]

_FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


@dataclass(frozen=True, eq=False)
class Activation:
    """An activation, entry by entry: `relu`, `sigmoid` or `tanh`."""

    op: str
    inputs: tuple[int]
    shape: Shape

    def forward(self, *values: Tensor) -> Tensor:
        """Return the activation of values [B, ...]."""
        return _FUNCTIONS[self.op](values[0])


Step = Affine | Activation


@dataclass(frozen=True, eq=False)
class Program:
    """Steps in topological order; step 0 is the input (an empty `View`), the last one holds the logits.

    Attributes:
        steps: the steps, float64 constants on the CPU unless cast.
        sources: the graph's node that a step equals, by step.
    """

    steps: tuple[Step, ...]
    sources: Mapping[int, int]
    _cast: dict[tuple[torch.dtype, torch.device], Program] = field(default_factory=dict, repr=False)

    @cached_property
    def uses(self) -> tuple[int, ...]:
        """How often each step is read."""
        read = Counter(source for step in self.steps for source in step.inputs)
        return tuple(read[position] for position in range(len(self.steps)))

    @property
    def activations(self) -> tuple[int, ...]:
        """Positions of the activations."""
        return tuple(i for i, step in enumerate(self.steps) if isinstance(step, Activation))

    @property
    def piecewise_linear(self) -> bool:
        """Whether every activation is a ReLU."""
        return all(step.op == "relu" for step in self.steps if isinstance(step, Activation))

    @cached_property
    def widest(self) -> int:
        """Numbers that the widest step's value has."""
        return max(math.prod(step.shape) for step in self.steps)

    def activation(self, position: int) -> Activation:
        """Return the activation at `position`."""
        step = self.steps[position]
        assert isinstance(step, Activation)
        return step

    @property
    def last(self) -> int:
        """Position of the logits."""
        return len(self.steps) - 1

    def to(self, dtype: torch.dtype, device: torch.device) -> Program:
        """Return the program with its constants in `dtype` on `device`; kept."""
        key = (dtype, device)
        if key not in self._cast:
            steps = tuple(step.cast(dtype, device) if isinstance(step, Affine) else step for step in self.steps)
            self._cast[key] = Program(steps, self.sources)
        return self._cast[key]

    def upto(self, last: int) -> Program:
        """Return the steps up to the one at `last`, whose value becomes the output."""
        return Program(self.steps[: last + 1], {step: node for step, node in self.sources.items() if step <= last})

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [B, classes] of `x` [B, ...] in the constants' dtype; differentiable."""
        values: list[Tensor | None] = [x, *[None] * self.last]
        left = list(self.uses)
        for position, step in enumerate(self.steps[1:], 1):
            arguments = [value for source in step.inputs if (value := values[source]) is not None]
            values[position] = step.forward(*arguments)
            for source in step.inputs:
                left[source] -= 1
                if not left[source]:
                    values[source] = None
        out = values[-1]
        assert out is not None
        return out
