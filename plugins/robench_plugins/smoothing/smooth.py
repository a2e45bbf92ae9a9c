"""Randomized smoothing (Cohen, Rosenfeld & Kolter 2019, "Certified adversarial robustness via randomized smoothing").

g(x) is the class that the base classifier f gives most often at x + noise. Nobody can evaluate g, only test what it
gives: `predict` returns its class or abstains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from robench import binomial, param, wrapped_fingerprint
from robench.classifier import Classifier
from robench.errors import InputError
from robench.streams import Stream
from robench.votes import winner
from robench_plugins.smoothing._votes import Draws
from robench_plugins.smoothing.noises import NOISES, Distribution

__all__ = ["Smooth", "SmoothedClassifier"]


class SmoothedClassifier:
    """The majority vote of `base` over `noise`. It has no graph, because it is no network.

    `fingerprint` is that of the vote over infinitely many draws: how many `predict` takes is no part of it.
    """

    graph = None

    def __init__(self, base: Classifier, noise: Distribution, spec: str, n: int = 1000, alpha: float = 0.001) -> None:
        """Let `base` vote; `spec` names the vote, `n` and `alpha` are those of a prediction."""
        self.base, self.noise, self.n, self.alpha = base, noise, n, alpha
        self.input_shape = base.input_shape
        self.classes = base.classes
        self.dtype = base.dtype
        self.device = base.device
        self.identified = getattr(base, "identified", True)
        self.fingerprint = wrapped_fingerprint(base, spec)

    def sample(self, x: Tensor, stream: Stream) -> Tensor:
        """Return the logits [B, classes] of one draw per row of `x` [B, ...], differentiable where the base is."""
        return self.base.logits(x + self.noise.draw(stream, self.input_shape, self.dtype))

    def draws(self, x: Tensor, stream: Stream, rows: int | None = None) -> Draws:
        """Return the draws around `x` [B, ...], to count votes in bulk; `rows` inputs in a pass."""
        return Draws(self.base, self.noise, x, stream, rows)

    def predict(self, x: Tensor, stream: Stream, alpha: float) -> Tensor:
        """Return the class [B] of the vote at `x` [B, ...], int64, or −1 where `n` draws do not tell (PREDICT).

        A class that is not the most likely one is returned with probability at most `alpha` per sample. −1 as well
        where ties and logits that are not finite, together, are too many to tell.

        Raises:
            InputError: another shape or dtype than the classifier's, or an α outside (0, 1).
        """
        return winner(self.draws(x, stream).count(range(len(x)), [self.n] * len(x)), alpha)

    def __repr__(self) -> str:
        """Noise and identity."""
        return f"SmoothedClassifier({self.base!r}, {self.noise!r}, {self.fingerprint[:12]})"


@dataclass(frozen=True)
class Smooth:
    """The majority vote over fresh noise around each input, which may leave the domain (Cohen et al. 2019)."""

    sigma: float = param(
        0.25, "standard deviation of the noise on every input coordinate, in the domain's units", above=0
    )
    noise: Literal["gaussian", "uniform"] = param(
        "gaussian", "its distribution: `gaussian` certifies in l2 and linf, `uniform` in l1"
    )
    n: int = param(1000, "draws of a prediction", minimum=1, maximum=binomial.LARGEST)
    alpha: float = param(0.001, "failure rate of a prediction, below 1", above=0, maximum=0.5)

    def wrap(self, classifier: Classifier) -> SmoothedClassifier:
        """Return the vote of `classifier`. Raises InputError for one that draws itself."""
        if not hasattr(classifier, "logits"):
            raise InputError(f"smooth needs a base with logits, and {type(classifier).__name__} draws at inference")
        noise = "" if self.noise == "gaussian" else f"noise={self.noise},"
        return SmoothedClassifier(
            classifier, NOISES[self.noise](self.sigma), f"smooth:{noise}sigma={self.sigma!r}", self.n, self.alpha
        )
