"""SVHN: colour images of 32 × 32 around one digit of a house number (Netzer et al. 2011)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from robench import param
from robench.errors import DataError
from robench.samples import Samples
from robench_plugins.datasets._local import Thresholds, check_md5, folder_of, pictures

__all__ = ["THRESHOLDS", "Svhn"]

# linf 8/255 as in Carmon et al. 2019, the radii of 1-Lipschitz networks on CIFAR in l2.
THRESHOLDS: Final[Thresholds] = {"linf": ("8/255",), "l2": ("36/255", "72/255", "108/255")}

_MD5: Final = {"train": "e26dedcc434d2e4c54c9b2d4a06d8373", "test": "eb5a983be6a315427106f1b164d9cef3"}
_DIGITS: Final = tuple(str(digit) for digit in range(10))
_HELP: Final = (
    "put train_32x32.mat and test_32x32.mat (`torchvision.datasets.SVHN` downloads them) into a folder svhn, and set "
    "ROBENCH_DATA to the folder above it or write svhn:FOLDER"
)


@dataclass(frozen=True)
class Svhn:
    """House numbers [3, 32, 32], levels k/255 rounded to float32, 73,257 to train on and 26,032 to test on.

    From the two .mat files ("cropped digits") in `folder`, or else in the folder svhn where ROBENCH_DATA points; their
    md5 sums must be the published ones. The digit 0, whose label is 10 in the files, has the label 0. Bytes stay bytes
    in memory and become floats when read. A sample's index is its place in the file.
    """

    folder: Path | None = param(None, "where the .mat files are; none: $ROBENCH_DATA/svhn", positional=True, hint=_HELP)

    def load(self, split: str) -> Samples:
        """Return `train` or `test`."""
        if split not in _MD5:
            raise DataError(f"svhn has no split {split!r}: choose train or test")
        path = folder_of("svhn", self.folder, _HELP) / f"{split}_32x32.mat"
        if not path.is_file():
            raise DataError(f"svhn: no {path.name} in {str(path.parent)!r}: {_HELP}")
        check_md5(path, _MD5[split])  # before anything in it is believed
        from scipy.io import loadmat

        found = loadmat(path, variable_names=["X", "y"])
        x, y = found["X"], found["y"].reshape(-1).astype(np.int64)
        # [height, width, channels, N], the last axis the slowest in memory.
        return pictures(x.transpose(3, 2, 0, 1), np.where(y == 10, 0, y), _DIGITS, THRESHOLDS, str(path))
