"""Options that several commands have in the same words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["Device", "Files", "Json", "OtherDataset", "OtherModel", "Runs", "files_option", "places"]


def files_option(what: str) -> Any:
    """Return the option `--files`: folders in which `what` are looked for."""
    return typer.Option("--files", metavar="FOLDER", help=f"Folder to look for {what} in; repeatable.")


Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:1.")]
Files = Annotated[list[Path] | None, files_option("files named by hash")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
OtherDataset = Annotated[str | None, typer.Option("-d", "--dataset", metavar="DATASET", help="Dataset spec, likewise.")]
OtherModel = Annotated[
    str | None, typer.Option("-m", "--model", metavar="MODEL", help="Model spec, where the file is elsewhere.")
]
Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders that hold runs.")]


def places(files: Sequence[Path] | None) -> list[Path]:
    """Return where files are looked for: the current folder, then those of `--files`."""
    return [Path(), *(files or [])]
