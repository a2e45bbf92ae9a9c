"""Asking a classifier for decisions alone, row by row of many samples, in batches of a bounded size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robench.classifier import Classifier
from robench.threat import Domain, Norm
from robench_plugins.attacks import projections

__all__ = ["Decisions", "Path", "along", "down", "nearest", "size"]

_ROWS = 32
"""Rows of a query at least, or a single sample would be asked about one point at a time."""

Path = Callable[[Tensor], Tensor]
"""Radii [R] → points [R, D], no further from their samples than these."""


@dataclass(frozen=True, eq=False)
class Decisions:
    """What a classifier decides about points near samples; nothing but the class with the largest logit is used.

    Attributes:
        x, y: the samples, flat [S, D], and their labels [S].
        low, high: the domain, as bounds of a perturbation [S, D].
        forwards: queries per sample so far, int64 [S].
        odd: the first point per sample where logits were not finite, else the sample [S, D].
    """

    classifier: Classifier
    x: Tensor
    y: Tensor
    low: Tensor
    high: Tensor
    forwards: Tensor
    odd: Tensor

    @torch.no_grad()
    def classes(self, points: Tensor, owner: Tensor) -> Tensor:
        """Return the class of each of `points` [R, D], about the samples `owner` [R]: the label where it is no error.

        A tie with the label is an error, of the other class; logits that are not finite are none.
        """
        limit = max(len(self.x), _ROWS)
        found = torch.empty(len(points), dtype=torch.int64, device=points.device)
        for first in range(0, len(points), limit):
            part, own = points[first : first + limit], owner[first : first + limit]
            logits = self.classifier.logits(part.reshape(-1, *self.classifier.input_shape))
            label = self.y[own]
            rest = logits.scatter(1, label[:, None], -torch.inf)
            finite = logits.isfinite().all(1)
            error = finite & (rest.amax(1) >= logits.gather(1, label[:, None])[:, 0])
            found[first : first + limit] = torch.where(error, rest.argmax(1), label)
            self._remember(part, own, ~finite)
        self.forwards.index_add_(0, owner, torch.ones_like(owner))
        return found

    def _remember(self, points: Tensor, owner: Tensor, strange: Tensor) -> None:
        """Keep the first of `points` that is `strange` for each sample that has none yet."""
        count = len(points)
        rows = torch.where(strange, torch.arange(count, device=points.device), count)
        first = torch.full_like(self.y, count).scatter_reduce_(0, owner, rows, "amin")
        fresh = (first < count) & (self.odd == self.x).all(1)
        self.odd.copy_(torch.where(fresh[:, None], points[first.clamp_max(count - 1)], self.odd))

    def errors(self, points: Tensor, owner: Tensor) -> Tensor:
        """Return which of `points` [R, D] are misclassified."""
        return self.classes(points, owner) != self.y[owner]

    @classmethod
    def about(cls, classifier: Classifier, x: Tensor, y: Tensor, domain: Domain) -> Decisions:
        """Begin with samples `x` [S, ...] inside `domain`."""
        lower, upper = domain.box(x)
        flat = x.flatten(1)
        sides = (lower - x).flatten(1), (upper - x).flatten(1)
        return cls(classifier, flat, y, *sides, torch.zeros_like(y), flat.clone())

    def place(self, delta: Tensor, owner: Tensor) -> Tensor:
        """Return x + delta inside the domain; a sum may round to the other side of a bound."""
        x = self.x[owner]
        return torch.maximum(torch.minimum(x + delta, x + self.high[owner]), x + self.low[owner])


def size(norm: Norm, delta: Tensor) -> Tensor:
    """Return ‖δ‖ of each row [R]."""
    if norm == "linf":
        return delta.abs().amax(1)
    return delta.norm(dim=1) if norm == "l2" else delta.abs().sum(1)


def down(asked: Decisions, norm: Norm, points: Tensor, owner: Tensor) -> Path:
    """Return the way from `points` [R, D] to their samples: the nearest point of each ball on it.

    l2: the segment. linf: the clipped point, as published. l1: the smallest changes vanish first.
    """
    delta = points - asked.x[owner]
    low, high = asked.low[owner], asked.high[owner]
    return lambda radius: asked.place(projections.project(norm, delta, radius[:, None], low, high), owner)


def along(asked: Decisions, norm: Norm, direction: Tensor, owner: Tensor) -> Path:
    """Return the points of each ball that are furthest along `direction` [R, D] inside the domain."""
    low, high = asked.low[owner], asked.high[owner]
    return lambda radius: asked.place(projections.maximise(norm, direction, radius[:, None], low, high), owner)


def nearest(asked: Decisions, path: Path, radius: Tensor, owner: Tensor, halvings: int) -> tuple[Tensor, Tensor]:
    """Bisect from `radius` [R], where `path` is misclassified, to 0, where it is not.

    Returns the points [R, D] and the radii [R] next to the boundary on its far side.
    """
    near, far = torch.zeros_like(radius), radius.clone()
    best = path(far)
    for _ in range(halvings):
        middle = (near + far) / 2
        points = path(middle)
        wrong = asked.errors(points, owner)
        best = torch.where(wrong[:, None], points, best)
        near, far = torch.where(wrong, near, middle), torch.where(wrong, middle, far)
    return best, far
