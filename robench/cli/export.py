"""`robench export`: runs in the words of others."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from robench.cli._app import app
from robench.cli._options import Device, Json, OtherDataset, OtherModel, Runs, files_option, places
from robench.errors import InputError

__all__ = ["export"]

FORMATS = ("vnncomp",)


@app.command("export")
def export(
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="vnncomp.")],
    runs: Runs,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write to.")],
    model: OtherModel = None,
    dataset: OtherDataset = None,
    files: Annotated[list[Path] | None, files_option("the runs' files")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Write verdicts and counterexamples as a competition does.

    Runs over properties (vnnlib:FOLDER), as the verification competition has them. A table `<category>.csv` of lines
    category,onnx,vnnlib,prepare_time,result,run_time, and a file for each counterexample, executed again on the
    model. `robench import vnncomp` reads them.
    """
    from robench._export_vnncomp import export_vnncomp
    from robench.runs import find_runs
    from robench.text import safe

    if form not in FORMATS:
        raise InputError(f"unknown format {form!r}: choose {', '.join(FORMATS)}")
    made = export_vnncomp(find_runs(runs), out, model=model, dataset=dataset, device=device, search=places(files))
    for remark in made.remarks:
        print(f"robench: {safe(remark)}", file=sys.stderr)
    if as_json:
        keys = ("category", "onnx", "vnnlib", "prepare_time", "result", "run_time")
        lines = [dict(zip(keys, line, strict=True)) for line in made.lines]
        found = [str(path.relative_to(out)) for path in made.counterexamples]
        print(json.dumps({"schema": 1, "lines": lines, "counterexamples": found}, ensure_ascii=False, indent=1))
        return
    counts: dict[str, int] = {}
    for line in made.lines:
        counts[line[4]] = counts.get(line[4], 0) + 1
    told = ", ".join(f"{count} {result}" for result, count in sorted(counts.items()))
    print(f"{len(made.lines)} instances: {told}; {len(made.counterexamples)} counterexamples in {out}")
