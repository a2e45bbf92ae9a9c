"""The runs of a minimum-norm attack: first from the clean input, then from where that got to, as rows of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from robench import Passes, Proposal
from robench.classifier import Classifier
from robench.numerics import per_sample
from robench.streams import Stream
from robench.threat import Norm, Threat
from robench_plugins.attacks._nearest import BARE, ORDER, Nearest
from robench_plugins.attacks.losses import likely_targets

__all__ = ["Rows", "Runs", "propose"]


@dataclass(frozen=True)
class Runs:
    """Which runs each sample gets.

    One untargeted run from the clean input, then, from random points, one towards each of the likeliest classes and
    untargeted ones. With `rounds` either an untargeted run or, where there are targets, one towards each: from the
    clean input, then all again from one random point after the other.

    Attributes:
        targets: how many of the likeliest classes are aimed at.
        starts: how many random points there are.
        rounds: every start, the clean input first, makes all runs before the next begins; else targets and starts
            share one wave.
        share: how far off the random points are, in units of the distance at which the first runs found an error.
    """

    targets: int
    starts: int
    rounds: bool = False
    share: float = 1.0

    def waves(self, classes: int) -> list[list[tuple[int, int]]]:
        """Return (start, rank of the target or −1) of the runs, those of a batch together: the same for all samples."""
        targets, starts = range(min(self.targets, classes - 1)), range(1, self.starts + 1)
        if self.rounds:
            waves = [[(start, rank) for rank in targets or [-1]] for start in (0, *starts)]
        else:
            waves = [[(0, -1)], [(0, rank) for rank in targets] + [(start, -1) for start in starts]]
        return [wave for wave in waves if wave]


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows that are searched side by side; every tensor has one entry per row.

    Attributes:
        id: position in the batch that the search was given.
        sample: the sample that a row works for, counted from 0 without gaps in that batch.
        y, x: label and clean input.
        target: the class to reach, −1 for any but `y`.
        lower, upper: the domain, as a box around `x`.
        start: where to begin.
        limit: the distance at which the sample is known to be misclassified, inf where it is not.
        reach: the distance of the furthest point of the domain, inf where it has none.
        length: a distance of the order of the inputs: all there is to go by where nothing else tells.
    """

    id: Tensor
    sample: Tensor
    y: Tensor
    target: Tensor
    x: Tensor
    lower: Tensor
    upper: Tensor
    start: Tensor
    limit: Tensor
    reach: Tensor
    length: Tensor

    def select(self, rows: Tensor) -> Rows:
        """Return some rows (bool mask or int64 positions)."""
        return Rows(*[getattr(self, item.name)[rows] for item in fields(self)])


Noise = Callable[[Tensor, int], Tensor]
"""(ids of rows [n], step) → a normal draw for each [n, ...], from its own stream."""

Search = Callable[[Classifier, Norm, Rows, Noise], tuple[Nearest, Passes]]
"""What an attack does with rows: returns the nearest point of each and the passes that it took."""


