"""How many draws a sample's radius is worth: n from an independent pilot (after Chen et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import betaincinv

from robench.binomial import Floats
from robench_plugins.smoothing._looks import schedule

__all__ = ["draws_for_radius"]

_QUANTILES = 32


def draws_for_radius(
    hits: int,
    n: int,
    radius: Callable[[Floats], Floats],
    alpha: float,
    tolerance: float,
    *,
    n_max: int = 100_000,
    first: int = 100,
) -> int:
    """Return the smallest number of draws whose expected loss of radius against `n_max` is at most `tolerance`.

    Chen et al. 2022, Input-specific robustness certification for randomized smoothing. The pilot's own draws must
    not be counted again; then a certificate with the n found is an ordinary one, at its full α. The probability p of a
    hit is taken from Beta(hits + ½, misses + ½), as 32 quantiles of equal weight; the radius at n from the count n·p,
    not rounded to a whole number.

    Args:
        hits: of the pilot's draws, from 0 to `n`.
        n: draws of the pilot, at least 1.
        radius: what lower bounds of p prove, in the domain's units (`robench.contracts.Noise.radius`).
        alpha: failure rate of the certificate to come, in (0, 1).
        tolerance: loss of radius that is acceptable, in the domain's units, positive.
        n_max: the most draws.
        first: the fewest; then in steps of 5 %.

    Raises:
        ValueError: a number out of range.
    """
    if not (n >= 1 and 0 <= hits <= n):
        raise ValueError(f"the pilot needs 0 <= hits <= n and n >= 1, not {hits} of {n}")
    if not (tolerance > 0 and 0 < alpha < 1):
        raise ValueError(f"needs a tolerance above 0 and alpha in (0, 1), not {tolerance!r}, {alpha!r}")
    candidates = schedule(n_max, min(first, n_max), 1.05, 1)
    levels = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    p: Floats = np.asarray(betaincinv(hits + 0.5, n - hits + 0.5, levels))
    draws = candidates[:, None].astype(np.float64)
    count = draws * p
    bound: Floats = np.asarray(betaincinv(count, draws - count + 1, alpha), dtype=np.float64)
    found = radius(bound).mean(axis=1)
    return int(candidates[np.argmax(found[-1] - found <= tolerance)])
