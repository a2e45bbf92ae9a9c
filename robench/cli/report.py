"""`robench report`: brackets in the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from robench.cli._app import app

__all__ = ["report"]


@app.command("report")
def report(
    results: Annotated[list[Path], typer.Argument(help="Results folders, or run folders within them.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, as of `robench eval --json`.")] = False,
) -> None:
    """Show the bracket and the ceiling of every classifier.

    The bracket is [certified, empirical] accuracy; runs about the same function are merged.
    """
    from robench import metrics
    from robench.bounds import Ceilings, find_bounds
    from robench.report import print_results
    from robench.report_draws import draws_lines
    from robench.report_scaling import scale_lines
    from robench.runs import find_runs
    from robench.scaling import curves_of, find_scales

    runs, ceilings = find_runs(results), Ceilings(find_bounds(results))
    if as_json:
        print(json.dumps(metrics.summarise(runs, ceilings), ensure_ascii=False, indent=1))
    else:
        found = metrics.results(runs, ceilings)
        print_results(found, draws_lines(metrics.random_results(runs)))
        for curves in curves_of(find_scales(results), found):
            print("\n".join(["", *scale_lines(curves)]))
