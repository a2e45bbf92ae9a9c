"""Small classifiers for tests: anything with `logits` and the attributes that robench asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

__all__ = ["Function", "linear", "mlp"]


CPU = torch.device("cpu")


@dataclass(frozen=True)
class Function:
    """A classifier from a function of the batch; opaque (no graph)."""

    function: Callable[[Tensor], Tensor]
    input_shape: tuple[int, ...]
    classes: int
    dtype: torch.dtype = torch.float32
    device: torch.device = CPU
    fingerprint: str = "0" * 64
    graph: Any = None

    def logits(self, x: Tensor) -> Tensor:
        """Return logits [B, classes]."""
        if x.shape[1:] != self.input_shape or x.dtype != self.dtype:
            raise AssertionError(f"input {tuple(x.shape)} {x.dtype}, not [B, {self.input_shape}] {self.dtype}")
        return self.function(x)


def linear(
    weight: Any, bias: Any, input_shape: Sequence[int] | None = None, dtype: torch.dtype = torch.float64
) -> Function:
    """Return x ↦ W x + b with W [C, D] and b [C], for inputs of D entries in any shape."""
    w, b = torch.as_tensor(weight, dtype=dtype), torch.as_tensor(bias, dtype=dtype)
    shape = (w.shape[1],) if input_shape is None else tuple(input_shape)
    return Function(lambda x: x.flatten(1) @ w.T + b, shape, len(w), dtype)


def mlp(sizes: Sequence[int], seed: int = 0, dtype: torch.dtype = torch.float32) -> Function:
    """Return a random ReLU network with layers of `sizes`, in evaluation mode; its parameters require gradients."""
    generator = torch.Generator().manual_seed(seed)
    layers = [
        (
            (torch.randn(b, a, generator=generator) * (2 / a) ** 0.5).to(dtype).requires_grad_(),
            (torch.randn(b, generator=generator) * 0.1).to(dtype).requires_grad_(),
        )
        for a, b in pairwise(sizes)
    ]

    def function(x: Tensor) -> Tensor:
        h = x.flatten(1)
        for position, (weight, bias) in enumerate(layers):
            h = h @ weight.T + bias
            h = h.relu() if position + 1 < len(layers) else h
        return h

    function.parameters = [tensor for layer in layers for tensor in layer]  # type: ignore[attr-defined]
    return Function(function, (sizes[0],), sizes[-1], dtype)
