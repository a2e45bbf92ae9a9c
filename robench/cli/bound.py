"""`robench bound`: theoretical ceilings on exactly the samples that classifiers are evaluated on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from robench.cli._app import app
from robench.cli._options import Files, Json, places

__all__ = ["bound"]


@app.command("bound")
def bound(
    bounds: Annotated[list[str], typer.Argument(metavar="BOUND", help="Bound specs, one or several.")],
    dataset: Annotated[str, typer.Option("-d", "--dataset", metavar="DATASET", help="Dataset spec: digits, npz:FILE.")],
    norm: Annotated[str, typer.Option(metavar="NORM", help="linf, l2 or l1.")] = "linf",
    eps: Annotated[
        list[str] | None, typer.Option(metavar="EPS", help="Budget in the domain's units, like 8/255; repeatable.")
    ] = None,
    samples: Annotated[
        str | None, typer.Option(metavar="A:B", help="Only these of the dataset's samples, like 0:1000.")
    ] = None,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="Split of the dataset.")] = "test",
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Results folder.")] = Path("results"),
    resume: Annotated[bool, typer.Option("--resume", help="Show an equal bound that was computed before.")] = False,
    files: Files = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Compute what no classifier can be above on these samples.

    A ceiling holds for exactly the samples that it was computed on: give the same dataset, --split and --samples as
    to robench eval. It then stands beside the brackets of eval, report and the leaderboard, and robench check holds
    certified accuracies against it. Exit codes: 0 fine, 2 bad input, 130 interrupted.
    """
    from robench.bounds import compute
    from robench.cli._progress import Progress
    from robench.registry import load_plugins
    from robench.report import bound_document, bound_lines, safe

    search = places(files)
    for spec in bounds:  # a misspelt one before any is computed
        load_plugins().resolve("bounds", spec, search=search)
    documents = []
    for spec in bounds:
        with Progress(f"bound {safe(spec)}", quiet=quiet or as_json) as progress:
            run = compute(
                spec,
                dataset,
                norm=norm,
                eps=eps or [],
                samples=samples,
                split=split,
                out=out,
                resume=resume,
                progress=lambda done, steps, bar=progress: bar.update(done, steps, {}),  # type: ignore[misc]
                search=search,
            )
        documents.append(bound_document(run))
        if not as_json:
            print("\n".join(bound_lines(run)))
    if as_json:
        print(json.dumps({"schema": 1, "bounds": documents}, ensure_ascii=False, indent=1))
    else:
        print(f"next: robench eval … --out {out}  |  robench check {out}")
