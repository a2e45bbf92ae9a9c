"""The digits that come with scikit-learn: UCI's optical recognition of handwritten digits, its test set.

Alpaydin & Kaynak 1998. The one real dataset that needs no download, so demonstrations and tests stand on it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import numpy as np

from robench.errors import DataError
from robench.samples import Samples
from robench.threat import Domain, Norm

__all__ = ["DIGESTS", "THRESHOLDS", "Digits"]

# Half the distance to the nearest sample of another class is at least .218 (linf), .589 (l2) and 2.25 (l1), over
# all 1,797 samples: at every ε here a classifier without a single error exists, so what is missing is missing in
# the classifier.
THRESHOLDS: Final[dict[Norm, tuple[str, ...]]] = {
    "linf": ("0.05", "0.1", "0.15"),
    "l2": ("0.25", "0.5"),
    "l1": ("1", "2"),
}

# sha256 over x, y, the indices and the domain (`Samples.digest`).
DIGESTS: Final = {
    "train": "07aa61efb5cb8a603f1cde752b66d86b61089ae75466d22fb153f43b9968c33e",
    "test": "a77a0d8fb097a4b3fcc99afc2f5459430b1a65516aaeac750564d135b4d1e7ca",
}

_SPLIT_SHA256: Final = "378499c008ed2c7cebc5ad2298730b1a30c22b210868453911cbe68da517e79b"


@dataclass(frozen=True)
class Digits:
    """Handwritten digits [1, 8, 8], grey levels k/16 (exact in any float), 1,347 to train on and 450 to test on.

    The split is `train_test_split(arange(1797), test_size=450, stratify=y, random_state=0)` of scikit-learn, kept
    in a file because its random numbers are not promised to stay. A sample's index is its row in scikit-learn's
    arrays.
    """

    def load(self, split: str) -> Samples:
        """Return `train` or `test`."""
        if split not in DIGESTS:
            raise DataError(f"digits has no split {split!r}: choose train or test")
        from sklearn.datasets import load_digits

        bunch = load_digits()
        index = _indices()[split]
        x = (bunch.data[index] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
        y = bunch.target[index].astype(np.int64)
        names = tuple(str(digit) for digit in range(10))
        samples = Samples(x, y, index, Domain(0.0, 1.0), names, dict(THRESHOLDS))
        if samples.digest() != DIGESTS[split]:
            raise DataError("scikit-learn's digits are not the published data: install another scikit-learn")
        return samples


def _indices() -> dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Read the split's indices and hold them against their hash."""
    raw = files(__package__).joinpath("digits_split.json").read_bytes()
    if hashlib.sha256(raw).hexdigest() != _SPLIT_SHA256:
        raise DataError("digits_split.json is not the file that robench came with: install robench again")
    return {name: np.array(rows, np.int64) for name, rows in json.loads(raw).items()}
