"""What makes a point a witness: another class than the label, or a condition on the outputs that came with the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robench.classifier import margins
from robench.graph import Graph
from robench.numerics import gamma
from robench.regions import Condition, Region, about_labels

__all__ = ["Question", "condition_bounds", "condition_margins"]

_TINY = 2.0**-1000
"""Above what products that underflow may lose."""


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked about points of samples with labels `y` [B].

    `conditions` are None where each is that no class reaches the label's logit, as everywhere without regions.
    """

    y: Tensor
    conditions: Sequence[Condition] | None = None

    @classmethod
    def of(cls, y: Tensor, region: Region | None) -> Question:
        """Return the question that a batch's regions ask."""
        if region is None or about_labels(region.conditions, y.tolist()):
            return cls(y)
        return cls(y, region.conditions)

    def select(self, rows: Tensor) -> Question:
        """Return the question about some samples (int64 positions)."""
        some = None if self.conditions is None else [self.conditions[row] for row in rows.tolist()]
        return Question(self.y[rows], some)

    def margins(self, logits: Tensor) -> Tensor:
        """Return the margins [B], as computed: at most 0 where the point is a witness, NaN beside non-finite logits."""
        if self.conditions is None:
            return margins(logits, self.y).double()
        return condition_margins(logits, self.conditions)

    def bounds(self, graph: Graph, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return (lower, upper), float64 [B], around the margins at `points` in real arithmetic."""
        from robench.graph.intervals import logit_bounds, point_margins

        if self.conditions is None:
            return point_margins(graph, points, self.y)
        exact = points.detach().double()
        return condition_bounds(*logit_bounds(graph, exact, exact), self.conditions)

    def prediction(self, logits: Tensor, safe: Tensor) -> Tensor:
        """Return the classes [B] to name: the label where a point is `safe`, the best other one elsewhere."""
        if self.conditions is not None:
            return logits.argmax(1)
        other = logits.scatter(1, self.y[:, None], -torch.inf).argmax(1)
        return torch.where(safe, self.y, other)


def condition_margins(logits: Tensor, conditions: Sequence[Condition]) -> Tensor:
    """Return min over disjuncts of max over rows of rows @ f + offsets, float64 [B], for `logits` [B, outputs].

    At most 0 exactly where a disjunct holds, but for rounding. For `Condition.of_label` it is the margin
    f_y − max_{j≠y} f_j. NaN where a logit is not finite.
    """
    values = logits.detach().double().cpu().numpy()
    out = np.full(len(values), np.nan)
    for i, condition in enumerate(conditions):
        if np.isfinite(values[i]).all():
            out[i] = min(float((rows @ values[i] + offsets).max()) for rows, offsets in _strict(condition))
    return torch.from_numpy(out).to(logits.device)


def condition_bounds(lower: Tensor, upper: Tensor, conditions: Sequence[Condition]) -> tuple[Tensor, Tensor]:
    """Return (lower, upper), float64 [B], around the margins of all logits between `lower` and `upper` [B, outputs].

    Upper bounds are about `Condition.strict`, so that one at most 0 shows a witness; lower ones about `disjuncts`, so
    that one above 0 is a proof. With the error of the sums: γ_{n+2} (|rows| @ |f| + |offsets|).
    """
    low, high = lower.detach().cpu().numpy(), upper.detach().cpu().numpy()
    found = [_bounds(low[i], high[i], condition) for i, condition in enumerate(conditions)]
    both = torch.tensor(found, dtype=torch.float64, device=lower.device).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _bounds(low: np.ndarray, high: np.ndarray, condition: Condition) -> tuple[float, float]:
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return -math.inf, math.inf
    least = min(_side(low, high, *one, -1.0) for one in condition.disjuncts)
    return least, min(_side(low, high, *one, 1.0) for one in _strict(condition))


def _side(low: np.ndarray, high: np.ndarray, rows: np.ndarray, offsets: np.ndarray, sign: float) -> float:
    """Return the largest row's value, rounded up (`sign` 1, each at its largest) or down (−1, at its least)."""
    positive, negative = np.maximum(rows, 0.0), np.minimum(rows, 0.0)
    ends = (high, low) if sign > 0 else (low, high)
    with np.errstate(over="ignore", invalid="ignore"):
        values = positive @ ends[0] + negative @ ends[1] + offsets
        size = np.abs(rows) @ np.maximum(np.abs(low), np.abs(high)) + np.abs(offsets)
        error = 2 * gamma(2 * rows.shape[1] + 4) * size + _TINY
        moved = np.nextafter(values + sign * error, sign * math.inf)
    return float(moved.max()) if np.isfinite(moved).all() else sign * math.inf


def _strict(condition: Condition) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    return condition.disjuncts if condition.strict is None else condition.strict
