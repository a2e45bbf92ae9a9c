"""MNIST: 70,000 handwritten digits, 28 × 28 grey levels (LeCun, Bottou, Bengio & Haffner 1998)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from robench import param
from robench.errors import DataError
from robench.samples import Samples
from robench.threat import Domain, Norm
from robench_plugins.datasets._idx import read_idx

__all__ = ["ORIGINAL_TEST", "THRESHOLDS", "Mnist"]

# linf: 0.1 is where certified training is compared (Wong & Kolter 2018), 0.3 where attacks and defences are (Madry et
# al. 2018). l2: 1.58 is Wong et al. 2018's, the usual one of Lipschitz networks; 2 and l1 10 are Maini et al. 2020's.
# No classifier is right on more than 99.99 % (1.58) and 99.84 % (2) of the test set there.
THRESHOLDS: Final[dict[Norm, tuple[str, ...]]] = {"linf": ("0.1", "0.3"), "l2": ("1.58", "2"), "l1": ("10",)}

# sha256 over x, y, the indices and the domain (`Samples.digest`) of the test set as it was published.
ORIGINAL_TEST: Final = "0a6d5b1f5913110ee3bdddd5fba192c82d06d3fc395ded14995013ca0187df89"

_PREFIX: Final = {"train": "train", "test": "t10k"}
_LEVELS: Final = np.arange(256, dtype=np.float32) / np.float32(255)
_HELP: Final = (
    "put train- and t10k-images-idx3-ubyte and -labels-idx1-ubyte (.gz or not; `torchvision.datasets.MNIST` downloads "
    "them) into a folder mnist, and set ROBENCH_DATA to the folder above it or write mnist:FOLDER"
)


@dataclass(frozen=True)
class Mnist:
    """Handwritten digits [1, 28, 28], grey levels k/255 rounded to float32, 60,000 to train on and 10,000 to test on.

    From the four idx files, gzipped or not, in `folder`, or else in the folder mnist where ROBENCH_DATA points. Bytes
    stay bytes in memory and become floats when read. What data it was is told by the dataset's hash; nothing is
    refused for being another version. A sample's index is its place in the file.
    """

    folder: Path | None = param(None, "where the idx files are; none: $ROBENCH_DATA/mnist", positional=True)

    def load(self, split: str) -> Samples:
        """Return `train` or `test`."""
        if split not in _PREFIX:
            raise DataError(f"mnist has no split {split!r}: choose train or test")
        folder = self.folder or _from_environment()
        x = read_idx(_find(folder, f"{_PREFIX[split]}-images", "idx3"), (28, 28))
        labels = _find(folder, f"{_PREFIX[split]}-labels", "idx1")
        y = read_idx(labels, ())
        if len(x) != len(y):
            raise DataError(f"{labels} holds {len(y)} labels for {len(x)} images: the files do not belong together")
        if y.max() > 9:
            raise DataError(f"{labels} holds the label {y.max()}: MNIST has the digits 0 to 9")
        names = tuple(str(digit) for digit in range(10))
        pixels = _Pixels(x.reshape(-1, 1, 28, 28))
        return Samples(pixels, y.astype(np.int64), np.arange(len(y)), Domain(0.0, 1.0), names, dict(THRESHOLDS))


def _from_environment() -> Path:
    given = os.environ.get("ROBENCH_DATA")
    if not given:
        raise DataError(f"mnist is not there, ROBENCH_DATA is not set: {_HELP}")
    return Path(given) / "mnist"


def _find(folder: Path, name: str, kind: str) -> Path:
    """Return the file of that name in `folder`, in the spelling that it has there."""
    for spelling in (f"{name}-{kind}-ubyte", f"{name}.{kind}-ubyte"):
        for file in (folder / spelling, folder / f"{spelling}.gz"):
            if file.is_file():
                return file
    raise DataError(f"mnist: no {name}-{kind}-ubyte in {str(folder)!r}: {_HELP}")


class _Pixels:
    """Grey levels [N, 1, 28, 28], from bytes on access."""

    def __init__(self, levels: npt.NDArray[np.uint8]) -> None:
        self._levels = levels
        self.shape = levels.shape
        self.dtype = _LEVELS.dtype

    def __len__(self) -> int:
        return len(self._levels)

    def __getitem__(self, rows: Any) -> npt.NDArray[np.float32]:
        pixels: npt.NDArray[np.float32] = _LEVELS[self._levels[rows]]
        return pixels
