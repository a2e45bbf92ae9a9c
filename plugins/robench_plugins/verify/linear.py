"""The exact robust radius of an affine classifier: min_j (f_y − f_j)(x) / ‖w_y − w_j‖_q, q dual to p.

Holder's inequality, met with equality (Fawzi et al. 2016; Moosavi-Dezfooli et al. 2016, equation 8). With a
domain box the distance can only grow, so it stays a lower bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from robench import param
from robench.classifier import Classifier
from robench.contracts import Certificates
from robench.graph import OPERATORS, Graph
from robench.graph.intervals import pairwise_margins, unsupported
from robench.numerics import open_to_closed, round_down
from robench.streams import Stream
from robench.threat import Domain, Norm, Threat
from robench_plugins.verify._collapse import Collapsed, collapse, seconds

__all__ = ["Linear"]

_COLLAPSED: WeakKeyDictionary[Graph, dict[torch.device, Collapsed]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Linear:
    """Gives the radius of classifiers whose graph is affine: exact without a box, a lower bound with one.

    The graph is collapsed to one matrix by rigorous interval arithmetic; margins are rounded down, norms up. That takes
    classes² · inputs operations for one linear layer, normalised or not; deeper graphs one pass per input dimension.
    """

    minutes: float = param(
        1.0, "refuse classifiers whose collapse would take longer, as estimated for one core", above=0
    )

    per_eps: ClassVar[bool] = False
    deterministic: ClassVar[bool] = True

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or what stands in the way: no graph, an operator that is not affine, the time."""
        graph = classifier.graph
        if graph is None:
            return "linear reads the network's graph, and this classifier has none"
        for position, node in enumerate(graph.nodes[1:], 1):
            if not OPERATORS[node.op].affine:
                return f"node {position}: {node.op} is not affine"
        reason, estimate = unsupported(graph), seconds(graph) / 60
        if reason is None and estimate > self.minutes:
            return (
                f"the graph's matrix would take about {math.ceil(estimate)} minutes (linear:minutes={self.minutes:g})"
            )
        return reason

    def certify(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Certificates:
        """Return a radius for each of `x` [B, ...] with labels `y` [B], in `threat.norm`."""
        graph = classifier.graph
        assert graph is not None
        kept = _COLLAPSED.setdefault(graph, {})
        if x.device not in kept:
            kept[x.device] = collapse(graph, x.device)
        margins, _ = pairwise_margins(graph, x, y, threat.norm, 0.0, Domain.unbounded())
        slopes = torch.stack([kept[x.device].slopes(label, threat.norm) for label in y.tolist()]) if len(y) else margins
        lower = open_to_closed(_radii(margins, slopes).amin(1))
        return Certificates(lower, ["certified" if radius > 0 else "open" for radius in lower.tolist()])


def _radii(margins: Tensor, slopes: Tensor) -> Tensor:
    """Return margins / slopes [B, classes], rounded down, 0 where nothing is proven.

    A margin above 0 that nothing moves, and the label itself (margin +inf), have no nearest error: +inf.
    """
    radii = round_down(margins / slopes).nan_to_num(nan=0.0).clamp_min(0.0)
    unmoved = (margins == math.inf) | ((slopes == 0) & (margins > 0))
    return torch.where(unmoved, math.inf, torch.where(margins > 0, radii, 0.0))
