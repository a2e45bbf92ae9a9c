"""Points that may refute a proof: projected gradient descent on the margin within the region, and a strict check.

The runner judges every point again; here a point ends the search only where the rigorous enclosure of its margin says
unsafe, so that no rounding ends a proof early.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robench.classifier import Classifier
from robench.distances import linf_box, project
from robench.graph.intervals import logit_bounds
from robench.numerics import gamma
from robench.streams import Stream
from robench.threat import Threat
from robench_plugins.verify._tree.query import Query

__all__ = ["Refuter"]


class Refuter:
    """Looks for unsafe points of some samples [B] and keeps the first of each."""

    def __init__(self, classifier: Classifier, x: Tensor, threat: Threat, query: Query, stream: Stream) -> None:
        """Start with nothing found; `stream` decides the random starts of each sample."""
        self.classifier, self.x, self.threat, self.query, self.stream = classifier, x, threat, query, stream
        self.points = x.clone()
        self.found = torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def select(self, sample: Tensor) -> Refuter:
        """Return a refuter of some samples, with what was found about them."""
        x, threat, query = self.x[sample], self.threat.select(sample), self.query.select(sample)
        made = Refuter(self.classifier, x, threat, query, self.stream.select(sample))
        made.points, made.found = self.points[sample], self.found[sample]
        return made

    def merge(self, sample: Tensor, part: Refuter) -> None:
        """Take over what a refuter of some samples found."""
        self.points[sample], self.found[sample] = part.points, part.found

    def inside(self, points: Tensor, sample: Tensor) -> Tensor:
        """Return points [P, ...] as inputs of the classifier within the region of their samples [P]."""
        return project(points.to(self.x), self.x[sample], self.threat.select(sample))

    @torch.no_grad()
    def consider(self, points: Tensor, sample: Tensor) -> None:
        """Try points [P, ...] of samples [P]; keep those that are unsafe beyond doubt."""
        wanted = ~self.found[sample]
        points, sample = points[wanted], sample[wanted]
        if not len(points):
            return
        points = self.inside(points, sample)
        margin = self.query.margins(self.classifier.logits(points).double(), sample)
        best = margin.new_full((len(self.x),), torch.inf)
        best = best.scatter_reduce(0, sample, margin.nan_to_num(nan=torch.inf), "amin")
        promising = (margin <= 0) & (margin == best[sample])
        rows = promising.nonzero()[:, 0]
        if not len(rows):
            return
        unsafe = self._surely_unsafe(points[rows], sample[rows])
        rows = rows[unsafe]
        self.points[sample[rows]] = points[rows]
        self.found[sample[rows]] = True

    def _surely_unsafe(self, points: Tensor, sample: Tensor) -> Tensor:
        graph = self.classifier.graph
        assert graph is not None
        exact = points.double()
        lower, upper = logit_bounds(graph, exact, exact)
        rows, offsets = self.query.rows[sample], self.query.offsets[sample]
        high = (rows.clamp_min(0) @ upper[:, :, None] + rows.clamp_max(0) @ lower[:, :, None])[:, :, 0] + offsets
        most = torch.maximum(lower.abs(), upper.abs())
        error = ((rows.abs() @ most[:, :, None])[:, :, 0] + offsets.abs()) * (2 * gamma(rows.shape[2] + 8))
        query = self.query.select(sample)
        # Unsafe: some disjunct with every row at most 0.
        above = torch.where(query.disjunct >= 0, ~(high + error <= 0), False).long()
        some = torch.zeros_like(query.disjunct).scatter_reduce(1, query.disjunct.clamp_min(0), above, "amax")
        there = torch.zeros_like(some).scatter_reduce(
            1, query.disjunct.clamp_min(0), (query.disjunct >= 0).long(), "amax"
        )
        return ((some == 0) & (there > 0)).any(1)

    def descend(self, starts: Tensor, sample: Tensor, steps: int) -> None:
        """Descend from `starts` [P, ...] of samples [P] for `steps` steps of a shrinking size, then consider the ends.

        Every step moves each coordinate by the sign of the gradient (l2: along it), as in PGD (Madry et al. 2018).
        """
        points = self.inside(starts, sample)
        low, high = linf_box(self.x[sample], self.threat.select(sample))
        width = (high - low) / 2
        best, least = points.clone(), torch.full((len(points),), torch.inf, device=points.device, dtype=torch.float64)
        for turn in range(steps + 1):
            points = points.detach().requires_grad_(turn < steps)
            with torch.set_grad_enabled(turn < steps):
                margin = self.query.margins(self.classifier.logits(points), sample)
            lower = margin.detach().double() < least
            around = [-1, *[1] * (points.dim() - 1)]
            best = torch.where(lower.reshape(around), points.detach(), best)
            least = torch.where(lower, margin.detach().double(), least)
            if turn == steps or bool((least < 0).all()):
                break
            slope = torch.autograd.grad(margin, points, torch.ones_like(margin))[0]
            if self.threat.norm == "linf":
                step = slope.sign() * width
            else:
                flat = slope.flatten(1)
                unit = flat / torch.linalg.vector_norm(flat, dim=1, keepdim=True).clamp_min(1e-30)
                step = unit.reshape(slope.shape) * (self.threat.eps or 0.0)
            rate = 0.5 * (1 - turn / steps) + 0.01
            points = self.inside(points.detach() - rate * step, sample)
        self.consider(best, sample)

    def random_starts(self, sample: Tensor, turn: int) -> Tensor:
        """Return a random point of the box of each sample [P], the same whatever the batch."""
        low, high = linf_box(self.x[sample], self.threat.select(sample))
        share = self.stream.select(sample).child("start", turn).uniform(self.x.shape[1:], dtype=torch.float64)
        return low + (high - low) * share.to(low)
