"""`robench runs`: what is in a results folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from robench.cli._app import app

__all__ = ["runs"]


@app.command("runs")
def runs(
    results: Annotated[list[Path], typer.Argument(help="Results folders, or run folders within them.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """List runs: id, classifier, data, ε, samples, state, age."""
    from robench.report import print_runs, run_rows
    from robench.runs import find_runs

    rows = run_rows(find_runs(results))
    if as_json:
        print(json.dumps({"schema": 1, "runs": rows}, ensure_ascii=False, indent=1))
    else:
        print_runs(rows)
