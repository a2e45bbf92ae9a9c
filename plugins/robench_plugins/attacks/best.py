"""What many runs found together: the best point per sample, and the passes spent on it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robench import Passes, Proposal
from robench_plugins.attacks.search import Found, rank_of

__all__ = ["Best"]


@dataclass(frozen=True, eq=False)
class Best:
    """Per sample: the best point so far [B, ...] and where it comes from; updated in place, run by run."""

    points: Tensor
    margin: Tensor
    settled: Tensor
    restart: Tensor
    target: Tensor
    step: Tensor
    forwards: Tensor
    backwards: Tensor

    @classmethod
    def none(cls, x: Tensor) -> Best:
        """Return the state before the first run: the clean inputs `x` [B, ...]."""

        def column(value: float, dtype: torch.dtype) -> Tensor:
            return torch.full((len(x),), value, dtype=dtype, device=x.device)

        return cls(
            points=x.clone(),
            margin=column(torch.inf, x.dtype),
            settled=column(False, torch.bool),
            restart=column(0, torch.int64),
            target=column(-1, torch.int64),
            step=column(0, torch.int64),
            forwards=column(0, torch.int64),
            backwards=column(0, torch.int64),
        )

    def update(self, samples: Tensor, found: Found, restarts: Tensor, targets: Tensor) -> None:
        """Take in the rows that worked for `samples` [S]: `found` holds [runs * S] rows, run by run.

        `restarts` and `targets` (−1: untargeted) [runs * S] say what each row was. Of equal margins the first wins.
        """
        count = len(samples)
        rank = rank_of(found.margin).reshape(-1, count)
        winner = rank.argmin(0) * count + torch.arange(count, device=samples.device)
        better = rank_of(found.margin[winner]) < rank_of(self.margin[samples])
        rows, won = samples[better], winner[better]
        self.points[rows], self.margin[rows], self.step[rows] = found.points[won], found.margin[won], found.step[won]
        self.restart[rows], self.target[rows] = restarts[won], targets[won]
        self.settled[samples] |= found.settled.reshape(-1, count).any(0)
        self.forwards[samples] += found.forwards.reshape(-1, count).sum(0)
        self.backwards[samples] += found.backwards.reshape(-1, count).sum(0)

    def proposal(self) -> Proposal:
        """Return the points with their margins and origins as detail."""
        columns = (self.margin.tolist(), self.restart.tolist(), self.target.tolist(), self.step.tolist())
        detail = [
            {"margin": m if m == m else None, "restart": r, "target": t if t >= 0 else None, "step": s}
            for m, r, t, s in zip(*columns, strict=True)
        ]
        return Proposal(self.points, detail, Passes(self.forwards, self.backwards))
