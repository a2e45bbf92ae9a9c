"""Two Gaussians, the model of Schmidt et al. 2018 ("Adversarially robust generalization requires more data")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robench import param
from robench.samples import Samples
from robench_plugins.datasets._draws import normals, signs, subseed, total
from robench_plugins.datasets._synthetic import SEED, TEST, TRAIN, Floats, Ints, chosen, drawn, made

__all__ = ["GaussianMixture"]


@dataclass(frozen=True)
class GaussianMixture:
    """The (θ, σ)-Gaussian model (definition 1 there): y is −1 or 1 with probability 1/2, x is N(y θ, σ² I), ‖θ‖ = √d.

    θ has a uniformly random direction (by the seed). No classifier is right on more than Φ(√d / σ), nor, at ε, on more
    than Φ(‖v‖ / σ), where v is the shortest of the vectors θ − z with ‖z‖ ≤ ε in the attacker's norm: in l2 ‖v‖ is
    √d − ε, in linf v is θ shrunk towards 0 by ε in each coordinate (Bhagoji, Cullina & Mittal 2019, on Gaussians). The
    linear classifier with the weights v reaches it. The domain is unbounded. Class 0 is −1.
    """

    d: int = param(100, "the dimension", minimum=1, maximum=1_000_000)
    sigma: float = param(5.0, "standard deviation of each coordinate", above=0, maximum=1e6)
    n: int = param(10_000, TRAIN, minimum=1, maximum=10_000_000)
    test: int = param(10_000, TEST, minimum=1, maximum=10_000_000)
    seed: int = param(0, SEED, minimum=0, maximum=2**63 - 1)

    @property
    def theta(self) -> Floats:
        """The mean of class 1, [d]."""
        direction = normals(np.array([0]), subseed(self.seed, "gaussian-mixture", "theta"), self.d)
        scaled: Floats = (direction / np.sqrt(total(direction * direction) / self.d)[:, None])[0]
        return scaled

    def load(self, split: str) -> Samples:
        """Return `train` or `test`, each drawn independently."""
        index = chosen("gaussian-mixture", split, {"train": self.n, "test": self.test})
        sides = signs(index, subseed(self.seed, "gaussian-mixture", split, "y"), 1)
        noise, theta = subseed(self.seed, "gaussian-mixture", split, "x"), self.theta

        def points(some: Ints) -> Floats:
            return sides[some] * theta + self.sigma * normals(some, noise, self.d)

        x = drawn("gaussian-mixture", index, self.d, points)
        return made(x, (sides[:, 0] > 0).astype(np.int64), index, ("-1", "1"))
