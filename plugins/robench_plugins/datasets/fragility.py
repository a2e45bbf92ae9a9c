"""Two settings of "Towards unlocking the mystery of adversarial fragility", where linear networks are fragile.

Whoever classifies by the nearest sample is robust to a distance that grows like √d in both; the linear network that the
theorems are about is not, whatever d.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robench import param
from robench.samples import Samples
from robench_plugins.datasets._draws import normals, subseed
from robench_plugins.datasets._synthetic import SEED, Floats, Ints, chosen, drawn, made

__all__ = ["GaussianPoints", "Lattice"]


@dataclass(frozen=True)
class Lattice:
    """All 2^d points x = A z, z in {−1, 1}^d, for a Gaussian A [d, d]; the label is z_d (theorem 6).

    Two samples that differ in z_d alone are 2 ‖a_d‖ apart, about 2 √d. A linear classifier that takes the values ±1 on
    them is w x with w A = (0, …, 0, 1), so that its boundary is |R_dd| away from every sample, |N(0, 1)| in
    distribution, where A = QR. `scale` multiplies all columns but the last (5 in the paper's experiments): neither
    changes. Both splits are the whole set; a sample's index is z in binary, z_1 the lowest bit. Class 0 is −1. The
    domain is unbounded.
    """

    d: int = param(12, "the dimension", minimum=2, maximum=16)
    scale: float = param(1.0, "factor of all columns but the last", above=0, maximum=1e6)
    seed: int = param(0, SEED, minimum=0, maximum=2**63 - 1)

    @property
    def basis(self) -> Floats:
        """A [d, d], its columns scaled."""
        a = normals(np.arange(self.d), subseed(self.seed, "lattice"), self.d)
        a[:, :-1] *= self.scale
        return a

    def load(self, split: str) -> Samples:
        """Return `train` or `test`: all points."""
        index = chosen("lattice", split, {"train": 1 << self.d, "test": 1 << self.d})
        basis = self.basis

        def points(some: Ints) -> Floats:
            x = np.zeros((len(some), self.d))
            for coordinate in range(self.d):  # in a fixed order: the same bits everywhere
                x += (2.0 * (some >> coordinate & 1) - 1)[:, None] * basis[:, coordinate]
            return x

        return made(drawn("lattice", index, self.d, points), index >> (self.d - 1), index, ("-1", "1"))


@dataclass(frozen=True)
class GaussianPoints:
    """d points of N(0, I_d), each a class of its own (theorem 1).

    Half the distance to the nearest other point is at least (1 − ε) √(2d) / 2 with high probability. The linear network
    with f_j(x_i) = 1[i = j] is wrong within |R_(d−1)(d−1)| + |R_(d−1)d| + |R_dd| of a point, a distance whose
    distribution does not depend on d. Both splits are the d points. The domain is unbounded.
    """

    d: int = param(50, "the dimension, and the number of points and of classes", minimum=2, maximum=4096)
    seed: int = param(0, SEED, minimum=0, maximum=2**63 - 1)

    def load(self, split: str) -> Samples:
        """Return `train` or `test`: all points."""
        index = chosen("gaussian-points", split, {"train": self.d, "test": self.d})
        seed = subseed(self.seed, "gaussian-points")
        x = drawn("gaussian-points", index, self.d, lambda some: normals(some, seed, self.d))
        return made(x, index.copy(), index, [str(label) for label in range(self.d)])
