"""The Square Attack (Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial attack")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from robench import Proposal, param
from robench.classifier import outputs_of
from robench.distances import project
from robench_plugins.attacks._square_bumps import Bumps
from robench_plugins.attacks._square_moves import Corners, Moves
from robench_plugins.attacks._square_search import search
from robench_plugins.attacks._square_windows import Frame, Streams, share, window
from robench_plugins.attacks.best import Best
from robench_plugins.attacks.regions import Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from robench import Access, Classifier, Domain, Norm, Stream, Threat

__all__ = ["Square"]

_WAVE = 16
"""Restarts of one sample that share a batch, at most."""


@dataclass(frozen=True)
class Square:
    """Random search over windows of the image, by scores alone: it needs no gradients and any classifier will do.

    Each query changes one window, at a random place, and is kept if the margin f_y − max_{j≠y} f_j falls. Windows
    shrink as queries are made. linf: the window goes to a side of the ball, each channel to a random one (Algorithm 2).
    l2: bumps, paid for by a second window that is set back (Algorithm 3); l1: the same with steeper bumps (Croce &
    Hein 2021). The defaults are AutoAttack's (Croce & Hein 2020): p .8, 5,000 queries, the schedule of 10,000
    scaled to them, the margin loss, one run.

    Inputs [D] are images of one row, so that windows are intervals; axes before the last two are channels.
    """

    per_eps: ClassVar[bool] = True
    access: ClassVar[Access] = "logits"

    queries: int = param(5000, "queries per restart, the random start included", minimum=1)
    restarts: int = param(1, "independent runs, the later ones for samples that are left", minimum=1)
    p_init: float = param(0.8, "share of the pixels that the first windows hold", above=0, maximum=1)

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or why the attack cannot run."""
        if not hasattr(classifier, "logits"):
            return "the classifier draws at inference: write `square | eot`, which takes the mean over draws"
        if outputs_of(classifier) == "labels":
            return "the classifier gives labels alone: a random search needs scores"
        return None

    def perturb(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Proposal:
        """Propose the points of lowest margin met for `x` [B, ...] with labels `y` [B]."""
        region, best = Region.around(x, threat), Best.none(x)
        runs = range(1, self.restarts)
        # The first run goes alone, because most samples that break at all break there.
        for wave in (range(1), *(runs[i : i + _WAVE] for i in range(0, len(runs), _WAVE))):
            left = (~best.settled).nonzero()[:, 0]
            # As many rows at once as the batch had samples, so that restarts take no more memory than the batch.
            size = max(1, len(x) // len(wave))
            for first in range(0, len(left), size):
                self._run(classifier, region, threat, y, left[first : first + size], wave, stream, best)
        return best.proposal()

    def _run(
        self,
        classifier: Classifier,
        region: Region,
        threat: Threat,
        y: Tensor,
        samples: Tensor,
        wave: Sequence[int],
        stream: Stream,
        best: Best,
    ) -> None:
        """Make the runs of a wave for `samples`, as rows of one batch: row = run · S + position of the sample."""
        count, here = len(samples), samples.repeat(len(wave))
        part = region.select(here)
        portions = [share(number, self.queries, self.p_init) for number in range(self.queries - 1)]
        owner = torch.arange(count, device=y.device).repeat(len(wave))
        streams = Streams([stream.child("restart", number).select(samples) for number in wave])
        moves = self._moves(part, threat.domain, portions)
        found = search(classifier, part.x, y[here], owner, moves, streams, portions)
        if region.norm != "linf":
            # The budget was kept account of; now to the last rounding.
            found.points.copy_(project(found.points, part.x, threat))
        restarts = torch.tensor(list(wave), device=y.device).repeat_interleave(count)
        best.update(samples, found, restarts, torch.full_like(restarts, -1))

    def _moves(self, region: Region, domain: Domain, portions: Sequence[float]) -> Moves:
        frame = Frame.of(region.x.shape[1:])
        if region.norm != "linf":
            return Bumps(region, frame, domain)
        return Corners(region, frame, sum(window(portion, frame) == (1, 1) for portion in portions))
