"""The points that a probe looks at: the best one per sample, and the passes that each sample cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robench import Classifier, Passes
from robench.classifier import margins
from robench.numerics import per_sample
from robench_plugins.attacks.gradients import pull_back, rounding
from robench_plugins.attacks.losses import cotangent
from robench_plugins.attacks.search import rank_of

__all__ = ["Figures", "Slope", "Trail"]


@dataclass(frozen=True, eq=False)
class Slope:
    """What one forward and one backward pass tell about each row.

    Attributes:
        logits: [R, C].
        margin: f_y − max_{j≠y} f_j [R], NaN where a logit is not finite.
        way: the gradient of −margin [R, ...], entries that are not finite as 0.
        finite: bool [R], every entry of the gradient was finite.
    """

    logits: Tensor
    margin: Tensor
    way: Tensor
    finite: Tensor

    @property
    def flat(self) -> Tensor:
        """Bool [R]: the gradient is 0."""
        return self.way.flatten(1).eq(0).all(1)

    def select(self, rows: Tensor) -> Slope:
        """Return some rows (bool mask or int64 positions)."""
        return Slope(self.logits[rows], self.margin[rows], self.way[rows], self.finite[rows])


class Trail:
    """Asks the classifier about points of a batch `x` [B, ...] and keeps account; rows are positions in it."""

    def __init__(self, classifier: Classifier, x: Tensor, y: Tensor) -> None:
        """Start at the clean inputs, with labels `y`."""
        self._classifier, self.y = classifier, y
        self.points = x.clone()
        self.margin = torch.full((len(x),), torch.nan, dtype=x.dtype, device=x.device)
        self.settled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.passes = Passes(torch.zeros_like(y), torch.zeros_like(y))
        self._rank = torch.full_like(self.margin, torch.inf)

    def look(self, rows: Tensor, points: Tensor, keep: bool = True) -> Tensor:
        """Return the logits at `points` [R, ...]; with `keep` they may become the samples' best."""
        with torch.no_grad():
            logits = self._classifier.logits(points)
        self.passes.forwards[rows] += 1
        if keep:
            self._keep(rows, points, logits)
        return logits

    def climb(self, rows: Tensor, points: Tensor, keep: bool = True) -> Slope:
        """Return logits and gradient at `points` [R, ...]."""
        y = self.y[rows]
        logits, way = pull_back(self._classifier, points, lambda logits: cotangent("margin", logits, y))
        self.passes.forwards[rows] += 1
        self.passes.backwards[rows] += 1
        if keep:
            self._keep(rows, points, logits)
        finite = way.flatten(1).isfinite().all(1)
        return Slope(logits, margins(logits, y), way.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0), finite)

    def margins(self, rows: Tensor, logits: Tensor) -> Tensor:
        """Return the margins of `rows` at `logits` [R, C]."""
        return margins(logits, self.y[rows])

    def _keep(self, rows: Tensor, points: Tensor, logits: Tensor) -> None:
        margin = self.margins(rows, logits)
        rank = rank_of(margin)
        better = rank < self._rank[rows]
        self.points[rows] = torch.where(per_sample(better, points), points, self.points[rows])
        self.margin[rows] = torch.where(better, margin, self.margin[rows])
        self._rank[rows] = torch.where(better, rank, self._rank[rows])
        self.settled[rows] |= margin < -rounding(logits.abs().amax(1))


class Figures:
    """Health figures of a batch by code, float64 [B] each; NaN where nothing was measured."""

    def __init__(self, x: Tensor) -> None:
        """Start with none about `x` [B, ...]."""
        self._count, self._device = len(x), x.device
        self._columns: dict[str, Tensor] = {}

    def put(self, code: str, rows: Tensor, values: Tensor) -> None:
        """Note `values` [R] of `rows`."""
        self._column(code)[rows] = values.double()

    def least(self, code: str, rows: Tensor, values: Tensor) -> None:
        """Note `values` [R] where they are below what was noted before."""
        column = self._column(code)
        column[rows] = torch.fmin(column[rows], values.double())

    def of_samples(self) -> list[dict[str, float]]:
        """Return the figures of each sample that were measured and are finite, to six digits."""
        columns = {code: values.tolist() for code, values in self._columns.items()}
        return [
            {code: float(f"{values[row]:.6g}") for code, values in columns.items() if math.isfinite(values[row])}
            for row in range(self._count)
        ]

    def _column(self, code: str) -> Tensor:
        if code not in self._columns:
            self._columns[code] = torch.full((self._count,), torch.nan, dtype=torch.float64, device=self._device)
        return self._columns[code]
