"""The stages of `bab` for the samples of one call: attack, bounds, better bounds, then the tree."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from robench.classifier import Classifier
from robench.contracts import Certificates
from robench.graph.intervals import ball_margin_lower
from robench.streams import Stream
from robench.threat import Threat
from robench_plugins.verify._engine.backward import Rows, lower_bounds
from robench_plugins.verify._engine.bounds import Bounded, bounded
from robench_plugins.verify._engine.lower import Program, lower
from robench_plugins.verify._engine.narrow import narrowed
from robench_plugins.verify._engine.owners import Owners
from robench_plugins.verify._engine.region import region_of
from robench_plugins.verify._engine.slopes import Chosen, Schedule, optimise
from robench_plugins.verify._memory import out_of_memory
from robench_plugins.verify._tree.attack import Refuter
from robench_plugins.verify._tree.gains import Gains
from robench_plugins.verify._tree.inner import deepened
from robench_plugins.verify._tree.inputs import halve
from robench_plugins.verify._tree.pool import Columns
from robench_plugins.verify._tree.query import query_of
from robench_plugins.verify._tree.search import SPACE, TIME, Clock, Ended, search
from robench_plugins.verify._tree.signs import Signs

__all__ = ["Effort", "Run"]

GROUP = 4
"""Samples whose pieces share a batch."""
FEW_INPUTS = 8
"""Inputs up to which `auto` may halve boxes instead of deciding signs."""
MANY_SIGNS = 32
"""ReLUs for each input from which it does."""
DESCENT = 40
"""Steps of the attack."""
ROOT = Schedule(steps=50)
"""How long the roots' slopes are optimised."""
SLOPE_RATE, SPLIT_RATE = 0.1, 1.0
"""Rates on a piece: slopes start near their best; multipliers move in units of the coefficients that they meet."""
GAINED = 0.8
"""Share of the gap that better inner bounds must not leave, or the next ones are not tried."""
INNER_SHARE, BRANCHING_SHARE = 0.25, 0.25
"""Shares of the time left that may go into inner bounds, and of a search's into trying signs at the roots."""
PRODUCTS = 2e10
"""Products of rows and weights in a second, about: what one core does."""


