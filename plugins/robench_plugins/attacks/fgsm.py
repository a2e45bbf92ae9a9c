"""The fast gradient sign method (Goodfellow et al. 2015, "Explaining and harnessing adversarial examples")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from robench import Passes, Proposal, param
from robench.numerics import per_sample
from robench_plugins.attacks import gradients
from robench_plugins.attacks.losses import Loss
from robench_plugins.attacks.regions import Region
from robench_plugins.attacks.steps import move

if TYPE_CHECKING:
    from robench import Classifier, Norm, Stream, Threat

__all__ = ["FGSM"]


@dataclass(frozen=True)
class FGSM:
    """One gradient, one step: the best point of ball and domain if the loss were linear.

    linf: x + eps·sign(g), clipped. l2: x + eps·g/‖g‖₂ where the domain leaves room for it; what it cuts off is
    given to the other coordinates. l1: the budget on the steepest coordinates, each filled up to the domain.
    With `random_start` (FGSM-RS, Wong et al. 2020) a step of `step`·eps from a random point, projected.
    """

    per_eps: ClassVar[bool] = True

    loss: Loss = param("ce", "loss to increase")
    random_start: bool = param(False, "take the gradient, and the step, from a random point of the ball")
    step: float = param(1.25, "with a random start: length of the step in units of eps", above=0)

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or why the attack cannot run."""
        return gradients.applies(classifier)

    def perturb(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Proposal:
        """Propose a point per sample of `x` [B, ...] with labels `y` [B]."""
        passes = torch.ones_like(y)
        if not len(x):
            return Proposal(x, passes=Passes(passes, passes.clone()))
        region = Region.around(x, threat)
        start = region.start(stream.child("start")) if self.random_start else x
        now = gradients.ascent(classifier, start, y, self.loss)
        way = now.direction
        if bool(now.flat.any()):
            stuck = now.flat.nonzero()[:, 0]
            noise = stream.child("flat").select(stuck).normal(x.shape[1:], x.dtype)
            way = way.index_copy(0, stuck, noise)
        points = move(region, start, way, self.step) if self.random_start else region.maximise(way)
        # Already misclassified: moving away could only mend it.
        points = torch.where(per_sample(now.margin < 0, start), start, points)
        return Proposal(points, passes=Passes(passes, passes.clone()))
