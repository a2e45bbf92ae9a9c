"""Interval bound propagation (Gowal et al. 2018, "On the effectiveness of interval bound propagation")."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robench.classifier import Classifier
from robench.contracts import Certificates
from robench.graph.intervals import ball_margin_lower, unsupported
from robench.streams import Stream
from robench.threat import Norm, Threat

__all__ = ["IBP"]


@dataclass(frozen=True)
class IBP:
    """Certifies ε where the interval bound of the margin over ball ∩ domain is above 0.

    Float64, rounded outward in every operator; for l2 and l1 the first layer takes the dual norm of its rows, and
    the last linear layer is merged with the margin.
    """

    per_eps: ClassVar[bool] = True
    deterministic: ClassVar[bool] = True

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or what stands in the way: no graph, or an operator without an interval rule."""
        if classifier.graph is None:
            return "ibp reads the network's graph, and this classifier has none"
        return unsupported(classifier.graph)

    def certify(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Certificates:
        """Certify `x` [B, ...] with labels `y` [B] at `threat.eps`; the detail holds the margin's lower bound."""
        assert classifier.graph is not None
        if threat.eps is None:
            raise ValueError("ibp needs a budget: it certifies one ε at a time")
        margin = ball_margin_lower(classifier.graph, x, y, threat.norm, threat.eps, threat.domain)
        # NaN is not above 0 either: what is not proven stays open.
        proven = margin > 0
        lower = torch.where(proven, threat.eps, torch.zeros_like(margin))
        status = ["certified" if sure else "open" for sure in proven.tolist()]
        detail = [{"margin": bound} if math.isfinite(bound) else None for bound in margin.tolist()]
        return Certificates(lower, status, detail=detail)
