"""Decoupled direction and norm (Rony et al. 2019, "Decoupling direction and norm for efficient … attacks")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from robench import Proposal, param
from robench_plugins.attacks import gradients, projections
from robench_plugins.attacks._nearest import Nearest
from robench_plugins.attacks._radii import Moment, annealed, descend
from robench_plugins.attacks._runs import Noise, Rows, Runs, propose
from robench_plugins.attacks.losses import Loss

if TYPE_CHECKING:
    from robench import Classifier, Norm, Passes, Stream, Threat

__all__ = ["DDN"]


@dataclass(frozen=True)
class DDN:
    """The nearest error in l2: a gradient step, then a sphere that shrinks by gamma after an error, else grows.

    Algorithm 1 of the paper; `ddn:targets=0,starts=0` is its single run. Deviations, each for a reason: the radius
    starts at the first-order distance to the boundary and steps are measured in radii (there both are 1 in units of
    [0, 1], whatever the inputs); points are placed on the part of the sphere inside the domain (there clipped, which
    leaves the sphere); no radius is larger than that of the nearest error known; no rounding to pixel values. More
    runs follow: towards the likeliest classes and untargeted, from random points of the sphere that the first found.
    """

    per_eps: ClassVar[bool] = False

    steps: int = param(100, "gradient steps per run", minimum=1)
    gamma: float = param(0.05, "by how much the radius changes per step", above=0, maximum=0.5)
    loss: Loss = param("ce", "loss of the untargeted runs; the others use the margin")
    targets: int = param(3, "how many of the most likely other classes get a run of their own", minimum=0)
    starts: int = param(2, "how many more untargeted runs begin at random points", minimum=0)

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or why the attack cannot run."""
        return "ddn minimises the l2 distance alone" if norm != "l2" else gradients.applies(classifier)

    def perturb(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Proposal:
        """Propose the nearest misclassified points met for `x` [B, ...] with labels `y` [B]."""
        return propose(classifier, x, y, threat, stream, Runs(self.targets, self.starts), self._search)

    def _search(self, classifier: Classifier, norm: Norm, rows: Rows, noise: Noise) -> tuple[Nearest, Passes]:
        return descend(classifier, norm, rows, noise, self)

    def radius(self, now: Moment) -> Tensor:
        """Return the next radii: smaller by `gamma` where the point is an error, else larger by it."""
        before = now.distance + (~now.met * now.boundary) if now.step == 0 else now.radius
        return before * (1 + self.gamma * (1 - 2 * now.met.to(before.dtype)))

    def length(self, step: int) -> float:
        """Return the length of a step in radii: from 1 down to 0.01 along half a cosine."""
        return annealed(1.0, 0.01, step, self.steps)

    def place(self, norm: Norm, delta: Tensor, radius: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Return the points of the spheres in the directions of `delta`, within the box."""
        return projections.maximise(norm, delta, radius, low, high)
