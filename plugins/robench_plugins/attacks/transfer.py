"""Transfer: points that fool another classifier, tried on this one (Papernot et al. 2016, "Transferability in …")."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor

from robench import Passes, Proposal, param
from robench.classifier import Counted, is_random
from robench_plugins.attacks.pgd import PGD

if TYPE_CHECKING:
    from robench import Access, Attack, Classifier, Model, Norm, RandomizedClassifier, Stream, Threat

__all__ = ["Transfer"]

MOMENTUM = PGD(steps=10, targets=0, momentum=1.0, schedule="fixed", step=0.1, random_start=False, early_exit=False)
"""MI-FGSM (Dong et al. 2018): made to transfer; it goes on after its own classifier is fooled."""


@dataclass(frozen=True)
class Transfer:
    """An attack on a source, another classifier for the same inputs, whose points are proposed for the target.

    It asks the target nothing. The source's passes are not the target's: they stand in each sample's detail as
    `source_forwards` and `source_backwards`. Attacks that stop once their own classifier is fooled transfer badly:
    `transfer:source=(MODEL),attack=(pgd:early_exit=false)`.
    """

    access: ClassVar[Access] = "transfer"

    source: Model = param(..., "the classifier that is attacked in the target's place")
    attack: Attack | None = param(None, "the attack on it; none: MI-FGSM, 10 steps (Dong et al. 2018)")
    _loaded: dict[tuple[torch.device, torch.dtype], Classifier | RandomizedClassifier] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def per_eps(self) -> bool:
        """Whether the attack on the source works at one ε at a time."""
        return bool(getattr(self._attack, "per_eps", True))

    @property
    def _attack(self) -> Attack:
        return cast("Attack", MOMENTUM) if self.attack is None else self.attack

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or what stands in the way: the attack, or a source for other inputs or classes."""
        if not hasattr(self._attack, "perturb"):
            return "an attack in stages cannot be transferred: give one that proposes points at once"
        source = self._source(classifier)
        if tuple(source.input_shape) != tuple(classifier.input_shape):
            return f"the source takes inputs {list(source.input_shape)}, the target {list(classifier.input_shape)}"
        if source.classes != classifier.classes:
            return f"the source has {source.classes} classes, the target {classifier.classes}"
        if source.fingerprint == classifier.fingerprint:
            return "the source is the target itself: run the attack on it as it is"
        if is_random(source):
            return "the source draws at inference: give a deterministic one"
        reason = getattr(self._attack, "applies", lambda classifier, norm: None)(source, norm)
        return None if reason is None else f"on the source: {reason}"

    def perturb(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Proposal:
        """Propose the points that the attack finds on the source for `x` [B, ...] with labels `y` [B]."""
        source = Counted(self._source(classifier))
        made = self._attack.perturb(source, x, y, threat, stream)
        spent = made.passes or _even(source.take(), y)
        notes = made.detail or [None] * len(x)
        detail = [
            {**(note or {}), "source_forwards": forwards, "source_backwards": backwards}
            for note, forwards, backwards in zip(notes, spent.forwards.tolist(), spent.backwards.tolist(), strict=True)
        ]
        return Proposal(made.points, detail, Passes(torch.zeros_like(y), torch.zeros_like(y)))

    def _source(self, classifier: Classifier) -> Classifier | RandomizedClassifier:
        key = classifier.device, classifier.dtype
        if key not in self._loaded:
            self._loaded[key] = self.source.load(*key)
        return self._loaded[key]


def _even(total: tuple[int, int], y: Tensor) -> Passes:
    """Return passes in equal shares, for an attack that keeps no account."""
    place = torch.arange(len(y), device=y.device)
    forwards, backwards = (count // max(len(y), 1) + (place < count % max(len(y), 1)).long() for count in total)
    return Passes(forwards, backwards)
