"""Keep some classes of a dataset, as a smaller classification problem of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from robench import param
from robench.contracts import Dataset
from robench.errors import DataError
from robench.samples import Samples

__all__ = ["Classes", "label_of"]


@dataclass(frozen=True)
class Classes:
    """The samples of some classes, relabelled 0, 1, … in the order given; `keep=3+7` is the problem 3 against 7.

    A class is given by its name or, where no class has that name, by its label. Names, indices and the
    domain stay. The result is another dataset, with a hash of its own.
    """

    selects = False

    keep: tuple[str, ...] = param(..., "the classes to keep, joined by +", positional=True)

    def __post_init__(self) -> None:
        """Refuse fewer than two classes, and repeated ones."""
        if len(self.keep) < 2:
            raise ValueError("keep needs two classes or more, like keep=3+7")
        if len(set(self.keep)) < len(self.keep):
            raise ValueError(f"keep={'+'.join(self.keep)} repeats a class")

    def apply(self, dataset: Dataset) -> Dataset:
        """Return the smaller problem."""
        return _Classes(dataset, self.keep)


@dataclass(frozen=True)
class _Classes:
    dataset: Dataset
    keep: tuple[str, ...]

    def load(self, split: str) -> Samples:
        samples = self.dataset.load(split)
        if samples.regions is not None:
            raise DataError("classes: conditions on all outputs come with these samples: take subset, or --samples")
        labels = [label_of(item, samples.classes) for item in self.keep]
        if len(set(labels)) < len(labels):
            raise DataError(f"classes:keep={'+'.join(self.keep)} names a class twice, once by name and once by label")
        table = np.full(len(samples.classes), -1, np.int64)
        table[labels] = np.arange(len(labels))
        relabelled = table[samples.y]
        rows = np.flatnonzero(relabelled >= 0)
        if not len(rows):
            raise DataError(f"no sample of split {split} is of the classes {'+'.join(self.keep)}")
        names = tuple(samples.classes[label] for label in labels)
        return replace(samples.select(rows), y=relabelled[rows], classes=names)


def label_of(item: str, classes: tuple[str, ...]) -> int:
    """Return the label of the class named `item`, or numbered so where none has that name. Raises DataError."""
    if item in classes:
        return classes.index(item)
    if item.isdecimal() and int(item) < len(classes):
        return int(item)
    known = ", ".join(classes[:12]) + (", …" if len(classes) > 12 else "")
    raise DataError(f"the dataset has no class {item!r}: choose from {known}")
