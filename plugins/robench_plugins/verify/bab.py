"""Complete verification: attack, bounds, optimised bounds, then branch and bound until proven or refuted.

After beta-CROWN (Wang et al. 2021) and its branch and bound (Bunel et al. 2020), with one tree for all classes, inner
bounds proven again on every piece, and every piece accepted in float64 with its rounding error.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from robench import param
from robench.classifier import Classifier
from robench.contracts import Certificates
from robench.graph.intervals import ball_margin_lower
from robench.streams import Stream
from robench.threat import Norm, Threat
from robench_plugins.verify._engine.backward import Rows, lower_bounds
from robench_plugins.verify._engine.bounds import Bounded, bounded, refined
from robench_plugins.verify._engine.lower import lower, unsupported
from robench_plugins.verify._engine.owners import Owners
from robench_plugins.verify._engine.region import region_of
from robench_plugins.verify._engine.slopes import Chosen, Schedule, optimise
from robench_plugins.verify._memory import out_of_memory
from robench_plugins.verify._tree.attack import Refuter
from robench_plugins.verify._tree.gains import Gains
from robench_plugins.verify._tree.inputs import halve
from robench_plugins.verify._tree.pool import Columns
from robench_plugins.verify._tree.query import Query, query_of
from robench_plugins.verify._tree.search import SPACE, TIME, Clock, Ended, search
from robench_plugins.verify._tree.signs import Signs

__all__ = ["BaB"]

GROUP = 4
"""Samples whose pieces share a batch."""
FEW_INPUTS = 8
"""Inputs up to which `auto` halves boxes instead of deciding signs."""
SLOPE_RATE, SPLIT_RATE = 0.1, 1.0
"""Rates on a piece: slopes start near their best; multipliers move in units of the coefficients that they meet."""
REHEARSAL_SHARE = 0.25
"""Share of the time left at the roots that may go into trying signs there."""
INNER_WORK = 2e11
"""Products that optimising the inner bounds of one sample may take, about ten seconds of two cores."""


@dataclass(frozen=True)
class BaB:
    """Decides whether a sample is robust at ε: certified, falsified with a point, or out of time with the gap reached.

    Complete for piecewise linear networks, given time; for sigmoid and tanh by halving boxes, which is complete for any
    margin above 0 but slow beyond a few inputs.
    """

    timeout: float = param(60.0, "seconds for each sample", above=0)
    batch: int = param(64, "pieces that are bounded at once", minimum=2, maximum=2**16)
    steps: int = param(20, "optimiser's steps on each piece", minimum=1, maximum=10_000)
    rehearsal: int = param(
        1000, "signs that are tried at each root, to learn which are worth deciding", minimum=0, maximum=2**20
    )
    split: Literal["auto", "signs", "inputs"] = param(
        "auto", "`signs` of ReLUs, or `inputs`; auto: inputs where there are at most 8 or an activation is smooth"
    )
    restarts: int = param(3, "random starts of the attack before anything is proven", minimum=0, maximum=10_000)

    per_eps: ClassVar[bool] = True
    deterministic: ClassVar[bool] = True
    complete: ClassVar[bool] = True
    regions: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse a time limit that is no time."""
        if not (self.timeout > 0 and math.isfinite(self.timeout)):
            raise ValueError(f"timeout must be positive and finite, not {self.timeout!r}")

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or what stands in the way: no graph, an operator without linear bounds, impossible splits."""
        graph = classifier.graph
        if graph is None:
            return "bab reads the network's graph, and this classifier has none"
        reason = unsupported(graph)
        if reason is None and self.split == "signs" and not lower(graph).piecewise_linear:
            return "split=signs needs ReLUs, and an activation is smooth: take split=inputs"
        return reason

    def certify(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Certificates:
        """Decide about `x` [B, ...] with labels `y` [B] at `threat.eps`, or on the threat's own region."""
        assert classifier.graph is not None
        if threat.eps is None:
            raise ValueError("bab needs a budget: it decides about one ε at a time")
        # The search needs gradients, and tensors that may have them.
        with torch.inference_mode(False):
            run = _Run(self, classifier, x.detach().clone(), y.clone(), threat, stream)
            run.decide()
            return run.answer()


