"""Gaussian noise on the input at inference: a classifier that is merely random, without a vote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robench import param, wrapped_fingerprint

if TYPE_CHECKING:
    from torch import Tensor

    from robench import Classifier, Stream

__all__ = ["Noise", "NoisyClassifier"]


class NoisyClassifier:
    """f(x + N(0, σ²I)): every call is one draw. It has no graph, because it is no function of x."""

    graph = None

    def __init__(self, base: Classifier, sigma: float) -> None:
        """Draw around the inputs of `base`."""
        self._base, self.sigma = base, sigma
        self.input_shape = base.input_shape
        self.classes = base.classes
        self.dtype = base.dtype
        self.device = base.device
        self.identified = getattr(base, "identified", True)
        self.fingerprint = wrapped_fingerprint(base, f"noise:sigma={sigma!r}")

    def sample(self, x: Tensor, stream: Stream) -> Tensor:
        """Return the logits [B, classes] of one draw per row of `x` [B, ...], differentiable where the base is."""
        return self._base.logits(x + self.sigma * stream.normal(self.input_shape, self.dtype))


@dataclass(frozen=True)
class Noise:
    """The classifier that sees each input behind fresh Gaussian noise, which may leave the domain.

    Not randomized smoothing: one draw decides, not a vote, so there is no robust radius, and no certificate. Evaluated
    by its expected accuracy over draws.
    """

    sigma: float = param(
        0.25, "standard deviation of the noise on every input coordinate, in the domain's units", above=0
    )

    def wrap(self, classifier: Classifier) -> NoisyClassifier:
        """Return `classifier` behind the noise."""
        return NoisyClassifier(classifier, self.sigma)
