"""What running a suite would do: the state of every cell, nothing written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from robench.bounds import find_computed
from robench.evaluation import prepare
from robench.runs import Run
from robench.suite._cells import BoundCell, Cell, Suite
from robench.suite._perform import Shelf, bound_request, reason_of

__all__ = ["Planned", "plan_suite"]


@dataclass(frozen=True)
class Planned:
    """The state of one cell: `complete`, `resumes` (with `done` of `n` samples), `to do`, or `fails` (with why)."""

    cell: BoundCell | Cell
    state: Literal["complete", "resumes", "to do", "fails"]
    done: int = 0
    n: int = 0
    reason: str = ""


def plan_suite(suite: Suite, out: Path | str) -> list[Planned]:
    """Load what each cell needs and look for its run in `out`; a cell that cannot run says why."""
    shelf = Shelf((suite.folder,))
    planned = []
    for cell in suite.tasks:
        try:
            planned.append(_evaluation(cell, out, shelf) if isinstance(cell, Cell) else _bound(cell, out, shelf))
        except Exception as error:
            planned.append(Planned(cell, "fails", reason=reason_of(error)))
    return planned


def _evaluation(cell: Cell, out: Path | str, shelf: Shelf) -> Planned:
    settings = cell.settings
    data = shelf.data(str(settings.dataset), settings.split, settings.samples)
    done = n = found = complete = 0
    prepared = prepare(replace(settings, dataset=data))
    for manifest in (one.manifest for one in prepared):
        n += manifest.dataset.n
        run = Run.find_resumable(out, manifest.request)
        if run is not None:
            found += 1
            try:
                complete += run.manifest.complete
                done += manifest.dataset.n if run.manifest.complete else len(run.done())
            finally:
                run.close()
    if not found:
        return Planned(cell, "to do", 0, n)
    return Planned(cell, "complete" if complete == len(prepared) else "resumes", done, n)


def _bound(cell: BoundCell, out: Path | str, shelf: Shelf) -> Planned:
    return Planned(cell, "complete" if find_computed(**bound_request(cell, out, shelf)) else "to do")
