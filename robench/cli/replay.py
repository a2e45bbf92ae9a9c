"""`robench replay`: ask every witness of a run again, and derive its certificates again."""

from __future__ import annotations

import json
import secrets
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from robench.cli._app import app
from robench.cli._options import Device, Json, OtherDataset, OtherModel, Runs, files_option, places
from robench.errors import InputError
from robench.text import safe

__all__ = ["replay"]

SHOWN = 20


@app.command("replay")
def replay(
    runs: Runs,
    model: OtherModel = None,
    dataset: OtherDataset = None,
    files: Annotated[list[Path] | None, files_option("the run's files")] = None,
    redraw: Annotated[
        int, typer.Option(metavar="N", min=0, help="Rows of each evaluator to draw anew, where draws tell; 0: none.")
    ] = 8,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Seed of these draws and of the choice of rows; random by default.")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Ask every witness again, and derive certificates again.

    Clean predictions too. Votes are taken again; statistical certificates are derived from their counts, where the
    certifier can, and N rows of each evaluator are held against fresh draws. Whoever knew their seed beforehand could
    prepare for it, so it is random, and printed: --seed repeats a replay.

    Files that a run names are found by their hash in the current folder and in --files. Exit code 1 where something
    does not come out as recorded, 2 where a run could not be asked. Imported runs, and those of Python objects, are
    left out beside others; robench.replay asks the latter.
    """
    from robench._replay import Imported, ObjectNeeded, OtherFound, Replay
    from robench.api import replay as ask_again
    from robench.cli._progress import Progress
    from robench.runs import Run, find_runs

    search = places(files)
    results, refused, skipped = [], [], []
    found = find_runs(runs)
    seed = secrets.randbits(48) if seed is None else seed

    def ask(run: Run) -> Replay:
        how = partial(ask_again, run, device=device, search=search, redraw=redraw, seed=seed, progress=progress.update)
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
            except (Imported, ObjectNeeded) as error:
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
            if result.rederived:
                print(f"  {result.rederived} statistical certificates derived again from their counts")
            if result.redrawn:
                print(f"  {result.redrawn} rows held against fresh draws: --seed {result.seed} repeats them")
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
