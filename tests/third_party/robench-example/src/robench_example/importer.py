"""An importer of certified radii from a comma-separated file."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robench import DataError, Importer, Norm, param
from robench.importing import ImportedRows, ImportedRun
from robench.threat import parse_norm

__all__ = ["CsvRadii"]

_COLUMNS = ["index", "label", "prediction", "radius"]
_LIMITS = {"index": 10**12, "label": 10**6, "prediction": 10**6}


@dataclass(frozen=True)
class CsvRadii(Importer):
    """A file with the columns index, label, prediction and radius: one classifier, named like the file.

    A row says that the closed ball of that radius around sample `index` holds no misclassified point. Radii are
    stored one double lower than printed, and those of misclassified samples must be 0.
    """

    norm: str = param("l2", "norm of the radii: linf, l2 or l1")
    dataset: str = param("cifar10", "dataset that the indices are of")
    split: str = param("test", "its split")
    source: str = param("unpublished", "address or citation of the results")

    def __post_init__(self) -> None:
        """Refuse an unknown norm."""
        parse_norm(self.norm)

    def read(self, path: Path) -> Iterator[ImportedRun]:
        """Yield the run in the file `path`. Raises DataError where it is missing or is something else."""
        try:
            with path.open(encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file)
                if reader.fieldnames != _COLUMNS:
                    raise DataError(f"{path}: the first line must be {','.join(_COLUMNS)}")
                rows = [_row(row, f"{path}, line {reader.line_num}") for row in reader]
        except (OSError, UnicodeError, csv.Error) as error:
            raise DataError(f"{path} cannot be read: {error}") from None
        if not rows:
            raise DataError(f"{path} holds no samples")
        sample, label, prediction = (np.array([row[i] for row in rows], dtype=np.int64) for i in range(3))
        radius = np.array([row[3] for row in rows])
        yield ImportedRun(
            classifier=path.stem,
            net=path.stem,
            source=self.source,
            dataset=self.dataset,
            split=self.split,
            classes=int(max(label.max(), prediction.max())) + 1,
            sample=sample,
            label=label,
            prediction=prediction,
            rows=_evidence(sample, label == prediction, radius, parse_norm(self.norm)),
            norm=parse_norm(self.norm),
            eps=("0.25", "0.5", "1"),
        )


def _row(row: dict[str | None, str | None], where: str) -> tuple[int, int, int, float]:
    try:
        if None in row or None in row.values():
            raise ValueError(f"{len(_COLUMNS)} values are needed")
        index, label, prediction = (_count(name, row[name] or "") for name in _COLUMNS[:3])
        radius = float(row["radius"] or "")
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None
    if not 0 <= radius < math.inf or (radius and label != prediction):
        raise DataError(f"{where}: radius {row['radius']}: it is a finite number from 0 on, 0 where misclassified")
    return index, label, prediction, radius


def _count(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 14 and int(text) < _LIMITS[name]):
        raise ValueError(f"{name} {text[:20]!r} is no count")
    return int(text)


def _evidence(sample: np.ndarray, correct: np.ndarray, radius: np.ndarray, norm: Norm) -> tuple[ImportedRows, ...]:
    """Return the clean rows of all samples and the radii of the correct ones."""
    clean = ImportedRows(
        evaluator="clean",
        kind="clean",
        norm=None,
        eps=None,
        sample=sample,
        status=["correct" if right else "incorrect" for right in correct],
        lower=0.0,
        upper=np.where(correct, np.inf, 0.0),
    )
    proven = radius[correct]
    certificates = ImportedRows(
        evaluator="csv-radii",
        kind="certificate",
        norm=norm,
        eps=None,
        sample=sample[correct],
        status=["certified" if value > 0 else "open" for value in proven],
        lower=np.where(proven > 0, np.nextafter(proven, 0.0), 0.0),
        upper=np.inf,
    )
    return clean, certificates
