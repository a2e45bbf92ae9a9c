"""Exact bounds of a binomial probability, rounded to the safe side; tests of two counts, of one sample or of two.

Clopper & Pearson 1934. Of n draws k are hits. The lower bound p* at confidence 1 − α solves

    P(X ≥ k; n, p*) = I_p*(k, n − k + 1) = α

with I the regularised incomplete beta function; the upper one is 1 less the lower bound of the misses.

Rounding. Nothing is believed of `betaincinv`: its answer goes into the tail once more and is moved down until the
tail, as computed, is at most α (1 − 1e-9). So the bound is at most p* wherever `betainc` errs by less than 1e-9 of its
value. Against sums of 40 digits it erred by less than 1e-11 at all n ≤ 10**7 tried; beyond that n is refused. The
price is about 1e-9 standard deviations √(p (1 − p) / n), nothing beside what one hit more or less makes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, betaincinv

__all__ = [
    "ABSTAIN",
    "FALSE_ALARM",
    "LARGEST",
    "Floats",
    "Integers",
    "fisher_tails",
    "lower_bound",
    "predict",
    "top_two_pvalue",
    "two_sided",
    "upper_bound",
]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

ABSTAIN = -1
"""What `predict` returns instead of a class."""

FALSE_ALARM = 1e-6
"""Who draws anew to hold counts against may call a true record wrong with this probability, at most."""

LARGEST = 10**7
"""The largest number of draws for which the incomplete beta function's error was measured."""

_MARGIN = 1e-9
# Relative to the bound; doubled at each turn, so that 60 turns reach 0.
_STEP = 2.0**-46


def lower_bound(hits: npt.ArrayLike, n: npt.ArrayLike, alpha: float) -> Floats:
    """Return p with P(X ≥ hits; n, p) ≤ α: a lower bound, with confidence 1 − α, of the probability of a hit.

    Args:
        hits: whole numbers from 0 to `n`; broadcast against `n`.
        n: draws, 1 to `LARGEST`, fixed before the first of them.
        alpha: failure rate of each bound, in (0, 1).

    Returns:
        float64 in [0, 1), never above the exact bound; 0 without hits.

    Raises:
        ValueError: counts that are not whole or out of range, or an α outside (0, 1).
    """
    k, draws = _counts(hits, n)
    _level(alpha)
    a, b = np.maximum(k, 1).astype(np.float64), (draws - k + 1).astype(np.float64)
    bound = np.asarray(betaincinv(a, b, alpha * (1 - 2 * _MARGIN)), dtype=np.float64)
    allowed, step = alpha * (1 - _MARGIN), _STEP
    # ~(… <= …), so that a NaN moves as well.
    while (high := ~(betainc(a, b, bound) <= allowed)).any():
        bound = np.where(high, np.fmax(np.fmin(bound, 1.0) * (1 - min(step, 1.0)), 0.0), bound)
        step *= 2
    return np.where(k == 0, 0.0, bound)


def upper_bound(hits: npt.ArrayLike, n: npt.ArrayLike, alpha: float) -> Floats:
    """Return p with P(X ≤ hits; n, p) ≤ α: an upper bound, with confidence 1 − α, of the probability of a hit.

    As `lower_bound`; in (0, 1], never below the exact bound, and 1 where every draw is a hit.
    """
    k, draws = _counts(hits, n)
    of_misses = lower_bound(draws - k, draws, alpha)
    return np.where(of_misses == 0, 1.0, np.minimum(np.nextafter(1 - of_misses, 2.0), 1.0))


def two_sided(hits: npt.ArrayLike, n: npt.ArrayLike, alpha: float) -> tuple[Floats, Floats]:
    """Return the lower and the upper bound at α / 2 each: both hold with confidence 1 − α."""
    _level(alpha)
    return lower_bound(hits, n, alpha / 2), upper_bound(hits, n, alpha / 2)


