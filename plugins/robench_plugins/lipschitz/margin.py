"""Certified radius margin / (√2 L) in l2 (Tsuzuku et al. 2018, arXiv:1802.04034).

If f is L-Lipschitz from l2 to l2, f_y − f_j is √2 L-Lipschitz: it is f followed by (e_y − e_j)ᵀ, of norm √2. So no
point nearer than margin / (√2 L) is misclassified. (2 L would be for logits that are L-Lipschitz one by one.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robench import param
from robench.classifier import Classifier
from robench.contracts import Certificates
from robench.graph.intervals import point_margins
from robench.graph.intervals import unsupported as no_margin
from robench.numerics import open_to_closed, round_down
from robench.streams import Stream
from robench.threat import Norm, Threat
from robench_plugins.lipschitz._up import mul_up
from robench_plugins.lipschitz.constant import cost, lipschitz_constant, unsupported

__all__ = ["LipschitzMargin"]

ROOT_TWO = 1.4142135623730951
"""The double above √2."""


@dataclass(frozen=True)
class LipschitzMargin:
    """Gives the l2 radius margin / (√2 L), with L the product over the graph of the layers' spectral norms.

    Every norm is a proven upper bound, computed once per network in float64; the margin is rounded down. Tight for
    networks that were built for it (orthogonal or AOL layers), loose but sound for any other.
    """

    minutes: float = param(
        1.0, "refuse classifiers whose layers' norms would take longer, as estimated for one core", above=0
    )

    per_eps: ClassVar[bool] = False
    deterministic: ClassVar[bool] = True

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or what stands in the way: the norm, no graph, a layer without a proven bound, the time."""
        graph = classifier.graph
        if norm != "l2":
            return f"lipschitz certifies in l2, and what follows in {norm} is derived from that: ask for l2"
        if graph is None:
            return "lipschitz reads the network's graph, and this classifier has none"
        reason = no_margin(graph) or unsupported(graph)
        if reason is not None:
            return reason
        total, largest = cost(graph)
        if total / 60 > self.minutes:
            return (
                f"{largest} is too large: all norms would take about {math.ceil(total / 60)} minutes "
                f"(lipschitz:minutes={self.minutes:g})"
            )
        return None

    def certify(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Certificates:
        """Return a radius for each of `x` [B, ...] with labels `y` [B]; the detail holds margin and L."""
        graph = classifier.graph
        assert graph is not None
        if threat.norm != "l2":
            raise ValueError(f"lipschitz certifies in l2, not in {threat.norm}")
        constant = lipschitz_constant(graph).value
        margin = point_margins(graph, x, y)[0]
        lower = open_to_closed(_radii(margin, mul_up(ROOT_TWO, constant)))
        detail = [
            {"margin": bound, "lipschitz": constant} if math.isfinite(bound) and math.isfinite(constant) else None
            for bound in margin.tolist()
        ]
        return Certificates(lower, ["certified" if radius > 0 else "open" for radius in lower.tolist()], detail=detail)


def _radii(margin: Tensor, slope: float) -> Tensor:
    """Return margin / slope [B], rounded down; 0 where nothing is proven, +inf where a margin above 0 cannot move."""
    if slope == 0:
        return torch.where(margin > 0, math.inf, 0.0).to(margin.dtype)
    return torch.where(margin > 0, round_down(margin / slope).clamp_min(0.0), torch.zeros_like(margin))
