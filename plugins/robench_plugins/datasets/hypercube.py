"""The hypercube of Prach & Lampert's Theorem 1 ("Intriguing properties of robust classification", section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from robench import param
from robench.samples import Samples
from robench.threat import Domain
from robench_plugins.datasets._draws import ranks, signs, subseed
from robench_plugins.datasets._synthetic import SEED, TEST, Floats, Ints, chosen, drawn, made

__all__ = ["Hypercube"]


@dataclass(frozen=True)
class Hypercube:
    """A problem whose robust solution exists and cannot be learnt: x in [−1, 1]^d with d = ⌈log2 n⌉ + 7, two classes.

    The first d − 1 coordinates are uniform on {−1, 1}, the label is φ of them for a function φ that is drawn uniformly
    from all (by the seed), and the last coordinate is δ times the label, ±1. So the sign of the last coordinate is
    always right, at a margin of δ; φ of the signs of the others (`robust`) is always right, and robust in l2 and linf
    below 1; and whatever learns from n samples is right on at most 1/2 + n/2^d ≤ .5078 of them under an attacker of
    budget δ, on average over φ. Class 0 is −1.
    """

    n: int = param(256, "training samples, which also make the dimension", positional=True, minimum=1, maximum=1 << 20)
    delta: float = param(0.1, "the last coordinate's size", above=0, maximum=1)
    test: int = param(1000, TEST, minimum=1, maximum=10_000_000)
    seed: int = param(0, SEED, minimum=0, maximum=2**63 - 1)

    @property
    def dimension(self) -> int:
        """⌈log2 n⌉ + 7."""
        return (self.n - 1).bit_length() + 7

    def load(self, split: str) -> Samples:
        """Return `train` or `test`, each drawn independently."""
        index = chosen("hypercube", split, {"train": self.n, "test": self.test})
        x = drawn("hypercube", index, self.dimension, lambda some: self._points(some, split))
        return made(x, self.robust(x), index, ("-1", "1"), Domain(-1.0, 1.0))

    def robust(self, x: npt.NDArray[Any]) -> Ints:
        """Return φ(sign x_1, …, sign x_(d−1)), 0 or 1, for x [N, d]: right within less than 1 of every sample."""
        powers = 1 << np.arange(self.dimension - 1, dtype=np.int64)
        corner = ((x[:, :-1] > 0) * powers).sum(1)
        return (ranks(corner, subseed(self.seed, "hypercube", "phi")) >> np.uint64(63)).astype(np.int64)

    def _points(self, index: Ints, split: str) -> Floats:
        x = signs(index, subseed(self.seed, "hypercube", split), self.dimension)
        x[:, -1] = self.delta * (2 * self.robust(x) - 1)
        return x
