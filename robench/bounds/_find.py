"""Bounds in folders of results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from robench.bounds._run import MANIFEST, ROWS, BoundRun, read
from robench.errors import DataError
from robench.storage import LocalStorage, Storage

__all__ = ["FOLDER", "find_bounds"]

FOLDER = "_bounds"
_DEPTH = 2  # results / dataset / _bounds, or _bounds / bound / run


def find_bounds(
    paths: str | Path | Storage | Iterable[str | Path | Storage], problem: Callable[[str], None] | None = None
) -> list[BoundRun]:
    """Return the bounds in results folders or folders within them, oldest first, each once; [] where there are none.

    A folder without a manifest is not finished and left out. `problem` is told, on one line, of a bound that cannot
    be read, which is left out then. Raises DataError for one without `problem`, and where a path is missing.
    """
    given = [paths] if isinstance(paths, (str, Path, Storage)) else list(paths)
    found: dict[str, BoundRun] = {}
    for path in given:
        if isinstance(path, (str, Path)) and not Path(path).is_dir():
            raise DataError(f"{path}: no such results folder")
        storage = LocalStorage(path) if isinstance(path, (str, Path)) else path
        inside = isinstance(path, (str, Path)) and FOLDER in Path(path).resolve().parts[-3:]
        for folder in _walk(storage, _DEPTH, inside):
            try:
                run = read(folder)
                other = found.setdefault(run.manifest.run, run)
                if other.manifest != run.manifest:
                    raise DataError(f"{other.location} and {run.location} are different bounds with one id; remove one")
            except DataError as error:
                if problem is None:
                    raise
                problem(str(error))
    return [found[name] for name in sorted(found)]


def _walk(storage: Storage, depth: int, inside: bool) -> Iterator[Storage]:
    names = storage.list()
    if MANIFEST in names:
        if inside or ROWS in names:
            yield storage
    elif f"{FOLDER}/" in names:
        yield from _walk(storage.at(FOLDER), _DEPTH, True)
    elif depth:
        for name in names:
            if name.endswith("/"):
                yield from _walk(storage.at(name[:-1]), depth - 1, inside or name[:-1] == FOLDER)
