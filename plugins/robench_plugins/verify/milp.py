"""Mixed-integer programming: a complete search for small networks, and a proof of what it says.

Tjeng et al. 2019, "Evaluating robustness of neural networks with mixed integer programming".
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from robench import param
from robench.classifier import Classifier
from robench.contracts import Certificates
from robench.graph.intervals import ieee_arithmetic
from robench.streams import Stream
from robench.threat import Norm, Threat
from robench_plugins.verify._encoding import Encoding, below_zero, encode, neurons_of
from robench_plugins.verify._halves import halve
from robench_plugins.verify._highs import INFEASIBLE, TIME_LIMIT, Solver
from robench_plugins.verify._piecewise import Method, Start, refusal, starts, time_limits

__all__ = ["MILP"]

DEEP = 1e-3
"""The search for a point ends where its margin is below 0 by this share of the margin in the middle of the set."""


@dataclass(frozen=True)
class MILP:
    """A complete search by HiGHS: an integer for each ReLU whose sign is open, big-M from proven bounds.

    One program per target, feasible where a misclassified point is. Nothing that HiGHS says is believed. Its points are
    proposed; where it says `infeasible`, splits are tried until duals prove every leaf in float64, and without such a
    proof the sample stays `open`, with HiGHS's word in the detail.
    """

    bounds: Method = param("crown", "how the inputs of ReLUs are bounded first")
    timeout: float = param(120.0, "seconds per sample", above=0)
    threads: int = param(1, "threads of HiGHS", minimum=1, maximum=1024)
    leaves: int = param(512, "leaves in which `infeasible` may be proven; 0: none", minimum=0)

    per_eps: ClassVar[bool] = True
    deterministic: ClassVar[bool] = True
    complete: ClassVar[bool] = True
    regions: ClassVar[bool] = True

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or what stands in the way: no graph, an operator that is not piecewise linear, the l2 ball."""
        return refusal("milp", classifier, norm)

    def certify(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Certificates:
        """Decide `x` [B, ...] with labels `y` [B] at `threat.eps`, or in its regions.

        The detail holds the number of open ReLUs, the margin's proven lower bound and, where HiGHS was asked, its word,
        the least objective and bound that it gave, and the number of leaves. Raises ValueError without a budget.
        """
        assert classifier.graph is not None
        limits = time_limits(threat, self.timeout, len(x))
        points, status, detail = x.clone(), [], []
        with ieee_arithmetic(x.device):
            for sample, start in enumerate(starts(classifier.graph, x, y, threat, self.bounds)):
                found = self._decided(start, limits[sample])
                status.append(found.status)
                detail.append(found.detail)
                if found.point is not None:
                    points[sample] = found.point.to(points)
        eps = math.inf if threat.eps is None else threat.eps
        lower = torch.tensor([eps if one == "certified" else 0.0 for one in status], dtype=torch.float64)
        return Certificates(lower, status, points=points, detail=detail)

    def _decided(self, start: Start, seconds: float) -> _Found:
        """Return the answer about one sample."""
        detail: dict[str, Any] = {"open": int(start.known.open_neurons())}
        if math.isfinite(start.margin):
            detail["margin"] = start.margin
        if start.margin > 0:
            return _Found("certified", detail)
        begun = time.monotonic()
        try:
            search = _Search(start, self.threads, begun + seconds)
            word = search.run()
            detail |= {"milp": word} | search.figures()
            if word == INFEASIBLE and self.leaves:
                proof = halve(start, self.leaves, begun + seconds - time.monotonic())
                detail["leaves"] = proof.leaves
                if proof.proven:
                    return _Found("certified", detail)
                word = TIME_LIMIT if proof.late else word
        except MemoryError:
            return _Found("timeout", detail | {"reason": "out of memory"})
        if search.point is not None and search.margin <= 0:
            return _Found("falsified", detail, search.point)
        return _Found("timeout" if word == TIME_LIMIT else "open", detail, search.point)


@dataclass(frozen=True, eq=False)
class _Found:
    status: str
    detail: dict[str, Any]
    point: Tensor | None = None


class _Search:
    """The programs of one sample; `point` is the best so far, `margin` its margin in float64."""

    def __init__(self, start: Start, threads: int, deadline: float) -> None:
        self.start, self.threads, self.deadline = start, threads, deadline
        self.point: Tensor | None = None
        self.margin, self.objective, self.bound = math.inf, math.inf, math.inf

    def run(self) -> str:
        """Return `infeasible` if HiGHS says so of every target, else the last other word that it said."""
        start = self.start
        known, program = start.known, start.known.program
        neurons = {}
        for position, sides in known.inputs.items():
            low, high = (side.flatten().cpu().numpy() for side in sides)
            if not (np.isfinite(low).all() and np.isfinite(high).all()):
                return "no finite bounds"
            neurons[position] = neurons_of(low, high, np.zeros(len(low), np.int8))
        encoding = encode(program, known.region, neurons, whole=True)
        middle = known.region.lower / 2 + known.region.upper / 2
        deep = -DEEP * max(abs(self._margin(middle)), 1e-6)
        last = INFEASIBLE
        for disjunct in dict.fromkeys(start.forms.disjunct[start.undecided(start.bounds)].tolist()):
            word = self._target(encoding, (start.forms.disjunct == disjunct).nonzero()[:, 0], deep)
            last = last if word == INFEASIBLE else word
            if word == TIME_LIMIT or self.margin <= 0:
                break
        return last

    def _target(self, encoding: Encoding, index: Tensor, deep: float) -> str:
        forms, program = self.start.forms, self.start.known.program
        rows = forms.coefficients[index].cpu().numpy()
        cost, constant = encoding.form(program, program.last, rows)
        problem = below_zero(encoding.problem, cost, constant + forms.constant[index].cpu().numpy())
        answer = Solver(problem, self.threads).solve(seconds=self.deadline - time.monotonic(), target=deep)
        self.bound = min(self.bound, answer.bound)
        if answer.point is not None and len(answer.point) == len(problem.cost) and np.isfinite(answer.point).all():
            self.objective = min(self.objective, answer.objective)
            self._keep(answer.point[encoding.outputs[0]])
        return answer.word

    def _keep(self, values: np.ndarray) -> None:
        region = self.start.known.region
        point = torch.from_numpy(values).to(region.lower).reshape(region.lower.shape)
        point = torch.minimum(torch.maximum(point, region.lower), region.upper)
        margin = self._margin(point)
        if margin < self.margin:
            self.point, self.margin = point[0], margin

    def _margin(self, point: Tensor) -> float:
        """Return the margin at a point [1, ...], in float64 without proof."""
        forms = self.start.forms
        logits = self.start.known.program.forward(point)[0]
        return float(forms.margin(forms.coefficients @ logits + forms.constant))

    def figures(self) -> dict[str, float]:
        """Return the least objective and bound, where there are any."""
        found = {"objective": self.objective, "bound": self.bound}
        return {name: value for name, value in found.items() if math.isfinite(value)}
