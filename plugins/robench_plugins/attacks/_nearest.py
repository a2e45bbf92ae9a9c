"""The nearest misclassified point met so far, per row of a minimum-norm search, and one gradient pass for it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from robench.classifier import Classifier, margins
from robench.numerics import per_sample
from robench.threat import Norm
from robench_plugins.attacks.gradients import pull_back, rounding
from robench_plugins.attacks.losses import Loss, cotangent

__all__ = ["BARE", "ORDER", "Nearest", "Slope", "slope"]

ORDER: dict[Norm, float] = {"linf": torch.inf, "l2": 2.0, "l1": 1.0}
_DUAL: dict[Norm, float] = {"linf": 1.0, "l2": 2.0, "l1": torch.inf}

SURE, BARE, UNKNOWN, NONE = 0, 1, 2, 3
"""How good a point is, best first: misclassified by more than rounding, misclassified, logits not finite, correct."""


_FOUND = ("point", "distance", "kind", "margin", "step")


@dataclass(eq=False)
class Nearest:
    """Per row the best point so far [R, ...], replaced in place: by kind first, then by distance.

    Attributes:
        point: the point; the clean input until something better is met.
        distance: to the clean input in the norm asked for, in the inputs' dtype; inf unless misclassified.
        kind: `SURE`, `BARE`, `UNKNOWN` or `NONE`.
        margin: f_y − max_{j≠y} f_j there.
        step: when it was met.
    """

    norm: Norm
    x: Tensor
    point: Tensor
    distance: Tensor
    kind: Tensor
    margin: Tensor
    step: Tensor

    @classmethod
    def none(cls, x: Tensor, norm: Norm) -> Nearest:
        """Return the state before anything was met, for clean inputs `x` [R, ...]."""
        blank = x.new_full((len(x),), torch.inf)
        step = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return cls(norm, x, x, blank, torch.full_like(step, NONE), blank, step)

    def select(self, rows: Tensor) -> Nearest:
        """Return some rows (bool mask or int64 positions)."""
        picked = [getattr(self, item.name)[rows] for item in fields(self)[1:]]
        return Nearest(self.norm, *picked)

    @property
    def sure(self) -> Tensor:
        """The distance where the point is misclassified by more than rounding, else inf [R]."""
        return torch.where(self.kind == SURE, self.distance, torch.inf)

    def far(self, points: Tensor) -> Tensor:
        """Return how far `points` [R, ...] are from the clean inputs."""
        away = (points - self.x).flatten(1)
        # Many times faster on a CPU than the norm of that order.
        far: Tensor = away.abs().amax(1) if self.norm == "linf" else away.norm(ORDER[self.norm], dim=1)
        return far

    def record(self, points: Tensor, margin: Tensor, scale: Tensor, step: int | Tensor) -> Tensor:
        """Keep `points` where they are the best so far; returns their distances.

        Logits that are not finite are no success, but such a point is kept where nothing else was met: proposed, it is
        counted as an error of the classifier; passed over, it would be hidden.
        """
        sure = margin <= -rounding(scale)
        kind = torch.where(margin.isnan(), UNKNOWN, torch.where(margin > 0, NONE, torch.where(sure, SURE, BARE)))
        distance = self.far(points)
        met = torch.where(kind <= BARE, distance, torch.inf)
        nearer = (kind < self.kind) | ((kind == self.kind) & (met < self.distance))
        self.point = torch.where(per_sample(nearer, points), points, self.point)
        self.distance = torch.where(nearer, met, self.distance)
        self.kind = torch.where(nearer, kind, self.kind)
        self.margin = torch.where(nearer, margin, self.margin)
        self.step = torch.where(nearer, torch.as_tensor(step, device=self.step.device), self.step)
        return distance

    def put(self, rows: Tensor, other: Nearest) -> None:
        """Write `other`, one entry per position in `rows`, into this."""
        for name in _FOUND:
            # A copy: the state before the first point shares tensors with the inputs.
            column = getattr(self, name).clone()
            column[rows] = getattr(other, name)
            setattr(self, name, column)

    def take(self, samples: Tensor, found: Nearest) -> Tensor:
        """Take in `found` [runs · S], run by run, the rows that worked for `samples` [S]; returns who won, −1: nobody.

        Of equal points the earliest run's wins.
        """
        count = len(samples)
        kind, distance = found.kind.reshape(-1, count), found.distance.reshape(-1, count)
        least = torch.where(kind == kind.amin(0), distance, torch.inf).argmin(0)
        # A row of infinite distances has no least one: there the kind alone decides.
        least = torch.where(kind.gather(0, least[None])[0] == kind.amin(0), least, kind.argmin(0))
        winner = least * count + torch.arange(count, device=samples.device)
        nearer = found.distance[winner] < self.distance[samples]
        better = (found.kind[winner] < self.kind[samples]) | ((found.kind[winner] == self.kind[samples]) & nearer)
        self.put(samples[better], found.select(winner[better]))
        return torch.where(better, winner, -1)


@dataclass(frozen=True, eq=False)
class Slope:
    """What one gradient pass tells about each row.

    Attributes:
        margin: f_y − max_{j≠y} f_j [R], NaN where the logits are not finite.
        value: what separates a row from its aim: the margin, f_y − f_t for rows with a target t, and what rounding may
            take from it; 0 or below where the aim is met.
        scale: the largest |logit| [R].
        steepest: ∇ₓ of the loss, to be increased, divided by its largest entry [R, ...].
        peak: that largest entry [R]; 0 where there is no direction.
    """

    margin: Tensor
    value: Tensor
    scale: Tensor
    steepest: Tensor
    peak: Tensor

    def boundary(self, norm: Norm) -> Tensor:
        """Return the distance at which `value` would be 0 if it were linear: |value| / ‖∇‖ in the dual norm [R].

        Exact for the margin; the other losses' directions are scaled alike. inf or NaN where there is none.
        """
        size = torch.linalg.vector_norm(self.steepest.flatten(1), _DUAL[norm], dim=1)
        away: Tensor = self.value.abs() / self.peak / size
        return away


def _value(logits: Tensor, y: Tensor, target: Tensor, margin: Tensor) -> Tensor:
    label, aim = logits.gather(1, torch.stack([y, target.clamp_min(0)], 1)).unbind(1)
    return torch.where((target < 0) | margin.isnan(), margin, label - aim)


def slope(
    classifier: Classifier, x: Tensor, y: Tensor, target: Tensor, loss: Loss = "margin", aimed: Loss = "margin"
) -> Slope:
    """Return values and directions at `x` [R, ...]: of `loss` where `target` [R] is −1, else of `aimed`."""

    def vector(logits: Tensor) -> Tensor:
        free = cotangent(loss, logits, y)
        towards = cotangent(aimed, logits, y, target.clamp_min(0))
        return torch.where((target < 0)[:, None], free, towards)

    logits, gradient = pull_back(classifier, x, vector)
    gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
    peak = gradient.flatten(1).abs().amax(1)
    steepest = gradient / per_sample(torch.where(peak == 0, 1, peak), gradient)
    margin, scale = margins(logits, y), logits.abs().amax(1)
    return Slope(margin, _value(logits, y, target, margin) + rounding(scale), scale, steepest, peak)
