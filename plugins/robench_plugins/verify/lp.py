"""The triangle relaxation, solved as a linear program (Ehlers 2017; Salman et al. 2019) and proven through its dual."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from robench import param
from robench.classifier import Classifier
from robench.contracts import Certificates
from robench.graph.intervals import ieee_arithmetic
from robench.streams import Stream
from robench.threat import Norm, Threat
from robench_plugins.verify._highs import TIME_LIMIT
from robench_plugins.verify._leaves import closed
from robench_plugins.verify._piecewise import Method, Start, refusal, starts, time_limits

__all__ = ["LP"]


@dataclass(frozen=True)
class LP:
    """Certifies where the least margin of the triangle relaxation is above 0, over a box or an l1 ball within one.

    No better bound follows from convex relaxations of single ReLUs with equal bounds of their inputs: `crown` and
    `alpha-crown` are below it. HiGHS solves a program for each row that CROWN leaves open. Its answer is not believed:
    duals become slopes and multipliers, and what those prove in float64, rounding accounted for, is the bound.
    """

    bounds: Method = param("crown", "how the inputs of ReLUs are bounded first")
    timeout: float = param(120.0, "seconds for one sample's programs at most", above=0)

    per_eps: ClassVar[bool] = True
    deterministic: ClassVar[bool] = True
    regions: ClassVar[bool] = True

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or what stands in the way: no graph, an operator that is not piecewise linear, the l2 ball."""
        return refusal("lp", classifier, norm)

    def certify(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Certificates:
        """Certify `x` [B, ...] with labels `y` [B] at `threat.eps`, or in its regions.

        The detail holds the margin's proven lower bound, the number of open ReLUs, and the solver's word where it was
        asked. Programs end at the first one that leaves the sample open. Raises ValueError without a budget.
        """
        assert classifier.graph is not None
        limits = time_limits(threat, self.timeout, len(x))
        with ieee_arithmetic(x.device):
            begun = starts(classifier.graph, x, y, threat, self.bounds)
            found = [_solved(one, seconds) for one, seconds in zip(begun, limits, strict=True)]
        eps = math.inf if threat.eps is None else threat.eps
        status = [status for status, _ in found]
        lower = torch.tensor([eps if one == "certified" else 0.0 for one in status], dtype=torch.float64)
        return Certificates(lower, status, detail=[detail for _, detail in found])


def _solved(start: Start, seconds: float) -> tuple[str, dict[str, Any]]:
    """Return (status, detail) of one sample."""
    margin, word = start.margin, None
    if not margin > 0:
        rows = start.undecided(start.bounds)
        alone = len(start.forms) == len(start.forms.whose)
        try:
            answer = closed(start.known, {}, start.rows(rows), seconds=seconds, give_up=0.0 if alone else -math.inf)
        except MemoryError:
            return "timeout", {"reason": "out of memory"}
        bounds, word = start.bounds.clone(), answer.words[0]
        bounds[rows] = torch.maximum(bounds[rows], answer.bound.nan_to_num(nan=-math.inf, posinf=math.inf))
        margin = float(start.forms.margin(bounds))
    detail: dict[str, Any] = {"open": int(start.known.open_neurons())}
    if math.isfinite(margin):
        detail["margin"] = margin
    if word is not None:
        detail["lp"] = word
    if margin > 0:
        return "certified", detail
    return "timeout" if word == TIME_LIMIT else "open", detail
