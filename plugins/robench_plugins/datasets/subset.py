"""Keep a random part of a dataset, the same for every run and nested in every larger part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from robench import param
from robench.contracts import Dataset
from robench.errors import DataError
from robench.samples import Samples
from robench_plugins.datasets._draws import lowest

__all__ = ["Subset"]


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
        return samples.select(lowest(samples.index, seed, n))
