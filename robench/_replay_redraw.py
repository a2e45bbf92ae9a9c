"""Fresh draws of a replay: of which rows, from which streams, and whether recorded counts can be of the same vote."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from robench.binomial import FALSE_ALARM, Integers, fisher_tails
from robench.streams import Stream

if TYPE_CHECKING:
    from robench.runs import Manifest

__all__ = ["ROUNDING", "Redraw", "key", "same_draws", "unlike"]

Row = dict[str, Any]

ROUNDING = 1e-9
"""A certificate derived again may fall this much (relative) below the recorded one: another order of summation."""


@dataclass(frozen=True)
class Redraw:
    """Up to `rows` rows of every evaluator are drawn anew under `seed`.

    Whoever knows the seed beforehand knows which rows are drawn, and which votes come out: it is to be fresh.
    """

    run: str
    rows: int
    seed: int

    def chosen(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows to draw anew, of those of one evaluator: random ones, whatever their order."""

        def place(row: Row) -> bytes:
            return hashlib.blake2b(f"{self.seed}\0{self.run}\0{key(row)!r}".encode()).digest()

        return heapq.nsmallest(self.rows, rows, key=place)

    def stream(self, like: Row, samples: Sequence[int], device: torch.device) -> Stream:
        """Return streams that no run had, for rows about `samples` with the evaluator, norm and ε of `like`."""
        name = f"replay of {self.run}: {like['evaluator']} in {like['norm']} at {like['eps']!r}"
        return Stream.for_samples(self.seed, name, samples, device)


def key(row: Row) -> tuple[Any, ...]:
    """Return what tells one row of a run from the others."""
    return row["sample"], row["evaluator"], row["norm"], row["eps"]


def same_draws(manifest: Manifest, device: torch.device) -> bool:
    """Whether `device` is of the kind that the run was measured on, so that equal streams give equal draws."""
    return manifest.environment.device.partition(" ")[0].partition(":")[0] == device.type


def unlike(recorded: Integers, drawn: Integers) -> int | None:
    """Return a class whose shares of two independent sets of votes [K] cannot be of one p; None where they can.

    Fisher's exact test, both sides of every class. Each tail is held against `FALSE_ALARM` / 2K, so that votes of one
    distribution differ at that rate, at most.
    """
    n, other = int(recorded.sum()), int(drawn.sum())
    tails = [
        min(fisher_tails(hits, n, hits_now, other))
        for hits, hits_now in zip(recorded.tolist(), drawn.tolist(), strict=True)
    ]
    least = min(range(len(tails)), key=tails.__getitem__)
    return least if tails[least] < FALSE_ALARM / (2 * len(tails)) else None
