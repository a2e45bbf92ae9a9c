"""What recipes share that train on points of a ball."""

from __future__ import annotations

from dataclasses import dataclass

from robench import param
from robench.threat import Domain, Epsilon, Norm, Threat
from robench_plugins.training._loop import Settings

__all__ = ["BallSettings"]


@dataclass(frozen=True)
class BallSettings(Settings):
    """The ball, and how it grows."""

    norm: Norm = param("linf", "norm of the ball")
    eps: Epsilon = param(Epsilon.parse("0.1"), "radius of the ball")
    warmup: int = param(0, "epochs over which ε grows to its value; helps where training stays at chance", minimum=0)

    @property
    def evaluate(self) -> tuple[str, ...]:
        """The ball of the training."""
        return "--norm", self.norm, "--eps", str(self.eps)

    def radius(self, epoch: int) -> float:
        """Return ε in an epoch, counted from 1."""
        return self.eps.value * min(1.0, epoch / max(1, self.warmup))

    def threat(self, epoch: int, domain: Domain) -> Threat:
        """Return the ball of an epoch, cut at the domain."""
        return Threat(self.norm, self.radius(epoch), domain)
