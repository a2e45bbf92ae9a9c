"""`robench replay`: ask every witness of a run again, and derive its certificates again."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from robench.cli._app import app
from robench.errors import InputError
from robench.text import safe

__all__ = ["replay"]

SHOWN = 20


@app.command("replay")
def replay(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders that hold runs.")],
    model: Annotated[
        str | None, typer.Option("-m", "--model", metavar="MODEL", help="Model spec, where the file is elsewhere.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("-d", "--dataset", metavar="DATASET", help="Dataset spec, likewise.")
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option("--files", metavar="FOLDER", help="Folder to look for the run's files in; repeatable."),
    ] = None,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:1.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Ask every witness again, and derive certificates again.

    Clean predictions too; statistical certificates are left out. Files that a run names are found by their hash in the
    current folder and in --files. Exit code 1 where something does not come out as recorded, 2 where a run could not be
    asked. Runs of Python objects are left out beside others; robench.replay asks them.
    """
    from robench._replay import ObjectNeeded, OtherFound, Replay
    from robench.api import replay as ask_again
    from robench.cli._progress import Progress
    from robench.runs import Run, find_runs

    search = [Path(), *(files or [])]
    results, refused, skipped = [], [], []
    found = find_runs(runs)

    def ask(run: Run) -> Replay:
        how = partial(ask_again, run, device=device, search=search, progress=progress.update)
        try:
            return how(model=model, dataset=dataset)
        except OtherFound:
            if len(found) == 1 or not (model or dataset):
                raise
            return how()  # -m and -d are about other runs of the folder

    with Progress("replay", quiet=as_json) as progress:
        for run in found:
            try:
                results.append(ask(run))
            except ObjectNeeded as error:
                skipped.append(str(error))
            except InputError as error:
                refused.append(str(error))
    if as_json:
        print(json.dumps({"schema": 1, "runs": [result.document() for result in results]}, indent=1))
    else:
        for result in results:
            print(
                f"run {result.run}: {result.witnesses} witnesses, {result.certificates} certificates and "
                f"{result.clean} clean predictions asked again: {len(result.problems) or 'no'} differences"
            )
            for spec, why in result.not_replayed.items():
                print(f"  not replayed: {spec}: {why}")
            for problem in result.problems[:SHOWN]:
                where = "" if problem.sample is None else f"sample {problem.sample}, "
                who = f" of {problem.evaluator}" if problem.evaluator else ""
                print(f"  {where}{problem.kind}{who}: {safe(problem.text)}")
            if len(result.problems) > SHOWN:
                print(f"  … and {len(result.problems) - SHOWN} more (--json has all)")
    for line in (f"not replayed: {one}" if results else one for one in skipped):
        print(f"robench: {safe(line)}", file=sys.stderr)
    for line in refused:
        print(f"robench: {safe(line)}", file=sys.stderr)
    if any(result.problems for result in results):
        raise typer.Exit(1)
    if refused or not results:
        raise typer.Exit(2)
