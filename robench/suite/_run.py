"""A suite run: bounds, then evaluations, each through the code of its own command; a failure stops nothing else."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import torch

from robench.bounds import BoundRun, Ceilings, compute
from robench.errors import RobenchError
from robench.evaluation import execute, prepare
from robench.loading import Data, load_data
from robench.metrics import Result, results
from robench.registry import load_plugins
from robench.runs import Run, open_results
from robench.suite._cells import BoundCell, Cell, Suite
from robench.text import one_line

__all__ = ["Outcome", "Shelf", "State", "SuiteOutcome", "run_suite"]

State = Literal["done", "resumed", "complete", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What became of one cell.

    Attributes:
        cell: the cell.
        state: `done`, `resumed` (an interrupted run went on to its end), `complete` (it was before), `failed`.
        reason: why it failed, on one line.
        run: the run or the bound; None where it failed.
        errors: samples that ended in error.
        seconds: time it took now.
        trace: the traceback of a failure.
    """

    cell: BoundCell | Cell
    state: State
    reason: str = ""
    run: Run | BoundRun | None = None
    errors: int = 0
    seconds: float = 0.0
    trace: str = field(default="", repr=False)


@dataclass(frozen=True)
class SuiteOutcome:
    """What became of a suite, one outcome per cell, in the order of `Suite.tasks`."""

    outcomes: tuple[Outcome, ...]

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The cells that failed, and those with samples that ended in error."""
        return tuple(one for one in self.outcomes if one.state == "failed" or one.errors)

    @property
    def runs(self) -> list[Run]:
        """The evaluations."""
        return [one.run for one in self.outcomes if isinstance(one.run, Run)]

    @property
    def bounds(self) -> list[BoundRun]:
        """The bounds."""
        return [one.run for one in self.outcomes if isinstance(one.run, BoundRun)]

    @property
    def ceilings(self) -> Ceilings:
        """The ceilings of the suite's samples."""
        return Ceilings(self.bounds)

    def results(self) -> list[Result]:
        """Return the figures of what was evaluated, under the suite's ceilings, classifiers in the file's order."""
        order: dict[str, int] = {}
        for run in self.runs:
            order.setdefault(run.manifest.classifier.fingerprint, len(order))
        found = results(self.runs, self.ceilings)
        return sorted(found, key=lambda result: order[result.subject.fingerprint])


class Shelf:
    """Loads datasets, and keeps the last one: its cells follow each other, and its hash covers the whole split."""

    def __init__(self, search: Sequence[Path]) -> None:
        """Look for files in the folders of `search`."""
        self.search = search
        self._last: tuple[tuple[str, str, str | None], Data] | None = None

    def data(self, spec: str, split: str, samples: str | None) -> Data:
        """Return the samples that `spec` names. Raises InputError."""
        key = spec, split, samples
        if self._last is None or self._last[0] != key:
            self._last = None  # lets go of it first
            resolved = load_plugins().resolve("datasets", spec, search=self.search)
            self._last = key, load_data(resolved, split, samples)
        return self._last[1]


def run_suite(
    suite: Suite,
    out: Path | str,
    *,
    started: Callable[[int, BoundCell | Cell], None] = lambda position, cell: None,
    progress: Callable[[int, int, Mapping[str, int]], None] = lambda done, total, counts: None,
    finished: Callable[[int, Outcome], None] = lambda position, outcome: None,
    warn: Callable[[str], None] = lambda line: None,
) -> SuiteOutcome:
    """Run what a suite still lacks in the results folder `out`.

    What is complete is left alone, what was interrupted goes on: as `robench eval --resume` does. `started` and
    `finished` get a cell's position in `suite.tasks`, `progress` what is done of the running one.

    Raises InputError where `out` holds something that is not ours, and KeyboardInterrupt with what is kept.
    """
    open_results(out)
    shelf = Shelf((suite.folder,))
    outcomes: list[Outcome] = []
    for position, cell in enumerate(suite.tasks):
        started(position, cell)
        begun = time.monotonic()
        try:
            if isinstance(cell, Cell):
                outcome = _evaluate(cell, out, shelf, progress, warn)
            else:
                outcome = _compute(cell, out, shelf, lambda done, steps: progress(done, steps, {}))
        except KeyboardInterrupt:
            kept = sum(one.state != "failed" for one in outcomes)
            raise KeyboardInterrupt(
                f"interrupted; {kept} of {len(suite.tasks)} cells are complete, and what was measured is kept in "
                f"{out}; the same command goes on"
            ) from None
        except Exception as error:
            outcome = _failure(cell, error)
        outcomes.append(replace(outcome, seconds=time.monotonic() - begun))
        finished(position, outcomes[-1])
    return SuiteOutcome(tuple(outcomes))


def _evaluate(
    cell: Cell,
    out: Path | str,
    shelf: Shelf,
    progress: Callable[[int, int, Mapping[str, int]], None],
    warn: Callable[[str], None],
) -> Outcome:
    settings = cell.settings
    data = shelf.data(str(settings.dataset), settings.split, settings.samples)
    prepared = prepare(replace(settings, dataset=data))
    run = Run.find_resumable(out, prepared.manifest.request)
    if run is not None and run.manifest.complete:
        return Outcome(cell, "complete", run=run, errors=run.manifest.errors)
    state: State = "done" if run is None else "resumed"
    with run or Run.create(out, prepared.manifest) as run:
        for note in prepared.notes:
            warn(note)
        execute(prepared, run, progress, warn)
    return Outcome(cell, state, run=run, errors=run.manifest.errors)


def _compute(cell: BoundCell, out: Path | str, shelf: Shelf, progress: Callable[[int, int], None]) -> Outcome:
    begun = datetime.now(UTC).replace(microsecond=0)
    run = compute(
        cell.spec,
        shelf.data(cell.data, cell.split, cell.samples),
        norm=cell.norm,
        eps=cell.eps,
        samples=cell.samples,
        split=cell.split,
        out=out,
        resume=True,
        progress=progress,
        search=shelf.search,
    )
    return Outcome(cell, "complete" if run.manifest.started < begun else "done", run=run)


def _failure(cell: BoundCell | Cell, error: Exception) -> Outcome:
    """Say why on one line, and let go of what the failed cell held."""
    reason = one_line(str(error) if isinstance(error, RobenchError) else error)
    trace = "".join(traceback.format_exception(error))
    traceback.clear_frames(error.__traceback__)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return Outcome(cell, "failed", reason, trace=trace)
