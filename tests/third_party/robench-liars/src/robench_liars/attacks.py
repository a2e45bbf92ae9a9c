"""Attacks whose proposals must not be believed."""

from dataclasses import dataclass

import torch

from robench import Attack, Proposal, param
from robench.classifier import margins


def _descend(classifier, x, y, size):
    """Move each sample by `size` along the sign of the falling margin, with no regard to anything."""
    point = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(margins(classifier.logits(point), y).sum(), point)
    return (x - size * gradient.sign()).detach()


@dataclass(frozen=True)
class Nan(Attack):
    """NaN for every second sample, the clean input for the others."""

    def perturb(self, classifier, x, y, threat, stream):
        points = x.clone()
        points[::2] = torch.nan
        return Proposal(points, [{"success": True}] * len(x))


@dataclass(frozen=True)
class Shape(Attack):
    """One point, whatever the number of samples."""

    def perturb(self, classifier, x, y, threat, stream):
        return Proposal(torch.zeros(1, *x.shape[1:], dtype=x.dtype, device=x.device).expand(len(x) + 1, *x.shape[1:]))


@dataclass(frozen=True)
class Box(Attack):
    """Misclassified points, but far outside the domain."""

    def perturb(self, classifier, x, y, threat, stream):
        return Proposal(_descend(classifier, x, y, 1000.0))


@dataclass(frozen=True)
class Budget(Attack):
    """Misclassified points, but at `factor` times the budget."""

    factor: float = param(10.0, "how many times the budget", above=1)

    def perturb(self, classifier, x, y, threat, stream):
        lower, upper = threat.domain.box(x)
        return Proposal(_descend(classifier, x, y, self.factor * (threat.eps or 1.0)).clamp(lower, upper))


@dataclass(frozen=True)
class Success(Attack):
    """The clean input, and a detail that says it worked."""

    def perturb(self, classifier, x, y, threat, stream):
        return Proposal(x.clone(), [{"success": True, "margin": -1.0}] * len(x))


@dataclass(frozen=True)
class Raises(Attack):
    """Raises after its first pass."""

    def perturb(self, classifier, x, y, threat, stream):
        classifier.logits(x)
        raise RuntimeError("the second step went wrong")
