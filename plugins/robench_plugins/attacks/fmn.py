"""FMN (Pintor et al. 2021, "Fast minimum-norm adversarial attacks through adaptive norm constraints")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from robench import Proposal, param
from robench_plugins.attacks import gradients, projections
from robench_plugins.attacks._nearest import Nearest
from robench_plugins.attacks._radii import Moment, annealed, descend
from robench_plugins.attacks._runs import Noise, Rows, Runs, propose
from robench_plugins.attacks.losses import Loss

if TYPE_CHECKING:
    from robench import Classifier, Norm, Passes, Stream, Threat

__all__ = ["FMN"]


@dataclass(frozen=True)
class FMN:
    """The nearest error in linf, l2 or l1: gradient steps projected onto a ball that follows the nearest error met.

    Algorithm 1 of the paper; `fmn:targets=0,starts=0` is its single run. Deviations, each for a reason: projections
    are exact for ball and domain together (there onto the ball, then clipped, which in l2 and l1 ends short of every
    boundary where inputs lie at the sides of the domain); steps are measured in Euclidean radii of the ball (there 1
    in units of [0, 1], whatever the inputs). More runs follow: towards the likeliest classes and untargeted, from
    random points at the distance that the first one found.
    """

    per_eps: ClassVar[bool] = False
    loss: ClassVar[Loss] = "margin"

    steps: int = param(100, "gradient steps per run", minimum=1)
    gamma: float = param(0.05, "by how much the radius changes in the first step", above=0, maximum=0.5)
    gamma_final: float = param(0.001, "and in the last, along half a cosine", above=0, maximum=0.5)
    step: float = param(1.0, "length of the first step in Euclidean radii of the ball", above=0)
    step_final: float = param(0.01, "and of the last, along half a cosine", above=0)
    targets: int = param(3, "how many of the most likely other classes get a run of their own", minimum=0)
    starts: int = param(2, "how many more untargeted runs begin at random points", minimum=0)

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or why the attack cannot run."""
        return gradients.applies(classifier)

    def perturb(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Proposal:
        """Propose the nearest misclassified points met for `x` [B, ...] with labels `y` [B]."""
        return propose(classifier, x, y, threat, stream, Runs(self.targets, self.starts), self._search)

    def _search(self, classifier: Classifier, norm: Norm, rows: Rows, noise: Noise) -> tuple[Nearest, Passes]:
        return descend(classifier, norm, rows, noise, self)

    def radius(self, now: Moment) -> Tensor:
        """Return the next radii: below the nearest error met; before, out to where the boundary would be if linear."""
        gamma = annealed(self.gamma, self.gamma_final, now.step, self.steps)
        inward = torch.minimum(now.radius * (1 - gamma), now.nearest)
        outward = torch.where(now.nearest.isfinite(), now.radius * (1 + gamma), now.distance + now.boundary)
        return torch.where(now.met, inward, outward)

    def length(self, step: int) -> float:
        """Return the length of a step in Euclidean radii of the ball."""
        return annealed(self.step, self.step_final, step, self.steps)

    def place(self, norm: Norm, delta: Tensor, radius: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Return the nearest points of ball and box."""
        return projections.project(norm, delta, radius, low, high)
