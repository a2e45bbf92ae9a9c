"""MNIST and Fashion-MNIST: 70,000 images of 28 × 28 grey levels in ten classes each, in the same format.

LeCun, Bottou, Bengio & Haffner 1998; Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from robench import param
from robench.errors import DataError
from robench.samples import Samples
from robench_plugins.datasets._idx import read_idx
from robench_plugins.datasets._local import Thresholds, folder_of, pictures

__all__ = ["FASHION_THRESHOLDS", "ORIGINAL_TEST", "THRESHOLDS", "FashionMnist", "Mnist"]

# linf: 0.1 is where certified training is compared (Wong & Kolter 2018), 0.3 where attacks and defences are (Madry et
# al. 2018). l2: 1.58 is Wong et al. 2018's, the usual one of Lipschitz networks; 2 and l1 10 are Maini et al. 2020's.
# No classifier is right on more than 99.99 % (1.58) and 99.84 % (2) of the test set there.
THRESHOLDS: Final[Thresholds] = {"linf": ("0.1", "0.3"), "l2": ("1.58", "2"), "l1": ("10",)}

# Wong & Kolter 2018, table 1.
FASHION_THRESHOLDS: Final[Thresholds] = {"linf": ("0.1",)}

# sha256 over x, y, the indices and the domain (`Samples.digest`) of the test set as it was published.
ORIGINAL_TEST: Final = "0a6d5b1f5913110ee3bdddd5fba192c82d06d3fc395ded14995013ca0187df89"

_DIGITS: Final = tuple(str(digit) for digit in range(10))
_CLOTHES: Final = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_PREFIX: Final = {"train": "train", "test": "t10k"}


def _how(name: str, torchvision: str) -> str:
    """What to do where the files are missing."""
    return (
        "put train- and t10k-images-idx3-ubyte and -labels-idx1-ubyte (.gz or not; "
        f"`torchvision.datasets.{torchvision}` downloads them) into a folder {name}, and set ROBENCH_DATA to the "
        f"folder above it or write {name}:FOLDER"
    )


@dataclass(frozen=True)
class Mnist:
    """Handwritten digits [1, 28, 28], grey levels k/255 rounded to float32, 60,000 to train on and 10,000 to test on.

    From the four idx files, gzipped or not, in `folder`, or else in the folder mnist where ROBENCH_DATA points. Bytes
    stay bytes in memory and become floats when read. What data it was is told by the dataset's hash; nothing is
    refused for being another version. A sample's index is its place in the file.
    """

    folder: Path | None = param(
        None, "where the idx files are; none: $ROBENCH_DATA/mnist", positional=True, hint=_how("mnist", "MNIST")
    )

    def load(self, split: str) -> Samples:
        """Return `train` or `test`."""
        return _load("mnist", "MNIST", self.folder, split, _DIGITS, THRESHOLDS)


@dataclass(frozen=True)
class FashionMnist:
    """Pictures of clothes [1, 28, 28], grey levels k/255 rounded to float32, 60,000 to train on and 10,000 to test on.

    From the four idx files, named like MNIST's, gzipped or not, in `folder`, or else in the folder fashion-mnist where
    ROBENCH_DATA points. Everything else is as with `mnist`.
    """

    folder: Path | None = param(
        None,
        "where the idx files are; none: $ROBENCH_DATA/fashion-mnist",
        positional=True,
        hint=_how("fashion-mnist", "FashionMNIST"),
    )

    def load(self, split: str) -> Samples:
        """Return `train` or `test`."""
        return _load("fashion-mnist", "FashionMNIST", self.folder, split, _CLOTHES, FASHION_THRESHOLDS)


def _load(
    name: str, torchvision: str, folder: Path | None, split: str, classes: tuple[str, ...], thresholds: Thresholds
) -> Samples:
    if split not in _PREFIX:
        raise DataError(f"{name} has no split {split!r}: choose train or test")
    how = _how(name, torchvision)
    there = folder_of(name, folder, how)
    images, labels = (_find(there, f"{_PREFIX[split]}-{kind}", name, how) for kind in ("images-idx3", "labels-idx1"))
    x, y = read_idx(images, (28, 28)), read_idx(labels, ())
    return pictures(x.reshape(-1, 1, 28, 28), y, classes, thresholds, str(labels))


def _find(folder: Path, stem: str, name: str, how: str) -> Path:
    """Return the file of that name in `folder`, in the spelling that it has there."""
    for spelling in (f"{stem}-ubyte", f"{stem.replace('-idx', '.idx')}-ubyte"):
        for file in (folder / spelling, folder / f"{spelling}.gz"):
            if file.is_file():
                return file
    raise DataError(f"{name}: no {stem}-ubyte in {str(folder)!r}: {how}")
