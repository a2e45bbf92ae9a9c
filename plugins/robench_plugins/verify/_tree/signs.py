"""One round of branch and bound over ReLU signs (Bunel et al. 2020), bounded with split multipliers (Wang et al. 2021).

A piece is a set of inputs on which some ReLUs have a decided sign. All unsafe disjuncts of a sample share one tree.
Each round takes pieces, decides more signs, proves tighter bounds of the ReLUs behind them, raises the bounds of the
open rows, and drops what float64 proves, rounding included. What is dropped as empty has crossed proven bounds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robench_plugins.verify._engine.backward import Rows, Split, lower_bounds
from robench_plugins.verify._engine.bounds import Bounded, tightened
from robench_plugins.verify._engine.bounds import pieces as pieces_of
from robench_plugins.verify._engine.owners import Owners
from robench_plugins.verify._engine.relax import Lines, relax
from robench_plugins.verify._engine.slopes import Chosen, Decided, Schedule, optimise
from robench_plugins.verify._leaves import closed
from robench_plugins.verify._tree.gains import Gains
from robench_plugins.verify._tree.pool import Columns, Pool
from robench_plugins.verify._tree.query import Query

__all__ = ["Outcome", "Signs"]

TIE = 0.01
"""Weight of coefficients that meet the line below, which is exact at the optimum: they decide between equals."""
LOCAL = 5.0
"""How much more a sign counts whose gap at the piece's own minimiser costs most."""
REHEARSED = 32
"""Splits of a root that are tried in one batch, at most."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a round left: pieces still open, and points [P, ...] of samples [P] that its bounds point to."""

    open: Pool
    points: Tensor
    sample: Tensor


