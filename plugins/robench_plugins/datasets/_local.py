"""What datasets in local files share: folders, files known by hash or size, bytes that become floats when read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from robench.errors import DataError
from robench.samples import Samples
from robench.threat import Domain, Norm

__all__ = ["Levels", "Thresholds", "check_md5", "folder_of", "pictures", "read_whole"]

Thresholds = dict[Norm, tuple[str, ...]]

_LEVELS: Final = np.arange(256, dtype=np.float32) / np.float32(255)


class Levels(Protocol):
    """Bytes [N, ...]: an array, or rows of a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, ...]."""

    def __getitem__(self, rows: Any) -> npt.NDArray[np.uint8]:
        """Rows by slice or int64 array."""


def folder_of(name: str, folder: Path | None, how: str) -> Path:
    """Return the folder that was given, or else `name` where ROBENCH_DATA points.

    Raises DataError, with `how` to get the files, where neither is told.
    """
    if folder is not None:
        return folder
    given = os.environ.get("ROBENCH_DATA")
    if not given:
        raise DataError(f"{name} is not there, ROBENCH_DATA is not set: {how}")
    return Path(given) / name


def read_whole(path: Path, size: int) -> bytes:
    """Return a file of exactly `size` bytes. Raises DataError for any other."""
    try:
        with path.open("rb") as file:
            raw = file.read(size + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if len(raw) != size:
        told = f"has {len(raw)} bytes" if len(raw) < size else "is longer"
        raise DataError(f"{path} {told}, but the published file has {size}: copy it again")
    return raw


def check_md5(path: Path, published: str) -> None:
    """Raise DataError unless the file has the published md5: not against forgers, but against damage and mix-ups."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if found != published:
        raise DataError(
            f"{path} is not the published file, or damaged (md5 {found}, published {published}): copy it again"
        )


def pictures(
    levels: Levels,
    y: npt.NDArray[Any],
    classes: Sequence[str],
    thresholds: Thresholds,
    where: str,
    axes: tuple[int, ...] = (1, 2, 3),
) -> Samples:
    """Return pictures [N, channels, height, width], grey levels k/255 rounded to float32, and their labels.

    `axes` says which axes of `levels` are channels, height and width. A sample's index is its place in the file.
    Raises DataError for labels that do not belong to them; `where` names the file.
    """
    if len(y) != levels.shape[0]:
        raise DataError(f"{where} holds {len(y)} labels for {levels.shape[0]} images: the files do not belong together")
    if not 0 <= int(y.min(initial=0)) <= int(y.max(initial=0)) < len(classes):
        bad = y.min() if y.min() < 0 else y.max()
        raise DataError(f"{where} holds the label {bad}: there are the labels 0 to {len(classes) - 1}")
    x = _Pixels(levels, axes)
    labels = y.astype(np.int64)
    return Samples(x, labels, np.arange(len(y)), Domain(0.0, 1.0), tuple(classes), dict(thresholds))


class _Pixels:
    """Floats from bytes, on access."""

    def __init__(self, levels: Levels, axes: tuple[int, ...]) -> None:
        self._levels, self._axes = levels, axes
        self.shape = (levels.shape[0], *(levels.shape[axis] for axis in axes))
        self.dtype = _LEVELS.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> npt.NDArray[np.float32]:
        levels = self._levels[rows]
        lead = levels.ndim - len(self._axes)  # 0 for one row by its number
        order = (*range(lead), *(axis - 1 + lead for axis in self._axes))
        pixels: npt.NDArray[np.float32] = _LEVELS[levels.transpose(order)]
        return pixels
