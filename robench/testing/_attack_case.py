"""How the kit asks an attack: the threats that it takes on each classifier, and schedules of composites."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from robench.classifier import margins
from robench.contracts import CompositeAttack, Outcome, Proposal
from robench.distances import project
from robench.numerics import per_sample
from robench.streams import Stream
from robench.testing._findings import NotApplicable, Violation
from robench.testing._guard import Traces, watch
from robench.testing._subjects import Subject, linear
from robench.testing._voters import Voter
from robench.threat import NORMS, Norm, Threat

__all__ = ["CLOSE", "AttackCase"]

CLOSE = 1.25
"""How far from the closed-form optimum an attack may end on a linear classifier."""


@dataclass
class AttackCase:
    """An attack, and how it is asked."""

    attack: Any
    traces: Traces = field(default_factory=Traces)

    @property
    def per_eps(self) -> bool:
        """Whether it works at one ε at a time."""
        return bool(getattr(self.attack, "per_eps", True))

    @cached_property
    def votes(self) -> bool:
        """Whether it takes classifiers that vote over noise, and no other: it is then asked about such votes."""
        if not getattr(self.attack, "randomized", False):
            return False
        network = linear().classifier
        return not self._norms(network) and bool(self._norms(Voter(network)))

    def handed(self, subject: Subject) -> Any:
        """Return the classifier that the attack is asked about: the subject's own, or a vote over it."""
        return Voter(subject.classifier) if self.votes else subject.classifier

    def _norms(self, classifier: Any) -> list[Norm]:
        applies = getattr(self.attack, "applies", None)
        return [norm for norm in NORMS if applies is None or applies(classifier, norm) is None]

    def settings(self, subject: Subject) -> Iterator[tuple[Norm, float, str]]:
        """Yield the norms that the attack takes on `subject`, an ε that breaks about half, and where that is."""
        for norm in self._norms(self.handed(subject)):
            finite = subject.radius(norm)[subject.radius(norm).isfinite()]
            yield norm, float(finite.median()) * CLOSE if len(finite) else 0.25, f"{subject.name}, {norm}"

    def threat(self, subject: Subject, norm: Norm, eps: float) -> Threat:
        """Return the threat as the runner states it."""
        return Threat(norm, eps if self.per_eps else None, subject.domain)

    def ask(
        self, subject: Subject, threat: Threat, rows: Tensor | None = None, *, labels: Tensor | None = None
    ) -> tuple[Tensor, Proposal]:
        """Return (x, proposal) for `rows` of the subject, each with the stream of its own sample."""
        rows = torch.arange(len(subject.x)) if rows is None else rows
        network, handed = subject.classifier, self.handed(subject)
        x, y = subject.x[rows].to(network.device), (subject.y if labels is None else labels)[rows].to(network.device)
        stream = Stream.for_samples(0, "conformance", rows.tolist(), network.device)
        with watch(self.traces, network.module, x=x, y=y):
            if hasattr(self.attack, "stages"):
                return x, _follow(self.attack, handed, x, y, threat, stream)
            proposal = self.attack.perturb(handed, x, y, threat, stream)
        if not isinstance(proposal, Proposal):
            raise Violation(f"perturb returned {type(proposal).__name__}, not a Proposal")
        return x, proposal

    def each(self, *subjects: Subject) -> Iterator[tuple[Subject, Norm, float, str]]:
        """Yield every setting on `subjects` that the attack takes; NotApplicable where there is none."""
        seen = False
        for subject in subjects:
            for norm, eps, where in self.settings(subject):
                seen = True
                yield subject, norm, eps, where
        if not seen:
            raise NotApplicable("the attack applies to none of the classifiers that this check asks about")

    def broken(self, subject: Subject, proposal: Proposal, rows: Tensor) -> Tensor:
        """Return which proposed points are misclassified, bool [B]."""
        with torch.no_grad():
            logits = subject.classifier.logits(proposal.points.to(subject.x.dtype))
            return margins(logits, subject.y[rows]) <= 0


def _follow(attack: CompositeAttack, network: Any, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Proposal:
    """Drive a composite's schedule as the runner does: the broken leave, the rest go on."""
    points, broken = x.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    schedule = attack.stages(network, threat)
    try:
        _, stage, mask = next(schedule)
        while True:
            rows = (~broken if mask is None else mask & ~broken).nonzero()[:, 0]
            made = stage.perturb(network, x[rows], y[rows], threat, stream.select(rows)).points if len(rows) else x[:0]
            if not getattr(stage, "per_eps", True):
                made = project(made, x[rows], threat)
            with torch.no_grad():
                left = margins(network.logits(made.to(x.dtype)), y[rows]).double()
            margin = torch.full((len(x),), torch.nan, dtype=torch.float64, device=x.device)
            margin[rows], broken[rows] = left, left <= 0
            points[rows] = torch.where(per_sample(left <= 0, x), made.to(x.dtype), points[rows])
            passes = torch.zeros(len(x), dtype=torch.int64)
            outcome = Outcome(broken.clone(), margin, passes, passes, [None] * len(x))
            _, stage, mask = schedule.send(outcome)
    except StopIteration:
        return Proposal(points)
