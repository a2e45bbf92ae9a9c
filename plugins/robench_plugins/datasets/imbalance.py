"""Fewer training samples of some classes: what does a minority pay for robustness?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from robench import param
from robench.contracts import Dataset
from robench.errors import DataError
from robench.samples import Samples
from robench_plugins.datasets._draws import lowest, subseed
from robench_plugins.datasets.classes import label_of

__all__ = ["Imbalance"]


@dataclass(frozen=True)
class Imbalance:
    """Keep the fraction `keep` of the training samples of some classes; every other split stays as it is.

    A class is given by its name or, where no class has that name, by its label: `imbalance:8,keep=0.1`. Of a class with
    m samples the round(keep · m), at least 1, with the lowest ranks stay, where a rank is from (seed, index) alone: a
    smaller fraction is contained in a larger one.
    """

    selects: ClassVar[bool] = True

    classes: tuple[str, ...] = param(..., "the classes to thin out, joined by +", positional=True)
    keep: float = param(0.1, "the fraction of their training samples that stays", above=0, maximum=1)
    seed: int = param(0, "which random order", minimum=0, maximum=2**63 - 1)

    def __post_init__(self) -> None:
        """Refuse no class, and repeated ones."""
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError("classes needs one class or more, each once, like 3+8")

    def apply(self, dataset: Dataset) -> Dataset:
        """Return the unbalanced dataset."""
        return _Imbalance(dataset, self)


@dataclass(frozen=True)
class _Imbalance:
    dataset: Dataset
    imbalance: Imbalance

    def load(self, split: str) -> Samples:
        samples = self.dataset.load(split)
        labels = [label_of(item, samples.classes) for item in self.imbalance.classes]
        if len(set(labels)) < len(labels):
            raise DataError("imbalance: a class is named twice, once by name and once by label")
        if split != "train":
            return samples
        seed = subseed(self.imbalance.seed, "imbalance")  # other ranks than those of subset
        kept = [np.flatnonzero(~np.isin(samples.y, labels))]
        for item, label in zip(self.imbalance.classes, labels, strict=True):
            rows = np.flatnonzero(samples.y == label)
            if not len(rows):
                raise DataError(f"imbalance: no training sample is of the class {item}: leave it out")
            count = max(1, round(self.imbalance.keep * len(rows)))
            kept.append(rows[lowest(samples.index[rows], seed, count)])
        return samples.select(np.sort(np.concatenate(kept)))
