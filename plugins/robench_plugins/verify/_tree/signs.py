"""One round of branch and bound over ReLU signs (Bunel et al. 2020), bounded with split multipliers (Wang et al. 2021).

A piece is a set of inputs on which some ReLUs have a decided sign. All unsafe disjuncts of a sample share one tree.
Each round takes pieces, decides more signs, proves tighter bounds of the ReLUs behind them, raises the bounds of the
open rows, and drops what float64 proves, rounding included. What is dropped as empty has crossed proven bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robench_plugins.verify._engine.backward import Split, lower_bounds
from robench_plugins.verify._engine.bounds import Bounded, tightened
from robench_plugins.verify._engine.bounds import pieces as pieces_of
from robench_plugins.verify._engine.owners import Owners
from robench_plugins.verify._engine.relax import Lines, relax
from robench_plugins.verify._engine.slopes import Chosen, Schedule, optimise
from robench_plugins.verify._leaves import closed
from robench_plugins.verify._tree.pool import Columns, Pool
from robench_plugins.verify._tree.query import Query

__all__ = ["Outcome", "Signs"]


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
        again: whether ReLUs behind a decided one are bounded again in every piece.
        candidates: how many neurons are tried by look-ahead.
    """

    root: Bounded
    query: Query
    columns: Columns
    schedule: Schedule
    again: bool = True
    candidates: int = 6

    def roots(self, open_: Tensor, chosen: Mapping[int, Tensor] | None, bound: Tensor) -> Pool:
        """Return one piece per sample [B] with its open rows [B, S]; `chosen` are slopes [B · S, ...] to start from."""
        samples, rows, columns = len(self.root.region), self.query.rows.shape[1], len(self.columns)
        device = self.root.region.lower.device
        low, high = (torch.empty(samples, columns, dtype=torch.float64, device=device) for _ in range(2))
        slopes = torch.zeros(samples, rows, columns, device=device)
        for position, span in self.columns.spans.items():
            units = self.columns.units[position]
            low[:, span], high[:, span] = (side.flatten(1)[:, units] for side in self.root.inputs[position])
            if chosen is None:
                default = self.root.lines[position].lower_slope.flatten(1)[:, None, units]
                slopes[:, :, span] = default.float()
            else:
                slopes[:, :, span] = chosen[position].flatten(1)[:, units].reshape(samples, rows, -1).float()
        zeros = torch.zeros(samples, dtype=torch.int64, device=device)
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
            zeros,
            torch.zeros_like(sign, dtype=torch.bool),
        )

    def round(self, pieces: Pool, doublings: int) -> Outcome:
        """Decide up to `doublings` signs of every piece, bound the children and return those that stay open."""
        with torch.no_grad():
            children = self._split(pieces, doublings)
            known = self._known(children)
            if self.again:
                known = self._tighten(children, known)
            empty = (children.low > children.high).any(1)
            if bool(empty.any()):
                children = children.take(~empty)
                known = self._known(children)
        if not len(children):
            none = children.low.new_zeros(0, *self.root.program.steps[0].shape)
            return Outcome(children, none, children.sample)
        with torch.no_grad():
            return self._bound(children, known)

    def finish(self, leaves: Pool) -> Outcome:
        """Return which of `leaves`, pieces without open signs, stay open after linear programs or a long climb.

        On a leaf the network is affine: the program's optimum is the exact least margin, its point the worst input.
        In l2 the climb's limit is.
        """
        with torch.no_grad():
            known = self._known(leaves)
            if self.root.region.norm == "l2" and self.root.region.eps is not None:
                patient = replace(self, schedule=Schedule(steps=20 * max(10, self.schedule.steps)))
                return patient._bound(leaves, known)
            owner, row = leaves.open.nonzero(as_tuple=True)
            rows = replace(self.query.ask(known.program.last, leaves.sample[owner], row), owners=Owners(owner))
            signs = {}
            for position, span in self.columns.spans.items():
                flat = torch.zeros_like(known.inputs[position][0].flatten(1), dtype=torch.int8)
                flat[:, self.columns.units[position]] = leaves.sign[:, span]
                signs[position] = flat.reshape(known.inputs[position][0].shape)
            found = closed(known, signs, rows)
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
        lines = {
            position: relax(getattr(root.program.steps[position], "op", ""), *sides)
            for position, sides in inputs.items()
        }
        return Bounded(root.program, root.region.select(sample), (), root.errors.select(sample), inputs, lines)

    def _tighten(self, children: Pool, known: Bounded) -> Bounded:
        """Bound again what lies behind the first newly decided sign of each piece, in place."""
        never = self.columns.activation.new_full((), 2**40)
        first = torch.where(children.fresh, self.columns.activation, never).amin(1)
        for position, span in self.columns.spans.items():
            units, behind = self.columns.units[position], first < position
            if not len(units) or not bool(behind.any()):
                continue
            low, high = tightened(known, position, None, behind, children.sample)
            children.low[:, span] = low.flatten(1)[:, units]
            children.high[:, span] = high.flatten(1)[:, units]
            known.inputs[position] = (low, high)
            known.lines[position] = relax("relu", low, high)
        return known

    # ----------------------------------------------------------------------------------------------- branching

    def _split(self, pieces: Pool, doublings: int) -> Pool:
        """Return the children of `pieces`: each decides its best open signs, one after the other."""
        ranked = self._ranked(pieces, doublings)
        children = pieces.take(torch.arange(len(pieces), device=ranked.device))
        children.fresh.fill_(False)
        for turn in range(doublings):
            column = ranked[:, turn]
            chosen = (column >= 0).nonzero()[:, 0]
            sides = [children, children.take(chosen)]
            for side, rows, sign in (
                (sides[0], chosen, 1),
                (sides[1], torch.arange(len(chosen), device=column.device), -1),
            ):
                at = column[chosen]
                side.sign[rows, at] = sign
                side.fresh[rows, at] = True
                side.depth[rows] += 1
                if sign > 0:
                    side.low[rows, at] = side.low[rows, at].clamp_min(0)
                else:
                    side.high[rows, at] = side.high[rows, at].clamp_max(0)
            children, ranked = Pool.join(sides), torch.cat((ranked, ranked[chosen]))
        return children

    def _ranked(self, pieces: Pool, count: int) -> Tensor:
        """Return the columns to split, the best first, int64 [N, count]; −1 where no sign is open.

        Candidates by what their relaxation costs the worst open row (BaBSR, Bunel et al. 2020), then the best by the
        bounds that deciding them would give (FSB, De Palma et al. 2021).
        """
        known = self._known(pieces)
        row = pieces.bound.argmin(1)
        score = self._scores(pieces, known, row)
        free = (pieces.sign == 0) & (pieces.low < 0) & (pieces.high > 0)
        score = torch.where(free, score.nan_to_num(nan=0.0, posinf=1e30, neginf=-1e30), -torch.inf)
        tried = min(max(self.candidates, count), score.shape[1])
        if not tried:
            return torch.full((len(pieces), count), -1, dtype=torch.int64, device=score.device)
        value, column = score.topk(tried, 1)
        if self.candidates > 1 and tried > 1:
            gain = self._looked_ahead(pieces, known, row, column)
            gain = torch.where(value == -torch.inf, -torch.inf, gain)
            order = gain.argsort(dim=1, descending=True, stable=True)
            column, value = column.gather(1, order), value.gather(1, order)
        column = torch.where(value == -torch.inf, -1, column)[:, :count]
        return torch.nn.functional.pad(column, (0, count - column.shape[1]), value=-1)

    def _scores(self, pieces: Pool, known: Bounded, row: Tensor) -> Tensor:
        """Return for each column what the gap of its relaxation costs row `row` [N] of its piece, [N, U]."""
        every = torch.arange(len(pieces), device=row.device)
        seen: dict[int, Tensor] = {}
        program, region, lines = known.search()
        slopes, splits = self._started(pieces, lines, every, row)
        pushed = {position: Split(unit, sign * push) for position, (unit, sign, push) in splits.items()}
        rows = self.query.ask(program.last, pieces.sample, row).to(torch.float32)
        lower_bounds(program, region, lines, rows, slopes=slopes, splits=pushed, seen=seen)
        score = torch.zeros(len(pieces), len(self.columns), device=row.device)
        for position, span in self.columns.spans.items():
            if position not in seen:
                continue
            units, line = self.columns.units[position], lines[position]
            a = seen[position].flatten(1)[:, units]
            low, high = line.lower.flatten(1)[:, units], line.upper.flatten(1)[:, units]
            slope = slopes[position].flatten(1)[:, units]
            above = line.upper_shift.flatten(1)[:, units]
            below = torch.maximum(-slope * low, (1 - slope) * high)
            score[:, span] = -a.clamp_max(0) * above + a.clamp_min(0) * torch.minimum(below, above)
        return score

    def _looked_ahead(self, pieces: Pool, known: Bounded, row: Tensor, column: Tensor) -> Tensor:
        """Return how good it is to decide each candidate `column` [N, K]: its children's bounds of one row, [N, K]."""
        count, tried = column.shape
        parent = torch.arange(count, device=column.device).repeat_interleave(2 * tried)
        child = pieces.take(parent)
        at = column.repeat_interleave(2, 1).flatten()
        side = torch.tensor([1, -1], device=column.device).repeat(count * tried)
        every = torch.arange(len(at), device=column.device)
        child.low[every, at] = torch.where(side > 0, child.low[every, at].clamp_min(0), child.low[every, at])
        child.high[every, at] = torch.where(side < 0, child.high[every, at].clamp_max(0), child.high[every, at])
        program, region, lines = self._known(child).search()
        slopes, splits = self._started(child, lines, every, row[parent])
        pushed = {position: Split(unit, sign * push) for position, (unit, sign, push) in splits.items()}
        rows = self.query.ask(program.last, child.sample, row[parent]).to(torch.float32)
        bound = lower_bounds(program, region, lines, rows, slopes=slopes, splits=pushed).bound
        both = bound.nan_to_num(nan=-1e30).clamp_max(0).reshape(count, tried, 2)
        return both.amin(2) + 0.1 * both.amax(2)

    # ------------------------------------------------------------------------------------------------ bounding

    def _started(
        self, pieces: Pool, lines: Lines, owner: Tensor, row: Tensor
    ) -> tuple[dict[int, Tensor], dict[int, tuple[Tensor, Tensor, Tensor]]]:
        """Return slopes and split constraints of rows `row` [R] of pieces `owner` [R], from where they were left."""
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
                splits[position] = (units[decided].expand(len(owner), -1), own, push)
        return slopes, splits

    def _bound(self, pieces: Pool, known: Bounded) -> Outcome:
        """Raise the bounds of all open rows, drop what float64 proves, and say where the bounds are met."""
        owner, row = pieces.open.nonzero(as_tuple=True)
        program, region, lines = known.search()
        slopes, splits = self._started(pieces, lines, owner, row)
        rows = self.query.ask(program.last, pieces.sample[owner], row)
        own = Owners(owner)
        asked = replace(rows, owners=own).to(torch.float32)
        chosen = optimise(
            program, region, lines, asked, schedule=self.schedule, slopes=slopes, splits=splits, enough=0.0
        )
        bound = chosen.bound.double()
        won = (bound > 0).nonzero()[:, 0]
        proven = torch.zeros_like(pieces.open)
        for part in pieces_of(known.program, len(won)):
            some = won[part]
            kept = chosen.take(some)
            exact = lower_bounds(
                known.program,
                known.region,
                known.lines,
                replace(rows, owners=own).take(some),
                slopes={position: values.double() for position, values in kept.slopes.items()},
                splits={position: Split(one.unit, one.push.double()) for position, one in kept.splits.items()},
                errors=known.errors,
            ).bound
            bound[some] = exact
            proven[owner[some], row[some]] = exact > 0
        self._leave_off(pieces, chosen, owner, row, bound)
        still = self.query.select(pieces.sample).unsettled(~pieces.open | proven) & pieces.open
        pieces.open = still
        pieces.bound = torch.where(still, pieces.bound, torch.inf)
        left = still.any(1)
        pieces = pieces.take(left)
        points = self._minimisers(pieces, known.select(left.nonzero()[:, 0]))
        return Outcome(pieces, points, pieces.sample)

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
        slopes, splits = self._started(pieces, lines, every, row)
        pushed = {position: Split(unit, sign * push) for position, (unit, sign, push) in splits.items()}
        rows = self.query.ask(program.last, pieces.sample, row).to(torch.float32)
        reached = lower_bounds(program, region, lines, rows, slopes=slopes, splits=pushed)
        return region.minimiser(reached.rows, rows.owners)
