"""The search: pieces of several samples in one batch, worst first, until nothing is open or time runs out."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from robench_plugins.verify._memory import out_of_memory
from robench_plugins.verify._tree.attack import Refuter
from robench_plugins.verify._tree.pool import Pool
from robench_plugins.verify._tree.signs import Signs

__all__ = ["MEMORY", "SPACE", "TIME", "Clock", "Ended", "crowded", "search", "worst"]

MEMORY = 2**31
"""Bytes that the open pieces of a group may take."""
TIME = "time is over"
SPACE = "the open pieces take too much memory"
TIGHT = "a piece without open signs is not proven: its margin is 0 up to rounding, or no bound by itself is enough"
"""Why a search stops without an answer."""
ROUND_SHARE = 0.1
"""Share of the time left that one round may take."""
POLISHED = 8
"""Points of a round that are descended from, and for how many steps."""


class Clock:
    """Seconds left per sample; a round's time is shared by the samples in it."""

    def __init__(self, seconds: Tensor) -> None:
        """Start with `seconds` [B] each."""
        self.left = seconds.clone()

    def charge(self, sample: Tensor, seconds: float) -> None:
        """Charge `seconds` to the pieces' samples [P]."""
        if len(sample):
            share = torch.full((len(sample),), seconds / len(sample), dtype=torch.float64)
            self.left.scatter_add_(0, sample.cpu(), -share)

    def select(self, samples: Tensor) -> Clock:
        """Return a clock of the samples at `samples` [N]."""
        return Clock(self.left[samples.cpu()])

    def over(self) -> Tensor:
        """Bool [B]: whose time is over."""
        return self.left <= 0


@dataclass(eq=False)
class Ended:
    """How the search of each sample [B] ended.

    Attributes:
        proven: bool; every piece was proven.
        reason: why it stopped without an answer, None where it has one.
        nodes: pieces bounded, int64.
        gap: the least bound among the open pieces, 0 where proven.
        depth: most signs decided, int64.
    """

    proven: Tensor
    reason: list[str | None]
    nodes: Tensor
    gap: Tensor
    depth: Tensor

    @classmethod
    def of(cls, samples: int, device: torch.device) -> Ended:
        """Start with nothing known about `samples`."""
        counts = torch.zeros(samples, dtype=torch.int64, device=device)
        gap = torch.zeros(samples, dtype=torch.float64, device=device)
        proven = torch.zeros(samples, dtype=torch.bool, device=device)
        return cls(proven, [None] * samples, counts, gap, counts.clone())

    def left(self, sample: Tensor, bound: Tensor, reason: str) -> None:
        """Note that pieces of samples [P] with bounds [P] stay open."""
        self.gap = self.gap.scatter_reduce(0, sample, bound.double(), "amin")
        for one in sorted(set(sample.tolist())):
            self.reason[one] = reason

    def settled(self, found: Tensor) -> Ended:
        """Call proven what ended without a reason and without a point that refutes it; the search is over."""
        free = torch.tensor([reason is None for reason in self.reason], dtype=torch.bool, device=found.device)
        self.proven = free & ~found
        return self


