"""What deciding a sign gains, learned from the pieces where it was decided: pseudo-costs.

As in mixed-integer programming (Benichou et al. 1971; Achterberg, Koch & Martin 2005): both sides' gains multiplied,
started by trying every sign at the root.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robench_plugins.verify._tree.pool import Pool

__all__ = ["Gains"]

SPAN = 8
"""Observations after which the mean forgets the oldest ones."""
LEAST = 0.01
"""Share that every side is credited with, so that a sign with one good side still counts."""


class Gains:
    """The mean gain of both sides of each sign, as a share of what the split pieces lacked: 0 … 1."""

    def __init__(self, samples: int, columns: int, device: torch.device) -> None:
        """Start with nothing known about `columns` signs of each sample."""
        self.mean = torch.zeros(samples, columns, 2, device=device)
        self.count = torch.zeros(samples, columns, 2, device=device)

    def learn(self, children: Pool, bound: Tensor | None) -> None:
        """Note the least bounds [N] of pieces with the sign they decided last; None: they are empty, all was gained."""
        if bound is None:
            share = torch.ones(len(children), device=children.low.device)
        else:
            share = (bound.clamp_max(0) - children.before) / -children.before
            share = share.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).clamp(0, 1)
        down = children.sign.gather(1, children.column[:, None])[:, 0] < 0
        noted = (children.sample, children.column, down, share)
        for sample, at, down, gained in zip(*(one.tolist() for one in noted), strict=True):
            count = min(float(self.count[sample, at, int(down)]) + 1, SPAN)
            self.mean[sample, at, int(down)] += (gained - self.mean[sample, at, int(down)]) / count
            self.count[sample, at, int(down)] = count

    def score(self, sample: Tensor) -> Tensor:
        """Return how good each column is to decide for the pieces of samples `sample` [N], [N, U]."""
        return (self.mean[sample] + LEAST).prod(2)
