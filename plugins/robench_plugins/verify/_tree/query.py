"""What must be shown about the outputs: linear forms of which enough must stay above 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robench.regions import Condition
from robench.threat import Threat
from robench_plugins.verify._engine.backward import Rows
from robench_plugins.verify._engine.owners import Owners

__all__ = ["Query", "query_of"]


@dataclass(frozen=True, eq=False)
class Query:
    """A set is safe if for every unsafe disjunct one of its rows stays above 0 everywhere (on each piece, any one).

    Attributes:
        rows: float64 [B, S, outputs].
        offsets: float64 [B, S].
        disjunct: the disjunct of each row, int64 [B, S]; −1 where a sample has fewer rows.
    """

    rows: Tensor
    offsets: Tensor
    disjunct: Tensor

    def select(self, index: Tensor) -> Query:
        """Return the samples at `index` [N]."""
        return Query(self.rows[index], self.offsets[index], self.disjunct[index])

    def unsettled(self, proven: Tensor) -> Tensor:
        """Return the rows [B, S] of disjuncts of which no row is `proven` [B, S]."""
        valid = self.disjunct >= 0
        settled = torch.zeros_like(proven, dtype=torch.int64)
        settled = settled.scatter_reduce(1, self.disjunct.clamp_min(0), (proven & valid).long(), "amax")
        return valid & (settled.gather(1, self.disjunct.clamp_min(0)) == 0)

    def ask(self, at: int, sample: Tensor, row: Tensor) -> Rows:
        """Return rows `row` [R] of samples `sample` [R] at step `at`, owned by 0 … R − 1."""
        owners = Owners(torch.arange(len(sample), device=sample.device), 1)
        return Rows(at, owners, self.rows[sample, row], constant=self.offsets[sample, row])

    def margins(self, outputs: Tensor, sample: Tensor) -> Tensor:
        """Return, for outputs [P, outputs] at points of samples [P], a number that is ≤ 0 where they are unsafe."""
        values = (self.rows[sample].to(outputs) @ outputs[:, :, None])[:, :, 0] + self.offsets[sample].to(outputs)
        return self.select(sample).worst(values)

    def worst(self, values: Tensor) -> Tensor:
        """Return the least over the disjuncts of the greatest of their rows' `values` [B, S], [B]."""
        index, valid = self.disjunct.clamp_min(0), self.disjunct >= 0
        best = torch.full_like(values, -torch.inf)
        best = best.scatter_reduce(1, index, torch.where(valid, values, -torch.inf), "amax")
        there = torch.zeros_like(index).scatter_reduce(1, index, valid.long(), "amax") > 0
        return torch.where(there, best, torch.inf).amin(1)


def query_of(y: Tensor, classes: int, threat: Threat) -> Query:
    """Return what `threat` asks about samples with labels `y` [B]: that no class reaches the label's logit, or the
    conditions that came with the data.
    """  # noqa: D205
    if threat.region is not None:
        conditions: Sequence[Condition] = threat.region.conditions
    else:
        conditions = [Condition.of_label(label, classes) for label in y.tolist()]
    most = max((sum(len(offsets) for _, offsets in one.disjuncts) for one in conditions), default=1)
    rows = np.zeros((len(conditions), most, classes))
    offsets, disjunct = np.zeros((len(conditions), most)), np.full((len(conditions), most), -1)
    for sample, condition in enumerate(conditions):
        at = 0
        for number, (matrix, constants) in enumerate(condition.disjuncts):
            stop = at + len(constants)
            rows[sample, at:stop], offsets[sample, at:stop], disjunct[sample, at:stop] = matrix, constants, number
            at = stop
    return Query(*(torch.from_numpy(one).to(y.device) for one in (rows, offsets, disjunct.astype(np.int64))))
