"""A suite run: bounds, then evaluations; a failure stops nothing else."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from robench.bounds import BoundRun, Ceilings
from robench.errors import InputError
from robench.metrics import RandomResult, Result, in_order, random_results, results
from robench.runs import Run, open_results
from robench.suite._cells import BoundCell, Cell, Suite
from robench.suite._perform import Outcome, Shelf, perform
from robench.suite._workers import perform_in_processes

__all__ = ["SuiteOutcome", "run_suite"]


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
        return [run for one in self.outcomes for run in (one.run, *one.others) if isinstance(run, Run)]

    @property
    def bounds(self) -> list[BoundRun]:
        """The bounds."""
        return [one.run for one in self.outcomes if isinstance(one.run, BoundRun)]

    def random_results(self) -> list[RandomResult]:
        """Return the figures of the classifiers that draw."""
        return random_results(self.runs)

    def results(self) -> list[Result]:
        """Return the figures of what was evaluated, under the suite's ceilings, classifiers in the file's order."""
        return in_order(results(self.runs, Ceilings(self.bounds)), self.runs)


def run_suite(
    suite: Suite,
    out: Path | str,
    *,
    jobs: int = 1,
    started: Callable[[int, BoundCell | Cell], None] = lambda position, cell: None,
    progress: Callable[[int, int, int, Mapping[str, int]], None] = lambda position, done, total, counts: None,
    finished: Callable[[int, Outcome], None] = lambda position, outcome: None,
    warn: Callable[[str], None] = lambda line: None,
) -> SuiteOutcome:
    """Run what a suite still lacks in the results folder `out`.

    What is complete is left alone, what was interrupted goes on: as `robench eval --resume` does.

    Args:
        suite: the suite.
        out: results folder.
        jobs: cells at a time; more than one run in processes of their own, each with its share of the cores. A script
            that asks for them guards its own work by `if __name__ == "__main__"`.
        started: called with a cell's position in `suite.tasks` and the cell.
        progress: called with a position, what is done of that cell, all of it, and the rows by status.
        finished: called with a position and the outcome.
        warn: called with one line about anything that went wrong on some samples.

    Raises:
        InputError: `out` holds something that is not ours.
        KeyboardInterrupt: with what is kept and how to go on.
    """
    if jobs < 1:
        raise InputError(f"{jobs} jobs: run at least 1 at a time")
    open_results(out)
    outcomes: dict[int, Outcome] = {}
    try:
        if jobs == 1:
            ended = _one_by_one(suite, out, started, progress, warn)
        else:
            ended = perform_in_processes(suite.tasks, out, suite.folder, jobs, started, progress, warn)
        with closing(ended):
            for position, outcome in ended:
                outcomes[position] = outcome
                finished(position, outcome)
    except KeyboardInterrupt:
        kept = sum(one.state != "failed" for one in outcomes.values())
        raise KeyboardInterrupt(
            f"interrupted; {kept} of {len(suite.tasks)} cells are complete, and what was measured is kept in {out}; "
            "the same command goes on"
        ) from None
    return SuiteOutcome(tuple(outcomes[position] for position in sorted(outcomes)))


def _one_by_one(
    suite: Suite,
    out: Path | str,
    started: Callable[[int, BoundCell | Cell], None],
    progress: Callable[[int, int, int, Mapping[str, int]], None],
    warn: Callable[[str], None],
) -> Generator[tuple[int, Outcome]]:
    shelf = Shelf((suite.folder,))
    for position, cell in enumerate(suite.tasks):
        started(position, cell)
        yield position, perform(cell, out, shelf, partial(progress, position), warn)
