"""How a certified radius in one norm carries over to the others, rounded down.

For δ in d dimensions ‖δ‖_inf ≤ ‖δ‖_2 ≤ ‖δ‖_1, ‖δ‖_2 ≤ √d ‖δ‖_inf, ‖δ‖_1 ≤ √d ‖δ‖_2 and ‖δ‖_1 ≤ d ‖δ‖_inf, so
the robust radii of one sample obey r_1 ≥ r_2 ≥ r_inf, r_inf ≥ max(r_2/√d, r_1/d) and r_2 ≥ r_1/√d.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from robench.threat import Norm

__all__ = ["carried_lower"]

# The power of d that a radius is divided by, in halves: from the weaker statement to the stronger one.
_ORDER: dict[Norm, int] = {"linf": 0, "l2": 1, "l1": 2}


def carried_lower(
    lower: npt.NDArray[np.float64], source: Norm, target: Norm, dimension: int | None
) -> npt.NDArray[np.float64]:
    """Return what certified radii in `source` prove in `target`; 0 where `dimension` would be needed and is unknown."""
    halves = _ORDER[source] - _ORDER[target]
    if halves <= 0:
        return lower
    if dimension is None:
        return np.zeros_like(lower)
    divisor = _power_up(dimension, halves)
    quotient = np.nextafter(lower / divisor, 0.0)
    return np.where(np.isinf(lower), lower, np.maximum(quotient, 0.0))


def _power_up(dimension: int, halves: int) -> float:
    """A double not below dimension ** (halves / 2)."""
    if halves == 2:
        return float(dimension)
    root = math.sqrt(dimension)
    while Fraction(root) ** 2 < dimension:
        root = math.nextafter(root, math.inf)
    return root
