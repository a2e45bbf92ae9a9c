"""Auto-PGD (Croce & Hein 2020, "Reliable evaluation of adversarial robustness …"; in l1 2021, "Mind the box")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

if TYPE_CHECKING:
    from robench import Access, Classifier, Norm, Stream, Threat

__all__ = ["APGD"]

_WAVE = 16
"""Runs of one sample that share a batch, at most."""


@dataclass(frozen=True)
class _Run:
    """One run for every sample: untargeted, or towards the other class of some rank (0: most likely)."""

    restart: int
    rank: int | None

    def stream(self, stream: Stream) -> Stream:
        """Return the run's own random streams."""
        own = stream.child("restart", self.restart)
        return own if self.rank is None else own.child("target", self.rank)


@dataclass(frozen=True)
class APGD:
    """Auto-PGD in linf, l2 and l1: gradient ascent with momentum whose step size is set by the loss's progress.

    At checkpoints after 22 % of the steps and at ever shorter intervals, a run that has stopped rising halves its step
    and goes back to its best point. In l1 steps are sparse, the sparser the fewer pixels the best point changed, and
    three searches follow each other in balls of radius 3ε, 2ε and ε.

    With `targets=N` every restart is N runs, towards the classes that the clean input is most likely to be taken for,
    instead of one untargeted run. AutoAttack's `apgd-ce` is `apgd`, its `apgd-t` `apgd:loss=dlr,targets=9`; in l1 they
    are `apgd:restarts=5` and `apgd:loss=dlr,targets=5`. Runs of a sample are rows of one batch, after a first one
    that goes alone, because most samples that break at all break there. A sample leaves as soon as it is broken.
    """

    per_eps: ClassVar[bool] = True
    access: ClassVar[Access] = "gradients"

    loss: Loss = param("ce", "loss to increase; dlr and targeted dlr become the margin with fewer than 3 and 4 classes")
    targets: int = param(0, "targeted runs, towards so many of the most likely other classes; 0: untargeted", minimum=0)
    restarts: int = param(1, "how often all runs are made, each time from new random starts", minimum=1)
    steps: int = param(100, "steps per run (N_iter)", minimum=1)
    rho: float = param(0.75, "a step is halved when fewer than this share of the steps raised the loss", minimum=0)
    momentum: float = param(0.75, "weight of the new step (alpha); the rest repeats the last move", above=0, maximum=1)
    step: float | None = param(None, "first step in units of eps; none: 2, in l1 1", above=0)
    larger_radius: bool = param(True, "in l1: search balls of 3 and 2 eps first, for 30 % of the steps each")
    early_exit: bool = param(True, "stop working on a sample once it is broken")

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or why the attack cannot run."""
        return gradients.applies(classifier)

    def ascent(self, norm: Norm) -> Ascent:
        """Return how every run ascends in `norm`."""
        sparse = norm == "l1"
        return Ascent(
            loss=self.loss,
            phases=radii(self.steps) if sparse and self.larger_radius else [(1.0, self.steps)],
            size=(1.0 if sparse else 2.0) if self.step is None else self.step,
            rho=self.rho,
            momentum=self.momentum,
            early_exit=self.early_exit,
        )

    def perturb(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Proposal:
        """Propose the points of lowest margin met for `x` [B, ...] with labels `y` [B]."""
        region, best = Region.around(x, threat), Best.none(x)
        targets = min(self.targets, classifier.classes - 1)
        ranked = self._rank(classifier, x, y, best) if targets and len(x) else None
        for wave in self._waves(targets):
            left = torch.arange(len(x), device=x.device) if not self.early_exit else (~best.settled).nonzero()[:, 0]
            # As many rows at once as the batch had samples, so that restarts take no more memory than the batch.
            size = max(1, len(x) // len(wave))
            for first in range(0, len(left), size):
                self._run(classifier, region, y, ranked, left[first : first + size], wave, stream, best)
        return best.proposal()

    def _rank(self, classifier: Classifier, x: Tensor, y: Tensor, best: Best) -> Tensor:
        """Return the other classes, most likely first, [B, classes]."""
        with torch.no_grad():
            logits = classifier.logits(x)
        best.forwards.add_(1)
        return likely_targets(logits, y, classifier.classes)

    def _run(
        self,
        classifier: Classifier,
        region: Region,
        y: Tensor,
        ranked: Tensor | None,
        samples: Tensor,
        wave: Sequence[_Run],
        stream: Stream,
        best: Best,
    ) -> None:
        """Make the runs of a wave for `samples`, as rows of one batch: row = run · S + position of the sample."""
        count = len(samples)
        streams = [run.stream(stream).select(samples) for run in wave]
        ascent = self.ascent(region.norm)
        here, part = samples.repeat(len(wave)), region.select(samples)

        def noise(rows: Tensor, step: int) -> Tensor:
            out = torch.empty((len(rows), *part.x.shape[1:]), dtype=part.x.dtype, device=part.x.device)
            for number, own in enumerate(streams):
                mine = (rows // count == number).nonzero()[:, 0]
                if len(mine):
                    drawn = own.select(rows[mine] % count).child("step", step).normal(part.x.shape[1:], part.x.dtype)
                    out[mine] = drawn
            return out

        ranks = [run.rank for run in wave if run.rank is not None]
        target = torch.cat([ranked[samples, rank] for rank in ranks]) if ranked is not None else None
        found = climb(
            classifier,
            region.select(here),
            y[here],
            torch.arange(count, device=y.device).repeat(len(wave)),
            torch.cat([random_start(part, own, ascent.phases[0][0]) for own in streams]),
            ascent,
            noise,
            target,
        )
        restarts = torch.tensor([run.restart for run in wave], device=y.device).repeat_interleave(count)
        best.update(samples, found, restarts, torch.full_like(restarts, -1) if target is None else target)

    def _waves(self, targets: int) -> Iterator[list[_Run]]:
        """Yield the runs in order, grouped into those that share a batch: the same for every sample."""
        ranks = range(targets) if targets else [None]
        runs = [_Run(restart, rank) for restart in range(self.restarts) for rank in ranks]
        yield runs[:1]
        for first in range(1, len(runs), _WAVE):
            yield runs[first : first + _WAVE]
