"""What certificates that each fail at rate α say about a whole data set."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.special import betainc

from robench.binomial import LARGEST, lower_bound

__all__ = ["RHO", "DatasetStatement", "dataset_statement", "most_by_chance"]

RHO = 0.001
"""Failure rate of what is said about many statements together."""

# As in `lower_bound`: what the computed tail must be below its limit.
_MARGIN = 1e-9


@dataclass(frozen=True)
class DatasetStatement:
    """Two statements, each of which holds with confidence 1 − ρ on its own.

    Attributes:
        alpha: failure rate of each certificate, at most.
        rho: failure rate of each statement.
        certified: certificates among the samples.
        false_at_most: false certificates among these samples.
        robust_at_least: of these samples, how many are truly certified: `certified` less the false ones.
        population_at_least: lower bound of the share of the population that is correct and robust.
    """

    alpha: float
    rho: float
    certified: int
    false_at_most: int
    robust_at_least: int
    population_at_least: float


def dataset_statement(m: int, alpha: float, rho: float, certified: int | None = None) -> DatasetStatement:
    """Return what `certified` certificates among `m` samples say with confidence 1 − ρ.

    These samples: at most m are not robust, and each of them gets a false certificate with probability at most α,
    independently, since each has draws of its own. So their number is at most the quantile at 1 − ρ of the binomial
    distribution (m, α), exactly; the published Bernstein form is larger.

    The population: if samples are drawn independently from it, P(certified) is at least the Clopper-Pearson bound at
    1 − ρ, and P(certified and robust) ≥ P(certified) − α.

    Args:
        m: samples, 1 to 10**7; all that were tested, whatever came of it.
        alpha: failure rate of each certificate, in (0, 1).
        rho: failure rate of each of the two statements, in (0, 1).
        certified: how many were certified; by default all.

    Raises:
        ValueError: a number out of range.
    """
    found = m if certified is None else certified
    if not (1 <= m <= LARGEST and 0 <= found <= m):
        raise ValueError(f"needs 1 <= m <= {LARGEST} samples and 0 <= certified <= m, not {m} and {found}")
    if not (0 < alpha < 1 and 0 < rho < 1):
        raise ValueError(f"alpha and rho must lie between 0 and 1, not {alpha!r} and {rho!r}")
    false = min(most_by_chance(m, alpha, rho), found)
    share = float(lower_bound(found, m, rho))
    return DatasetStatement(alpha, rho, found, false, found - false, max(share - alpha, 0.0))


def most_by_chance(m: int, alpha: float, rho: float = RHO) -> int:
    """Return how many of `m` independent statements may be wrong, each with probability at most `alpha`, in [0, 1].

    The quantile at 1 − ρ of the binomial distribution (m, α): more are wrong with probability at most ρ, as computed
    with a margin.
    """
    below, above = -1, m
    while above - below > 1:
        middle = (below + above) // 2
        if betainc(middle + 1, m - middle, alpha) <= rho * (1 - _MARGIN):
            above = middle
        else:
            below = middle
    return above
