"""Certificates against a ceiling at one ε: how many samples are certified that no classifier can be right on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from robench.metrics._compare import above, certified_at
from robench.metrics._radii import Radii
from robench.metrics._statement import most_by_chance

__all__ = ["Beyond", "beyond"]

Bools = npt.NDArray[np.bool_]


class Beyond(NamedTuple):
    """Certified samples beside the number that a ceiling allows.

    Attributes:
        proven: correct and proven at ε, [N].
        claimed: the same with statistical certificates, [N].
        proofs: how many more are proven than the ceiling allows: a certificate or the bound is wrong.
        claims: how many more are claimed; 0 where the proofs alone are too many.
        doubtful: how many of the claimed rest on a statistical certificate.
        expected: how many of those chance makes wrong; None where a source does not tell.
    """

    proven: Bools
    claimed: Bools
    proofs: int
    claims: int
    doubtful: int
    expected: int | None

    @property
    def too_many(self) -> bool:
        """Whether more statistical certificates must be wrong than chance explains; False where that is not told."""
        return self.expected is not None and self.claims > self.expected


def beyond(radii: Radii, eps: float, ceiling: float) -> Beyond:
    """Hold what is certified at ε against a ceiling, 0 … 1, on exactly the samples of `radii`."""
    n = len(radii.sample)
    proven = np.asarray(radii.correct & certified_at(radii.lower, eps))
    claimed = np.asarray(radii.correct & certified_at(radii.best_lower, eps))
    proofs = above(int(proven.sum()), n, ceiling)
    claims = 0 if proofs else above(int(claimed.sum()), n, ceiling)
    alpha = 1.0 - radii.lower_confidence[claimed & ~proven]
    told = not np.isnan(alpha).any()
    expected = most_by_chance(len(alpha), float(alpha.max(initial=0.0))) if told else None
    return Beyond(proven, claimed, proofs, claims, len(alpha), expected)
