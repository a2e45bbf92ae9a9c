"""Binomial tails by other means than the incomplete beta function, and what chance allows a simulation."""

from fractions import Fraction
from math import comb

import mpmath as mp
from scipy.stats import binom

DIGITS = 40


def exact_tail(hits, n, p):
    """P(X ≥ hits) of n draws as a fraction, for small n. `p` is taken as the rational number that it is."""
    p = Fraction(p)
    return sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(hits, n + 1))


def precise_tail(hits, n, p):
    """P(X ≥ hits) to about 30 digits: the terms outward from `hits`, on the side where they fall."""
    with mp.workdps(DIGITS):
        p = mp.mpf(p)
        q, k = 1 - p, hits if hits > n * p else hits - 1
        term = mp.exp(
            mp.loggamma(n + 1) - mp.loggamma(k + 1) - mp.loggamma(n - k + 1) + k * mp.log(p) + (n - k) * mp.log(q)
        )
        total, upward = mp.mpf(0), k == hits
        while 0 <= k <= n and term > total * mp.mpf(10) ** -32:
            total += term
            term *= (n - k) * p / ((k + 1) * q) if upward else k * q / ((n - k + 1) * p)
            k += 1 if upward else -1
        return total if upward else 1 - total


def at_most_by_chance(trials, alpha):
    """How many failures of rate `alpha` there may be among `trials`: the .9999 quantile."""
    return int(binom.ppf(0.9999, trials, alpha))
