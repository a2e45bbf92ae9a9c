"""SmoothAdv (Salman et al. 2019, "Provably robust deep learning via adversarially trained smoothed classifiers")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor

from robench import Passes, Proposal, param
from robench.classifier import RandomizedClassifier, is_smoothed
from robench.numerics import per_sample
from robench.streams import Stream
from robench_plugins.attacks.gradients import applies, ascent
from robench_plugins.attacks.losses import Loss
from robench_plugins.attacks.regions import Region
from robench_plugins.attacks.steps import Schedule, move, step_sizes
from robench_plugins.smoothing._soft import SoftVote, trial_margins

if TYPE_CHECKING:
    from robench import Access, Classifier, Norm, Threat

__all__ = ["SmoothAdv"]

_CLEAR = -0.3
"""The margin of a trial vote at which a sample needs no other run."""


@dataclass(frozen=True)
class SmoothAdv:
    """PGD on a smoothed classifier in linf, l2 and l1: gradients of the log of the mean softmax over some draws.

    Each run starts at the clean input, further ones at random points. None ends early, because a point where the label
    just loses cannot be told from one where it just wins: steps are taken to the end, and the last point counts. Of
    several runs' that one is proposed where the label does worst in a vote over `trial` draws that no run has seen.

    `smoothadv:draws=M,fresh=false,loss=ce` is the attack as published, whose M draws are the same at every step.
    """

    per_eps: ClassVar[bool] = True
    randomized: ClassVar[bool] = True
    access: ClassVar[Access] = "gradients"

    draws: int = param(32, "draws that the softmax is averaged over, at every step (m)", minimum=1)
    steps: int = param(20, "gradient steps per run", minimum=1)
    restarts: int = param(1, "runs: one from the clean input, the others from random points of the ball", minimum=1)
    loss: Loss = param("margin", "loss of the log of the mean softmax; the published one is ce")
    fresh: bool = param(True, "other draws at every step, not the same ones at all")
    schedule: Schedule = param("fixed", "step sizes: fixed, or falling along half a cosine")
    step: float | None = param(None, "first step in units of eps; none: 2/steps if fixed, 1 if cosine", above=0)
    trial: int = param(200, "draws of the vote that chooses between runs", minimum=1)
    early_exit: bool = param(True, "no further run for a sample whose label loses such a vote by more than 0.3")

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or why the attack cannot run."""
        if not is_smoothed(classifier):
            return "smoothadv attacks votes over noise, and this classifier is none: use another attack"
        seen, device = cast("RandomizedClassifier", classifier), classifier.device
        return applies(SoftVote(seen, Stream.for_samples(0, "smoothadv", [0], device), 1))

    def perturb(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Proposal:
        """Propose points for `x` [B, ...] with labels `y` [B]; the detail says which run each is from."""
        seen, region = cast("RandomizedClassifier", classifier), Region.around(x, threat)
        points, won, runs = x.clone(), torch.zeros_like(y), torch.zeros_like(y)
        margin = torch.full_like(y, torch.inf, dtype=torch.float64)
        # As many rows at once as the batch has samples, or as one sample takes.
        for rows in torch.split(torch.arange(len(x), device=x.device), max(1, len(x) // self.draws)):
            left = rows
            for run in range(self.restarts):
                if not len(left):
                    break
                part, own = region.select(left), stream.select(left)
                found = self._ascend(seen, part, y[left], own.child("run", run), run > 0)
                runs[left] += 1
                if self.restarts == 1:
                    points[left] = found
                    continue
                now = trial_margins(seen, found, y[left], own, self.trial, self.draws)
                better = now < margin[left]
                points[left[better]], margin[left[better]], won[left[better]] = found[better], now[better], run
                if self.early_exit:
                    left = left[margin[left] >= _CLEAR]
        trial = self.trial if self.restarts > 1 else 0
        steps = self.draws * self.steps
        detail = [
            {"run": run, "trial": margin if trial else None}
            for run, margin in zip(won.tolist(), margin.tolist(), strict=True)
        ]
        return Proposal(points, detail, Passes(runs * (steps + trial), runs * steps))

    def _ascend(
        self, classifier: RandomizedClassifier, region: Region, y: Tensor, stream: Stream, random_start: bool
    ) -> Tensor:
        """Return the last point of one run in `region` for labels `y` [B]."""
        vote = SoftVote(classifier, stream, self.draws, self.fresh)
        point = region.start(stream.child("start")) if random_start else region.x
        first = 2 / self.steps if self.step is None and self.schedule == "fixed" else self.step
        for step, size in enumerate(step_sizes(self.schedule, self.steps, first)):
            now = ascent(vote, point, y, self.loss)
            way = now.direction
            if bool(now.flat.any()):
                # Nowhere to go by the gradient: anywhere, and from x where logits are not finite.
                anywhere = stream.child("anywhere", step).normal(point.shape[1:], point.dtype)
                way = torch.where(per_sample(now.flat, way), anywhere, way)
                point = torch.where(per_sample(now.margin.isnan(), point), region.x, point)
            point = move(region, point, way, size)
        return point
