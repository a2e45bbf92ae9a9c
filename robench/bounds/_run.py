"""One computed bound on disk."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from typing import Final

from robench.bounds._manifest import BoundManifest
from robench.bounds._table import BoundRow, from_parquet
from robench.errors import DataError
from robench.storage import Storage

__all__ = ["MANIFEST", "ROWS", "BoundRun", "read"]

MANIFEST: Final = "manifest.json"
ROWS: Final = "bound.parquet"
_LARGEST: Final = 16 << 20


@dataclass(frozen=True)
class BoundRun:
    """A bound on some samples: its manifest, a row per ε (ascending), and its folder, for messages."""

    manifest: BoundManifest
    rows: tuple[BoundRow, ...]
    location: str

    @property
    def rises(self) -> BoundRow | None:
        """The first row of a ceiling that lies above the row before it, which no ceiling does; None where none is."""
        ceilings = [row for row in self.rows if row.direction == "ceiling"]
        pairs = itertools.pairwise(ceilings)
        return next((row for before, row in pairs if row.value > before.value), None)


def read(storage: Storage) -> BoundRun:
    """Read the bound in a folder. Raises DataError for what is truncated, edited, foreign or out of range."""
    where = storage.locate(ROWS)
    manifest = BoundManifest.from_json(storage.read(MANIFEST, _LARGEST), storage.locate(MANIFEST))
    data = storage.read(ROWS, _LARGEST)
    if hashlib.sha256(data).hexdigest() != manifest.sha256:
        raise DataError(f"{where}: edited since it was written (its sha256 is not the manifest's)")
    return BoundRun(manifest, from_parquet(data, manifest, where), storage.locate())
