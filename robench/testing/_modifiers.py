"""What every attack modifier must do: leave an attack that conforms."""

from __future__ import annotations

import torch
from torch import Tensor

from robench.classifier import Classifier, margins
from robench.contracts import Attack, AttackModifier, Proposal
from robench.distances import project
from robench.streams import Stream
from robench.testing._attacks import attack_findings
from robench.testing._findings import ALL, Choice, Finding
from robench.threat import Threat

__all__ = ["OneStep", "modifier_findings"]


class OneStep(Attack):
    """The steepest step of length ε against the margin, then back into the box: the kit's own attack."""

    def perturb(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Proposal:
        """Return x + ε · argmax_{‖d‖ ≤ 1} −∇margin · d, projected; draws nothing."""
        assert threat.eps is not None
        at = x.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(margins(classifier.logits(at), y).sum(), at)
        flat = torch.nan_to_num(gradient).flatten(1)
        if threat.norm == "linf":
            step = flat.sign()
        elif threat.norm == "l2":
            step = flat / flat.norm(dim=1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)
        else:
            steepest = flat.abs() == flat.abs().amax(1, keepdim=True)
            first = steepest & (steepest.cumsum(1) == 1)
            step = flat.sign() * first
        return Proposal(project(x - threat.eps * step.reshape(x.shape), x, threat))


def modifier_findings(modifier: AttackModifier, choice: Choice = ALL) -> list[Finding]:
    """Run every check of attacks on a one-step attack, modified."""
    return attack_findings(modifier.modify(OneStep()), choice)
