"""Runs in folders of results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from robench.errors import DataError
from robench.runs._layout import RESERVED
from robench.runs._run import MANIFEST, Run
from robench.storage import LocalStorage, Storage

__all__ = ["find_runs"]

_DEPTH = 3  # results / dataset / classifier / run


def find_runs(paths: str | Path | Storage | Iterable[str | Path | Storage]) -> list[Run]:
    """Return the runs in results folders, folders within them, or run folders, oldest first, each once.

    Raises DataError where a path is missing, nothing is found, or a manifest cannot be read.
    """
    given = [paths] if isinstance(paths, (str, Path, Storage)) else list(paths)
    if not given:
        raise DataError("no results folder given")
    found: dict[str, Run] = {}
    for path in given:
        if isinstance(path, (str, Path)):
            if not Path(path).is_dir():
                raise DataError(f"{path}: no such results folder")
            if Path(path).name in RESERVED:  # named by a wildcard such as results/*/*
                continue
        storage = LocalStorage(path) if isinstance(path, (str, Path)) else path
        runs = list(_walk(storage, _DEPTH))
        if not runs:
            raise DataError(f"{storage.locate()}: no runs here; `robench eval --out {storage.locate()}` makes one")
        for run in runs:
            other = found.setdefault(run.manifest.run, run)
            if other is not run and (other.manifest != run.manifest or other.verify_parts() or run.verify_parts()):
                raise DataError(f"{other.location} and {run.location} are different runs with one id; remove one")
    if not found:
        raise DataError(f"{given[0]}: no runs here, only what is derived from runs")
    return [found[name] for name in sorted(found)]


def _walk(storage: Storage, depth: int) -> Iterator[Run]:
    names = storage.list()
    if MANIFEST in names:
        yield Run.open(storage)
    elif depth:
        for name in names:
            if name.endswith("/") and name[:-1] not in RESERVED:
                yield from _walk(storage.at(name[:-1]), depth - 1)
