"""An attack in linf: signed gradient descent on the margin."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robench import Attack, Classifier, Norm, Proposal, Stream, Threat, param
from robench.classifier import margins
from robench.distances import linf_box
from robench.numerics import per_sample

__all__ = ["Descent"]


@dataclass(frozen=True)
class Descent(Attack):
    """Steps along the sign of the margin's gradient: from x first, then from random points of the ball.

    The step falls linearly from the radius to zero, and of all points visited the one with the lowest margin
    is proposed. It need not be right about its success: the runner asks the classifier again.
    """

    steps: int = param(20, "gradient steps from each start", minimum=1)
    starts: int = param(2, "starts, the first of them x itself", minimum=1)

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return why the attack cannot run in `norm`."""
        return None if norm == "linf" else "it searches in linf only"

    def perturb(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Proposal:
        """Propose points for `x` [B, ...] with labels `y` [B]."""
        if threat.eps is None:
            raise ValueError("this attack searches at one budget at a time")
        lower, upper = linf_box(x, threat)  # ball and domain, rounded towards x
        best, least = x.clone(), torch.full(y.shape, torch.inf, dtype=x.dtype, device=x.device)
        for start in range(self.starts):
            point = x
            if start:  # draws come from the samples' own streams, never from torch's global state
                draw = stream.child("start", start).uniform(x.shape[1:], dtype=x.dtype)
                point = lower + (upper - lower) * draw
            for step in range(self.steps + 1):
                margin, gradient = _margin_and_gradient(classifier, point, y)
                better = margin < least  # false for NaN: a point without an answer is no find
                least = torch.where(better, margin, least)
                best = torch.where(per_sample(better, x), point, best)
                size = threat.eps * (1 - step / self.steps)
                point = (point - size * gradient.sign()).clamp(lower, upper)
        return Proposal(best)


def _margin_and_gradient(classifier: Classifier, point: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return f_y − max_{j≠y} f_j [B] and its gradient [B, ...]; the classifier's parameters get none."""
    point = point.detach().requires_grad_()
    with torch.enable_grad():
        margin = margins(classifier.logits(point), y)
        (gradient,) = torch.autograd.grad(margin.sum(), point)
    return margin.detach(), gradient.nan_to_num(0.0)
