"""A modifier that runs an attack several times and keeps the best point of each sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robench import Attack, AttackModifier, Classifier, InputError, Norm, Proposal, Stream, Threat, param
from robench.classifier import margins
from robench.distances import distance
from robench.numerics import per_sample

__all__ = ["Again"]


@dataclass(frozen=True)
class Again(AttackModifier):
    """Runs the attack `times` times with independent draws.

    Of the proposals the one with the lowest margin stays; for a minimum-norm attack, the nearest misclassified one.
    """

    times: int = param(2, "how often to run the attack", minimum=1)

    def modify(self, attack: Attack) -> Attack:
        """Return the repeated attack."""
        if not hasattr(attack, "perturb"):
            raise InputError("again repeats single attacks: a schedule of attacks decides itself what runs again")
        return _Repeated(attack, self.times)


@dataclass(frozen=True)
class _Repeated(Attack):
    attack: Attack
    times: int

    @property
    def per_eps(self) -> bool:  # type: ignore[override]
        return self.attack.per_eps

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        return self.attack.applies(classifier, norm)

    def perturb(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Proposal:
        best, least = x.clone(), torch.full(y.shape, torch.inf, dtype=torch.float64, device=x.device)
        for turn in range(self.times):
            points = self.attack.perturb(classifier, x, y, threat, stream.child("turn", turn)).points.detach()
            with torch.no_grad():
                score = margins(classifier.logits(points), y).double()
            if not self.per_eps:
                score = torch.where(score <= 0, distance(points, x, threat.norm), torch.inf)
            better = score < least
            least = torch.where(better, score, least)
            best = torch.where(per_sample(better, x), points, best)
        return Proposal(best)
