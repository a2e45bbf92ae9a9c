"""DeepFool (Moosavi-Dezfooli et al. 2016, "DeepFool: a simple and accurate method to fool deep neural networks")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from robench import Passes, Proposal, param
from robench.numerics import per_sample
from robench_plugins.attacks import gradients
from robench_plugins.attacks._fab_planes import nearest_of, onto, room
from robench_plugins.attacks._nearest import Nearest
from robench_plugins.attacks._planes import Planes, planes
from robench_plugins.attacks._runs import Noise, Rows, Runs, propose

if TYPE_CHECKING:
    from robench import Classifier, Norm, Stream, Threat

__all__ = ["DeepFool"]


@dataclass(frozen=True)
class DeepFool:
    """A quick near error in linf, l2 or l1: over the nearest boundary of the linearised classifier, until it is one.

    Algorithm 2 and, for other norms, eqs. 10-11 of the paper. Deviations, each for a reason: the step to a boundary is
    the shortest one inside the domain (there clipped afterwards, so that pixels at the sides count for what they cannot
    do), which makes l1 possible; steps aim past the boundary by the rounding error of the logits, not by 0.0001 in the
    input's units. Where no class has a gradient there is nothing to follow: the sample is given up.
    """

    per_eps: ClassVar[bool] = False

    steps: int = param(50, "linearisations", minimum=1)
    overshoot: float = param(0.02, "how much further than the sum of all steps a point goes", minimum=0)
    classes: int = param(10, "how many of the most likely classes are looked at, the label among them", minimum=2)

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or why the attack cannot run."""
        return gradients.applies(classifier)

    def perturb(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Proposal:
        """Propose the first misclassified point met for `x` [B, ...] with labels `y` [B]."""
        return propose(classifier, x, y, threat, stream, Runs(0, 0), self._search)

    def _search(self, classifier: Classifier, norm: Norm, rows: Rows, noise: Noise) -> tuple[Nearest, Passes]:
        best, point = Nearest.none(rows.x, norm), rows.x
        out, total = best.select(rows.id), torch.zeros_like(point)
        forwards, backwards = torch.zeros_like(rows.id), torch.zeros_like(rows.id)
        others: Tensor | None = None
        lost = torch.zeros_like(best.kind, dtype=torch.bool)
        for step in range(self.steps + 1):
            now = planes(classifier, point, rows.y, others, min(self.classes, classifier.classes) - 1)
            forwards[rows.id] += 1
            backwards[rows.id] += now.others.shape[1]
            best.record(point, now.margin, now.scale, step)
            others = now.others
            gone = best.sure.isfinite() | lost
            if step == self.steps or ((step < 4 or step % 4 == 0) and bool(gone.any())):
                leaving = gone if step < self.steps else torch.ones_like(gone)
                out.put(rows.id[leaving], best.select(leaving))
                stays = ~leaving
                rows, best, now = rows.select(stays), best.select(stays), now.select(stays)
                total, point, others, lost = total[stays], point[stays], others[stays], lost[stays]
                if not len(point):
                    break
            ahead = ~best.sure.isfinite()
            move, found = self._step(norm, now, rows, point)
            lost = lost | (ahead & ~found)
            total = torch.where(per_sample(ahead, total), total + move, total)
            point = (rows.x + (1 + self.overshoot) * total).clamp(rows.lower, rows.upper)
        return out, Passes(forwards, backwards)

    def _step(self, norm: Norm, seen: Planes, rows: Rows, point: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shortest step over one of the planes [R, ...], and whether there is a gradient at all [R]."""
        at, lower, upper = (part.flatten(1) for part in (point, rows.lower, rows.upper))
        plane = nearest_of(seen, norm, at, lower, upper)
        size, _ = onto(norm, plane.normal.abs(), plane.value.abs(), room(plane.normal, plane.value, at, lower, upper))
        move = size * plane.normal.sign()
        finite = move.isfinite().all(1) & seen.values.isfinite().all(1)
        found = finite & (move != 0).any(1)
        return torch.where(finite[:, None], move, 0).reshape(point.shape), found
