"""What a bound on the top class's probability proves, and which probability a radius takes.

Each theorem is about an open ball; radii here are those of closed balls, one double lower, and rounded down in every
step (design, section 1); thresholds are rounded up. `ndtri` and `ndtr` are taken to err by at most 2**-48 of their
values, 16 units in the last place; against 40 digits they erred by less than 2**-50 at the points tried.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from robench.binomial import Floats, lower_bound, upper_bound

__all__ = [
    "draws_needed",
    "gaussian_radius",
    "gaussian_threshold",
    "gaussian_two_sided",
    "largest_radius",
    "linf_from_l2",
    "two_sided_radius",
    "uniform_radius",
    "uniform_threshold",
]

# Twice what is assumed: the rest is for the roundings of what follows.
_ERROR = 2.0**-47


def gaussian_radius(p_low: npt.ArrayLike, sigma: float) -> Floats:
    """Return the l2 radius σ Φ⁻¹(p_low) under noise N(0, σ²I), with p_B = 1 − p_A (Cohen et al. 2019, section 3.2.2).

    Args:
        p_low: lower bounds of the top class's probability, in [0, 1].
        sigma: standard deviation of the noise, in the domain's units.

    Returns:
        float64, in the domain's units, of closed balls; 0 (abstain) where p_low ≤ 1/2, +inf where p_low = 1.

    Raises:
        ValueError: probabilities outside [0, 1] (NaN among them), or a σ that is not positive and finite.
    """
    p = _probabilities(p_low)
    _positive("sigma", sigma)
    return np.where(p > 0.5, _closed(sigma * (ndtri(p) * (1 - _ERROR))), 0.0)


def two_sided_radius(p_low: npt.ArrayLike, p_up: npt.ArrayLike, sigma: float) -> Floats:
    """Return the l2 radius σ/2 (Φ⁻¹(p_low) − Φ⁻¹(p_up)) (Cohen et al. 2019, theorem 1, equation 3).

    `p_up` bounds the probability of every other class from above. Where 1 − p_low is smaller, it is taken: the others
    share what the top class leaves. 0 (abstain) where p_low is not above it. Arguments, units and errors as
    `gaussian_radius`.
    """
    low, up = np.broadcast_arrays(_probabilities(p_low), _probabilities(p_up))
    _positive("sigma", sigma)
    up = np.minimum(up, np.nextafter(1 - low, 2.0))
    above, below = ndtri(low), ndtri(up)
    certified = low > up
    difference = np.subtract(above, below, out=np.zeros_like(above), where=certified)
    # The error of each quantile, and of the difference. Infinite where one is.
    error = np.where(np.isfinite(difference), _ERROR * (np.abs(above) + np.abs(below)), 0.0)
    return np.where(certified, _closed(sigma / 2 * (difference - error)), 0.0)


def gaussian_two_sided(
    top: npt.ArrayLike, second: npt.ArrayLike, n: npt.ArrayLike, alpha: float, sigma: float
) -> Floats:
    """Return the two-sided l2 radius from counts, with α / 2 spent on each bound.

    Args:
        top: votes of the class that independent draws had chosen.
        second: the most votes of any other class.
        n: draws, fixed before the first of them.
        alpha: failure rate of the certificate, in (0, 1).
        sigma: standard deviation of the noise, in the domain's units.

    No further split over the classes: the likeliest other class is one fixed class, and the bound of the most votes is
    at least the bound of that one's.
    """
    return two_sided_radius(lower_bound(top, n, alpha / 2), upper_bound(second, n, alpha / 2), sigma)


def uniform_radius(p_low: npt.ArrayLike, half_width: float) -> Floats:
    """Return the l1 radius 2λ (p_low − 1/2) under noise uniform on [−λ, λ]^d (Yang et al. 2020).

    `half_width` is λ, in the domain's units; the rest as `gaussian_radius`. At most λ.
    """
    p = _probabilities(p_low)
    _positive("half_width", half_width)
    # p − 1/2 and 2λ are exact, the product is rounded once.
    return np.where(p > 0.5, _closed(np.nextafter(2 * half_width * (p - 0.5), 0.0)), 0.0)


def linf_from_l2(radius: npt.ArrayLike, dimension: int) -> Floats:
    """Return radius / √d, rounded down: of the closed linf ball that the closed l2 ball holds in d coordinates.

    Raises ValueError for a negative radius or NaN, or a `dimension` below 1.
    """
    if dimension < 1:
        raise ValueError(f"dimension must be at least 1, not {dimension}")
    radii = np.asarray(radius, dtype=np.float64)
    if not (radii >= 0).all():
        raise ValueError("radii must be from 0 on")
    root = math.isqrt(dimension)
    if root * root == dimension:
        return _down(radii / root) if root > 1 else radii
    return _down(radii / math.nextafter(math.sqrt(dimension), math.inf))


def gaussian_threshold(eps: float, sigma: float) -> float:
    """Return p0 = Φ(ε/σ), rounded up: the closed l2 ball of radius ε is certified where the probability is *above* p0.

    Args:
        eps: radius, from 0 on, in the domain's units.
        sigma: standard deviation of the noise, in the domain's units.

    Returns:
        In [1/2, 1]; 1 where no probability below 1 in double precision is enough.

    Raises:
        ValueError: a radius that is negative or not finite, or a σ that is not positive and finite.
    """
    _radius(eps)
    _positive("sigma", sigma)
    if eps == 0:
        return 0.5
    return min(float(ndtr(math.nextafter(eps / sigma, math.inf))) * (1 + _ERROR), 1.0)


def uniform_threshold(eps: float, half_width: float) -> float:
    """Return p0 = 1/2 + ε/(2λ), rounded up: the closed l1 ball of radius ε is certified above it (`uniform_radius`).

    1, hence out of reach, for ε ≥ λ. Units and errors as `gaussian_threshold`.
    """
    _radius(eps)
    _positive("half_width", half_width)
    if eps == 0:
        return 0.5
    half = math.nextafter(eps / (2 * half_width), math.inf)
    return min(math.nextafter(0.5 + half, math.inf), 1.0)


def draws_needed(threshold: float, alpha: float) -> int:
    """Return the smallest n whose best count, n hits of n, proves a probability above `threshold`: α^(1/n) > p0.

    A sequence needs more (`Plan.fewest`). Raises ValueError where p0 ≥ 1: no number of draws is enough.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha!r}")
    if not 0 < threshold < 1:
        raise ValueError(f"a probability above {threshold!r} is proven by no number of draws")
    return math.floor(math.log(alpha) / math.log(threshold)) + 1


def largest_radius(sigma: float, n: int, alpha: float) -> float:
    """Return σ Φ⁻¹(α^(1/n)), what n hits of n draws prove: the cap of the radii (Cohen et al. 2019, section 3.2.2)."""
    return float(gaussian_radius(lower_bound(n, n, alpha), sigma))


def _closed(radius: Floats) -> Floats:
    """As `robench.numerics.open_to_closed`, without torch: after one rounding of the argument's last operation.

    Two doubles lower: one for that rounding, one for the ball.
    """
    return np.maximum(_down(_down(radius)), 0.0)


def _down(value: Floats) -> Floats:
    return np.where((value > 0) & (value < np.inf), np.nextafter(value, -np.inf), value)


def _probabilities(values: npt.ArrayLike) -> Floats:
    p = np.asarray(values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("probabilities must lie in [0, 1]")
    return p


def _positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be positive and finite, not {value!r}")


def _radius(eps: float) -> None:
    if not (eps >= 0 and math.isfinite(eps)):
        raise ValueError(f"a radius must be finite and from 0 on, not {eps!r}")
