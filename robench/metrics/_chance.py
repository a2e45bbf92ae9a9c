"""Combining statements that hold with a confidence below 1, without buying radius by repetition.

Rows about the same sample combine by the union bound over *all* rows made, failures included: if row i is
wrong with probability at most α_i, all of them hold together with confidence 1 − Σ α_i. Where that leaves
too little, or a source does not tell its α, the weakest row speaks: it holds whenever any one of them does.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from robench.metrics._statement import most_by_chance

if TYPE_CHECKING:
    from robench.metrics._radii import Radii

__all__ = ["LEAST_CONFIDENCE", "ByChance", "Claims", "claims", "contradictions_by_chance"]

LEAST_CONFIDENCE = 0.95

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Claims(NamedTuple):
    """Combined statements per sample: a radius and the confidence in it (NaN: the source does not tell)."""

    radius: Floats
    confidence: Floats


def claims(slot: Ints, radius: Floats, confidence: Floats, size: int, *, lower: bool) -> Claims:
    """Combine rows into one claim per sample, for `size` samples.

    `slot` [R] is each row's sample as a position, `radius` [R] what it proves (0 or +inf: nothing) and
    `confidence` [R] its confidence. `lower` says whether the rows are lower bounds (the largest is the
    strongest) or upper bounds (the smallest is). A sample without rows claims nothing, with confidence 1.
    """
    nothing = 0.0 if lower else np.inf
    strongest, weakest = np.full(size, nothing), np.full(size, np.inf if lower else 0.0)
    pick, keep = (np.maximum, np.minimum) if lower else (np.minimum, np.maximum)
    pick.at(strongest, slot, radius)
    keep.at(weakest, slot, radius)
    spent = np.zeros(size)
    np.add.at(spent, slot, 1.0 - confidence)  # NaN spreads, as it must
    best = np.zeros(size)
    np.fmax.at(best, slot, confidence)
    known = np.zeros(size, dtype=bool)
    known[slot[~np.isnan(confidence)]] = True
    any_row = np.zeros(size, dtype=bool)
    any_row[slot] = True

    union = 1.0 - spent
    enough = union >= LEAST_CONFIDENCE  # false for NaN
    result = np.where(enough, strongest, np.where(any_row, weakest, nothing))
    trust = np.where(enough, union, np.where(known, best, np.nan))
    trust = np.where(any_row, trust, 1.0)
    return Claims(result, trust)


class ByChance(NamedTuple):
    """Samples whose bounds contradict each other although one is only probable, beside the number chance explains.

    Attributes:
        samples: their original indices.
        n: number of samples with a statistical statement.
        alpha: the largest probability that a sample's statements are wrong; None where it is not told.
        expected: how many may contradict each other; None where α is not told.
    """

    samples: Ints
    n: int
    alpha: float | None
    expected: int | None

    @property
    def observed(self) -> int:
        """Number of such samples."""
        return len(self.samples)

    @property
    def too_many(self) -> bool:
        """Whether there are more of them than chance explains; False where that cannot be told."""
        return self.expected is not None and self.observed > self.expected


def contradictions_by_chance(radii: Radii, ignored: Collection[int] = ()) -> ByChance:
    """Return the statistical contradictions in `radii`, over all ε, but for the samples `ignored`.

    A sample's lower and upper claim are wrong together with probability at most the sum of their α, whatever they
    say: statements that came out empty count as made. Samples whose source does not tell its α are left out where the
    others alone are too many; otherwise nothing can be concluded about them.
    """
    alpha = (1.0 - radii.lower_confidence) + (1.0 - radii.upper_confidence)  # NaN where a source does not tell
    hit = radii.chance_contradictions() & ~np.isin(radii.sample, np.fromiter(ignored, np.int64, len(ignored)))
    told, made = ~np.isnan(alpha), ~(alpha == 0)
    n, largest = int((told & made).sum()), min(1.0, float(alpha[told].max(initial=0.0)))
    known = ByChance(radii.sample[hit & told], n, largest, most_by_chance(n, largest))
    if known.too_many or not (hit & ~told).any():
        return known
    return ByChance(radii.sample[hit], int(made.sum()), None, None)
