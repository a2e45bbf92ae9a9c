"""What a run will do: the evaluators in order, the threats, the samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from robench.classifier import Classifier, RandomizedClassifier, is_smoothed
from robench.contracts import Attack, Certifier, CompositeAttack
from robench.samples import Samples
from robench.threat import Epsilon, Norm

__all__ = ["Evaluator", "Plan", "Side", "automatic_batch_size"]

Side = Literal["attack", "certificate"]

LARGEST_BATCH = 256
LARGEST_BATCH_OF_VOTES = 8
"""On a CPU a sample may take minutes of draws: a batch is what progress shows, and what an interruption loses."""
BATCH_NUMBERS = 2**23
"""An automatic batch holds at most this many input numbers; memory running out halves it."""


@dataclass(frozen=True)
class Evaluator:
    """An attack or certifier of a run.

    Attributes:
        spec: canonical spec; names the evaluator in evidence and seeds its streams.
        side: `attack` or `certificate`.
        value: the plugin's object.
        early: a certifier cheap enough to run before the attacks, so that they can contradict it.
    """

    spec: str
    side: Side
    value: Attack | CompositeAttack | Certifier
    early: bool = False

    @property
    def kind(self) -> Literal["attack", "certificate", "verifier"]:
        """How its rows are marked: a complete certifier is a verifier."""
        return "verifier" if self.side == "certificate" and getattr(self.value, "complete", False) else self.side

    @property
    def points(self) -> bool:
        """Whether it may propose misclassified points."""
        return self.kind != "certificate"

    @property
    def per_eps(self) -> bool:
        """Whether it works at one ε at a time; composites always do."""
        return bool(getattr(self.value, "per_eps", True))


@dataclass(frozen=True)
class Plan:
    """Everything that decides a run's rows.

    `draws` is how often a classifier that draws is asked at each point. `audit`: attacks skip what is certified
    deterministically, but for this share; None: they do not.
    """

    classifier: Classifier | RandomizedClassifier
    samples: Samples
    norm: Norm
    epsilons: Sequence[Epsilon]
    evaluators: Sequence[Evaluator]
    seed: int
    draws: int = 100
    audit: float | None = None

    def passes(self) -> list[tuple[Evaluator, float | None]]:
        """Return (evaluator, ε) in the order in which each chunk of samples meets them.

        Cheap certificates first: attacks run on certified samples too, so that an unsound certificate is
        found. Then minimum-norm attacks, attacks by rising ε (a falsification settles larger ε), and costly
        certifiers on what is left; these come before the attacks where certificates are trusted. Where each sample has
        a set of its own (`Samples.regions`) every evaluator passes once, with ε None.
        """
        values = sorted(epsilon.value for epsilon in self.epsilons)
        early = [e for e in self.evaluators if e.side == "certificate" and e.early]
        attacks = [e for e in self.evaluators if e.side == "attack"]
        late = [e for e in self.evaluators if e.side == "certificate" and not e.early]
        if self.audit is not None:
            early, late = [*early, *late], []
        order: list[tuple[Evaluator, float | None]] = []
        if self.samples.regions is not None:
            return [(e, None) for e in (*early, *attacks, *late)]
        for group in (early, attacks, late):
            order += [(e, None) for e in group if not e.per_eps]
            order += [(e, eps) for eps in values for e in group if e.per_eps]
        return order


def automatic_batch_size(samples: Samples, classifier: Classifier | RandomizedClassifier | None = None) -> int:
    """Return a power of two that keeps the device busy without filling its memory; small where `classifier` votes."""
    numbers = math.prod(samples.shape)
    slow = is_smoothed(classifier) and classifier is not None and classifier.device.type == "cpu"
    size = LARGEST_BATCH_OF_VOTES if slow else LARGEST_BATCH
    while size > 1 and size * numbers > BATCH_NUMBERS:
        size //= 2
    return size
