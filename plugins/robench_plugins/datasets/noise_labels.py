"""Wrong training labels, uniformly at random: what does robustness cost where labels cannot be trusted?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from robench import param
from robench.contracts import Dataset
from robench.errors import DataError
from robench.samples import Samples
from robench_plugins.datasets._draws import fractions, lowest, subseed

__all__ = ["NoiseLabels"]


@dataclass(frozen=True)
class NoiseLabels:
    """Give the fraction `fraction` of the training samples another label; every other split stays as it is.

    The round(fraction · n) samples with the lowest ranks get a label that is drawn uniformly from all the other
    classes, so that exactly this fraction is wrong. Ranks and new labels are from (seed, index) alone: what a smaller
    fraction changes, a larger one changes in the same way. Which ranks are the lowest depends on what was selected
    before: a tenth of a subset is not what the subset has of a tenth of all.
    """

    selects: ClassVar[bool] = False
    fits: ClassVar[bool] = True

    fraction: float = param(
        0.1, "the fraction of training labels that are replaced", positional=True, above=0, maximum=1
    )
    seed: int = param(0, "which samples and which labels", minimum=0, maximum=2**63 - 1)

    def apply(self, dataset: Dataset) -> Dataset:
        """Return the dataset with noisy training labels."""
        return _NoiseLabels(dataset, self)


@dataclass(frozen=True)
class _NoiseLabels:
    dataset: Dataset
    noise: NoiseLabels

    def load(self, split: str) -> Samples:
        samples = self.dataset.load(split)
        if samples.regions is not None:
            raise DataError("noise-labels: conditions on outputs come with these samples, which labels are part of")
        classes = len(samples.classes)
        if classes < 2:
            raise DataError("noise-labels: there is one class alone, and so no other label")
        if split != "train":
            return samples
        count = round(self.noise.fraction * len(samples))
        if not count:
            raise DataError(f"noise-labels: {self.noise.fraction:g} of {len(samples)} samples is none of them")
        which, other = (subseed(self.noise.seed, "noise-labels", part) for part in ("which", "other"))
        rows = lowest(samples.index, which, count)
        draws = fractions(samples.index[rows], other, 1)[:, 0]
        y = samples.y.copy()
        y[rows] = (y[rows] + 1 + np.floor(draws * (classes - 1)).astype(np.int64)) % classes
        return replace(samples, y=y)
