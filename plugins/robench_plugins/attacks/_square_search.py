"""The random search of the Square Attack (Andriushchenko et al. 2020, Algorithm 1) over the rows of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from robench.classifier import Classifier
from robench_plugins.attacks._square_moves import Move, Moves
from robench_plugins.attacks._square_windows import Streams
from robench_plugins.attacks.gradients import rounding
from robench_plugins.attacks.search import Found

__all__ = ["search"]

_BLOCK = 64
"""Steps whose random numbers are drawn together, once few samples still fall."""


@dataclass(eq=False)
class _Rows:
    """The rows still in the batch; every field has one entry per row, `margin` and `step` being columns.

    `margin` is the point's, in double precision, +inf where it is not known; `step` is when it came to be.
    """

    id: Tensor
    owner: Tensor
    y: Tensor
    point: Tensor
    margin: Tensor
    step: Tensor
    settled: Tensor

    def select(self, rows: Tensor) -> _Rows:
        picked: dict[str, Any] = {item.name: getattr(self, item.name)[rows] for item in fields(self)}
        return _Rows(**picked)


@dataclass(frozen=True, eq=False)
class _Try:
    """A step as it was made: what it changed, and the margins seen."""

    step: int
    move: Move
    margin: Tensor


def search(
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    owner: Tensor,
    moves: Moves,
    streams: Streams,
    portions: Sequence[float],
) -> Found:
    """Propose, ask, keep what lowers the margin f_y − max_{j≠y} f_j; return the best point of every row of `x`.

    `owner` [R] says which sample a row works for: all rows of a sample leave as soon as one has broken it. `portions`
    are the shares p of the pixels that the steps change; a row takes one query to start and one for each of them.

    The points are written in place, one window per step. Rows leave after each of the first 16 queries, then after
    every fourth, after 64 every eighth: by number alone, so that the fate of a sample does not depend on the others,
    and seldom, as an accelerator must be waited for. Logits that are not finite are never kept; the first such point is
    returned, its margin NaN, where only correct ones were found besides (see `rank_of`).
    """
    walk = _Walk(classifier, x, y, owner, moves, streams)
    if not len(x):
        return walk.found
    with torch.no_grad():
        if not walk.begin(x):
            return walk.found
        for block in _blocks(len(portions)):
            walk.load([moves.size(portions[number]) for number in block])
            for position, number in enumerate(block):
                if _looks(number + 1) and not walk.compact(number + 1):
                    return walk.found
                walk.step(position, number + 1)
            if not walk.compact(block.stop + 1, walk.spent(block.start + 1)):
                return walk.found
        walk.write(walk.rows, len(portions) + 1)
    return walk.found


class _Walk:
    """The state of a search: rows that leave, and what they found."""

    def __init__(
        self, classifier: Classifier, x: Tensor, y: Tensor, owner: Tensor, moves: Moves, streams: Streams
    ) -> None:
        self.classifier, self.moves, self.streams, self.shape = classifier, moves, streams, x.shape[1:]
        self.samples = int(owner.max()) + 1 if len(x) else 0
        zero, nothing = torch.zeros_like(y), torch.full((len(x), 1), torch.inf, dtype=torch.float64, device=x.device)
        self.rows = _Rows(
            id=torch.arange(len(x), device=x.device),
            owner=owner,
            y=y[:, None],
            point=moves.start(streams),
            margin=nothing,
            step=zero[:, None],
            settled=zero > 0,
        )
        margin = nothing[:, 0].to(x.dtype)
        self.found = Found(x.clone(), margin, zero.clone(), zero > 0, zero.clone(), zero.clone())
        self.log: list[_Try] = []
        # Where logits were not finite: when first (−1: never), and at which point.
        self.odd_step = torch.full_like(zero, -1)
        self.odd: Tensor | None = None

    def begin(self, x: Tensor) -> bool:
        """Ask about the starting points of the rows, whose samples are `x`; returns whether any row needs more."""
        rows = self.rows
        margin = self._ask()
        rows.margin, odd = torch.fmin(margin, rows.margin), margin[:, 0].isnan()
        if bool(odd.any()):
            self._note(odd.nonzero()[:, 0], rows.point[odd], 0)
            # Much of the region may be no better: begin at the sample itself, which is correct.
            rows.point[odd] = x.flatten(1)[odd]
        return self.compact(1)

    def load(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Draw the random numbers of the next steps."""
        uniform = self.streams.uniform((len(sizes), self.moves.draws)).transpose(0, 1).contiguous()
        self.moves.load(uniform, sizes, self.rows.point)

    def step(self, position: int, step: int) -> None:
        """Make one proposal per row and keep it where it lowers the margin."""
        rows = self.rows
        move = self.moves.propose(position, rows.point)
        move.make(rows.point)
        margin = self._ask()
        better = margin < rows.margin
        move.keep(rows.point, better)
        self.moves.accept(better)
        rows.margin, rows.step = torch.fmin(rows.margin, margin), rows.step.masked_fill(better, step)
        self.log.append(_Try(step, move, margin))

    def spent(self, first: int) -> Tensor | None:
        """Return the rows that no further step can improve; the last block began with step number `first`."""
        return self.moves.spent(first, self.rows.step, self.rows.point)

    def compact(self, queries: int, spent: Tensor | None = None) -> bool:
        """Let the rows go that need no more queries, or are `spent`; returns whether any are left."""
        rows, odd = self.rows, self._odd()
        # The scale of the last logits stands for that of the best: only the unit of rounding is wanted.
        scale = self.logits.abs().amax(1)
        rows.settled = rows.margin[:, 0] < -rounding(scale)
        stays = ~rows.settled
        if self.samples < len(self.found.step):
            broken = torch.zeros(self.samples, dtype=torch.int64, device=rows.id.device)
            stays = broken.index_add_(0, rows.owner, rows.settled.long())[rows.owner] == 0
        stays = stays if spent is None else stays & ~spent
        left, strange = torch.stack([stays.sum(), odd.sum()]).tolist()
        if strange:
            self._recover(odd)
        self.log.clear()
        if left < len(stays):
            self.write(rows.select(~stays), queries)
            self.rows, self.streams = rows.select(stays), self.streams.select(stays)
            self.moves.select(stays)
        return bool(left)

    def _ask(self) -> Tensor:
        """Return the margins [R, 1], NaN where the logits are not finite."""
        rows = self.rows
        self.logits = logits = self.classifier.logits(rows.point.view(-1, *self.shape))
        rival = logits.scatter(1, rows.y, -torch.inf).amax(1, keepdim=True)
        # 0 · ∞ and 0 · NaN are NaN; a double holds any sum of floats.
        total = logits.sum(1, keepdim=True, dtype=torch.float64)
        return torch.add(logits.gather(1, rows.y) - rival, total, alpha=0)

    def _odd(self) -> Tensor:
        """Return which rows met logits that are not finite since the last time, for the first time."""
        if not self.log:
            return torch.zeros_like(self.rows.settled)
        seen = torch.cat([one.margin for one in self.log], 1)
        return seen.isnan().any(1) & (self.odd_step[self.rows.id] < 0)

    def _recover(self, odd: Tensor) -> None:
        """Go back over the logged steps of the `odd` rows, to the first proposal whose logits are not finite."""
        places = odd.nonzero()[:, 0]
        after = self.rows.point[places]
        for one in reversed(self.log):
            after, proposed = one.move.before(after, places)
            hit = one.margin[places, 0].isnan()
            self._note(places[hit], proposed[hit], one.step)

    def _note(self, places: Tensor, points: Tensor, step: int) -> None:
        if self.odd is None:
            self.odd = torch.zeros_like(self.found.points).flatten(1)
        ids = self.rows.id[places]
        self.odd[ids], self.odd_step[ids] = points, step

    def write(self, rows: _Rows, queries: int) -> None:
        """Write down what `rows` found, after as many queries."""
        found, ids = self.found, rows.id
        points, margin, step = rows.point, rows.margin[:, 0].to(found.margin.dtype), rows.step[:, 0]
        if self.odd is not None:
            odd = (self.odd_step[ids] >= 0) & (margin > 0)
            points = torch.where(odd[:, None], self.odd[ids], points)
            margin, step = torch.where(odd, torch.nan, margin), torch.where(odd, self.odd_step[ids], step)
        found.points[ids] = points.reshape(-1, *self.shape)
        found.margin[ids], found.step[ids], found.settled[ids] = margin, step, rows.settled
        found.forwards[ids] = queries


def _looks(queries: int) -> bool:
    """Return whether rows leave after so many queries; they also do after the first one and at the end of a block."""
    return 1 < queries <= 16 or queries % (4 if queries <= 64 else 8) == 0


def _blocks(steps: int) -> Iterator[range]:
    """Yield the numbers of the steps whose random numbers are drawn together: few at first, as many rows leave."""
    first, size = 0, 16
    while first < steps:
        yield range(first, min(first + size, steps))
        first, size = first + size, _BLOCK
