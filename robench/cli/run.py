"""`robench run`: every evaluation of a suite file, resumable."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robench.cli._app import app
from robench.cli._audit import AUDIT_FAILED, report_audits
from robench.cli._options import Json
from robench.cli._overview import overview

if TYPE_CHECKING:
    from robench.suite import BoundCell, Cell, Outcome, Planned, Suite, SuiteOutcome

__all__ = ["INCOMPLETE", "report_failures", "run", "run_shown", "suite_document"]

INCOMPLETE = 3


@app.command("run")
def run(
    context: typer.Context,
    suite: Annotated[Path, typer.Argument(metavar="SUITE", help="TOML file: models, datasets, threats, evaluators.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Results folder.")] = Path("results"),
    jobs: Annotated[
        int, typer.Option("-j", "--jobs", min=1, metavar="N", help="Cells at a time, each with its share of the cores.")
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells and what is left of each, and write nothing.")
    ] = False,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Run every evaluation and bound of a suite file.

    What is complete is skipped, what was interrupted goes on. A cell that fails does not stop the others. Files in the
    suite are relative to the suite file's folder. Exit codes: 0 fine, 1 an audited certificate is wrong, 2 bad input
    (before anything runs), 3 something failed or some samples ended in error, 130 interrupted.
    """
    from robench.report_draws import draws_lines
    from robench.suite import load_suite, plan_suite

    loaded = load_suite(suite)
    if dry_run:
        planned = plan_suite(loaded, out)
        _show_plan(planned, as_json)
        if any(one.state == "fails" for one in planned):
            raise typer.Exit(INCOMPLETE)
        return
    debug = bool((context.obj or {}).get("debug"))
    outcome = run_shown(loaded, out, jobs=jobs, quiet=quiet or as_json, debug=debug)
    if as_json:
        print(json.dumps(suite_document(outcome), ensure_ascii=False, indent=1))
    else:
        results, drawn = outcome.results(), draws_lines(outcome.random_results())
        if results or drawn:
            print("\n".join([*overview(results), *([""] if results and drawn else []), *drawn]))
        print(f"next: robench check {out}  |  robench leaderboard build {out} --out site")
    audit_failed = report_audits(outcome.results())
    report_failures(outcome)
    if audit_failed:
        raise typer.Exit(AUDIT_FAILED)


def run_shown(suite: Suite, out: Path, *, jobs: int, quiet: bool, debug: bool) -> SuiteOutcome:
    """Run a suite with bars for the running cells and a line for each that ended, on stderr."""
    from robench.cli._bars import Bars
    from robench.cli._progress import rows
    from robench.suite import run_suite

    with Bars("cells", len(suite.tasks), quiet) as bars:

        def finished(position: int, outcome: Outcome) -> None:
            bars.end(position, _line(outcome))
            if debug and outcome.trace:
                for line in outcome.trace.splitlines():
                    bars.message(f"| {line}")

        return run_suite(
            suite,
            out,
            jobs=jobs,
            started=lambda position, cell: bars.begin(position, cell.title),
            progress=lambda position, done, total, counts: bars.update(position, done, total, rows(counts)),
            finished=finished,
            warn=lambda line: bars.message(f"robench: {line}"),
        )


def report_failures(outcome: SuiteOutcome) -> None:
    """Say on stderr what failed and why; exits with 3 where something did."""
    from robench.report import safe

    failed = outcome.failures
    if not failed:
        return
    print(f"robench: {len(failed)} of {len(outcome.outcomes)} cells failed; the others are kept", file=sys.stderr)
    for one in failed:
        reason = one.reason or f"{one.errors} samples ended in error; they are no evidence"
        print(f"  {safe(one.cell.place)}: {safe(one.cell.title)}: {safe(reason)}", file=sys.stderr)
    raise typer.Exit(INCOMPLETE)


def suite_document(outcome: SuiteOutcome) -> dict[str, Any]:
    """Return what `robench run --json` prints: an entry per cell, then the results as of `robench eval --json`."""
    return {
        "schema": 1,
        "cells": [
            {
                **_cell(one.cell),
                "state": one.state,
                "reason": one.reason or None,
                "run": one.run.manifest.run if one.run else None,
                "errors": one.errors,
                "seconds": round(one.seconds, 3),
            }
            for one in outcome.outcomes
        ],
        "results": [
            *(result.document() for result in outcome.results()),
            *(result.document() for result in outcome.random_results()),
        ],
    }


def _cell(cell: BoundCell | Cell) -> dict[str, Any]:
    from robench.suite import Cell

    if isinstance(cell, Cell):
        settings = cell.settings
        kind, name, eps = "evaluation", {"model": cell.model}, settings.eps
        split, samples, norm = settings.split, settings.samples, settings.norm
    else:
        kind, name, eps = "bound", {"bound": cell.bound}, cell.eps
        split, samples, norm = cell.split, cell.samples, cell.norm
    return {
        "place": cell.place,
        "kind": kind,
        **name,
        "dataset": cell.dataset,
        "split": split,
        "samples": samples,
        "norm": norm,
        "eps": [str(one) for one in eps],
    }


def _line(outcome: Outcome) -> str:
    from robench.report import safe

    said = {
        "done": f"done in {outcome.seconds:.3g} s",
        "resumed": f"went on and is done, {outcome.seconds:.3g} s",
        "complete": "is complete already",
        "failed": f"failed: {outcome.reason}",
    }[outcome.state]
    if outcome.errors:
        said += f"; {outcome.errors} samples ended in error"
    return safe(f"{outcome.cell.title}: {said}")


def _show_plan(planned: Sequence[Planned], as_json: bool) -> None:
    from robench.report import safe

    if as_json:
        cells = [
            {**_cell(one.cell), "state": one.state, "done": one.done, "n": one.n, "reason": one.reason or None}
            for one in planned
        ]
        print(json.dumps({"schema": 1, "cells": cells}, ensure_ascii=False, indent=1))
        return
    for one in planned:
        state = f"{one.state}: {one.reason}" if one.reason else one.state
        if one.state == "resumes":
            state += f", {one.done} of {one.n} samples done"
        print(f"{safe(one.cell.place)}  {safe(one.cell.title)}: {safe(state)}")
    left = sum(one.state != "complete" for one in planned)
    print(f"{left} of {len(planned)} cells to do")
