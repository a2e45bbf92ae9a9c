"""Linear bounds of the network: CROWN-IBP, CROWN and alpha-CROWN, proven in float64.

Zhang et al. 2018 (CROWN), Zhang et al. 2020 (CROWN-IBP), Xu et al. 2021 (alpha-CROWN). The engine has the
relaxations and the error term; docs/verification.md says what is proven.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from robench import param
from robench.classifier import Classifier
from robench.contracts import Certificates
from robench.graph import Graph, intervals
from robench.streams import Stream
from robench.threat import Norm, Threat
from robench_plugins.verify._engine.lower import unsupported
from robench_plugins.verify._engine.region import region_of
from robench_plugins.verify._engine.slopes import Schedule
from robench_plugins.verify._forms import forms_of, label_forms
from robench_plugins.verify._memory import out_of_memory
from robench_plugins.verify._proofs import Proof, Settings, prove
from robench_plugins.verify._radius import covering, first_guess, greatest

__all__ = ["CROWN", "CROWNIBP", "AlphaCROWN"]

_RADIUS = "give each sample's greatest certified radius instead of an answer at each ε"
_TOLERANCE = "the radius is found to this share of itself, by bisection"


@dataclass(frozen=True)
class _Certifier(ABC):
    """What the three have in common: they differ in how lines and slopes are found."""

    deterministic: ClassVar[bool] = True
    regions: ClassVar[bool] = True

    radius: bool = param(False, _RADIUS)
    tolerance: float = param(0.01, _TOLERANCE, above=0, maximum=1)

    @property
    def per_eps(self) -> bool:
        """Whether it works at one ε at a time."""
        return not self.radius

    @property
    @abstractmethod
    def _settings(self) -> Settings:
        """How bounds are found."""

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or what stands in the way: no graph, or an operator without linear bounds."""
        if classifier.graph is None:
            return "linear bounds read the network's graph, and this classifier has none"
        return unsupported(classifier.graph) or intervals.unsupported(classifier.graph)

    def certify(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Certificates:
        """Certify `x` [B, ...] with labels `y` [B] at `threat.eps`, in its regions, or by radius.

        The detail holds the margin's lower bound and the number of open neurons: ReLUs whose sign is not known over
        the set. Where one sample alone does not fit into memory its status is `timeout`.
        """
        graph = classifier.graph
        assert graph is not None
        if threat.eps is None and threat.region is None and not self.radius:
            raise ValueError("linear bounds need a budget: one ε is certified at a time (or ask with radius=true)")
        if not len(x):
            return _certificates(torch.zeros(0, dtype=torch.float64, device=x.device), [])
        try:
            # The search needs gradients, and tensors that may have them.
            with torch.inference_mode(False):
                x, y = x.detach().clone(), y.clone()
                if threat.eps is None and threat.region is None:
                    return self._by_radius(graph, x, y, threat)
                return self._at(graph, x, y, threat)
        except (MemoryError, RuntimeError) as error:
            if len(x) != 1 or not out_of_memory(error):
                raise
        return Certificates(torch.zeros(1, dtype=torch.float64), ["timeout"], detail=[{"reason": "out of memory"}])

    def _at(self, graph: Graph, x: Tensor, y: Tensor, threat: Threat) -> Certificates:
        conditions = None if threat.region is None else threat.region.conditions
        proof = prove(graph, region_of(x, threat), forms_of(y, graph.classes, conditions), self._settings)
        # NaN is not above 0 either: what is not proven stays open.
        eps = math.inf if threat.eps is None else threat.eps
        return _certificates(torch.zeros_like(proof.margin).masked_fill(proof.margin > 0, eps), _figures(proof))

    def _by_radius(self, graph: Graph, x: Tensor, y: Tensor, threat: Threat) -> Certificates:
        lower = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        margin, count = torch.full_like(lower, math.nan), torch.zeros_like(lower, dtype=torch.int64)
        most, start = covering(x.double(), threat.norm, threat.domain), first_guess(graph, x, y, threat.norm)
        last = self._settings
        for settings in [last] if last.schedule is None else [replace(last, schedule=None), last]:

            def passes(some: Tensor, eps: Tensor, settings: Settings = settings) -> Tensor:
                region = region_of(x[some], threat, eps)
                proof = prove(graph, region, label_forms(y[some], graph.classes), settings)
                safe = proof.margin > 0
                proven = some.masked_scatter(some, safe)
                margin[proven], count[proven] = proof.margin[safe], proof.open[safe]
                return safe

            lower = greatest(passes, start, most, self.tolerance, lower)
            start = torch.where(lower > 0, lower * (1 + 4 * self.tolerance), start / 2)
        return _certificates(lower, _figures(Proof(margin, count)))


@dataclass(frozen=True)
class CROWNIBP(_Certifier):
    """Interval bounds of every neuron, then one backward pass of the margins (Zhang et al. 2020)."""

    @property
    def _settings(self) -> Settings:
        return Settings(backward=False)


@dataclass(frozen=True)
class CROWN(_Certifier):
    """Backward passes for every neuron whose sign interval bounds leave open, then for the margins (Zhang et al. 2018).

    Slopes are the adaptive ones of section 3.3. Every bound is the better one of CROWN's and interval arithmetic's.
    """

    @property
    def _settings(self) -> Settings:
        return Settings(backward=True)


@dataclass(frozen=True)
class AlphaCROWN(_Certifier):
    """CROWN with every slope below an open neuron optimised for each row by itself (Xu et al. 2021).

    Samples that CROWN proves are done. The others begin with CROWN's own slopes and keep the best that was seen, so the
    bound is never below CROWN's. The search is in float32; what it finds is proven in float64.
    """

    steps: int = param(20, "steps of Adam", minimum=1)
    rate: float = param(0.5, "its first step size", above=0)
    decay: float = param(0.98, "what the step size is multiplied by after each step", above=0, maximum=1)
    inside: bool = param(True, "optimise the slopes of the rows about neurons as well, not of the margins' rows alone")

    @property
    def _settings(self) -> Settings:
        return Settings(True, Schedule(self.steps, self.rate, decay=self.decay), self.inside)


def _figures(proof: Proof) -> list[dict[str, Any] | None]:
    rows = zip(proof.margin.tolist(), proof.open.tolist(), strict=True)
    return [{"margin": margin, "open": count} if math.isfinite(margin) else None for margin, count in rows]


def _certificates(lower: Tensor, detail: list[dict[str, Any] | None]) -> Certificates:
    return Certificates(lower, ["certified" if radius > 0 else "open" for radius in lower.tolist()], detail=detail)
