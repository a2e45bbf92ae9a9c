"""Keep a random part of a dataset, the same for every run and nested in every larger part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt

from robench import param
from robench.contracts import Dataset
from robench.errors import DataError
from robench.samples import Samples

__all__ = ["Subset"]

_GAMMA: Final = 0x9E3779B97F4A7C15  # the odd number next to 2**64 divided by the golden ratio


@dataclass(frozen=True)
class Subset:
    """A random subset of `n` samples, drawn without replacement and without regard to the labels.

    Each sample has a rank from (seed, index) alone, and the `n` lowest ranks stay, in the dataset's order. So
    a smaller subset is contained in a larger one, and a sample's rank is the same after any other selection.
    Labels are not balanced: an interval for the accuracy on all samples needs a plain random sample.
    """

    selects: ClassVar[bool] = True

    n: int = param(500, "how many samples to keep", minimum=1)
    seed: int = param(0, "which random order", minimum=0, maximum=2**63 - 1)

    def apply(self, dataset: Dataset) -> Dataset:
        """Return the smaller dataset."""
        return _Subset(dataset, self)


@dataclass(frozen=True)
class _Subset:
    dataset: Dataset
    subset: Subset

    def load(self, split: str) -> Samples:
        samples = self.dataset.load(split)
        n, seed = self.subset.n, self.subset.seed
        if n > len(samples):
            raise DataError(f"subset asks for n={n}, but split {split} has {len(samples)} samples: ask for fewer")
        chosen = np.argsort(_ranks(samples.index, seed), kind="stable")[:n]
        return samples.select(np.sort(chosen))


def _ranks(index: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.uint64]:
    """Output number `index` of the SplitMix64 generator of a scrambled seed (Steele, Lea & Flood 2014): no ties."""
    start = int(_mix(np.array([(seed + 1) * _GAMMA % 2**64], np.uint64))[0])
    steps = (index.astype(np.uint64) + np.uint64(1)) * np.uint64(_GAMMA)
    return _mix(steps + np.uint64(start))


def _mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser: a bijection of 64-bit words whose every output bit depends on every input bit."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
