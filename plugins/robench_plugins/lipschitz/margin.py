"""Certified radii in l2 from margins and a Lipschitz constant (Tsuzuku et al. 2018, arXiv:1802.04034).

If f is L-Lipschitz from l2 to l2, f_y − f_j is √2 L-Lipschitz: it is f followed by (e_y − e_j)ᵀ, of norm √2. (2 L
would be for logits that are L-Lipschitz one by one.) Where the last layer is linear, f = W h(x) + b with h
K-Lipschitz, f_y − f_j is K ‖w_y − w_j‖₂-Lipschitz, which is at most √2 K ‖W‖₂ (so do Singla, Singla & Feizi 2022).
With S_j the smaller of the two, no point nearer than

    min_{j≠y} (f_y(x) − f_j(x)) / S_j

is misclassified.
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
from robench.graph import Graph
from robench.graph.intervals import dual_norm_up
from robench.graph.intervals import unsupported as no_margin
from robench.numerics import UNIT_ROUNDOFF, open_to_closed, per_sample, round_down, round_up
from robench.streams import Stream
from robench.threat import Norm, Threat
from robench_plugins.lipschitz._forward import logits
from robench_plugins.lipschitz._up import TINY, mul_up
from robench_plugins.lipschitz.constant import Head, Lipschitz, cost, lipschitz_constant, unsupported
from robench_plugins.lipschitz.pairs import expansion

__all__ = ["LipschitzMargin", "product_bounds", "radii"]

ROOT_TWO = 1.4142135623730951
"""The double above √2."""


@dataclass(frozen=True)
class LipschitzMargin:
    """Gives the l2 radius margin / (√2 L), with L the product over the graph of the layers' spectral norms.

    Where the last layer is linear, ‖w_y − w_j‖ takes the place of √2 times its norm. Every norm is a proven upper
    bound, computed once per network in float64; margins are rounded down. Tight for networks that were built for it
    (orthogonal, AOL or convex-potential layers), loose but sound for any other.

    Detail: `margin` to the nearest class, `lipschitz` L, the class `rival` that limits the radius with the constant
    `slope` of its logit difference, `lipschitz_source`, which bound was taken for which node of the graph, and
    `expansion`, by how much two inputs were seen to be moved apart, which L cannot be below.
    """

    minutes: float = param(
        1.0, "time for the norms of all layers, as estimated for one core: convolutions share what is left", above=0
    )

    pairs: int = param(
        24, "pairs of inputs searched for an expansion beyond L, once per network; 0 for no search", minimum=0
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
        total, largest = cost(graph, self.minutes * 60)
        if total / 60 > self.minutes:
            return (
                f"{largest} is too large: all norms would take about {math.ceil(total / 60)} minutes "
                f"(lipschitz:minutes={self.minutes:g})"
            )
        return None

    def certify(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Certificates:
        """Return a radius for each of `x` [B, ...] with labels `y` [B]."""
        graph = classifier.graph
        assert graph is not None
        if threat.norm != "l2":
            raise ValueError(f"lipschitz certifies in l2, not in {threat.norm}")
        constant = lipschitz_constant(graph, self.minutes * 60)
        found = {"expansion": expansion(graph, constant, self.pairs)} if self.pairs else {}
        margins, slopes = product_bounds(graph, x, y, self.minutes * 60)
        nearest, rival = radii(margins, slopes).min(1)
        lower = open_to_closed(nearest)
        slope = slopes.gather(1, rival[:, None])[:, 0]
        detail = [
            {
                "margin": margin,
                "lipschitz": constant.value,
                "lipschitz_source": constant.source,
                "slope": s,
                "rival": j,
                **found,
            }
            if math.isfinite(margin) and math.isfinite(constant.value)
            else None
            for margin, s, j in zip(margins.amin(1).tolist(), slope.tolist(), rival.tolist(), strict=True)
        ]
        return Certificates(lower, ["certified" if radius > 0 else "open" for radius in lower.tolist()], detail=detail)


def product_bounds(graph: Graph, x: Tensor, y: Tensor, seconds: float) -> tuple[Tensor, Tensor]:
    """Return (margins, slopes), float64 [B, classes]: lower bounds of f_y − f_j at `x`, Lipschitz constants in l2.

    The margin is +inf at j = y. `seconds` is as in `lipschitz_constant`. Raises GraphError as that does.
    """
    constant = lipschitz_constant(graph, seconds)
    values, error = logits(graph, constant, x)
    return _margins(values, error, y), _slopes(constant, values.shape[1], y)


def _margins(values: Tensor, error: Tensor, y: Tensor) -> Tensor:
    """Return lower bounds [B, classes] of f_y − f_j; +inf at j = y. `error` bounds ‖values − f‖₂, so √2 of it a gap."""
    gap = values.gather(1, y[:, None]) - values
    reach = ROOT_TWO * per_sample(error, values) + 2 * UNIT_ROUNDOFF * gap.abs()
    return round_down(gap - round_up(reach * (1 + 2.0**-40))).scatter(1, y[:, None], math.inf)


_SLOPES: WeakKeyDictionary[Lipschitz, dict[int, Tensor]] = WeakKeyDictionary()


def _slopes(constant: Lipschitz, classes: int, y: Tensor) -> Tensor:
    """Return Lipschitz constants [B, classes] of f_y − f_j, rounded up; each label's are kept."""
    kept = _SLOPES.setdefault(constant, {})
    general = mul_up(ROOT_TWO, constant.value)
    table = torch.full((classes, classes), general, dtype=torch.float64)
    head = constant.head
    for label in sorted(set(y.tolist())) if head is not None else ():
        assert head is not None
        if label not in kept:
            norms = _distances(head.weight[label], head).tolist()
            kept[label] = table.new_tensor([min(general, mul_up(head.constant, norm)) for norm in norms])
        table[label] = kept[label]
    return table.to(y.device)[y]


def _distances(row: Tensor, head: Head) -> Tensor:
    """Return upper bounds [classes] of ‖(row − w_j) · factors‖₂; an entry of each goes through two roundings."""
    between = (row - head.weight).abs()
    if head.factors is not None:
        zero = (between == 0) | (head.factors == 0)
        between = torch.where(zero, 0.0, (between * head.factors).clamp_min(TINY))
    return dual_norm_up(between, "l2") * (1 + 2.0**-50)


def radii(margins: Tensor, slopes: Tensor) -> Tensor:
    """Return margin / slope, rounded down; 0 where nothing is proven, +inf where a margin above 0 cannot move."""
    quotient = round_down(margins / slopes).clamp_min(0.0)
    still = torch.where(slopes == 0, math.inf, quotient)
    return torch.where(margins > 0, torch.where(margins == math.inf, math.inf, still), 0.0)
