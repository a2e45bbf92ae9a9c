"""Can recorded counts be right? Tests against fresh draws that call a true record wrong once in a million, at most."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from robench.binomial import FALSE_ALARM, Integers, fisher_tails, lower_bound, upper_bound
from robench_plugins.smoothing._wealth import PRIOR, log_wealth

__all__ = ["differ", "doubt", "fewer", "refuted"]

# Beyond this, the prior of the wealth has too little left; nothing is refuted there.
_NEARLY_ALL = 1 - 1e-9


def doubt(detail: Mapping[str, Any], hits: int, n: int, fresh: Integers, sides: int, stopped: bool) -> str | None:
    """Return why a row's counts cannot be right, by `fresh` votes [classes + 1]; None where they can.

    `hits` of `n` are the row's, fixed in number or `stopped` by a test; on two `sides` the runner-up's votes count too.
    """
    draws, rate = int(fresh.sum()), FALSE_ALARM / sides
    now = int(fresh[detail["class"]])
    if (refuted if stopped else differ)(hits, n, now, draws, rate):
        return f"recorded {hits} of {n} votes for class {detail['class']}, and {now} of {draws} fresh ones"
    if sides == 2:
        # Any other class had `second` votes at most: each is tested as if it had as many.
        others = np.delete(fresh, detail["class"]).tolist()
        most = max(others)
        if fewer(detail["second"], n, most, draws, rate / len(others)):
            return f"recorded at most {detail['second']} of {n} votes for another class, and {most} of {draws} now"
    return None


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
