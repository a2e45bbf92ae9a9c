"""What every dataset and transform must do: `check_dataset`, `check_transform`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from robench.contracts import Dataset, Transform
from robench.errors import DataError
from robench.samples import Samples
from robench.testing._findings import ALL, Check, Choice, Finding, NotApplicable, Violation, run_checks
from robench.testing._guard import Traces, watch
from robench.threat import Domain

__all__ = ["Blobs", "dataset_findings", "transform_findings"]


@dataclass(frozen=True)
class Blobs:
    """Four separable classes of 8 × 8 pictures, a bright band each, drawn once per split: the kit's own dataset."""

    size: int = 64

    def load(self, split: str) -> Samples:
        """Return `train` or `test`."""
        if split not in ("train", "test"):
            raise DataError(f"no split {split!r}: choose train or test")
        draw = np.random.default_rng(0 if split == "train" else 1)
        y = np.arange(self.size) % 4
        x = draw.uniform(0.0, 0.3, (self.size, 1, 8, 8))
        for label in range(4):
            x[y == label, :, 2 * label : 2 * label + 2] += 0.5
        index = np.arange(self.size, dtype=np.int64)
        return Samples(x.astype(np.float32), y.astype(np.int64), index, Domain(), ("a", "b", "c", "d"))


@dataclass
class DatasetCase:
    """A dataset and what loading it left behind."""

    dataset: Any
    traces: Traces = field(default_factory=Traces)

    def load(self, split: str = "test") -> Samples:
        """Load a split under watch."""
        with watch(self.traces):
            samples = self.dataset.load(split)
        if not isinstance(samples, Samples):
            raise Violation(f"load({split!r}) returned {type(samples).__name__}, not Samples")
        return samples

    def splits(self) -> list[str]:
        """Return `test` and, where there is one, `train`."""
        try:
            self.load("train")
        except DataError:
            return ["test"]
        return ["test", "train"]


def _valid(case: DatasetCase) -> str:
    seen = []
    for split in case.splits():
        samples = case.load(split)
        if samples.y.dtype != np.int64 or samples.index.dtype != np.int64:
            raise Violation(f"{split}: y is {samples.y.dtype}, index is {samples.index.dtype}, not int64")
        if np.dtype(samples.x.dtype).kind != "f":
            raise Violation(f"{split}: x is {samples.x.dtype}: inputs are floats in the domain")
        if len(set(samples.classes)) != len(samples.classes) or not all(isinstance(c, str) for c in samples.classes):
            raise Violation(f"{split}: class names are {samples.classes}")
        for start in range(0, len(samples), 256):
            samples.batch(start, min(start + 256, len(samples)))  # raises where one is outside the domain
        seen.append(f"{split}: {len(samples)} samples of shape {list(samples.shape)}")
    return "; ".join(seen)


def _stable(case: DatasetCase) -> str:
    for split in case.splits():
        first, second = case.load(split), case.load(split)
        count = min(len(first), 512)
        same = len(first) == len(second) and np.array_equal(first.x[0:count], second.x[0:count])
        if not (same and np.array_equal(first.y, second.y) and np.array_equal(first.index, second.index)):
            raise Violation(f"{split}: loaded twice, two different splits")
        if (first.domain, first.classes) != (second.domain, second.classes):
            raise Violation(f"{split}: loaded twice, two domains or lists of classes")
    return "loaded twice, the same"


