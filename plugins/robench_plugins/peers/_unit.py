"""A classifier as other libraries expect it: a torch module over [0, 1] whose gradients reach inputs alone."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor

from robench import Classifier, Threat

__all__ = ["Unit"]


class Unit(torch.nn.Module):
    """logits(lower + u · width) for u in [0, 1]; in evaluation mode, without trainable parameters.

    Attributes:
        width: of the domain: an ε of the domain's units is ε / width here, in every norm.
        forwards: rows passed forwards since it was last set.
        backwards: rows passed backwards.
    """

    def __init__(self, classifier: Classifier, x: Tensor, threat: Threat) -> None:
        """Wrap `classifier` for inputs `x` [B, ...].

        Libraries know bounded domains alone: a side that is missing is put where it hardly matters, ε beyond the
        inputs, or, for a minimum-norm attack, three times their range.
        """
        super().__init__()
        low, high = (float(x.min()), float(x.max())) if x.numel() else (0.0, 1.0)
        reach = 3 * (high - low) + 1 if threat.eps is None else threat.eps
        self.lower = threat.domain.lower if math.isfinite(threat.domain.lower) else low - reach
        self.width = (threat.domain.upper if math.isfinite(threat.domain.upper) else high + reach) - self.lower
        self.classifier = classifier
        self.forwards = self.backwards = 0
        # Libraries look for the device of the first parameter.
        self.anchor = torch.nn.Parameter(
            torch.zeros(1, dtype=classifier.dtype, device=classifier.device), requires_grad=False
        )
        self.eval()

    def into(self, x: Tensor) -> Tensor:
        """Return inputs of the domain as points of [0, 1], copied."""
        return ((x - self.lower) / self.width).clamp(0, 1)

    def back(self, u: Tensor) -> Tensor:
        """Return points of [0, 1] as inputs of the domain."""
        return u * self.width + self.lower

    def forward(self, u: Tensor) -> Tensor:
        """Return logits [B, classes] at `u` [B, ...]."""
        self.forwards += len(u)
        x = self.back(u.reshape(len(u), *self.classifier.input_shape)).to(self.classifier.dtype)
        if not (torch.is_grad_enabled() and x.requires_grad):
            with torch.no_grad():
                return self.classifier.logits(x)
        return cast(Tensor, _InputsAlone.apply(x, self))  # type: ignore[no-untyped-call]


class _InputsAlone(torch.autograd.Function):
    """The logits, with a backward pass that leaves no gradient in the classifier's parameters."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, unit: Unit) -> Tensor:
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.logits = unit.classifier.logits(ctx.x)
        ctx.unit = unit
        seen: Tensor = ctx.logits.detach()
        return seen

    @staticmethod
    def backward(ctx: Any, vector: Tensor) -> tuple[Tensor | None, None]:
        ctx.unit.backwards += len(vector)
        # A library may go back twice through one pass, for a Jacobian row by row.
        (gradient,) = torch.autograd.grad(ctx.logits, ctx.x, vector, retain_graph=True, allow_unused=True)
        return (torch.zeros_like(ctx.x) if gradient is None else gradient), None
