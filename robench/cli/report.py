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
    per_class: Annotated[bool, typer.Option("--per-class", help="The bracket of each class, and the worst.")] = False,
    minority: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS", help="How far the others are above this class; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, as of `robench eval --json`.")] = False,
) -> None:
    """Show the bracket and the ceiling of every classifier.

    The bracket is [certified, empirical] accuracy; runs about the same function are merged. With --minority,
    classifiers that were given one name (robench eval --name) count as several trainings of one kind.
    """
    from robench import metrics
    from robench.bounds import Ceilings, find_bounds
    from robench.report import print_results
    from robench.report_classes import per_class_lines, with_classes
    from robench.report_draws import draws_lines
    from robench.report_scaling import scale_lines
    from robench.runs import find_runs
    from robench.scaling import curves_of, find_scales

    runs, ceilings = find_runs(results), Ceilings(find_bounds(results))
    found = metrics.results(runs, ceilings)
    split = per_class or bool(minority)
    if as_json:
        document = metrics.summarise(runs, ceilings, found=found)
        if split:
            document = with_classes(document, found, minority or ())
        print(json.dumps(document, ensure_ascii=False, indent=1))
    elif split:
        print("\n".join(per_class_lines(found, minority or ())))
    else:
        print_results(found, draws_lines(metrics.random_results(runs)))
        for curves in curves_of(find_scales(results), found):
            print("\n".join(["", *scale_lines(curves)]))
