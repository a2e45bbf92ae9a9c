"""A dataset whose best classifier is known: points of the unit box on two sides of a hyperplane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robench import DataError, Dataset, Domain, Samples, param

__all__ = ["Halves"]

_SPLITS = ("train", "test")


@dataclass(frozen=True)
class Halves(Dataset):
    """Uniform points of [0, 1]^d, labelled by the side of Σ x_i = d / 2, none nearer to it than `gap` in l2."""

    n: int = param(200, "samples in each split", minimum=1)
    d: int = param(4, "numbers in each input", minimum=1)
    gap: float = param(0.05, "smallest l2 distance to the boundary", minimum=0, maximum=0.25)

    def load(self, split: str) -> Samples:
        """Return `train` or `test`."""
        if split not in _SPLITS:
            raise DataError(f"halves has no split {split!r}: choose one of {', '.join(_SPLITS)}")
        draw = np.random.default_rng([_SPLITS.index(split), self.n, self.d])
        x = np.empty((0, self.d), dtype=np.float32)
        while len(x) < self.n:  # at least a third of all points are kept
            more = draw.random((self.n, self.d), dtype=np.float32)
            x = np.concatenate([x, more[np.abs(_side(more)) >= self.gap]])
        x = x[: self.n]
        y = (_side(x) > 0).astype(np.int64)
        return Samples(x, y, np.arange(self.n), Domain(0.0, 1.0), ("below", "above"), {"l2": ("0.1",)})


def _side(x: np.ndarray) -> np.ndarray:
    """Return the signed l2 distance [N] to the boundary."""
    d = x.shape[1]
    return (x.astype(np.float64).sum(1) - d / 2) / np.sqrt(d)