def search(tree: Signs, roots: Pool, refuter: Refuter, clock: Clock, batch: int) -> Ended:
    """Split and bound until every sample is proven, refuted or out of time; `batch` pieces are bounded at once."""
    samples = len(tree.root.region)
    device = roots.sample.device
    ended = Ended.of(samples, device)
    start, most = time.perf_counter(), max(1, batch // 2)
    pool = _branching(tree, roots, refuter, ended, clock)
    clock.charge(roots.sample, time.perf_counter() - start)
    while len(pool):
        start = time.perf_counter()
        pool = _dropped(pool, refuter.found, ended, None)
        late = clock.over().to(device) & ~refuter.found
        pool = _dropped(pool, late, ended, TIME)
        if len(pool) * max(1, pool.bytes_each) > MEMORY:
            pool = _dropped(pool, crowded(pool.sample, samples), ended, SPACE)
        if not len(pool):
            break
        chosen = worst(pool, most)
        rest = torch.ones(len(pool), dtype=torch.bool, device=device)
        rest[chosen] = False
        taken, pool = pool.take(chosen), pool.take(rest)
        try:
            left = _round(tree, taken, refuter, ended, clock)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            batch, left = len(taken), taken
            if batch == 1:
                ended.left(taken.sample, taken.bound.amin(1), SPACE)
                alone = torch.zeros(samples, dtype=torch.bool, device=device)
                alone[taken.sample] = True
                pool, left = _dropped(pool, alone, ended, SPACE), taken.take(chosen[:0])
        pool = Pool.join([pool, left])
        spent = time.perf_counter() - start
        clock.charge(taken.sample, spent)
        # No round may take much of the time that is left.
        fitting = float(clock.left.max()) * ROUND_SHARE * len(taken) / spent
        most = max(1, min(batch // 2, 2 * len(taken), int(fitting)))
    return ended.settled(refuter.found)


def _round(tree: Signs, taken: Pool, refuter: Refuter, ended: Ended, clock: Clock) -> Pool:
    """Split pieces and return what stays open; whatever it raises leaves `taken` as it was."""
    outcome = tree.round(taken)
    if len(outcome.points):
        refuter.consider(outcome.points, outcome.sample)
        lowest = outcome.open.bound.amin(1).argsort()[:POLISHED]
        refuter.descend(outcome.points[lowest], outcome.sample[lowest], POLISHED)
    left = outcome.open
    depth = ended.depth.scatter_reduce(0, outcome.sample, left.depth, "amax")
    left = _branching(tree, left, refuter, ended, clock)
    ended.nodes += torch.bincount(taken.sample, minlength=len(ended.nodes)) * 2
    ended.depth = depth
    return left


def _branching(tree: Signs, pieces: Pool, refuter: Refuter, ended: Ended, clock: Clock) -> Pool:
    """Return the pieces that have an open sign, and settle the others."""
    decided = ~pieces.free.any(1)
    if bool(decided.any()):
        _leaves(tree, pieces.take(decided), refuter, ended, clock)
        pieces = pieces.take(~decided)
    return pieces


def _leaves(tree: Signs, leaves: Pool, refuter: Refuter, ended: Ended, clock: Clock) -> None:
    """Settle pieces whose signs are all decided: their bounds are exact but for the optimiser's patience."""
    start, rest = time.perf_counter(), max(0.0, float(clock.left[leaves.sample.cpu()].max()))
    outcome = tree.finish(leaves, rest)
    refuter.consider(outcome.points, outcome.sample)
    left = outcome.open.take(~refuter.found[outcome.open.sample])
    if len(left):
        ended.left(left.sample, left.bound.amin(1), TIME if time.perf_counter() - start >= rest else TIGHT)


def worst(pool: Pool, count: int) -> Tensor:
    """Return the positions of the pieces with the least bounds, samples taking turns."""
    order = pool.bound.amin(1).argsort(stable=True)
    sample = pool.sample[order]
    by_sample = sample.argsort(stable=True)
    counts = torch.bincount(sample)
    firsts = counts.cumsum(0) - counts
    turn = torch.empty_like(sample)
    turn[by_sample] = torch.arange(len(sample), device=sample.device) - firsts[sample[by_sample]]
    return order[turn.argsort(stable=True)[:count]]


def crowded(sample: Tensor, samples: int) -> Tensor:
    """Return which of the `samples` has most of the pieces, whose samples are `sample` [N]; bool [samples]."""
    full = torch.zeros(samples, dtype=torch.bool, device=sample.device)
    full[torch.bincount(sample, minlength=samples).argmax()] = True
    return full


def _dropped(pool: Pool, samples: Tensor, ended: Ended, reason: str | None) -> Pool:
    """Take the pieces of `samples` bool [B] out; with a `reason`, note it and the gap that they leave."""
    gone = samples[pool.sample]
    if reason is not None and bool(gone.any()):
        out = pool.take(gone)
        ended.left(out.sample, out.bound.amin(1), reason)
    return pool.take(~gone)
