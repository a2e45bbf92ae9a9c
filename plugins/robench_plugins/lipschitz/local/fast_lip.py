"""Certified radii from slopes in a ball around each sample (Weng et al. 2018, "Fast-Lip")."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from robench import param
from robench.classifier import Classifier
from robench.contracts import Certificates
from robench.graph import Graph, intervals
from robench.graph.intervals import Box, input_set, node_boxes, pairwise_margins
from robench.numerics import open_to_closed, round_up
from robench.streams import Stream
from robench.threat import Domain, Norm, Threat
from robench_plugins.lipschitz._up import sqrt_up
from robench_plugins.lipschitz.constant import cost
from robench_plugins.lipschitz.constant import unsupported as no_product
from robench_plugins.lipschitz.local import slopes as local
from robench_plugins.lipschitz.local._search import covering, greatest
from robench_plugins.lipschitz.margin import product_bounds, radii
from robench_plugins.verify.boxes import crown_boxes
from robench_plugins.verify.boxes import unsupported as no_lines

__all__ = ["FastLip"]


@dataclass(frozen=True)
class FastLip:
    """Gives each sample the greatest radius r found with r ≤ margin / slope, where the slope is one for its ball.

    Slopes are those of `robench_plugins.lipschitz.local.slopes`, of each f_y − f_j, in float64 and rounded outward; a
    slope that the product of all layers bounds better is replaced, so that no radius in l2 is below `lipschitz`'s.

    Detail: `margin` to the class `rival` that limits the radius, its `slope`, the `tried` radius of the ball that the
    slope is about (none where the product gave the radius), and how many neurons are `open` in it: of unknown sign.
    """

    bounds: Literal["crown", "ibp"] = param(
        "crown", "how neurons are bounded over the ball: `crown`, or `ibp`, which is cheaper and much looser"
    )
    secants: bool = param(
        True, "slopes between the sample and each point of the ball; false: between any two, as published"
    )
    minutes: float = param(
        1.0,
        "time for the product of all layers' norms, as `lipschitz` has it; without it where that takes longer",
        minimum=0,
    )
    tolerance: float = param(0.01, "the radius is found to this share of itself", above=0, maximum=1)

    per_eps: ClassVar[bool] = False
    deterministic: ClassVar[bool] = True

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or what stands in the way: no graph, or an operator without a rule."""
        graph = classifier.graph
        if graph is None:
            return "fast-lip reads the network's graph, and this classifier has none"
        reason = intervals.unsupported(graph) or local.unsupported(graph)
        return reason or (no_lines(graph) if self.bounds == "crown" else None)

    def certify(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Certificates:
        """Return a radius in `threat.norm` for each of `x` [B, ...] with labels `y` [B]."""
        graph = classifier.graph
        assert graph is not None
        if not len(x):
            return Certificates(torch.zeros(0, dtype=torch.float64, device=x.device), [], detail=[])
        with torch.inference_mode(False):  # some rules ask for gradients
            return self._certify(graph, x.detach().clone(), y.clone(), threat)

    def _certify(self, graph: Graph, x: Tensor, y: Tensor, threat: Threat) -> Certificates:
        product = self._product(graph, x, y, threat.norm)
        points = x.double()
        point = node_boxes(graph, Box(points, points))
        margins = pairwise_margins(graph, x, y, threat.norm, 0.0, Domain.unbounded())[0]
        if product is not None:
            margins = torch.fmax(margins, product[0])
        best = _Best(margins, torch.full_like(margins, math.inf) if product is None else product[1])

        def at(some: Tensor, eps: Tensor | None) -> Tensor:
            """Return the quotients over balls around some samples, at x itself where there is no ε."""
            here = [(low[some], high[some]) for low, high in point]
            ball = here if eps is None else self._boxes(graph, x[some], threat, eps)
            found = local.margin_slopes(
                graph, x[some], y[some], threat.norm, threat.domain, ball, here if self.secants else None
            )
            return best.take(some, found, eps, local.open_neurons(graph, ball))

        known = best.radius.clone()
        limit = torch.zeros_like(known)
        hopeful = (margins.amin(1) > 0) & (known < math.inf)
        if hopeful.any():
            limit[hopeful] = at(hopeful, None)
        lower = greatest(at, known, limit, covering(points, threat.norm, threat.domain), self.tolerance)
        status = ["certified" if radius > 0 else "open" for radius in lower.tolist()]
        return Certificates(lower, status, detail=best.details())

    def _product(self, graph: Graph, x: Tensor, y: Tensor, norm: Norm) -> tuple[Tensor, Tensor] | None:
        """Return (margins, slopes) [B, classes] from the product of all layers; None where that is not to be had."""
        if no_product(graph) is not None or cost(graph, self.minutes * 60)[0] > self.minutes * 60:
            return None
        margins, slopes = product_bounds(graph, x, y, self.minutes * 60)
        if norm == "linf":  # ‖δ‖₂ ≤ √d ‖δ‖_∞, and ‖δ‖₂ ≤ ‖δ‖₁
            slopes = torch.where(slopes == 0, 0.0, round_up(slopes * sqrt_up(float(x[0].numel()))))
        return margins, slopes

    def _boxes(self, graph: Graph, x: Tensor, threat: Threat, eps: Tensor) -> local.Boxes:
        if self.bounds == "crown":
            return crown_boxes(graph, x, threat.norm, eps, threat.domain)
        return node_boxes(graph, input_set(x.double(), threat.norm, eps, threat.domain))


class _Best:
    """The best radius of each sample so far, and where it is from."""

    def __init__(self, margins: Tensor, slopes: Tensor) -> None:
        self.margins, self.slopes = margins, slopes
        quotients = open_to_closed(radii(margins, slopes))
        self.radius, self.rival = quotients.min(1)
        self.slope = slopes.gather(1, self.rival[:, None])[:, 0]
        self.tried = torch.full_like(self.radius, math.nan)
        self.open = torch.zeros_like(self.rival)

    def take(self, some: Tensor, slopes: Tensor, eps: Tensor | None, count: Tensor) -> Tensor:
        """Return the quotients [n] of `some` samples with these slopes [n, classes], kept where they prove more."""
        slopes = torch.minimum(slopes, self.slopes[some])
        quotients, rival = open_to_closed(radii(self.margins[some], slopes)).min(1)
        if eps is None:
            return quotients
        proven = torch.minimum(eps, quotients)
        better = proven > self.radius[some]
        rows = some.nonzero()[:, 0][better]
        self.radius[rows], self.rival[rows] = proven[better], rival[better]
        self.slope[rows] = slopes.gather(1, rival[:, None])[:, 0][better]
        self.tried[rows], self.open[rows] = eps[better], count[better]
        return quotients

    def details(self) -> list[dict[str, Any] | None]:
        """Return each sample's figures, None where there are none."""
        margins = self.margins.gather(1, self.rival[:, None])[:, 0]
        columns = (margins, self.slope, self.rival, self.tried, self.open)
        details: list[dict[str, Any] | None] = []
        for margin, slope, rival, tried, count in zip(*(column.tolist() for column in columns), strict=True):
            found = {"margin": margin, "slope": slope, "rival": rival}
            if not math.isnan(tried):
                found |= {"tried": tried, "open": count}
            details.append(found if math.isfinite(margin) and math.isfinite(slope) else None)
        return details
