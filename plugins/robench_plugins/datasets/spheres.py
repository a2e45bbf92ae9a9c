"""Two concentric spheres (Gilmer et al. 2018, "Adversarial spheres")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robench import param
from robench.samples import Samples
from robench_plugins.datasets._draws import normals, signs, subseed, total
from robench_plugins.datasets._synthetic import SEED, TEST, TRAIN, Floats, Ints, chosen, drawn, made

__all__ = ["Spheres"]


@dataclass(frozen=True)
class Spheres:
    """Points that are uniform on the sphere of radius 1 (class 0) or of radius R (class 1), each with probability 1/2.

    The norm of a point tells its class, and the threshold (1 + R) / 2 has the robust radius (R − 1) / 2 in l2 at every
    point: none has more at all of them. Yet whoever errs on a fraction μ of the inner sphere has errors at a mean
    distance of O(Φ⁻¹(1 − μ) / √d), that to a cap of measure μ (theorem 5.1 there). The domain is unbounded.
    """

    d: int = param(500, "the dimension", minimum=2, maximum=1_000_000)
    outer: float = param(1.3, "R, the radius of the outer sphere", above=1, maximum=1e6)
    n: int = param(10_000, TRAIN, minimum=1, maximum=10_000_000)
    test: int = param(10_000, TEST, minimum=1, maximum=10_000_000)
    seed: int = param(0, SEED, minimum=0, maximum=2**63 - 1)

    def load(self, split: str) -> Samples:
        """Return `train` or `test`, each drawn independently."""
        index = chosen("spheres", split, {"train": self.n, "test": self.test})
        y = (signs(index, subseed(self.seed, "spheres", split, "y"), 1)[:, 0] > 0).astype(np.int64)
        where, radii = subseed(self.seed, "spheres", split, "x"), np.where(y == 1, self.outer, 1.0)

        def points(some: Ints) -> Floats:
            z = normals(some, where, self.d)
            return z * (radii[some] / np.sqrt(total(z * z)))[:, None]

        return made(drawn("spheres", index, self.d, points), y, index, ("inner", "outer"))