@dataclass(frozen=True, eq=False)
class Signs:
    """The tree's fixed part: bounds at the roots, the query, and how hard to try.

    Attributes:
        root: proven bounds of the group's samples [B].
        query: of the same samples.
        columns: the neurons that may be split.
        schedule: the optimiser's, per round.
        gains: what deciding signs gained so far; None: signs are ranked by what they cost each piece alone.
        again: whether ReLUs behind a decided one are bounded again in every piece.
    """

    root: Bounded
    query: Query
    columns: Columns
    schedule: Schedule
    gains: Gains | None
    again: bool = True

    def roots(self, open_: Tensor, chosen: Mapping[int, Tensor], bound: Tensor) -> Pool:
        """Return one piece per sample [B] with its open rows [B, S]; `chosen` are slopes [B · S, ...] to start from."""
        samples, rows, columns = len(open_), self.query.rows.shape[1], len(self.columns)
        device = self.root.region.lower.device
        low, high = (torch.empty(samples, columns, dtype=torch.float64, device=device) for _ in range(2))
        slopes = torch.zeros(samples, rows, columns, device=device)
        for position, span in self.columns.spans.items():
            units = self.columns.units[position]
            low[:, span], high[:, span] = (side.flatten(1)[:, units] for side in self.root.inputs[position])
            slopes[:, :, span] = chosen[position].flatten(1)[:, units].reshape(samples, rows, len(units)).float()
        sign = torch.zeros(samples, columns, dtype=torch.int8, device=device)
        return Pool(
            torch.arange(samples, device=device),
            low,
            high,
            sign,
            open_,
            slopes,
            torch.zeros_like(slopes),
            torch.where(open_, bound.float(), torch.inf),
            torch.full((samples,), -1, dtype=torch.int64, device=device),
            torch.full((samples,), -torch.inf, device=device),
        )

    @torch.no_grad()
    def rehearse(self, roots: Pool, most: int, seconds: float) -> None:
        """Learn what deciding each sign gains at the roots, for the `most` promising ones of each while time lasts."""
        deadline = time.perf_counter() + seconds
        if not len(roots) or not len(self.columns):
            return
        order = self._ranked(roots, most, True)
        owner, place = (order >= 0).nonzero(as_tuple=True)
        column = order[owner, place]
        at, size = 0, 1
        while at < len(owner) and (start := time.perf_counter()) < deadline:
            part = slice(at, at + size)
            self._settle(self._children(roots.take(owner[part]), column[part]))
            at, now = at + size, time.perf_counter()
            size = max(1, min(REHEARSED, 2 * size, int((deadline - now) * size / (now - start))))

    @torch.no_grad()
    def round(self, pieces: Pool) -> Outcome:
        """Decide one sign of every piece, bound the children and return those that stay open.

        Raises ValueError for a piece without open signs: it has no children, and nothing is proven about it.
        """
        column = self._ranked(pieces, 1)[:, 0]
        if bool((column < 0).any()):
            raise ValueError("a piece without open signs cannot be split")
        return self._settle(self._children(pieces, column))

    def _children(self, pieces: Pool, column: Tensor) -> Pool:
        """Return two children of each piece, which decide `column` [N]."""
        every = torch.arange(len(column), device=column.device)
        sides = []
        for sign in (1, -1):
            child = pieces.take(every)
            child.before = child.bound.amin(1)
            child.sign[every, column] = sign
            child.column = column
            if sign > 0:
                child.low[every, column] = child.low[every, column].clamp_min(0)
            else:
                child.high[every, column] = child.high[every, column].clamp_max(0)
            sides.append(child)
        return Pool.join(sides)

    def _settle(self, children: Pool) -> Outcome:
        known = self._known(children)
        if self.again:
            known = self._tighten(children, known)
        empty = (children.low > children.high).any(1)
        if bool(empty.any()):
            self._learn(children.take(empty), None)
            children = children.take(~empty)
            known = self._known(children)
        if not len(children):
            none = children.low.new_zeros(0, *self.root.program.steps[0].shape)
            return Outcome(children, none, children.sample)
        return self._bound(children, known)

    @torch.no_grad()
    def finish(self, leaves: Pool, seconds: float) -> Outcome:
        """Return which of `leaves`, pieces without open signs, stay open after linear programs or a long climb.

        On a leaf the network is affine: the program's optimum is the exact least margin, its point the worst input.
        In l2 the climb's limit is. Programs that `seconds` are too short for stay open.
        """
        known = self._known(leaves)
        if self.root.region.norm == "l2" and self.root.region.eps is not None:
            patient = replace(self, schedule=Schedule(steps=20 * max(10, self.schedule.steps)), gains=None)
            return patient._bound(leaves, known)
        owner, row = leaves.open.nonzero(as_tuple=True)
        rows = replace(self.query.ask(known.program.last, leaves.sample[owner], row), owners=Owners(owner))
        signs = {}
        for position, span in self.columns.spans.items():
            flat = torch.zeros_like(known.inputs[position][0].flatten(1), dtype=torch.int8)
            flat[:, self.columns.units[position]] = leaves.sign[:, span]
            signs[position] = flat.reshape(known.inputs[position][0].shape)
        found = closed(self._apart(known, leaves), signs, rows, seconds=seconds)
        proven = torch.zeros_like(leaves.open)
        proven[owner, row] = found.bound > 0
        leaves.bound[owner, row] = found.bound.float()
        leaves.open = self.query.select(leaves.sample).unsettled(~leaves.open | proven) & leaves.open
        fine = found.points.flatten(1).isfinite().all(1)
        return Outcome(leaves.take(leaves.open.any(1)), found.points[fine], leaves.sample[owner[fine]])

    # -------------------------------------------------------------------------------------------------- pieces

    def _known(self, pieces: Pool) -> Bounded:
        """Return what is proven on each piece, as a network over one region per piece."""
        root, sample = self.root, pieces.sample
        inputs = {}
        for position, (low, high) in root.inputs.items():
            sides = []
            for side, own in ((low, pieces.low), (high, pieces.high)):
                flat = side[sample].flatten(1)
                flat[:, self.columns.units[position]] = own[:, self.columns.spans[position]]
                sides.append(flat.reshape(len(pieces), *side.shape[1:]))
            inputs[position] = (sides[0], sides[1])
        lines = {position: relax("relu", *sides) for position, sides in inputs.items()}
        errors = root.errors.at(sample)
        return Bounded(root.program, root.region.at(sample), (), errors, inputs, lines, root.kept)

    def _apart(self, known: Bounded, pieces: Pool) -> Bounded:
        """Return the same with a region for each piece."""
        region, errors = self.root.region.select(pieces.sample), self.root.errors.select(pieces.sample)
        return replace(known, region=region, errors=errors)

    def _tighten(self, children: Pool, known: Bounded) -> Bounded:
        """Bound again what lies behind the sign that each piece decided last, in place."""
        decided = self.columns.activation[children.column]
        for position, span in self.columns.spans.items():
            units, behind = self.columns.units[position], decided < position
            if not len(units) or not bool(behind.any()):
                continue
            low, high = tightened(known, position, None, behind, children.sample)
            children.low[:, span] = low.flatten(1)[:, units]
            children.high[:, span] = high.flatten(1)[:, units]
            known.inputs[position] = (low, high)
            known.lines[position] = relax("relu", low, high)
        return known

    # ----------------------------------------------------------------------------------------------- branching

    def _ranked(self, pieces: Pool, count: int, first: bool = False) -> Tensor:
        """Return the columns to split, the best first, int64 [N, count]; −1 where no sign is open.

        What deciding a sign gained elsewhere in the tree (`gains`), and more so where it costs this piece: the gap of
        the line above times the worst row's coefficient (BaBSR, Bunel et al. 2020). `first`: no gains are known yet.
        """
        program, region, lines = self._known(pieces).search()
        every, row = torch.arange(len(pieces), device=pieces.sample.device), pieces.bound.argmin(1)
        slopes, decided = self._started(pieces, lines, every, row)
        pushed = {position: one.split for position, one in decided.items()}
        rows = self.query.ask(program.last, pieces.sample, row).to(torch.float32)
        seen: dict[int, Tensor] = {}
        lower_bounds(program, region, lines, rows, slopes=slopes, splits=pushed, seen=seen)
        score = torch.zeros(len(pieces), len(self.columns), device=row.device)
        for position, span in self.columns.spans.items():
            if position not in seen:
                continue
            units, line = self.columns.units[position], lines[position]
            coefficient, gap = seen[position].flatten(1)[:, units], line.upper_shift.flatten(1)[:, units]
            score[:, span] = gap * (-coefficient.clamp_max(0) + TIE * coefficient.abs())
        score = score.nan_to_num(nan=0.0, posinf=1e30)
        score = score / score.amax(1, keepdim=True).clamp_min(1e-30)
        if self.gains is not None and not first:
            score = self.gains.score(pieces.sample) * (1 + LOCAL * score)
        score = torch.where(pieces.free, score, -torch.inf)
        value, order = score.topk(min(count, score.shape[1]), 1)
        order = torch.where(value == -torch.inf, -1, order)
        return torch.nn.functional.pad(order, (0, count - order.shape[1]), value=-1)

    def _learn(self, children: Pool, bound: Tensor | None) -> None:
        if self.gains is not None:
            self.gains.learn(children, bound)

    # ------------------------------------------------------------------------------------------------ bounding

    def _started(
        self, pieces: Pool, lines: Lines, owner: Tensor, row: Tensor, anew: bool = False
    ) -> tuple[dict[int, Tensor], dict[int, Decided]]:
        """Return slopes and split constraints of rows `row` [R] of pieces `owner` [R], from where they were left.

        `anew`: the pieces are new, and the sign decided last has no multiplier yet.
        """
        slopes, splits = {}, {}
        for position, span in self.columns.spans.items():
            units, line = self.columns.units[position], lines[position]
            slope = line.lower_slope.flatten(1)[owner]
            unstable = line.unstable.flatten(1)[owner][:, units]
            slope[:, units] = torch.where(unstable, pieces.slopes[owner, row, span], slope[:, units])
            slopes[position] = slope.reshape(len(owner), *line.lower_slope.shape[1:])
            sign = pieces.sign[:, span]
            decided = (sign != 0).any(0).nonzero()[:, 0]
            if len(decided):
                push = pieces.push[owner, row, span][:, decided]
                own = sign[owner][:, decided].to(push)
                fresh = anew & (decided + span.start == pieces.column[owner, None])
                before = torch.where(fresh, pieces.slopes[owner, row, span][:, decided], torch.nan)
                splits[position] = Decided(units[decided].expand(len(owner), -1), own, push, before)
        return slopes, splits

    def _bound(self, pieces: Pool, known: Bounded) -> Outcome:
        """Raise the bounds of all open rows, drop what float64 proves, and say where the bounds are met."""
        owner, row = pieces.open.nonzero(as_tuple=True)
        program, region, lines = known.search()
        slopes, decided = self._started(pieces, lines, owner, row, anew=True)
        rows = self.query.ask(program.last, pieces.sample[owner], row)
        own = Owners(owner)
        asked = replace(rows, owners=own).to(torch.float32)
        chosen = optimise(
            program, region, lines, asked, schedule=self.schedule, slopes=slopes, decided=decided, enough=0.0
        )
        bound = chosen.bound.double()
        won = (bound > 0).nonzero()[:, 0]
        proven = torch.zeros_like(pieces.open)
        for part in pieces_of(known.program, len(won)):
            some = won[part]
            kept = chosen.take(some)
            exact = _exactly(known, replace(rows, owners=own).take(some), kept.slopes, kept.splits)
            bound[some] = exact
            proven[owner[some], row[some]] = exact > 0
        self._leave_off(pieces, chosen, owner, row, bound)
        still = self.query.select(pieces.sample).unsettled(~pieces.open | proven) & pieces.open
        pieces.open = still
        pieces.bound = torch.where(still, pieces.bound, torch.inf)
        left = still.any(1)
        self._learn(pieces, pieces.bound.amin(1))
        pieces = pieces.take(left)
        if not len(pieces):
            return Outcome(pieces, known.region.centre[:0], pieces.sample)
        points = self._minimisers(pieces, self._known(pieces))
        return Outcome(pieces, points, pieces.sample)

    def proven(self, pieces: Pool) -> Tensor:
        """Return the bounds of each piece's first row in float64 [N], with its rounding error, as they were left."""
        every = torch.arange(len(pieces), device=pieces.sample.device)
        known, row = self._known(pieces), torch.zeros_like(every)
        slopes, decided = self._started(pieces, known.lines, every, row)
        pushed = {position: one.split for position, one in decided.items()}
        return _exactly(known, self.query.ask(known.program.last, pieces.sample, row), slopes, pushed)

    def _leave_off(self, pieces: Pool, chosen: Chosen, owner: Tensor, row: Tensor, bound: Tensor) -> None:
        """Keep what the optimiser found, for the children."""
        pieces.bound[owner, row] = bound.float()
        for position, span in self.columns.spans.items():
            units = self.columns.units[position]
            pieces.slopes[owner, row, span] = chosen.slopes[position].flatten(1)[:, units].to(pieces.slopes)
            if position in chosen.splits:
                one = chosen.splits[position]
                decided = (pieces.sign[:, span] != 0).any(0).nonzero()[:, 0] + span.start
                pieces.push[owner[:, None], row[:, None], decided[None]] = one.push.abs().to(pieces.push)

    def _minimisers(self, pieces: Pool, known: Bounded) -> Tensor:
        """Return the points at which the bounds of the worst rows are met [N, ...]."""
        every = torch.arange(len(pieces), device=pieces.sample.device)
        row = pieces.bound.argmin(1)
        program, region, lines = known.search()
        slopes, decided = self._started(pieces, lines, every, row)
        pushed = {position: one.split for position, one in decided.items()}
        rows = self.query.ask(program.last, pieces.sample, row).to(torch.float32)
        reached = lower_bounds(program, region, lines, rows, slopes=slopes, splits=pushed)
        return region.minimiser(reached.rows, rows.owners)


def _exactly(known: Bounded, rows: Rows, slopes: Mapping[int, Tensor], splits: Mapping[int, Split]) -> Tensor:
    """Return lower bounds [R] in float64, rounding included."""
    return lower_bounds(
        known.program,
        known.region,
        known.lines,
        rows,
        slopes={position: values.double() for position, values in slopes.items()},
        splits={position: Split(one.unit, one.push.double()) for position, one in splits.items()},
        errors=known.errors,
    ).bound
