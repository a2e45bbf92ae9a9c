"""HopSkipJump with leaps (Chen, Jordan & Wainwright 2020, "HopSkipJumpAttack: a query-efficient decision-based …")."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from robench import Passes, Proposal, param
from robench.classifier import is_random
from robench_plugins.attacks._decisions import Decisions, along, down, nearest, size
from robench_plugins.attacks._starts import starts

if TYPE_CHECKING:
    from robench import Access, Classifier, Norm, Stream, Threat

__all__ = ["HopSkipJump"]

_NUMBERS = 2**22
"""Random numbers drawn at once, at most."""

_STEPS = 12
"""Lengths at which a step is tried, each half of the one before."""

_SHORTER = 1 - 2.0**-10
"""A leap is made where it gains this factor at least."""

_OUTWARDS = 2.0**-11
"""How far beyond the boundary points are proposed, relative: rounding must not take them back."""


@dataclass(eq=False)
class _Walk:
    """Rows at the boundary: points [R, D], whose sample each is about, distances, sums of past estimates."""

    point: Tensor
    owner: Tensor
    distance: Tensor
    normal: Tensor

    def select(self, rows: Tensor) -> _Walk:
        return _Walk(self.point[rows], self.owner[rows], self.distance[rows], self.normal[rows])

    def accept(self, rows: Tensor, points: Tensor, distance: Tensor) -> None:
        """Move `rows` to `points` where these are nearer."""
        nearer = distance < self.distance[rows]
        taken = rows[nearer]
        self.point[taken], self.distance[taken] = points[nearer], distance[nearer]


@dataclass(frozen=True)
class HopSkipJump:
    """The nearest error by decisions alone, in linf, l2 and l1: it needs neither gradients nor scores.

    At a point next to the boundary the classes of random points around it give the boundary's normal (eq. 9 and 16 of
    the paper); a step along it, halved until it finds an error, and a bisection towards the sample lead to the next
    one, nearer. Added: before that step a *leap* from the sample itself, to the point of a smaller ball that is
    furthest along the normals estimated so far, which is the nearest error if the boundary is flat, in every norm and
    inside the domain.

    `hopskipjump:leap=false,rivals=1,spread=none` is the nearest to the published attack, but not the same: starts are
    of four kinds, worse steps are refused, there are fewer halvings, and in linf random directions are normal and
    ‖·‖₂/D long, not uniform and ‖·‖_inf/D.
    """

    per_eps: ClassVar[bool] = False
    access: ClassVar[Access] = "labels"

    queries: int = param(5000, "queries per sample, at most", minimum=50)
    samples: int = param(100, "queries for the first estimate; for the t-th, sqrt(t) times as many", minimum=10)
    spread: float | None = param(4.0, "how far around, in units of distance/sqrt(D); none: 1/sqrt(D)", above=0)
    memory: float = param(0.9, "weight that earlier estimates keep in each new one", minimum=0, maximum=1)
    leap: bool = param(True, "leap from the sample along the estimates, before any step")
    rivals: int = param(3, "classes from which a first estimate is made; the nearest goes on", minimum=1)
    tries: int = param(
        48,
        "random points among which starts are looked for, again until there is one; one for 40 queries at most",
        minimum=1,
    )

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or why the attack cannot run."""
        if is_random(classifier):
            return "the classifier draws at inference: hopskipjump needs decisions that stay as they are"
        return None

    def perturb(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Proposal:
        """Propose the nearest misclassified points met for `x` [B, ...] with labels `y` [B]."""
        points, forwards, turns = x.flatten(1).clone(), torch.zeros_like(y), torch.zeros_like(y)
        if len(x):
            asked = Decisions.about(classifier, x, y, threat.domain)
            wrong = asked.errors(points, torch.arange(len(x), device=x.device))
            left = (~wrong).nonzero()[:, 0]
            forwards += asked.forwards
            points.copy_(asked.odd)
            if len(left):
                inner = Decisions.about(classifier, x[left], y[left], threat.domain)
                points[left], turns[left] = self._search(inner, threat, x.shape[1:], stream.select(left))
                forwards[left] += inner.forwards
        detail = [{"iterations": turn} for turn in turns.tolist()]
        return Proposal(points.reshape(x.shape), detail, Passes(forwards, torch.zeros_like(y)))

    def _search(self, asked: Decisions, threat: Threat, shape: torch.Size, stream: Stream) -> tuple[Tensor, Tensor]:
        """Return the nearest errors of all samples [S, D], and how often each was brought nearer [S]."""
        count, norm = len(asked.x), threat.norm
        budget = self.queries - 1
        rivals = max(1, min(self.rivals, self.queries // 500))
        halvings = self._halvings(asked.x.shape[1], asked.x.dtype)
        tries = max(1, min(self.tries, self.queries // 40))
        # An error is worth half of all queries: without one there is nothing.
        waves = max(1, self.queries // 2 // tries)
        point, owner = starts(asked, norm, shape, stream, tries, waves, rivals, halvings)
        walk = _Walk(point, owner, size(norm, point - asked.x[owner]), torch.zeros_like(point))
        reserve = halvings + _STEPS + 3
        found, turns = asked.odd.clone(), torch.zeros_like(asked.y)
        turn = 0
        while len(walk.owner):
            turn += 1
            rows = torch.bincount(walk.owner, minlength=count)[walk.owner]
            draws = (budget - asked.forwards[walk.owner]) // rows - reserve
            draws = draws.clamp_max(int(self.samples * math.sqrt(turn)))
            stays = draws >= 10
            if threat.eps is not None:
                stays &= walk.distance * (1 + 2 * _OUTWARDS) > threat.eps
            if not bool(stays.all()):
                self._finish(asked, walk.select(~stays), found)
                walk, draws, rows = walk.select(stays), draws[stays], rows[stays]
                if not len(walk.owner):
                    break
            turns[walk.owner] = turn
            fresh = self._estimate(asked, walk, draws, stream.child("turn", turn))
            walk.normal.mul_(self.memory if self.leap else 0).add_(fresh)
            self._move(asked, norm, walk, turn, halvings)
            walk = _nearest_of_each(walk)
        return found, turns

    def _spread(self, dimensions: int) -> float:
        return 1 / math.sqrt(dimensions) if self.spread is None else self.spread

    def _halvings(self, dimensions: int, dtype: torch.dtype) -> int:
        """Return how many halvings bring a point nearer to the boundary than a tenth of an estimate's reach across."""
        wanted = math.ceil(math.log2(10 * dimensions / self._spread(dimensions)))
        return max(10, min(wanted, 20 if dtype == torch.float32 else 40))

    def _estimate(self, asked: Decisions, walk: _Walk, draws: Tensor, stream: Stream) -> Tensor:
        """Return the sum of directions around each point, signed by what is decided there [R, D] (eq. 9 and 16)."""
        most, (count, dimensions) = int(draws.max()), walk.point.shape
        length = self._spread(dimensions) * (walk.point - asked.x[walk.owner]).norm(dim=1) / math.sqrt(dimensions)
        rank = torch.arange(count, device=draws.device) - torch.searchsorted(walk.owner, walk.owner)
        out = torch.zeros_like(walk.point)
        group = max(1, _NUMBERS // (most * dimensions))
        for number in range(int(rank.max()) + 1):
            own, mine = stream.child("rival", number), (rank == number).nonzero()[:, 0]
            for rows in (mine[i : i + group] for i in range(0, len(mine), group)):
                owner = walk.owner[rows]
                way = own.select(owner).normal((most, dimensions), walk.point.dtype)
                way /= way.norm(dim=2, keepdim=True)
                taken = torch.arange(most, device=draws.device) < draws[rows, None]
                base = (walk.point[rows] - asked.x[owner])[:, None]
                step = length[rows, None, None]
                low, high = asked.low[owner][:, None], asked.high[owner][:, None]
                delta = torch.maximum(torch.minimum(base + step * way, high), low)
                row, draw = taken.nonzero(as_tuple=True)
                sign = torch.zeros(taken.shape, dtype=way.dtype, device=way.device)
                sign[row, draw] = (
                    asked.errors(asked.place(delta[row, draw], owner[row]), owner[row]).to(way.dtype) * 2 - 1
                )
                mean = sign.sum(1, keepdim=True) / draws[rows, None]
                weight = torch.where(taken & (mean.abs() < 1), sign - mean, sign)
                out[rows] = torch.einsum("rn,rnd->rd", weight, (delta - base) / step)
        return out

    def _move(self, asked: Decisions, norm: Norm, walk: _Walk, turn: int, halvings: int) -> None:
        """Bring every row nearer where the estimate leads to an error: by a leap, else by a step."""
        left = torch.arange(len(walk.owner), device=walk.owner.device)
        if self.leap:
            radius = walk.distance * _SHORTER
            there = asked.errors(along(asked, norm, walk.normal, walk.owner)(radius), walk.owner)
            rows, left = there.nonzero()[:, 0], (~there).nonzero()[:, 0]
            if len(rows):
                path = along(asked, norm, walk.normal[rows], walk.owner[rows])
                points, _ = nearest(asked, path, radius[rows], walk.owner[rows], halvings)
                walk.accept(rows, points, size(norm, points - asked.x[walk.owner[rows]]))
        if len(left):
            self._step(asked, norm, walk, left, turn, halvings)

    def _step(self, asked: Decisions, norm: Norm, walk: _Walk, rows: Tensor, turn: int, halvings: int) -> None:
        """Algorithm 2: along the normal, ‖b − x‖/√t far, half as far until there is an error; then to the boundary."""
        owner = walk.owner[rows]
        base, normal = walk.point[rows] - asked.x[owner], walk.normal[rows]
        if norm == "linf":
            way, length = normal.sign(), size(norm, base) / math.sqrt(turn)
        else:
            way = normal / normal.norm(dim=1, keepdim=True).clamp_min(torch.finfo(normal.dtype).tiny)
            length = base.norm(dim=1) / math.sqrt(turn)
        todo = torch.arange(len(rows), device=rows.device)
        for _ in range(_STEPS):
            delta = base[todo] + length[todo, None] * way[todo]
            delta = torch.maximum(torch.minimum(delta, asked.high[owner[todo]]), asked.low[owner[todo]])
            points = asked.place(delta, owner[todo])
            there = asked.errors(points, owner[todo])
            ready = todo[there]
            if len(ready):
                path = down(asked, norm, points[there], owner[ready])
                far = size(norm, points[there] - asked.x[owner[ready]])
                found, _ = nearest(asked, path, far, owner[ready], halvings)
                walk.accept(rows[ready], found, size(norm, found - asked.x[owner[ready]]))
            todo = todo[~there]
            length = length / 2
            if not len(todo):
                break

    def _finish(self, asked: Decisions, walk: _Walk, found: Tensor) -> None:
        """Write the rows' points into `found` [S, D], a little beyond the boundary where that is an error too."""
        walk = _nearest_of_each(walk)
        if not len(walk.owner):
            return
        beyond = (walk.point - asked.x[walk.owner]) * (1 + _OUTWARDS)
        beyond = torch.maximum(torch.minimum(beyond, asked.high[walk.owner]), asked.low[walk.owner])
        points = asked.place(beyond, walk.owner)
        there = asked.errors(points, walk.owner)
        found[walk.owner] = torch.where(there[:, None], points, walk.point)


def _nearest_of_each(walk: _Walk) -> _Walk:
    """Return the nearest row of every sample; rows are ordered by sample and stay so."""
    order = walk.distance.argsort(stable=True)
    order = order[walk.owner[order].argsort(stable=True)]
    owner = walk.owner[order]
    first = torch.ones_like(owner, dtype=torch.bool)
    first[1:] = owner[1:] != owner[:-1]
    return walk.select(order[first])
