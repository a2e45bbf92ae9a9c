"""A wrapper that scales the logits."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robench import Classifier, Wrapper, param
from robench.classifier import wrapped_fingerprint

__all__ = ["Scaled"]


@dataclass(frozen=True)
class Scaled(Wrapper):
    """Multiplies the logits by `factor`: the same decisions, other margins."""

    factor: float = param(2.0, "what to multiply by", above=0)

    def wrap(self, classifier: Classifier) -> Classifier:
        """Return the scaled classifier."""
        return _Scaled(classifier, self.factor)


class _Scaled:
    graph = None  # what is not in the network's graph makes another, opaque function

    def __init__(self, inner: Classifier, factor: float) -> None:
        self.inner, self.factor = inner, factor
        self.input_shape, self.classes = inner.input_shape, inner.classes
        self.dtype, self.device = inner.dtype, inner.device
        self.fingerprint = wrapped_fingerprint(inner, f"scaled:factor={factor!r}")

    def logits(self, x: Tensor) -> Tensor:
        return self.factor * self.inner.logits(x)
