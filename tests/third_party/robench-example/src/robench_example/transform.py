"""A transform that keeps every k-th sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from robench import Dataset, Samples, Transform, param

__all__ = ["Every"]


@dataclass(frozen=True)
class Every(Transform):
    """Keeps the samples at positions `offset`, `offset + k`, … of each split, as they are."""

    selects: ClassVar[bool] = True  # rows are chosen, inputs and labels unchanged: still the same dataset

    k: int = param(2, "distance between the positions kept", minimum=1)
    offset: int = param(0, "first position kept", minimum=0)

    def apply(self, dataset: Dataset) -> Dataset:
        """Return the thinned dataset."""
        return _Every(dataset, self.k, self.offset)


@dataclass(frozen=True)
class _Every(Dataset):
    dataset: Dataset
    k: int
    offset: int

    def load(self, split: str) -> Samples:
        return self.dataset.load(split).select(slice(self.offset, None, self.k))
