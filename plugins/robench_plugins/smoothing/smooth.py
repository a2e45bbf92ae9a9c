"""Randomized smoothing (Cohen, Rosenfeld & Kolter 2019, "Certified adversarial robustness via randomized smoothing").

g(x) is the class that the base classifier f gives most often at x + noise. Nobody can evaluate g, only test what it
gives: `predict` returns its class or abstains.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from torch import Tensor

from robench import binomial, param, votes, wrapped_fingerprint
from robench.classifier import Classifier, is_random
from robench.errors import InputError
from robench.params import canonical
from robench.registry import load_plugins
from robench.streams import Stream
from robench_plugins.smoothing import _checked
from robench_plugins.smoothing._votes import Draws

if TYPE_CHECKING:
    from robench.contracts import Noise

__all__ = ["Smooth", "SmoothedClassifier", "noise_of", "vote_spec"]


class SmoothedClassifier:
    """The majority vote of `base` over `noise`. It has no graph, because it is no network.

    `fingerprint` is that of the vote over infinitely many draws: how many `predict` takes is no part of it.
    """

    graph = None

    def __init__(self, base: Classifier, noise: Noise, spec: str, n: int = 1000, alpha: float = 0.001) -> None:
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
        return self.base.logits(x + _checked.draw(self.noise, stream, self.input_shape, self.dtype))

    def draws(self, x: Tensor, stream: Stream, rows: int | None = None) -> Draws:
        """Return the draws around `x` [B, ...], to count votes in bulk; `rows` inputs in a pass."""
        return Draws(self.base, self.noise, x, stream, rows)

    def predict(self, x: Tensor, stream: Stream, alpha: float) -> Tensor:
        """Return the class [B] of the vote at `x` [B, ...], or −1 where `n` draws do not tell (`votes.predict`)."""
        return votes.predict(self, x, stream, alpha)

    def __repr__(self) -> str:
        """Noise and identity."""
        return f"SmoothedClassifier({self.base!r}, {self.noise!r}, {self.fingerprint[:12]})"


@dataclass(frozen=True)
class Smooth:
    """The majority vote over fresh noise around each input, which may leave the domain (Cohen et al. 2019)."""

    sigma: float = param(
        ..., "standard deviation of the noise on every input coordinate, in the domain's units", above=0
    )
    noise: str = param(
        "gaussian",
        "its distribution: `gaussian` certifies in l2 and linf, `uniform` in l1",
        spec="noises",
        apart="sigma",
    )
    n: int = param(1000, "draws of a prediction", minimum=1, maximum=binomial.LARGEST)
    alpha: float = param(0.001, "failure rate of a prediction, at most 0.5", above=0, maximum=0.5)

    def __post_init__(self) -> None:
        """Raise ValueError for what no vote can be."""
        if not (self.sigma > 0 and math.isfinite(self.sigma)):
            raise ValueError(f"sigma must be positive and finite, not {self.sigma!r}")
        if not 0 < self.alpha <= 0.5:
            raise ValueError(f"alpha must be above 0 and at most 0.5, not {self.alpha!r}")
        if not 1 <= self.n <= binomial.LARGEST:
            raise ValueError(f"n must be from 1 to {binomial.LARGEST}, not {self.n!r}")
        if binomial.top_two_pvalue(self.n, 0) > self.alpha:
            # It is 2^(1 − n), rounded up: one more where α is a power of two.
            needed = 2 - math.frexp(self.alpha)[1]
            needed += bool(binomial.top_two_pvalue(needed, 0) > self.alpha)
            raise ValueError(
                f"{self.n} draws never tell a class at alpha = {self.alpha:g}, whatever they are: "
                f"take n = {needed} at least"
            )

    def wrap(self, classifier: Classifier) -> SmoothedClassifier:
        """Return the vote of `classifier`. Raises InputError for one that draws itself."""
        if is_random(classifier):
            raise InputError(f"smooth needs a base with logits, and {type(classifier).__name__} draws at inference")
        noise, spec = noise_of(self.noise, self.sigma), vote_spec(self.noise, self.sigma)
        return SmoothedClassifier(classifier, noise, spec, self.n, self.alpha)


def noise_of(spec: str, sigma: float) -> Noise:
    """Return the noise that `spec` names, with standard deviation `sigma`. Raises SpecError."""
    found = load_plugins().resolve("noises", spec).value
    return cast("Noise", dataclasses.replace(found, sigma=sigma))


def vote_spec(noise: str, sigma: float) -> str:
    """Return the canonical spec of a vote, without what is no part of the function: `smooth:noise=uniform,sigma=0.5`.

    `noise` is a canonical spec without its sigma.
    """
    return canonical(Smooth(sigma=sigma, noise=noise), "smooth")
