"""Expectation over transformation (Athalye et al. 2018, "Synthesizing robust adversarial examples", eq. 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor

from robench import Passes, Proposal, param
from robench.classifier import is_random
from robench.streams import Stream
from robench_plugins.attacks._modified import Modified, ModifiedStages, named, tireless

if TYPE_CHECKING:
    from robench import Attack, Classifier, RandomizedClassifier, Threat

__all__ = ["EOT", "MeanOfDraws"]


class MeanOfDraws:
    """A classifier that draws, seen as its mean logits over some draws: what an attack follows, not what is judged.

    For any loss that ignores a constant added to all logits (cross-entropy, margin, DLR) the mean of the logits is the
    mean of the log-probabilities: the expectation that Athalye et al. maximise.

    Values are over the same draws everywhere, so that an attack which compares points compares points, not luck;
    gradients are over other draws at every point, so that no point is fitted to a few. The latter follow from seed,
    evaluator and the numbers in the row. So a row has the same answer in whatever batch it stands, and asked again.
    """

    def __init__(self, classifier: RandomizedClassifier, stream: Stream, draws: int) -> None:
        """See `classifier` through `draws` draws for each row; `stream` is of any samples of the run."""
        self._classifier, self._stream, self._draws = classifier, stream, draws
        self.input_shape = classifier.input_shape
        self.classes = classifier.classes
        self.dtype = classifier.dtype
        self.device = classifier.device
        self.fingerprint = classifier.fingerprint
        self.graph = None

    def logits(self, x: Tensor) -> Tensor:
        """Return the mean logits [B, classes] of `x` [B, ...], differentiable where the draws are."""
        with torch.no_grad():
            value = self._mean(x, self._stream.of_rows(x.new_zeros(len(x), 1)))
        if not (torch.is_grad_enabled() and x.requires_grad):
            return value
        slope = self._mean(x, self._stream.of_rows(x))
        return value + (slope - slope.detach()) if slope.requires_grad else value

    def _mean(self, x: Tensor, streams: Stream) -> Tensor:
        many = x.repeat(self._draws, *[1] * (x.dim() - 1))
        made = self._classifier.sample(many, streams.repeat(self._draws, "draw"))
        return made.reshape(self._draws, len(x), self.classes).mean(0)


@dataclass(frozen=True)
class EOT:
    """The attack sees a classifier that draws through its mean logits over some draws, and their mean gradient.

    A forward pass costs `draws` passes, a backward pass as many, and as many forwards again. No sample counts as
    broken: the attack goes on for all its steps, because a point where half of the draws err is not the worst one; the
    runner draws anew at the point proposed. Batches are cut so that no more rows are in memory at once than without
    it. Classifiers that do not draw are attacked as without it.
    """

    draws: int = param(20, "draws that logits and gradients are averaged over, at every point", minimum=1)

    def modify(self, attack: Any) -> Any:
        """Return `attack`, which may be a schedule of attacks, for classifiers that draw."""
        return _Stages(attack, self.draws) if hasattr(attack, "stages") else _Expected(attack, self.draws)


@dataclass(frozen=True)
class _Modified(Modified):
    """What both kinds of attack have in common."""

    draws: int

    randomized: ClassVar[bool] = True

    def seen(self, classifier: Classifier | RandomizedClassifier, stream: Stream | None = None) -> Classifier:
        """Return what the attack is handed: a classifier that does not draw as it is."""
        if not is_random(classifier):
            return cast("Classifier", classifier)
        stream = stream or Stream.for_samples(0, "eot", [], classifier.device)
        return MeanOfDraws(cast("RandomizedClassifier", classifier), stream, self.draws)


class _Expected(_Modified):
    """An attack on the mean over draws."""

    def perturb(
        self, classifier: Classifier | RandomizedClassifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream
    ) -> Proposal:
        """Propose the attack's points for `x` [B, ...] with labels `y` [B]."""
        if not is_random(classifier):
            made: Proposal = self.attack.perturb(classifier, x, y, threat, stream)
            return made
        attack = tireless(self.attack)
        parts = []
        for rows in torch.split(torch.arange(len(x), device=x.device), max(1, len(x) // self.draws)):
            own = stream.select(rows)
            parts.append(attack.perturb(self.seen(classifier, own), x[rows], y[rows], threat, own))
        return _joined(parts, self.draws)


class _Stages(_Modified, ModifiedStages):
    """A schedule whose attacks see the mean over draws."""

    def stage(self, spec: str, attack: Attack) -> tuple[str, Attack]:
        """Return the stage under the modifier's name too."""
        return f"{spec} | {named('eot', EOT(draws=self.draws))}", cast("Attack", _Expected(attack, self.draws))


def _joined(parts: Sequence[Proposal], draws: int) -> Proposal:
    """Return the proposals about parts of a batch as one, with what they cost: every gradient asks forwards again."""
    points = torch.cat([part.points for part in parts])
    detail = [one for part in parts for one in (part.detail or [None] * len(part.points))]
    told = [part.passes for part in parts if part.passes is not None]
    if len(told) < len(parts):
        return Proposal(points, detail)
    forwards, backwards = (torch.cat([getattr(one, name) for one in told]) for name in ("forwards", "backwards"))
    return Proposal(points, detail, Passes(draws * (forwards + backwards), draws * backwards))