@dataclass(frozen=True)
class Effort:
    """What the user chose.

    Attributes:
        timeout: seconds for each sample.
        batch: pieces that are bounded at once.
        steps: the optimiser's, on each piece.
        strong_branching: signs that are tried at each root.
        inner: signs that are decided for each inner bound.
        inputs: whether boxes of inputs are halved; None where the network decides.
        restarts: random starts of the attack.
    """

    timeout: float
    batch: int
    steps: int
    strong_branching: int
    inner: int
    inputs: bool | None
    restarts: int

    @property
    def stages(self) -> tuple[tuple[int, float], ...]:
        """Signs decided for each inner bound, and the share of the time left that the search on these bounds gets."""
        return ((0, 0.05), (-(-self.inner // 8), 0.1), (self.inner, 1.0)) if self.inner else ((0, 1.0),)


class Run:
    """The samples of one call, and what is known about each."""

    def __init__(
        self, effort: Effort, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream
    ) -> None:
        """Start with nothing known about `x` [B, ...] with labels `y` [B]; their time begins to count."""
        graph = classifier.graph
        assert graph is not None
        self.effort, self.graph, self.x, self.y, self.threat = effort, graph, x, y, threat
        self.query = query_of(y, graph.classes, threat)
        self.refuter = Refuter(classifier, x, threat, self.query, stream)
        self.proven = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.details: list[dict[str, Any]] = [{} for _ in range(len(x))]
        self.reasons: list[str | None] = [None] * len(x)
        given = None if threat.region is None else threat.region.seconds
        limits = torch.full((len(x),), effort.timeout, dtype=torch.float64)
        self.clock = Clock(limits if given is None else limits.minimum(torch.tensor(list(given), dtype=torch.float64)))

    def decide(self) -> Certificates:
        """Go through the stages and return what is known then."""
        self._fitting(torch.arange(len(self.x), device=self.x.device), self._attack)
        self._fitting(self._open(), self._bound)
        for group in torch.split(self._open(), GROUP):
            self._fitting(group, self._search)
        return self._answer()

    def _open(self) -> Tensor:
        """Return the samples without an answer whose time is not over, int64."""
        return self._still(torch.arange(len(self.x), device=self.x.device))

    def _still(self, samples: Tensor) -> Tensor:
        late = self.clock.over().to(samples.device)
        return samples[~(self.proven | self.refuter.found | late)[samples]]

    def _fitting(self, samples: Tensor, work: Callable[[Tensor], None]) -> None:
        """Do `work` for samples [N] against their time; for half of them at a time where memory is too small."""
        samples = self._still(samples)
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

    # -------------------------------------------------------------------------------------------------- stages

    def _attack(self, samples: Tensor) -> None:
        """Descend from the samples themselves and from random starts."""
        self.refuter.descend(self.x[samples], samples, DESCENT)
        for turn in range(self.effort.restarts):
            samples = samples[~self.refuter.found[samples]]
            if len(samples):
                self.refuter.descend(self.refuter.random_starts(samples, turn), samples, DESCENT)

    def _bound(self, samples: Tensor) -> None:
        """Prove what interval arithmetic and CROWN prove."""
        if self.threat.region is None:
            x, y, eps = self.x[samples], self.y[samples], self.threat.eps or 0.0
            margin = ball_margin_lower(self.graph, x, y, self.threat.norm, eps, self.threat.domain)
            self._note(samples, margin > 0, margin, "ibp")
            samples = samples[~(margin > 0)]
        if len(samples):
            self._conclude(samples, self._proven(self._crown(samples), samples, None), "crown")

    def _search(self, samples: Tensor) -> None:
        """Raise inner bounds and the roots' slopes, then branch."""
        inputs = self._few_inputs() if self.effort.inputs is None else self.effort.inputs
        clock = Clock(self.clock.left[samples.cpu()])
        if not inputs:
            self._signs(samples, clock)
            return
        region = region_of(self.x[samples], self.threat.select(samples))
        part = self.refuter.select(samples)
        self._end(samples, part, halve(self.graph, region, self.query.select(samples), part, clock, self.effort.batch))

    def _few_inputs(self) -> bool:
        """Whether halving boxes promises more than deciding signs, which ends after finitely many."""
        program, size = lower(self.graph), self.x[0].numel()
        neurons = sum(math.prod(program.steps[position].shape) for position in program.activations)
        return not program.piecewise_linear or (size <= FEW_INPUTS and neurons > MANY_SIGNS * size)

    def _signs(self, samples: Tensor, clock: Clock) -> None:
        """Decide signs, in short searches first: where the gap is small, better inner bounds would take longer."""
        known = narrowed(self._crown(samples))
        before = torch.full((len(samples),), -math.inf, dtype=torch.float64, device=samples.device)
        for rounds, share in self.effort.stages:
            start, rest = time.perf_counter(), float(clock.left.min())
            worth = _inner_products(known) <= PRODUCTS * INNER_SHARE * rest
            if worth:
                known = deepened(known, rounds, INNER_SHARE * rest)
            chosen = self._raised(known, samples, INNER_SHARE * rest)
            bound = self._proven(known, samples, chosen)
            still, margin = self._conclude(samples, bound, "root")
            clock.charge(torch.arange(len(samples)), time.perf_counter() - start)
            last = not worth or share == 1 or bool((margin <= GAINED * before)[still].all())
            open_ = still.nonzero()[:, 0]
            if len(open_):
                clock = clock.select(open_)
                slopes = self._of_rows(samples, chosen.slopes, open_)
                samples, known, bound, before = samples[open_], known.select(open_), bound[open_], margin[open_]
                self._branch(samples, known, slopes, bound, clock, 1.0 if last else share)
            open_ = (~(self.proven | self.refuter.found)[samples]).nonzero()[:, 0]
            if last or not len(open_):
                return
            samples, known, before, clock = samples[open_], known.select(open_), before[open_], clock.select(open_)

    def _branch(
        self, samples: Tensor, known: Bounded, slopes: Mapping[int, Tensor], bound: Tensor, clock: Clock, share: float
    ) -> None:
        """Search the tree of signs for a share of the time, from roots with slopes [B · S, ...] and bounds [B, S]."""
        start, limited = time.perf_counter(), Clock(clock.left * share)
        query, part = self.query.select(samples), self.refuter.select(samples)
        columns = Columns.of(known.inputs, self.x.device)
        schedule = Schedule(steps=self.effort.steps, slope_rate=SLOPE_RATE, split_rate=SPLIT_RATE)
        tree = Signs(known, query, columns, schedule, Gains(len(samples), len(columns), self.x.device))
        roots = tree.roots(query.unsettled(bound > 0), slopes, bound)
        try:
            tree.rehearse(roots, self.effort.strong_branching, BRANCHING_SHARE * float(limited.left.min()))
        except (MemoryError, RuntimeError) as error:  # What it teaches helps, but is not needed.
            if not out_of_memory(error):
                raise
        limited.charge(torch.arange(len(samples)), time.perf_counter() - start)
        self._end(samples, part, search(tree, roots, part, limited, self.effort.batch))
        clock.left -= clock.left * share - limited.left

    # -------------------------------------------------------------------------------------------------- bounds

    def _crown(self, samples: Tensor) -> Bounded:
        return bounded(self.graph, region_of(self.x[samples], self.threat.select(samples)), "crown")

    def _rows(self, samples: Tensor, at: int) -> tuple[Rows, Tensor, Tensor]:
        """Return all rows of `samples`, with the position of their sample and their number."""
        query = self.query.select(samples)
        owner, row = (query.disjunct >= 0).nonzero(as_tuple=True)
        return replace(query.ask(at, owner, row), owners=Owners(owner)), owner, row

    def _raised(self, known: Bounded, samples: Tensor, seconds: float) -> Chosen:
        """Return slopes that raise the bounds of all rows."""
        rows, _, _ = self._rows(samples, known.program.last)
        return optimise(*known.search(), rows.to(torch.float32), schedule=ROOT, enough=0.0, seconds=seconds)

    def _of_rows(self, samples: Tensor, slopes: Mapping[int, Tensor], chosen: Tensor) -> dict[int, Tensor]:
        """Return slopes [R, ...] of all rows of `samples` as those of the `chosen` ones [C · S, ...]; 0 for no row."""
        _, owner, row = self._rows(samples, 0)
        made = {}
        for position, values in slopes.items():
            whole = values.new_zeros(len(samples), self.query.disjunct.shape[1], *values.shape[1:])
            whole[owner, row] = values
            made[position] = whole[chosen].flatten(0, 1)
        return made

    def _proven(self, known: Bounded, samples: Tensor, chosen: Chosen | None) -> Tensor:
        """Return proven bounds of all rows [B, S]; +inf where a sample has no such row."""
        rows, owner, row = self._rows(samples, known.program.last)
        slopes = None if chosen is None else {at: values.double() for at, values in chosen.slopes.items()}
        found = lower_bounds(known.program, known.region, known.lines, rows, slopes=slopes, errors=known.errors).bound
        bound = torch.full(self.query.disjunct[samples].shape, math.inf, dtype=torch.float64, device=found.device)
        bound[owner, row] = found
        return bound

    # ------------------------------------------------------------------------------------------------- answers

    def _conclude(self, samples: Tensor, bound: Tensor, how: str) -> tuple[Tensor, Tensor]:
        """Note what proven bounds [B, S] settle; return which samples stay open, bool [B], and the margins [B]."""
        query = self.query.select(samples)
        still, margin = query.unsettled(bound > 0).any(1), query.worst(bound)
        self._note(samples, ~still, margin, how)
        return still, margin

    def _note(self, samples: Tensor, proven: Tensor, margin: Tensor, how: str) -> None:
        self.proven[samples] |= proven
        for sample, sure, value in zip(samples.tolist(), proven.tolist(), margin.tolist(), strict=True):
            detail = self.details[sample]
            if math.isfinite(value):
                detail["margin"] = value
            if sure:
                detail["by"] = how
                detail.pop("gap", None)

    def _end(self, samples: Tensor, part: Refuter, ended: Ended) -> None:
        """Take over what a search of `samples` found."""
        self.refuter.merge(samples, part)
        self.proven[samples] |= ended.proven
        for k, sample in enumerate(samples.tolist()):
            detail = self.details[sample]
            detail["nodes"] = detail.get("nodes", 0) + int(ended.nodes[k])
            detail["depth"] = max(detail.get("depth", 0), int(ended.depth[k]))
            if bool(ended.proven[k]):
                detail["by"] = "bab"
                detail.pop("margin", None)
            self.reasons[sample] = ended.reason[k]
            detail.pop("gap", None)
            if ended.reason[k] is not None and math.isfinite(gap := float(ended.gap[k])):
                detail["gap"] = gap

    def _answer(self) -> Certificates:
        status = []
        for sample, (wrong, sure) in enumerate(zip(self.refuter.found.tolist(), self.proven.tolist(), strict=True)):
            if wrong:
                status.append("falsified")
            elif sure:
                status.append("certified")
            else:
                reason = self.reasons[sample] or TIME
                status.append("timeout" if reason in (TIME, SPACE) else "open")
                self.details[sample]["reason"] = reason
        eps = self.threat.eps or 0.0
        lower = torch.tensor([eps if word == "certified" else 0.0 for word in status], dtype=torch.float64)
        detail: list[Mapping[str, Any]] = list(self.details)
        return Certificates(lower.to(self.x.device), status, points=self.refuter.points, detail=detail)


def _inner_products(known: Bounded) -> float:
    """Return about how many products optimising the slopes of every inner bound takes, for the neediest sample."""
    program: Program = known.program
    work, before = 0.0, 0.0
    for position, step in enumerate(program.steps):
        weight = getattr(step, "weight", None)
        if weight is not None:
            before += weight.numel() * math.prod(step.shape[1:])
        if position in known.lines:
            open_ = known.lines[position].unstable.flatten(1).sum(1).amax().item()
            # Two rows for each neuron; forward and back for each of Adam's steps.
            work += 2 * open_ * before * 3 * Schedule().steps
    return work
