"""Attacks that skip what is certified (`--trust-certificates`): on which samples they run nonetheless."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from robench.audit import audited

__all__ = ["Trust"]


class Trust:
    """The certificates of one chunk and their audit.

    A sample is audited by a draw of its own (`robench.audit.audited`); so is the first one of the run that is certified
    within the smallest budget, so that some certificate is always checked. Neither depends on batches.
    """

    def __init__(
        self, seed: int, share: float, indices: Sequence[int], lower: Mapping[str, Tensor], *, before: bool
    ) -> None:
        """Take the original `indices` [B] and what certifiers will have proven, `lower`: float64 [B] by certifier.

        `before` says that a sample before this chunk was certified.
        """
        self._drawn = torch.from_numpy(audited(seed, share, indices))
        self._lower, self._before = lower, before

    def certified(self, budget: float | Tensor) -> Tensor:
        """Return which samples a deterministic certifier proved within `budget`, bool [B]."""
        out = torch.zeros(len(self._drawn), dtype=torch.bool)
        for radius in self._lower.values():
            out = out.to(radius.device) | (radius >= budget)
        return out

    def skipped(self, budget: float | Tensor, least: float | Tensor) -> Tensor:
        """Return which samples attacks within `budget` need not search, bool [B]; `least` is the run's smallest one."""
        spared = self.certified(budget)
        checked = self._drawn.to(spared.device)
        if not self._before:
            first = self.certified(least).nonzero()[:1, 0]
            checked = checked.index_fill(0, first, True)
        return spared & ~checked