class _Run:
    """The samples of one call, and what is known about each."""

    def __init__(
        self, settings: BaB, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream
    ) -> None:
        graph = classifier.graph
        assert graph is not None
        self.settings, self.graph, self.x, self.y, self.threat = settings, graph, x, y, threat
        self.query = query_of(y, graph.classes, threat)
        self.refuter = Refuter(classifier, x, threat, self.query, stream)
        self.proven = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.details: list[dict[str, Any]] = [{} for _ in range(len(x))]
        self.clock = Clock(self._limits())
        self.reasons: list[str | None] = [None] * len(x)

    def _limits(self) -> Tensor:
        limits = torch.full((len(self.x),), self.settings.timeout, dtype=torch.float64)
        own = None if self.threat.region is None else self.threat.region.seconds
        return limits if own is None else torch.minimum(limits, torch.tensor(list(own), dtype=torch.float64))

    @property
    def open(self) -> Tensor:
        """Samples without an answer whose time is not over, int64."""
        late = self.clock.over().to(self.x.device)
        return (~self.proven & ~self.refuter.found & ~late).nonzero()[:, 0]

    def decide(self) -> None:
        every = torch.arange(len(self.x), device=self.x.device)
        self._fitting(every, self._attack)
        self._fitting(self.open, self._bound)
        for group in torch.split(self.open, GROUP):
            self._fitting(group, self._search)

    def _fitting(self, samples: Tensor, work: Callable[[Tensor], None]) -> None:
        """Do `work` for samples [N] against their time; for half of them at a time where memory is too small."""
        late = self.clock.over().to(samples.device)
        samples = samples[~(self.proven | self.refuter.found | late)[samples]]
        if not len(samples):
            return
        start, fits = time.perf_counter(), True
        try:
            work(samples)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            fits = False
        self.clock.charge(samples, time.perf_counter() - start)
        if fits:
            return
        if len(samples) == 1:
            self.reasons[int(samples)] = SPACE
        else:
            for half in samples.chunk(2):
                self._fitting(half, work)

    def _attack(self, samples: Tensor) -> None:
        """Descend from the samples themselves and from random starts."""
        self.refuter.descend(self.x[samples], samples, 40)
        for turn in range(self.settings.restarts):
            samples = samples[~self.refuter.found[samples]]
            if len(samples):
                self.refuter.descend(self.refuter.random_starts(samples, turn), samples, 40)

    def _bound(self, samples: Tensor) -> None:
        """Prove what interval arithmetic and CROWN prove."""
        if self.threat.region is None:
            margin = ball_margin_lower(
                self.graph,
                self.x[samples],
                self.y[samples],
                self.threat.norm,
                self.threat.eps or 0.0,
                self.threat.domain,
            )
            self._note(samples, margin > 0, margin, "ibp")
            samples = samples[~(margin > 0)]
        if not len(samples):
            return
        known = self._known(samples)
        bound = self._proven(known, samples, None)
        query = self.query.select(samples)
        self._note(samples, ~query.unsettled(bound > 0).any(1), self._gap(bound, query), "crown")

    def _known(self, samples: Tensor) -> Bounded:
        region = region_of(self.x[samples], _part(self.threat, samples))
        return bounded(self.graph, region, "crown")

    def _rows(self, samples: Tensor, at: int) -> tuple[Rows, Tensor, Tensor]:
        """Return all rows of `samples`, with the position of their sample and their number."""
        query = self.query.select(samples)
        owner, row = (query.disjunct >= 0).nonzero(as_tuple=True)
        return replace(query.ask(at, owner, row), owners=Owners(owner)), owner, row

    def _proven(self, known: Bounded, samples: Tensor, chosen: Chosen | None) -> Tensor:
        """Return proven bounds of all rows [B, S]; +inf where a sample has no such row."""
        rows, owner, row = self._rows(samples, known.program.last)
        slopes = None if chosen is None else {at: values.double() for at, values in chosen.slopes.items()}
        found = lower_bounds(known.program, known.region, known.lines, rows, slopes=slopes, errors=known.errors).bound
        bound = torch.full(self.query.disjunct[samples].shape, math.inf, dtype=torch.float64, device=found.device)
        bound[owner, row] = found
        return bound

    def _gap(self, bound: Tensor, query: Query) -> Tensor:
        """Return the least bound of an unsettled row, or of any row where all are settled."""
        still = query.unsettled(bound > 0)
        return torch.where(still | ~still.any(1, keepdim=True), bound, math.inf).amin(1)

    def _note(self, samples: Tensor, proven: Tensor, margin: Tensor, how: str) -> None:
        self.proven[samples] |= proven
        for sample, sure, value in zip(samples.tolist(), proven.tolist(), margin.tolist(), strict=True):
            detail = self.details[sample]
            if math.isfinite(value):
                detail["margin"] = value
            if sure:
                detail["by"] = how

    def _search(self, samples: Tensor) -> None:
        """Raise the roots' bounds, then branch."""
        program = lower(self.graph)
        inputs = self.settings.split == "inputs" or (
            self.settings.split == "auto" and (not program.piecewise_linear or self.x[0].numel() <= FEW_INPUTS)
        )
        clock = Clock(self.clock.left[samples.cpu()])
        part, query = self.refuter.select(samples), self.query.select(samples)
        if inputs:
            region = region_of(self.x[samples], _part(self.threat, samples))
            ended = halve(self.graph, region, query, part, clock, self.settings.batch)
        else:
            ended = self._signs(samples, part, query, clock)
        self.refuter.merge(samples, part)
        self.proven[samples] |= ended.proven
        for k, sample in enumerate(samples.tolist()):
            detail = self.details[sample]
            detail |= {"nodes": int(ended.nodes[k]), "depth": int(ended.depth[k])}
            if bool(ended.proven[k]):
                detail["by"] = detail.get("by", "bab")
                detail.pop("margin", None)
            self.reasons[sample] = ended.reason[k]
            if ended.reason[k] is not None:
                detail["gap"] = float(ended.gap[k])

    def _signs(self, samples: Tensor, refuter: Refuter, query: Query, clock: Clock) -> Ended:
        start = time.perf_counter()
        known = self._known(samples)
        if _inner_work(known) <= INNER_WORK:
            known = refined(known, Schedule())
        rows, owner, row = self._rows(samples, known.program.last)
        program, region, lines = known.search()
        chosen = optimise(program, region, lines, rows.to(torch.float32), schedule=Schedule(steps=50), enough=0.0)
        bound = self._proven(known, samples, chosen)
        still = query.unsettled(bound > 0)
        columns = Columns.of(known.inputs, self.x.device)
        slopes = {at: _padded(values, owner, row, still.shape) for at, values in chosen.slopes.items()}
        gains = Gains(len(samples), len(columns), self.x.device)
        schedule = Schedule(steps=self.settings.steps, slope_rate=SLOPE_RATE, split_rate=SPLIT_RATE)
        tree = Signs(known, query, columns, schedule, gains)
        roots = tree.start(tree.roots(still, slopes, bound).take(still.any(1)))
        rest = float(clock.left.min()) - (time.perf_counter() - start)
        try:
            tree.rehearse(roots, self.settings.rehearsal, REHEARSAL_SHARE * rest)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
        clock.charge(torch.arange(len(samples)), time.perf_counter() - start)
        return search(tree, roots, refuter, clock, self.settings.batch)

    def answer(self) -> Certificates:
        found, proven = self.refuter.found.tolist(), self.proven.tolist()
        status = []
        for sample, (wrong, sure) in enumerate(zip(found, proven, strict=True)):
            if wrong:
                status.append("falsified")
            elif sure:
                status.append("certified")
            else:
                reason = self.reasons[sample] or TIME
                status.append("timeout" if reason in (TIME, SPACE) else "open")
                self.details[sample]["reason"] = reason
        eps = self.threat.eps or 0.0
        sure = self.proven & ~self.refuter.found
        lower = torch.where(sure, torch.full((len(self.x),), eps, dtype=torch.float64, device=self.x.device), 0.0)
        detail: list[Mapping[str, Any]] = list(self.details)
        return Certificates(lower, status, points=self.refuter.points, detail=detail)


def _inner_work(known: Bounded) -> float:
    """Return about how many products optimising the slopes of every inner bound takes, for the neediest sample."""
    program, work, before = known.program, 0.0, 0.0
    for position, step in enumerate(program.steps):
        weight = getattr(step, "weight", None)
        if weight is not None:
            places = math.prod(step.shape[1:])
            before += weight.numel() * places
        if position in known.lines:
            open_ = known.lines[position].unstable.flatten(1).sum(1).amax().item()
            work += 2 * open_ * before * 60
    return work


def _padded(values: Tensor, owner: Tensor, row: Tensor, shape: torch.Size) -> Tensor:
    """Return values [R, ...] of rows as [B · S, ...], 0 where a sample has no such row."""
    out = values.new_zeros(shape[0], shape[1], *values.shape[1:])
    out[owner, row] = values
    return out.flatten(0, 1)


def _part(threat: Threat, samples: Tensor) -> Threat:
    return threat if threat.region is None else replace(threat, region=threat.region.select(samples))