def top_two_pvalue(first: npt.ArrayLike, second: npt.ArrayLike) -> Floats:
    """Return the p-value, rounded up, of the two-sided binomial test that both classes are equally likely.

    With n = first + second and fair coins the distribution is symmetric: 2 P(X ≥ max(first, second); n, 1/2), and 1 for
    equal counts (Cohen, Rosenfeld & Kolter 2019, algorithm PREDICT: BinomPValue(n_A, n_A + n_B, 1/2)).
    """
    one, other = (_whole(counts) for counts in (first, second))
    one, other = np.broadcast_arrays(one, other)
    if (np.minimum(one, other) < 0).any() or (one + other > LARGEST).any():
        raise ValueError(f"counts of two classes must be from 0 on and at most {LARGEST} together")
    more, fewer = np.maximum(one, other), np.minimum(one, other)
    tail = betainc(np.maximum(more, 1).astype(np.float64), fewer + 1.0, 0.5)
    return np.where(more == fewer, 1.0, np.minimum(2 * tail * (1 + _MARGIN), 1.0))


def predict(counts: npt.ArrayLike, alpha: float) -> Integers:
    """Return the class that the smoothed classifier gives, or `ABSTAIN` (Cohen et al. 2019, algorithm PREDICT).

    Args:
        counts: votes [..., classes], at least two classes.
        alpha: the rate at which another class than the most likely one is returned (their proposition 1), in (0, 1).

    Returns:
        int64 [...]: the class with the most votes where the top two counts differ at level α, else −1.
    """
    votes = _whole(counts)
    _level(alpha)
    if votes.ndim == 0 or votes.shape[-1] < 2:
        raise ValueError(f"votes must have at least two classes in their last axis, not shape {votes.shape}")
    top = np.partition(votes, votes.shape[-1] - 2, axis=-1)[..., -2:]
    clear = top_two_pvalue(top[..., 1], top[..., 0]) <= alpha
    return np.where(clear, votes.argmax(axis=-1), ABSTAIN)


def fisher_tails(hits: int, n: int, other_hits: int, other_n: int) -> tuple[float, float]:
    """Return P(X ≤ hits) and P(X ≥ hits) for the hits X of n draws, given those of n + other_n draws together.

    With one probability of a hit in both sets X is hypergeometric, whatever the probability (Fisher's exact test):

        P(X = k) ∝ C(n, k) C(other_n, hits + other_hits − k)

    Sums of these terms, outward from the largest one by their ratios; rounded up.

    Raises:
        ValueError: counts that are not whole or out of range.
    """
    _counts(np.array([hits, other_hits]), np.array([n, other_n]))
    total = hits + other_hits
    k = np.arange(max(0, total - other_n), min(n, total) + 1, dtype=np.float64)
    # Falling: of each term to the one before it. Products of counts are exact below 2**53.
    ratios = np.log((n - k[:-1]) * (total - k[:-1])) - np.log(k[1:] * (other_n - total + k[1:]))
    mode = int((ratios > 0).sum())
    logs = np.concatenate([-np.cumsum(ratios[:mode][::-1])[::-1], [0.0], np.cumsum(ratios[mode:])])
    terms = np.exp(logs) / np.exp(logs).sum()
    place = hits - int(k[0])
    below, above = terms[: place + 1].sum(), terms[place:].sum()
    return min(float(below) * (1 + _MARGIN), 1.0), min(float(above) * (1 + _MARGIN), 1.0)


def _whole(counts: npt.ArrayLike) -> Integers:
    array = np.asarray(counts)
    if array.dtype.kind not in "iu":
        raise ValueError(f"counts must be whole numbers, not {array.dtype}")
    return array.astype(np.int64)


def _counts(hits: npt.ArrayLike, n: npt.ArrayLike) -> tuple[Integers, Integers]:
    k, draws = np.broadcast_arrays(_whole(hits), _whole(n))
    if (draws < 1).any() or (draws > LARGEST).any():
        raise ValueError(f"the number of draws must be from 1 to {LARGEST}")
    if (k < 0).any() or (k > draws).any():
        raise ValueError("hits must be from 0 to the number of draws")
    return k, draws


def _level(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha!r}")
