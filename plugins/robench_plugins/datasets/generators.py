"""Data from generators of known modulus (Fawzi, Fawzi & Fawzi 2018, "Adversarial vulnerability for any classifier").

x = g(z) for z of N(0, I), with ‖g(z) − g(z')‖ ≤ ω(‖z − z'‖): how robust any classifier can be on such data is bounded
by ω and the classes' probabilities (theorem 1). Here g is linear, so that ω(t) = L t is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robench import param
from robench.samples import Samples
from robench_plugins.datasets._draws import normals, subseed, total
from robench_plugins.datasets._synthetic import SEED, TEST, TRAIN, Floats, Ints, chosen, drawn, made

__all__ = ["HalfSpace", "LinearGenerator"]


@dataclass(frozen=True)
class HalfSpace:
    """x = L z, and the class is 1 where z_1 ≥ 0: where theorem 1 is an equality (remark 4 there).

    The classifier x_1 ≥ 0 is right everywhere, its robust radius is |x_1|, and the fraction of radii of at most η is
    2 Φ(η / L) − 1: no classifier with two classes of probability 1/2 has a smaller one. The domain is unbounded.
    """

    d: int = param(20, "the dimension", minimum=1, maximum=1_000_000)
    scale: float = param(1.0, "L", above=0, maximum=1e6)
    n: int = param(10_000, TRAIN, minimum=1, maximum=10_000_000)
    test: int = param(10_000, TEST, minimum=1, maximum=10_000_000)
    seed: int = param(0, SEED, minimum=0, maximum=2**63 - 1)

    def load(self, split: str) -> Samples:
        """Return `train` or `test`, each drawn independently."""
        index = chosen("half-space", split, {"train": self.n, "test": self.test})
        seed = subseed(self.seed, "half-space", split)
        x = drawn("half-space", index, self.d, lambda some: self.scale * normals(some, seed, self.d))
        return made(x, (x[:, 0] >= 0).astype(np.int64), index, ("negative", "positive"))


@dataclass(frozen=True)
class LinearGenerator:
    """x = U diag(s) z for orthonormal columns U [dim, latent], and K classes: the largest entry of W z.

    s falls evenly from `largest` to `smallest`, so ω(t) = largest · t; U and W [K, latent] are Gaussian, U
    orthonormalised (by the seed). The classifier W diag(1/s) Uᵀ x is right everywhere, and its robust radius in l2 at x
    is min_j (w_y − w_j) z / ‖(w_y − w_j) / s‖, within the data and without. The domain is unbounded.
    """

    latent: int = param(20, "the dimension of z", minimum=1, maximum=1000)
    dim: int = param(100, "the dimension of x", minimum=1, maximum=100_000)
    classes: int = param(10, "K", minimum=2, maximum=1000)
    largest: float = param(1.0, "the largest singular value of the generator", above=0, maximum=1e6)
    smallest: float = param(0.1, "the smallest one", above=0, maximum=1e6)
    n: int = param(10_000, TRAIN, minimum=1, maximum=10_000_000)
    test: int = param(10_000, TEST, minimum=1, maximum=10_000_000)
    seed: int = param(0, SEED, minimum=0, maximum=2**63 - 1)

    def __post_init__(self) -> None:
        """Refuse a generator that cannot have orthonormal columns, and singular values that do not fall."""
        if self.latent > self.dim:
            raise ValueError(f"latent={self.latent} is larger than dim={self.dim}: the columns must be orthonormal")
        if self.smallest > self.largest:
            raise ValueError(f"smallest={self.smallest:g} is larger than largest={self.largest:g}")

    @property
    def scales(self) -> Floats:
        """The singular values s [latent], falling."""
        share = np.arange(self.latent) / max(1, self.latent - 1)
        return self.largest - (self.largest - self.smallest) * share

    @property
    def basis(self) -> Floats:
        """U [dim, latent] with orthonormal columns."""
        rows = normals(np.arange(self.latent), subseed(self.seed, "linear-generator", "U"), self.dim)
        for row in range(self.latent):
            for before in [*range(row)] * 2:  # Gram and Schmidt, twice: orthogonal to rounding
                rows[row] -= total(rows[row] * rows[before]) * rows[before]
            rows[row] /= np.sqrt(total(rows[row] * rows[row]))
        return rows.T

    @property
    def weights(self) -> Floats:
        """W [classes, latent]."""
        return normals(np.arange(self.classes), subseed(self.seed, "linear-generator", "W"), self.latent)

    def latents(self, split: str) -> Floats:
        """Return z [N, latent] of a split. Raises DataError for an unknown one."""
        index = chosen("linear-generator", split, {"train": self.n, "test": self.test})
        return normals(index, subseed(self.seed, "linear-generator", split), self.latent)

    def load(self, split: str) -> Samples:
        """Return `train` or `test`, each drawn independently."""
        z, columns = self.latents(split), self.basis * self.scales
        index = np.arange(len(z))

        def points(some: Ints) -> Floats:
            x = np.zeros((len(some), self.dim))
            for coordinate in range(self.latent):  # in a fixed order: the same bits everywhere
                x += z[some, coordinate, None] * columns[:, coordinate]
            return x

        scores = np.stack([total(z * row) for row in self.weights], 1)
        x = drawn("linear-generator", index, self.dim, points)
        return made(x, scores.argmax(1), index, [str(label) for label in range(self.classes)])
