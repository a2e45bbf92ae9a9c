"""One cell of a suite, through the code of its own command; whatever goes wrong becomes its outcome."""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from robench.bounds import BoundRun, compute, find_computed
from robench.errors import RobenchError
from robench.evaluation import execute, prepare
from robench.loading import Data, load_data
from robench.registry import load_plugins
from robench.runs import Run
from robench.suite._cells import BoundCell, Cell
from robench.text import one_line

__all__ = ["Outcome", "Shelf", "State", "bound_request", "perform", "reason_of"]

State = Literal["done", "resumed", "complete", "failed"]
Progress = Callable[[int, int, Mapping[str, int]], None]


@dataclass(frozen=True)
class Outcome:
    """What became of one cell.

    Attributes:
        cell: the cell.
        state: `done`, `resumed` (an interrupted run went on to its end), `complete` (it was before), `failed`.
        reason: why it failed, on one line.
        run: the run or the bound; None where it failed.
        others: the runs after the first, about functions that certifiers made of the cell's model.
        errors: samples that ended in error.
        seconds: time it took now.
        trace: the traceback of a failure.
    """

    cell: BoundCell | Cell
    state: State
    reason: str = ""
    run: Run | BoundRun | None = None
    others: tuple[Run, ...] = ()
    errors: int = 0
    seconds: float = 0.0
    trace: str = field(default="", repr=False)


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


def perform(
    cell: BoundCell | Cell, out: Path | str, shelf: Shelf, progress: Progress, warn: Callable[[str], None]
) -> Outcome:
    """Run what a cell still lacks in the results folder `out`. Raises KeyboardInterrupt alone.

    What a plugin prints goes to stderr: stdout is for results.
    """
    begun = time.monotonic()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            if isinstance(cell, Cell):
                outcome = _evaluate(cell, out, shelf, progress, warn)
            else:
                outcome = _compute(cell, out, shelf, progress)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also SystemExit: a plugin must not end the suite
        outcome = _failure(cell, error)
    return replace(outcome, seconds=time.monotonic() - begun)


def _evaluate(cell: Cell, out: Path | str, shelf: Shelf, progress: Progress, warn: Callable[[str], None]) -> Outcome:
    settings = cell.settings
    data = shelf.data(str(settings.dataset), settings.split, settings.samples)
    states: list[State] = []
    runs = []
    for prepared in prepare(replace(settings, dataset=data)):
        run = Run.find_resumable(out, prepared.manifest.request)
        states.append("done" if run is None else "complete" if run.manifest.complete else "resumed")
        if run is None or not run.manifest.complete:
            with run or Run.create(out, prepared.manifest) as run:
                for note in prepared.notes:
                    warn(note)
                execute(prepared, run, progress, warn)
        runs.append(run)
    state: State = "resumed" if "resumed" in states else "done" if "done" in states else "complete"
    errors = sum(run.manifest.errors for run in runs)
    return Outcome(cell, state, run=runs[0], others=tuple(runs[1:]), errors=errors)


def _compute(cell: BoundCell, out: Path | str, shelf: Shelf, progress: Progress) -> Outcome:
    asked = bound_request(cell, out, shelf)
    if known := find_computed(**asked):
        return Outcome(cell, "complete", run=known)
    return Outcome(cell, "done", run=compute(**asked, progress=lambda done, steps: progress(done, steps, {})))


def bound_request(cell: BoundCell, out: Path | str, shelf: Shelf) -> dict[str, Any]:
    """Return what `robench.bounds.compute` is asked for, by name of argument. Raises InputError."""
    return {
        "bound": cell.spec,
        "dataset": shelf.data(cell.data, cell.split, cell.samples),
        "norm": cell.norm,
        "eps": cell.eps,
        "samples": cell.samples,
        "split": cell.split,
        "out": out,
        "search": shelf.search,
    }


def _failure(cell: BoundCell | Cell, error: BaseException) -> Outcome:
    """Say why, and let go of what the failed cell held."""
    trace = "".join(traceback.format_exception(error))
    traceback.clear_frames(error.__traceback__)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return Outcome(cell, "failed", reason_of(error), trace=trace)


def reason_of(error: BaseException) -> str:
    """Return why a cell failed, on one line."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return one_line(f"{error.strerror} ({error.filename})")
    return one_line(str(error) if isinstance(error, RobenchError) else error)
