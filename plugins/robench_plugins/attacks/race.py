"""Many short runs instead of few long ones: the first stage tells which targets are worth the restarts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from robench import Proposal, param
from robench_plugins.attacks import gradients
from robench_plugins.attacks.apgd_climb import Ascent, climb
from robench_plugins.attacks.apgd_rules import radii
from robench_plugins.attacks.apgd_steps import random_start
from robench_plugins.attacks.best import Best
from robench_plugins.attacks.losses import Loss, likely_targets
from robench_plugins.attacks.regions import Region
from robench_plugins.attacks.search import Found, Plan, rank_of, search
from robench_plugins.attacks.steps import step_sizes

if TYPE_CHECKING:
    from robench import Classifier, Norm, Stream, Threat
    from robench.contracts import Access

__all__ = ["Race"]

_WAVE = 16
"""Runs of one sample that share a batch, at most."""


@dataclass(frozen=True)
class Race:
    """Short targeted runs from many random starts, in two rounds.

    Heats: one run of `heat` steps towards each of the `targets` most likely other classes. Final: `restarts` runs of
    `steps` steps, from new random starts, towards each of the `keep` classes in which the heats ended with the lowest
    margins. What is found late is found by luck with the start much more often than by another 80 steps, and hardly
    ever towards a class that a short run got nowhere near.

    linf: PGD steps that fall from ε to 0 along half a cosine. l2 and l1: Auto-PGD through balls of radius 3ε, 2ε and ε
    (Croce & Hein 2021, section 3.3, who do so in l1): points that come from outside get past what stops those that
    never leave the ball. Runs of a sample are rows of one batch; all of them end as soon as one has broken it.
    """

    per_eps: ClassVar[bool] = True
    access: ClassVar[Access] = "gradients"

    targets: int = param(9, "heats, towards so many of the most likely other classes", minimum=1)
    heat: int = param(10, "steps of a heat", minimum=1)
    keep: int = param(2, "how many of these classes the final goes for", minimum=1)
    restarts: int = param(4, "runs towards each of them in the final; 0: no final", minimum=0)
    steps: int = param(20, "steps of a run in the final", minimum=1)
    loss: Loss = param("margin", "loss of the targeted runs")

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or why the attack cannot run."""
        return gradients.applies(classifier)

    def perturb(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Proposal:
        """Propose the points of lowest margin met for `x` [B, ...] with labels `y` [B]."""
        region, best = Region.around(x, threat), Best.none(x)
        if not len(x):
            return best.proposal()
        with torch.no_grad():
            order = likely_targets(classifier.logits(x), y, classifier.classes)
        best.forwards.add_(1)
        targets = min(self.targets, classifier.classes - 1)
        every = torch.arange(len(x), device=x.device)
        heats = [(0, rank) for rank in range(targets)]
        reached = self._round(classifier, region, y, order[:, :targets], every, heats, self.heat, stream, best)
        ahead = order.gather(1, reached.sort(dim=1, stable=True).indices)[:, : min(self.keep, targets)]
        left = (~best.settled).nonzero()[:, 0]
        runs = [(restart, rank) for restart in range(1, self.restarts + 1) for rank in range(ahead.shape[1])]
        for first in range(0, len(runs), _WAVE):
            wave = runs[first : first + _WAVE]
            self._round(classifier, region, y, ahead, left, wave, self.steps, stream, best)
            left = left[~best.settled[left]]
        return best.proposal()

    def _round(
        self,
        classifier: Classifier,
        region: Region,
        y: Tensor,
        targets: Tensor,
        samples: Tensor,
        runs: Sequence[tuple[int, int]],
        steps: int,
        stream: Stream,
        best: Best,
    ) -> Tensor:
        """Make `runs`, (restart, column of `targets` [B, K]), for `samples`; return the margins reached [B, runs].

        As many rows at once as the batch had samples, so that runs take no more memory than the batch.
        """
        reached = torch.full((len(y), len(runs)), torch.inf, dtype=region.x.dtype, device=y.device)
        size = max(1, len(y) // len(runs))
        for first in range(0, len(samples), size):
            here = samples[first : first + size]
            aims = torch.cat([targets[here, rank] for _, rank in runs])
            streams = [stream.child("run", *run).select(here) for run in runs]
            found = self._runs(classifier, region.select(here), y[here], aims, streams, steps)
            best.update(
                here, found, torch.tensor([r for r, _ in runs], device=y.device).repeat_interleave(len(here)), aims
            )
            reached[here] = rank_of(found.margin).reshape(len(runs), len(here)).T
        return reached

    def _runs(
        self, classifier: Classifier, part: Region, y: Tensor, aims: Tensor, streams: Sequence[Stream], steps: int
    ) -> Found:
        """Make one run per stream and sample, as rows of one batch: row = run · S + position of the sample."""
        count, shape, dtype = len(y), part.x.shape[1:], part.x.dtype
        here = torch.arange(count, device=y.device).repeat(len(streams))
        phases = [(1.0, steps)] if part.norm == "linf" else radii(steps)

        def noise(rows: Tensor, step: int) -> Tensor:
            out = torch.empty((len(rows), *shape), dtype=dtype, device=part.x.device)
            for number, own in enumerate(streams):
                mine = (rows // count == number).nonzero()[:, 0]
                if len(mine):
                    out[mine] = own.select(rows[mine] % count).child("step", step).normal(shape, dtype)
            return out

        region, start = part.select(here), torch.cat([random_start(part, own, phases[0][0]) for own in streams])
        if part.norm == "linf":
            plan = Plan(self.loss, step_sizes("cosine", steps))
            return search(classifier, region, y[here], here, start, plan, noise, aims)
        ascent = Ascent(self.loss, phases, size=1.0 if part.norm == "l1" else 2.0)
        return climb(classifier, region, y[here], here, start, ascent, noise, aims)
