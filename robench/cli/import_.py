"""`robench import`: published per-sample results as evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from robench.cli._app import app
from robench.cli._options import Json

__all__ = ["import_results"]


@app.command("import")
def import_results(
    importer: Annotated[str, typer.Argument(metavar="FORMAT", help="Importer spec, as listed by `robench plugins`.")],
    path: Annotated[Path, typer.Argument(help="The published file, or a folder of them.")],
    out: Annotated[Path, typer.Option(help="Results folder.")] = Path("results"),
    as_json: Json = False,
) -> None:
    """Import other people's published results, marked as such.

    All files are read before the first run is written. What is there already is not imported again.
    """
    from robench.errors import DataError
    from robench.importing import write
    from robench.registry import load_plugins
    from robench.report import safe
    from robench.runs import PluginInfo

    part = load_plugins().resolve("importers", importer).parts[0]
    plugin = PluginInfo(name=part.name, distribution=part.distribution, version=part.version)
    found = list(part.value.read(path))
    if not found:
        raise DataError(f"{path}: nothing that the importer {part.name} reads; see robench plugins show {part.name}")
    rows = []
    for imported in found:
        run, new = write(imported, out, plugin)
        rows.append(
            {
                "run": run.manifest.run,
                "classifier": run.manifest.classifier.canonical,
                "dataset": run.manifest.dataset.canonical,
                "n": run.manifest.dataset.n,
                "new": new,
                "location": run.location,
            }
        )
        if not as_json:
            state = "imported" if new else "is there already"
            name = safe(run.manifest.classifier.canonical)
            print(f"{run.manifest.run}  {name}, {run.manifest.dataset.n} samples: {state}")
    if as_json:
        print(json.dumps({"schema": 1, "runs": rows}, ensure_ascii=False, indent=1))
