"""Everything that rows prove about each sample's robust radius in one norm, merged pointwise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robench.metrics._chance import claims
from robench.metrics._compare import certified_at, contradicts, falsified_at
from robench.metrics._norms import carried_lower
from robench.threat import NORMS, Norm

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Radii", "merge", "row_bounds"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Radii:
    """What is known about r* of each sample of a subject in one norm; arrays are [N], in the order of `sample`.

    Attributes:
        norm: the norm.
        sample: original indices, ascending.
        correct: whether the clean prediction is right, by every row that says something about it.
        lower: the largest proven radius.
        upper: the smallest radius with a misclassified point.
        claimed_lower: what rows with a confidence below 1 add, by the union bound.
        lower_confidence: confidence in `claimed_lower`; NaN where a source does not tell.
        claimed_upper: the same for misclassified points.
        upper_confidence: confidence in `claimed_upper`.
        failed: smallest ε at which an attack met non-finite logits or broke down; +inf where none did.
    """

    norm: Norm
    sample: Ints
    correct: Bools
    lower: Floats
    upper: Floats
    claimed_lower: Floats
    lower_confidence: Floats
    claimed_upper: Floats
    upper_confidence: Floats
    failed: Floats

    @cached_property
    def best_lower(self) -> Floats:
        """The largest lower bound, proven or claimed."""
        return np.maximum(self.lower, self.claimed_lower)

    @cached_property
    def best_upper(self) -> Floats:
        """The smallest upper bound, proven or claimed."""
        return np.minimum(self.upper, self.claimed_upper)

    def certified(self, eps: float) -> Bools:
        """Correct, proven or claimed to be robust within ε, and no attack within ε ended in error.

        A claim gives way to a misclassified point, proven or claimed: one of the two is false, by chance or not.
        """
        claimed = certified_at(self.claimed_lower, eps) & ~falsified_at(self.best_upper, eps)
        return np.asarray(self.correct & (certified_at(self.lower, eps) | claimed) & (self.failed > eps))

    def empirical(self, eps: float) -> Bools:
        """Correct, and nothing misclassified was found within ε."""
        return np.asarray(self.correct & ~falsified_at(self.best_upper, eps))

    def confidence(self, eps: float) -> float | None:
        """The lowest confidence that a verdict at ε rests on; None where a source does not tell."""
        used_lower = self.certified(eps) & ~certified_at(self.lower, eps)
        used_upper = self.correct & ~self.empirical(eps) & ~falsified_at(self.upper, eps)
        used = np.concatenate([self.lower_confidence[used_lower], self.upper_confidence[used_upper]])
        if np.isnan(used).any():
            return None
        return float(used.min(initial=1.0))

    def contradictions(self) -> Bools:
        """Samples where a proof reaches a verified misclassified point: one of the two is wrong."""
        return contradicts(self.lower, self.upper)

    def chance_contradictions(self) -> Bools:
        """Samples where bounds contradict each other, but one of them is only probable."""
        return np.asarray(contradicts(self.best_lower, self.best_upper) & ~self.contradictions())


def row_bounds(rows: pd.DataFrame, norm: Norm, dimension: int | None) -> pd.DataFrame:
    """Return what each row of `Subject.rows` says about `norm`, carried over where it is about another one.

    The columns sample, run, evaluator, norm (its own) and confidence; `proves`, its lower bound, with `proves_lower`,
    whether rows of its kind prove any; `shows` and `shows_upper`, the same for upper bounds.
    """
    bounds = rows[["sample", "run", "evaluator", "norm", "confidence"]].copy()
    bounds["proves"] = _lower_in(rows, norm, dimension)
    bounds["shows"] = _upper_in(rows, norm)
    bounds["proves_lower"] = rows["kind"].isin(("certificate", "verifier"))
    bounds["shows_upper"] = rows["kind"].isin(("attack", "verifier", "clean"))
    return bounds


def merge(rows: pd.DataFrame, sample: Ints, correct: Bools, norm: Norm, dimension: int | None) -> Radii:
    """Merge a subject's rows (`Subject.rows`) into one statement per sample about `norm`."""
    slot = np.searchsorted(sample, rows["sample"].to_numpy())
    size = len(sample)

    bounds = row_bounds(rows, norm, dimension)
    lower, upper = bounds["proves"].to_numpy(), bounds["shows"].to_numpy()
    confidence = bounds["confidence"].to_numpy(dtype=float)
    proof = confidence == 1.0
    proves_lower, shows_upper = bounds["proves_lower"].to_numpy(), bounds["shows_upper"].to_numpy()

    best_lower, best_upper = np.zeros(size), np.full(size, np.inf)
    solid = proof & proves_lower
    np.maximum.at(best_lower, slot[solid], lower[solid])
    solid = proof & shows_upper
    np.minimum.at(best_upper, slot[solid], upper[solid])
    chance = ~proof & proves_lower
    below = claims(slot[chance], lower[chance], confidence[chance], size, lower=True)
    chance = ~proof & shows_upper
    above = claims(slot[chance], upper[chance], confidence[chance], size, lower=False)

    return Radii(
        norm=norm,
        sample=sample,
        correct=correct,
        lower=best_lower,
        upper=best_upper,
        claimed_lower=below.radius,
        lower_confidence=below.confidence,
        claimed_upper=above.radius,
        upper_confidence=above.confidence,
        failed=_failed(rows, slot, size, norm),
    )


def _lower_in(rows: pd.DataFrame, norm: Norm, dimension: int | None) -> Floats:
    """What each row's `lower` proves in `norm`: its own, or carried over."""
    lower = rows["lower"].to_numpy(dtype=float)
    out = np.zeros(len(rows))
    for source in NORMS:
        here = (rows["norm"] == source).to_numpy()
        out[here] = carried_lower(lower[here], source, norm, dimension)
    return out


def _upper_in(rows: pd.DataFrame, norm: Norm) -> Floats:
    """What each row's `upper` shows in `norm`: its own, or its witness's distance; clean rows count in every norm."""
    own = ((rows["norm"] == norm) | (rows["kind"] == "clean")).to_numpy()
    same = np.where(own, rows["upper"].to_numpy(dtype=float), np.inf)
    carried: Floats = rows[f"witness_{norm}"].to_numpy(dtype=float)
    return np.minimum(same, carried)


def _failed(rows: pd.DataFrame, slot: Ints, size: int, norm: Norm) -> Floats:
    out = np.full(size, np.inf)
    wrong = ((rows["status"] == "error") & (rows["kind"] == "attack") & (rows["norm"] == norm)).to_numpy()
    eps = rows["eps"].to_numpy(dtype=float)
    np.minimum.at(out, slot[wrong], np.where(np.isnan(eps[wrong]), 0.0, eps[wrong]))
    return out
