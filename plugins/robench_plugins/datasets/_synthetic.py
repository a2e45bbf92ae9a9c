"""What made-up datasets share: sizes of splits, draws in blocks, samples from a formula."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from robench.errors import DataError
from robench.samples import Samples
from robench.threat import Domain

__all__ = ["LARGEST", "SEED", "TEST", "TRAIN", "Floats", "Ints", "chosen", "drawn", "made"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LARGEST: Final = 1 << 31  # numbers in a split: 8 GiB
TRAIN: Final = "training samples; fewer are the first of more"
TEST: Final = "test samples"
SEED: Final = "which draw of everything that is random, the problem itself among it"

_BLOCK: Final = 1 << 20  # numbers drawn together


def chosen(name: str, split: str, sizes: dict[str, int]) -> Ints:
    """Return the indices of a split. Raises DataError for an unknown one."""
    if split not in sizes:
        raise DataError(f"{name} has no split {split!r}: choose {' or '.join(sizes)}")
    return np.arange(sizes[split])


def drawn(name: str, index: Ints, width: int, draw: Callable[[Ints], Floats]) -> npt.NDArray[np.float32]:
    """Return draw(index) [N, width] rounded to float32, some rows at a time. Raises DataError for too many numbers."""
    if len(index) * width > LARGEST:
        raise DataError(f"{name}: {len(index)} samples of {width} numbers are more than {LARGEST}: take fewer")
    out = np.empty((len(index), width), np.float32)
    step = max(1, _BLOCK // width)
    for start in range(0, len(index), step):
        out[start : start + step] = draw(index[start : start + step])
    return out


def made(
    x: npt.NDArray[np.float32], y: Ints, index: Ints, classes: Sequence[str], domain: Domain | None = None
) -> Samples:
    """Return samples in `domain`, the whole space if none is given."""
    return Samples(x, y, index, domain or Domain.unbounded(), tuple(classes))
