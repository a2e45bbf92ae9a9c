"""CIFAR-10 and CIFAR-100: 60,000 colour images of 32 × 32 in ten or a hundred classes (Krizhevsky 2009)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from robench import param
from robench.errors import DataError
from robench.samples import Samples
from robench_plugins.datasets._batches import read_batch
from robench_plugins.datasets._cifar_names import CIFAR10, CIFAR100
from robench_plugins.datasets._local import Levels, Thresholds, check_md5, folder_of, pictures, read_whole
from robench_plugins.datasets._members import Archive

__all__ = ["THRESHOLDS", "Cifar10", "Cifar100"]

# linf 8/255 and l2 0.5 are RobustBench's (Croce et al. 2021), 36, 72 and 108/255 those of 1-Lipschitz networks.
THRESHOLDS: Final[Thresholds] = {"linf": ("8/255",), "l2": ("36/255", "0.5", "72/255", "108/255")}

_SIZE: Final = 3 * 32 * 32


@dataclass(frozen=True)
class _Layout:
    """How one of both is published.

    `binary` and `python` are the files of each split, the latter with their published md5; `rows` images are in each
    file of a split, and `bytes_before` bytes before each image in the binary version, the last of which is the label.
    """

    name: str
    torchvision: str
    classes: tuple[str, ...]
    binary: Mapping[str, tuple[str, ...]]
    python: Mapping[str, Mapping[str, str]]
    rows: Mapping[str, int]
    bytes_before: int
    key: str


_CIFAR10: Final = _Layout(
    "cifar10",
    "CIFAR10",
    CIFAR10,
    {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)},
    {
        "train": {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
    },
    {"train": 10_000, "test": 10_000},
    1,
    "labels",
)
_CIFAR100: Final = _Layout(
    "cifar100",
    "CIFAR100",
    CIFAR100,
    {"train": ("train.bin",), "test": ("test.bin",)},
    {
        "train": {"train": "16019d7e3df5f24257cddd939b257f8d"},
        "test": {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    },
    {"train": 50_000, "test": 10_000},
    2,
    "fine_labels",
)


def _how(layout: _Layout) -> str:
    """What to do where the files are missing."""
    return (
        f"put the binary or the Python version (`torchvision.datasets.{layout.torchvision}` downloads the latter) into "
        f"a folder {layout.name}, and set ROBENCH_DATA to the folder above it or write {layout.name}:FOLDER"
    )


@dataclass(frozen=True)
class Cifar10:
    """Colour images [3, 32, 32] of ten classes, levels k/255 rounded to float32, 50,000 to train on, 10,000 to test on.

    From `folder`, or else the folder cifar10 where ROBENCH_DATA points: the binary version (`data_batch_1.bin` …), or
    the Python version (`data_batch_1` …), which is read without unpickling, there or in the folder that the published
    archive unpacks to; otherwise the one file `train*.npz` or `test*.npz`, with bytes `x` [n, 32, 32, 3] and labels
    `y` [n]. Bytes stay bytes in memory and become floats when read. A sample's index is its place in the split.
    """

    folder: Path | None = param(
        None, "where the files are; none: $ROBENCH_DATA/cifar10", positional=True, hint=_how(_CIFAR10)
    )

    def load(self, split: str) -> Samples:
        """Return `train` or `test`."""
        return _load(_CIFAR10, self.folder, split, "cifar-10-batches")


@dataclass(frozen=True)
class Cifar100:
    """Colour images [3, 32, 32] of a hundred classes (the fine labels), in all else like `cifar10`.

    From `folder`, or else the folder cifar100 where ROBENCH_DATA points: `train.bin` and `test.bin`, or `train` and
    `test` of the Python version, or one .npz for a split.
    """

    folder: Path | None = param(
        None, "where the files are; none: $ROBENCH_DATA/cifar100", positional=True, hint=_how(_CIFAR100)
    )

    def load(self, split: str) -> Samples:
        """Return `train` or `test`."""
        return _load(_CIFAR100, self.folder, split, "cifar-100")


def _load(layout: _Layout, folder: Path | None, split: str, archive: str) -> Samples:
    name = layout.name
    if split not in layout.rows:
        raise DataError(f"{name} has no split {split!r}: choose train or test")
    how = _how(layout)
    there = folder_of(name, folder, how)
    binary = _whole(there, (f"{archive}-bin", f"{archive}-binary"), layout.binary[split], name)
    python = binary or _whole(there, (f"{archive}-py", f"{archive}-python"), tuple(layout.python[split]), name)
    if binary:
        parts = [_binary(path, layout, layout.rows[split]) for path in binary]
    elif python:
        parts = [_python(path, layout, split) for path in python]
    else:
        return _npz(layout, there, split, how)
    x, y = (np.concatenate(arrays) if len(arrays) > 1 else arrays[0] for arrays in zip(*parts, strict=True))
    return pictures(x.reshape(-1, 3, 32, 32), y, layout.classes, THRESHOLDS, str((binary or python)[0].parent))


def _whole(folder: Path, archives: tuple[str, ...], names: tuple[str, ...], dataset: str) -> list[Path]:
    """Return the files `names`, in `folder` or one of `archives` in it; none where none is there.

    Raises DataError where only some are.
    """
    for place in (folder, *(folder / archive for archive in archives)):
        found = [place / name for name in names if (place / name).is_file()]
        if len(found) == len(names):
            return found
        if found:
            missing = next(name for name in names if place / name not in found)
            raise DataError(f"{dataset}: no {missing} in {str(place)!r} beside {found[0].name}: copy it there too")
    return []


def _binary(path: Path, layout: _Layout, rows: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    record = layout.bytes_before + _SIZE
    raw = np.frombuffer(read_whole(path, rows * record), np.uint8).reshape(rows, record)
    y = raw[:, layout.bytes_before - 1]
    if y.max() >= len(layout.classes):
        row = int(np.flatnonzero(y >= len(layout.classes))[0])
        raise DataError(
            f"{path}: image {row} has the label {y[row]}, but there are 0 to {len(layout.classes) - 1}: this is not "
            f"the binary version of {layout.name}, or damaged"
        )
    return raw[:, layout.bytes_before :], y


def _python(path: Path, layout: _Layout, split: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    check_md5(path, layout.python[split][path.name])
    return read_batch(path, layout.rows[split], _SIZE, layout.key)


def _npz(layout: _Layout, folder: Path, split: str, how: str) -> Samples:
    """Return the images of the only .npz file of the split."""
    files = sorted(folder.glob(f"{split}*.npz"))
    if not files:
        raise DataError(f"{layout.name}: no files of split {split} in {str(folder)!r}: {how}")
    if len(files) > 1:
        raise DataError(f"{layout.name}: {files[0]} and {files[1].name} are both for split {split}: keep one of them")
    with Archive(files[0]) as archive:
        for name in ("x", "y"):
            if name not in archive:
                raise DataError(f"{files[0]} has no array {name}: save bytes x [n, 32, 32, 3] and labels y [n]")
        x, y = archive.rows("x"), archive.array("y")
    if x.dtype != np.uint8 or len(x.shape) != 4 or tuple(x.shape[1:]) != (32, 32, 3):
        raise DataError(f"x in {files[0]} is {x.dtype} {list(x.shape)}: save bytes (uint8) [n, 32, 32, 3]")
    if y.dtype.kind not in "iu" or y.ndim != 1 or not len(y):
        raise DataError(f"y in {files[0]} is {y.dtype} {list(y.shape)}: save one integer for each image")
    levels: Levels = x
    return pictures(levels, y, layout.classes, THRESHOLDS, str(files[0]), (3, 1, 2))
