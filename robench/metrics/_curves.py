"""Accuracy as a function of ε: step functions from the merged radii."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from robench.threat import Norm

if TYPE_CHECKING:
    from robench.metrics._subject import Subject

__all__ = ["Curve", "curve"]


@dataclass(frozen=True)
class Curve:
    """Certified and empirical accuracy of a subject over ε.

    Between two entries of `eps` nothing changes: the value at ε is that of the largest entry not above it. Only at
    the entries of `searched`, or everywhere if `everywhere`, did an attack really search; draw the rest dashed.
    """

    norm: Norm
    eps: tuple[float, ...]
    certified: tuple[float, ...]
    empirical: tuple[float, ...]
    searched: tuple[float, ...]
    everywhere: bool


def curve(subject: Subject, norm: Norm) -> Curve:
    """Return the whole curve of `subject` in `norm`, from ε = 0."""
    radii, n = subject.radii(norm), len(subject.samples)
    # Certified accuracy falls just above each `lower`, empirical accuracy at each `upper`.
    falls = np.nextafter(radii.best_lower, math.inf)
    steps = np.unique(np.concatenate([[0.0], falls, radii.best_upper, radii.failed]))
    steps = steps[np.isfinite(steps)]
    attacks = subject.rows[(subject.rows["norm"] == norm) & subject.rows["kind"].isin(("attack", "verifier"))]
    asked = set(attacks["eps"].dropna())
    return Curve(
        norm=norm,
        eps=tuple(map(float, steps)),
        certified=tuple(float(radii.certified(eps).sum()) / n for eps in steps),
        empirical=tuple(float(radii.empirical(eps).sum()) / n for eps in steps),
        searched=tuple(sorted(map(float, asked))),
        everywhere=bool(attacks["eps"].isna().any()),
    )
