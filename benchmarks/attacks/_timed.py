"""A classifier that knows how long it was at work: what is left of an attack's time is the attack's own."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from robench import Classifier

__all__ = ["Timed"]


class Timed:
    """`classifier`, with the CPU seconds spent in its forward and backward passes."""

    def __init__(self, classifier: Classifier) -> None:
        """Start at 0 seconds."""
        self.inner, self.seconds = classifier, 0.0
        self.input_shape, self.classes = classifier.input_shape, classifier.classes
        self.dtype, self.device = classifier.dtype, classifier.device
        self.fingerprint, self.graph = classifier.fingerprint, classifier.graph

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of `x`."""
        if torch.is_grad_enabled() and x.requires_grad:
            out: Tensor = _Passes.apply(x, self)  # type: ignore[no-untyped-call]
            return out
        start = time.process_time()
        logits = self.inner.logits(x)
        self.seconds += time.process_time() - start
        return logits


class _Passes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, timed: Timed) -> Tensor:
        start = time.process_time()
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.logits = timed.inner.logits(ctx.x)
        ctx.timed = timed
        timed.seconds += time.process_time() - start
        return ctx.logits.detach()  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, vector: Tensor) -> tuple[Tensor, None]:
        start = time.process_time()
        (gradient,) = torch.autograd.grad(ctx.logits, ctx.x, vector, retain_graph=True)
        ctx.timed.seconds += time.process_time() - start
        return gradient, None