def propose(
    classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream, runs: Runs, search: Search
) -> Proposal:
    """Return the nearest misclassified point of all runs, for `x` [B, ...] with labels `y` [B].

    The first wave starts from the clean input. Those after it, their runs side by side, start at random points of a
    sphere whose radius it found or, where that is less, of ε (anywhere in the domain where there is neither). What is
    misclassified within ε, where one is given, gets no further runs.
    """
    best, passes = Nearest.none(x, threat.norm), _Charged.none(x)
    origin = torch.full_like(y, -1)
    if not len(x):
        return Proposal(x, [], passes.made())
    rows = _rows(x, y, threat)
    order: Tensor | None = None
    waves, first_run = runs.waves(classifier.classes), 0
    for wave in waves:
        # A clean input that is misclassified already cannot be improved on.
        left = (best.sure > (threat.eps or 0)).nonzero()[:, 0]
        if any(rank >= 0 for _, rank in wave) and order is None and len(left):
            order = torch.zeros(len(x), classifier.classes, dtype=torch.int64, device=x.device)
            with torch.no_grad():
                order[left] = likely_targets(classifier.logits(x[left]), y[left], classifier.classes)
            passes.forwards[left] += 1
        # As many rows at once as the batch had samples, so that runs take no more memory than the batch.
        size = max(1, len(x) // len(wave))
        streams = stream.repeat(len(wave), "start", first=first_run)
        for first in range(0, len(left), size):
            samples = left[first : first + size]
            batch = _batch(rows, samples, wave, order, best.sure[samples])
            own = streams.select(torch.cat([samples + run * len(x) for run in range(len(wave))]))
            if first_run:
                radius = runs.share * batch.limit.clamp_max(threat.eps or torch.inf)
                batch = replace(batch, start=_start(batch, threat.norm, radius, own.child("point")))
            found, cost = search(classifier, threat.norm, batch, _noise(own, x))
            winner = best.take(samples, found)
            changed = winner >= 0
            number = torch.div(winner[changed], len(samples), rounding_mode="floor")
            origin[samples[changed]] = first_run + number
            passes.add(samples, cost)
        first_run += len(wave)
    ranks = [rank for wave in waves for _, rank in wave]
    return Proposal(best.point.clone(), _detail(best, origin, order, ranks), passes.made())


def _rows(x: Tensor, y: Tensor, threat: Threat) -> Rows:
    """Return one row per sample, untargeted and from the clean input."""
    lower, upper = threat.domain.box(x)
    order = ORDER[threat.norm]
    every = torch.arange(len(x), device=x.device)
    return Rows(
        id=every,
        sample=every,
        y=y,
        target=torch.full_like(y, -1),
        x=x,
        lower=lower,
        upper=upper,
        start=x,
        limit=x.new_full((len(x),), torch.inf),
        reach=torch.linalg.vector_norm(torch.maximum(x - lower, upper - x).flatten(1), order, dim=1),
        length=torch.linalg.vector_norm((x.abs() + 1).flatten(1), order, dim=1),
    )


def _batch(rows: Rows, samples: Tensor, wave: Sequence[tuple[int, int]], order: Tensor | None, limit: Tensor) -> Rows:
    """Return the rows of a wave for `samples`, from the clean inputs: row = run · S + position of the sample."""
    first = rows.select(samples)
    targets = [first.target if rank < 0 or order is None else order[samples, rank] for _, rank in wave]
    here = torch.arange(len(samples), device=samples.device).repeat(len(wave))
    batch = replace(first, sample=torch.arange(len(samples), device=samples.device), limit=limit).select(here)
    return replace(batch, id=torch.arange(len(here), device=here.device), target=torch.cat(targets))


def _start(rows: Rows, norm: Norm, limit: Tensor, stream: Stream) -> Tensor:
    """Return random points at the distance `limit` [R], clipped to the box; where it is inf, anywhere in the box.

    In directions that are uniform in the cube (linf) or on the Euclidean sphere (l2, l1), as published for FAB.
    """
    shape, dtype = rows.x.shape[1:], rows.x.dtype
    way = stream.uniform(shape, -1, 1, dtype) if norm == "linf" else stream.normal(shape, dtype)
    size = torch.linalg.vector_norm(way.flatten(1), ORDER[norm], dim=1).clamp_min(torch.finfo(dtype).tiny)
    radius = torch.where(limit.isfinite(), limit, torch.minimum(rows.reach, rows.length))
    start = (rows.x + way / per_sample(size, way) * per_sample(radius, way)).clamp(rows.lower, rows.upper)
    nowhere = limit.isinf() & rows.reach.isfinite()
    # The stream's last draw, which may therefore be left out where no row needs it.
    if bool(nowhere.any()):
        anywhere = rows.lower + (rows.upper - rows.lower) * stream.uniform(shape, dtype=dtype)
        start = torch.where(per_sample(nowhere, start), anywhere, start)
    return start


def _noise(stream: Stream, x: Tensor) -> Noise:
    def noise(ids: Tensor, step: int) -> Tensor:
        return stream.select(ids).child("step", step).normal(x.shape[1:], x.dtype)

    return noise


@dataclass(frozen=True, eq=False)
class _Charged:
    """Passes per sample so far."""

    forwards: Tensor
    backwards: Tensor

    @classmethod
    def none(cls, x: Tensor) -> _Charged:
        zero = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return cls(zero, zero.clone())

    def add(self, samples: Tensor, cost: Passes) -> None:
        self.forwards[samples] += cost.forwards.reshape(-1, len(samples)).sum(0)
        self.backwards[samples] += cost.backwards.reshape(-1, len(samples)).sum(0)

    def made(self) -> Passes:
        return Passes(self.forwards, self.backwards)


def _detail(
    best: Nearest, origin: Tensor, order: Tensor | None, ranks: Sequence[int]
) -> list[dict[str, float | int | None]]:
    """Say of each proposed point where it comes from: the run, numbered from 0, its target, the step."""
    out: list[dict[str, float | int | None]] = []
    ranked = [None] * len(origin) if order is None else order.tolist()
    columns = zip(best.kind.tolist(), best.margin.tolist(), best.step.tolist(), origin.tolist(), ranked, strict=True)
    for kind, margin, step, run, rank in columns:
        aimed = run >= 0 and ranks[run] >= 0
        out.append(
            {
                "margin": margin if kind <= BARE else None,
                "run": max(run, 0),
                "target": rank[ranks[run]] if aimed and rank is not None else None,
                "step": step,
            }
        )
    return out
