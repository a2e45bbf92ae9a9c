"""Can recorded counts be right? Tests against fresh draws that call a true record wrong once in a million, at most."""

from __future__ import annotations

import math

from robench.binomial import fisher_tails, lower_bound, upper_bound
from robench_plugins.smoothing._wealth import PRIOR, log_wealth

__all__ = ["differ", "fewer", "refuted"]

# Beyond this, the prior of the wealth has too little left; nothing is refuted there.
_NEARLY_ALL = 1 - 1e-9


def differ(hits: int, n: int, fresh: int, draws: int, rate: float) -> bool:
    """Return whether two independent counts, each of a number of draws fixed beforehand, are of two probabilities."""
    return min(fisher_tails(fresh, draws, hits, n)) <= rate / 2


def fewer(hits: int, n: int, fresh: int, draws: int, rate: float) -> bool:
    """Return whether a count of `hits` or less has a smaller probability than the fresh one."""
    return fisher_tails(fresh, draws, hits, n)[1] <= rate


def refuted(hits: int, n: int, fresh: int, draws: int, rate: float) -> bool:
    """Return whether a count that was stopped by whatever rule has another probability than the fresh one.

    Fresh draws are fixed in number and bound p from both sides, at a quarter of the rate each. At another quarter each,
    wealth refutes every p up to the upper bound, or from the lower one on: it may be looked at whenever somebody
    stopped (Ville's inequality; `_wealth`), so that no optional stopping makes a true record look wrong.
    """
    up, low = (float(bound(fresh, draws, rate / 4)) for bound in (upper_bound, lower_bound))
    limit = math.log(4 / rate)
    more = up < _NEARLY_ALL and float(log_wealth(hits, n, up)) >= limit
    less = low > 1 - _NEARLY_ALL and float(log_wealth(n - hits, n, 1 - low, PRIOR[::-1])) >= limit
    return more or less