def _slices(case: DatasetCase) -> str:
    samples = case.load()
    rows = np.arange(len(samples))[:: max(1, len(samples) // 7)][::-1].copy()
    picked = np.asarray(samples.x[rows])
    single = np.concatenate([np.asarray(samples.x[row : row + 1]) for row in rows]) if len(rows) else picked
    if not np.array_equal(picked, single):
        raise Violation("rows by index array differ from the same rows by slice")
    if np.asarray(samples.x[0:0]).shape != (0, *samples.shape):
        raise Violation(f"an empty slice has the shape {np.asarray(samples.x[0:0]).shape}")
    return f"{len(rows)} rows by array and by slice"


def _unknown(case: DatasetCase) -> str:
    try:
        case.dataset.load("no-such-split")
    except DataError as error:
        return f"DataError: {error}"
    raise Violation("load('no-such-split') returned something")


def _quiet(case: DatasetCase) -> str:
    for _ in range(2):
        case.load()
    case.traces.refuse("random", "load")
    return "as it was"


STABLE = ("equal loads give equal samples", "runs are resumed and compared by dataset hash")
RANDOM = (
    "the global random state is neither used nor set",
    "other code in the process must see what it would have seen",
)

DATASET_CHECKS: list[Check[DatasetCase]] = [
    Check(
        "valid",
        "floats inside the domain, int64 labels of known classes, int64 indices, each once",
        "distances are in the domain's units, and samples are joined across runs by index",
        _valid,
    ),
    Check("stable", *STABLE, _stable),
    Check("slices", "rows by slice and by index array agree", "batches and selections read either way", _slices),
    Check("unknown split", "an unknown split raises DataError", "a user can ask for one", _unknown),
    Check("random state", *RANDOM, _quiet),
]


def dataset_findings(dataset: Dataset, choice: Choice = ALL) -> list[Finding]:
    """Run every check of datasets."""
    return run_checks(DATASET_CHECKS, DatasetCase(dataset), choice)


def _selection(transform: Transform) -> str:
    if not getattr(transform, "selects", False):
        raise NotApplicable("the transform changes inputs or labels")
    before, after = Blobs().load("test"), transform.apply(Blobs()).load("test")
    position = {int(index): row for row, index in enumerate(before.index)}
    if not set(after.index.tolist()) <= set(position):
        raise Violation("indices that the dataset does not have")
    rows = np.array([position[int(index)] for index in after.index], dtype=np.int64)
    if not (np.array_equal(before.x[rows], after.x[0 : len(after)]) and np.array_equal(before.y[rows], after.y)):
        raise Violation("an input or a label differs from the original's of the same index")
    if (after.classes, after.domain) != (before.classes, before.domain):
        raise Violation("another domain or other classes: the rows are still the dataset's")
    return f"{len(after)} of {len(before)} samples, as they were"


def _indices(transform: Transform) -> str:
    before, after = Blobs().load("test"), transform.apply(Blobs()).load("test")
    if not set(after.index.tolist()) <= set(before.index.tolist()):
        raise Violation("indices that the dataset does not have")
    return "original indices"


def _source(transform: Transform) -> str:
    kept = Blobs().load("test")
    copy = replace(kept, x=np.array(kept.x), y=kept.y.copy(), index=kept.index.copy())

    class Held:
        def load(self, split: str) -> Samples:
            return kept if split == "test" else Blobs().load(split)

    after = transform.apply(Held()).load("test")
    after.batch(0, len(after))
    same = np.array_equal(kept.x[0 : len(kept)], copy.x[0 : len(copy)]) and np.array_equal(kept.y, copy.y)
    if not same or not np.array_equal(kept.index, copy.index):
        raise Violation("the original's arrays were written to")
    return "as it was"


@dataclass(frozen=True)
class _Applied:
    """Applied at every load, so that fitting is watched too."""

    transform: Transform

    def load(self, split: str) -> Samples:
        return self.transform.apply(Blobs()).load(split)


def _of(check: Callable[[DatasetCase], str]) -> Callable[[Transform], str]:
    def run(transform: Transform) -> str:
        return check(DatasetCase(_Applied(transform)))

    return run


TRANSFORM_CHECKS: list[Check[Transform]] = [
    Check(
        "valid",
        "what comes out is a valid dataset again",
        "transforms are chained",
        _of(_valid),
    ),
    Check("indices", "samples keep their original index", "samples are joined across runs by index", _indices),
    Check(
        "selection",
        "where `selects` is true, rows are chosen and nothing else changes",
        "selection is no part of a dataset's identity: rows of two selections are compared",
        _selection,
    ),
    Check("stable", *STABLE, _of(_stable)),
    Check("source", "the dataset underneath is not written to", "it may be a memory map, or another's", _source),
    Check("unknown split", "an unknown split raises DataError", "a user can ask for one", _of(_unknown)),
    Check("random state", *RANDOM, _of(_quiet)),
]


def transform_findings(transform: Transform, choice: Choice = ALL) -> list[Finding]:
    """Run every check of transforms, on the kit's own dataset."""
    return run_checks(TRANSFORM_CHECKS, transform, choice)
