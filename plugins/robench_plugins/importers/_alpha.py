"""Which α made a CERTIFY file: its largest radii are discrete, and where they lie tells α.

With n draws the certified radius is R_k = σ Φ^-1(p_k), p_k the one-sided Clopper-Pearson bound of n − k hits. Near the
top the R_k lie further apart than the printed digits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
from scipy.special import betaincinv, ndtri

from robench_plugins.importers._certify import printed_unit

__all__ = ["CANDIDATES", "infer_alpha", "radii_of_counts"]

CANDIDATES = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001)
"""The failure rates that people use."""

# Fewer samples at the cap could be there by accident.
_SATURATED = 5
# Further down the R_k lie closer together than printed digits, and tell nothing.
_MISSES = 500


def radii_of_counts(sigma: float, n: int, alpha: float, misses: int = _MISSES) -> np.ndarray:
    """Return R_k for k = 0 … misses − 1 of `n` draws that miss the top class (Cohen et al. 2019, section 3.2.2)."""
    hits = n - np.arange(min(misses, n))
    return np.asarray(sigma * ndtri(betaincinv(hits, n - hits + 1, alpha)))


def infer_alpha(radii: Sequence[Decimal], sigma: float, n: int) -> float | None:
    """Return the only usual α that explains the printed `radii`, or None where none or several do.

    It explains them if the largest one, printed for several samples, is the cap R_0, and every printed one is an R_k.
    """
    counts = Counter(radius for radius in radii if radius)
    if not counts or counts[max(counts)] < _SATURATED:
        return None
    values = np.array([float(radius) for radius in sorted(counts)])
    half = np.array([float(printed_unit(radius)) / 2 for radius in sorted(counts)]) * (1 + 1e-9)
    fits = []
    for alpha in CANDIDATES:
        lattice = np.sort(radii_of_counts(sigma, n, alpha))
        from_below = np.searchsorted(lattice, values - half)
        reached = (from_below < np.searchsorted(lattice, values + half, side="right")) | (values < lattice[0])
        if reached.all() and abs(values[-1] - lattice[-1]) <= half[-1]:
            fits.append(alpha)
    return fits[0] if len(fits) == 1 else None
