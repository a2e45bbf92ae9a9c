"""The trust boundary: plugins propose points, and only what survives here is evidence.

A proposal is cast to the model's input dtype, projected into domain and budget, asked about again at full
precision, shrunk towards the clean sample by bisection, and then verified: the margin's rigorous enclosure
must say *misclassified*, or, where the enclosure is too wide to tell, float64 must confirm it. For an opaque
classifier, which is the map as executed, asking once more must give another class again. Where a sample has a set of
its own, points are projected into its box, and its condition on the outputs stands for *misclassified*; they are not
shrunk, since any point of the set answers the question, and one on the boundary would not survive another runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from robench.classifier import Classifier, Counted
from robench.distances import distances, project
from robench.numerics import per_sample
from robench.regions import Region
from robench.runner._conditions import Question
from robench.threat import Norm, Threat

__all__ = ["Judge", "Verdict"]

BISECTIONS = 8
"""Halvings of the way back to the clean sample: `upper` is within 1/256 of the nearest error on that segment."""

Method = Literal["enclosure", "float64", "repeat", "votes"]


@dataclass(frozen=True, eq=False)
class Verdict:
    """What the runner found about one proposal per sample; every field has one entry per sample [B].

    Attributes:
        broken: a misclassified point within domain and budget was verified.
        numerical: the model's own precision says misclassified, but nothing confirms it.
        error: the proposal or its logits are not finite: no evidence either way.
        points: the judged points [B, ...]: the witness where broken.
        distances: float64 distance to the clean sample in every norm, rounded up.
        prediction: class predicted at the point, int64.
        margin: float64; in float64 arithmetic for witnesses of classifiers with a graph.
        method: how a witness was verified, None elsewhere.
        forwards: passes that the judging took, int64.
        confidence: of every verdict; below 1 where it is a test's.
        notes: the figures of such a test, for the details.
    """

    broken: Tensor
    numerical: Tensor
    error: Tensor
    points: Tensor
    distances: dict[Norm, Tensor]
    prediction: Tensor
    margin: Tensor
    method: list[Method | None]
    forwards: Tensor
    confidence: float = 1.0
    notes: Sequence[Mapping[str, Any]] | None = None


class Judge:
    """Decides about points for one classifier."""

    def __init__(self, classifier: Counted) -> None:
        """Judge for `classifier`; every pass made here is counted there."""
        self.classifier = classifier
        # With a graph one pass for the value, one each for the enclosure's centre and radius; else asking again.
        self.settling = 1 if classifier.graph is None else 3
        self._reference: Classifier | None = None
        if classifier.graph is not None:
            from robench.graph import GraphClassifier

            self._reference = GraphClassifier(classifier.graph, device=classifier.device, dtype=torch.float64)

    @torch.no_grad()
    def clean(self, x: Tensor, y: Tensor, region: Region | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Classify clean samples `x` [B, ...]: returns (correct, error, prediction, margin) [B].

        Correct needs a margin above 0; a tie is an error, and so is what neither enclosure nor float64 decides.
        """
        asked = Question.of(y, region)
        logits = self.classifier.logits(x)
        margin = asked.margins(logits)
        error = margin.isnan()
        prediction = logits.argmax(1)
        if self._reference is not None:
            sign, exact, confirmed, _ = self._settle(x, asked)
            margin = torch.where(error, margin, exact)
            right = (sign > 0) & ~error
            if asked.conditions is None:
                prediction = torch.where(right, y, torch.where(prediction == y, confirmed, prediction))
            return right, error, prediction, margin
        return margin > 0, error, prediction, margin

    @torch.no_grad()
    def judge(self, x: Tensor, y: Tensor, points: Tensor, threat: Threat) -> Verdict:
        """Judge proposed `points` [B, ...] for correctly classified samples `x` with labels `y`."""
        points = points.detach().to(dtype=x.dtype, device=x.device)
        finite = points.flatten(1).isfinite().all(1)
        points = project(torch.where(per_sample(finite, x), points, x), x, threat)
        asked = Question.of(y, threat.region)
        margin, prediction = self._ask(points, asked)
        error = ~finite | margin.isnan()
        claimed = (margin <= 0) & ~error
        broken, numerical = torch.zeros_like(claimed), torch.zeros_like(claimed)
        method: list[Method | None] = [None] * len(x)
        forwards = torch.ones_like(y)
        rows = claimed.nonzero()[:, 0]
        if len(rows):
            some = asked.select(rows)
            candidates = [points[rows]]
            if threat.region is None:
                forwards[rows] += BISECTIONS
                candidates.insert(0, self._shrink(x[rows], some, points[rows], threat))
            for candidate in candidates:
                proven, exact, seen, how = self._confirm(candidate, some)
                forwards[rows] += self.settling
                fresh = proven & ~broken[rows]
                taken = rows[fresh]
                broken[taken] = True
                points[taken], margin[taken], prediction[taken] = candidate[fresh], exact[fresh], seen[fresh]
                for row, taken_how in zip(rows.tolist(), how, strict=True):
                    method[row] = method[row] or taken_how
                if proven.all():
                    break
            numerical[rows] = ~broken[rows]
        return Verdict(
            broken, numerical, error, points, distances(points, x), prediction, margin.double(), method, forwards
        )

    def _ask(self, points: Tensor, asked: Question) -> tuple[Tensor, Tensor]:
        logits = self.classifier.logits(points)
        return asked.margins(logits), logits.argmax(1)

    def _shrink(self, x: Tensor, asked: Question, points: Tensor, threat: Threat) -> Tensor:
        """Bisect each segment from `x` (correct) to its point (not) and return its nearest misclassified end."""
        far = torch.ones(len(x), dtype=x.dtype, device=x.device)
        near = torch.zeros_like(far)
        best = points
        for _ in range(BISECTIONS):
            middle = (near + far) / 2
            candidate = project(x + (points - x) * per_sample(middle, x), x, threat)
            wrong = self._ask(candidate, asked)[0] <= 0
            best = torch.where(per_sample(wrong, x), candidate, best)
            near, far = torch.where(wrong, near, middle), torch.where(wrong, middle, far)
        return best

    def confirm(
        self, points: Tensor, y: Tensor, region: Region | None = None
    ) -> tuple[Tensor, Tensor, Tensor, list[Method | None]]:
        """Return (misclassified, margin, prediction, method) [B] of `points` as they are, in the model's dtype.

        The verdict of the enclosure, else of float64; of asking again where the classifier is opaque.
        """
        return self._confirm(points, Question.of(y, region))

    @torch.no_grad()
    def _confirm(self, points: Tensor, asked: Question) -> tuple[Tensor, Tensor, Tensor, list[Method | None]]:
        if self._reference is None:
            margin, prediction = self._ask(points, asked)
            return margin <= 0, margin, prediction, ["repeat" if bad else None for bad in (margin <= 0).tolist()]
        sign, margin, prediction, proven = self._settle(points, asked)
        how: list[Method | None] = [
            ("enclosure" if sure else "float64") if bad else None
            for bad, sure in zip((sign < 0).tolist(), proven.tolist(), strict=True)
        ]
        return sign < 0, margin, prediction, how

    def _settle(self, points: Tensor, asked: Question) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return (sign of the real-arithmetic margin: 1, −1 or 0 unknown, float64 margin, prediction, proven) [B]."""
        assert self._reference is not None
        assert self.classifier.graph is not None
        lower, upper = asked.bounds(self.classifier.graph, points)
        logits = self._reference.logits(points.double())
        self.classifier.charge(self.settling * len(points))
        margin = asked.margins(logits)
        proven = (lower > 0) | (upper <= 0)
        guess = torch.where(margin > 0, 1, torch.where(margin < 0, -1, 0))
        sign = torch.where(lower > 0, 1, torch.where(upper <= 0, -1, guess))
        return sign, margin, asked.prediction(logits, sign > 0), proven
