"""Is the radius at least ε? A test that may be looked at after every draw, and stops as soon as it knows.

H0: p ≤ p0, where p is the probability of a hit and p0 = Φ(ε/σ) the threshold that the radius takes. Let k of n draws be
hits. The likelihood ratio of a p > p0 against p0 is a martingale under p0, and a supermartingale under every smaller
probability because it rises with each hit; so is every mixture of such ratios. The wealth here is

    M_n = (1 − w) ∫_(p0,1] (p/p0)^k ((1−p)/(1−p0))^(n−k) π(dp)  +  w P(X_N ≥ k* | k of n; p0) / P(X_N ≥ k*; p0)

with π = Beta(1, ½) truncated to (p0, 1], where the integral is a ratio of incomplete beta functions. The second
part bets on the test with all N = n_max draws, k* its count at level wα: Doob's martingale of that event, which
rises with k as well. Without it, the radii near the cap that a fixed N certifies are lost. By Ville's inequality
P(sup_n M_n ≥ 1/α) ≤ α for every p ≤ p0, so H0 is rejected, and the radius certified, as soon as M_n ≥ 1/α.

Why this one. Over six radii of the published files, α = .001 (benchmarks/smoothing/decide.py), against a fixed 100,000:

    rule, with the same futility stops                    draws   worst loss of certified accuracy, points
    this one, w = ½                                        3130    .16
    its first part alone                                   3119    .64
    union bound, Clopper-Pearson at α/39 at each look      3111    .52
    union bound, half of α for the last look               3272    .17
    union bound, doubling looks                            3554    .50
    betting: the likelihood ratio of the share so far      3389   1.47

A union bound over the same looks draws as few. But it holds for those looks alone, while M_n may be looked at after any
draw up to N. Betting (Waudby-Smith & Ramdas 2024; for smoothing Voracek 2024) pays for learning p, which the mixture
spreads over, and depends on the order of the draws, whereas M_n can be replayed from k and n. Bets were renewed at
each look.

Futility. The same prior on the other side, [0, p1), tests H0': p ≥ p1 at level β, where p1 is the share of hits
that the last look asks for. It only ever stops a test without a certificate, so β costs no soundness, and of the
samples with p ≥ p1 it loses at most β. With p0 in place of p1 it took a quarter more draws in all, for no certificate
more.

Looks. Draws come in batches, at counts n_1 < n_2 < …; validity at every n makes any schedule sound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from robench.binomial import Floats, Integers
from robench_plugins.smoothing._looks import schedule
from robench_plugins.smoothing._radii import draws_needed
from robench_plugins.smoothing._wealth import PRIOR, log_evidence, log_tail, log_wealth

__all__ = ["N_LARGEST", "Decisions", "Draw", "Plan", "Verdict", "decide", "draws_to_decide", "plan"]

N_LARGEST = 10**6
"""The largest n_max: up to there the logarithms were held against 40 digits (error below 1e-8)."""

# What a logarithm must be above its limit, for its rounding errors. Costs a millionth of α.
_MARGIN = 1e-6

Draw = Callable[[Integers, int], npt.ArrayLike]
"""draw(samples [A], count) -> hits [A]: of `count` fresh, independent draws for each of these samples."""


class Verdict(IntEnum):
    """How a test ended."""

    CERTIFIED = 1
    FUTILE = 0
    EXHAUSTED = -1


@dataclass(frozen=True, eq=False)
class Decisions:
    """What `decide` found about B samples.

    Attributes:
        verdict: `Verdict` of each, int64 [B].
        hits: hits of each when it stopped, int64 [B].
        draws: draws of each when it stopped, int64 [B].
    """

    verdict: Integers
    hits: Integers
    draws: Integers

    @property
    def certified(self) -> npt.NDArray[np.bool_]:
        """Whether the probability is above the threshold, with confidence 1 − α each."""
        return np.asarray(self.verdict == Verdict.CERTIFIED)


@dataclass(frozen=True, eq=False)
class Plan:
    """A test of H0: p ≤ threshold as a table, made by `plan` and fixed before the first draw.

    At `looks[j]` draws it certifies from `accept[j]` hits on, and stops in vain up to `futile[j]`.

    Attributes:
        threshold: p0.
        alpha: probability of certifying where p ≤ p0, at most.
        beta: probability of stopping early where p is at least the share of hits that the last look asks for, at most.
        last: w, the part of α that bets on the last look.
        looks: draws after which is looked, increasing, int64 [L]; the last is n_max.
        accept: fewest hits that certify, int64 [L]; looks + 1 where none do.
        futile: most hits that stop, int64 [L]; −1 where none do.
        final: k*, the hits out of n_max that the bet is on.
    """

    threshold: float
    alpha: float
    beta: float
    last: float
    looks: Integers = field(repr=False)
    accept: Integers = field(repr=False)
    futile: Integers = field(repr=False)
    final: int

    @property
    def n_max(self) -> int:
        """The most draws."""
        return int(self.looks[-1])

    @property
    def fewest(self) -> int:
        """Draws after which all hits certify for the first time."""
        return int(self.looks[np.argmax(self.accept <= self.looks)])

    def log_evidence(self, hits: npt.ArrayLike, n: npt.ArrayLike) -> Floats:
        """Return log M_n, the evidence against H0, for `n` ≤ n_max: it certifies from log(1/α) on (plus 1e-6)."""
        return log_evidence(hits, n, self.threshold, self.last, self.n_max, self.final)

    def judge(self, hits: npt.ArrayLike) -> Decisions:
        """Return what `decide` finds where `hits` [B, L] are those up to each look. Other shapes: ValueError."""
        counts = np.asarray(hits, dtype=np.int64)
        if counts.shape[-1:] != self.looks.shape:
            raise ValueError(f"hits must be given for each of the {len(self.looks)} looks, not as {counts.shape}")
        stopped = (counts >= self.accept) | (counts <= self.futile)
        stopped[..., -1] = True
        at = stopped.argmax(axis=-1)
        found = np.take_along_axis(counts, at[..., None], axis=-1)[..., 0]
        verdict = np.where(at == len(self.looks) - 1, Verdict.EXHAUSTED, Verdict.FUTILE)
        return Decisions(np.where(found >= self.accept[at], Verdict.CERTIFIED, verdict), found, self.looks[at])


@lru_cache(maxsize=256)
def plan(
    threshold: float,
    alpha: float = 0.001,
    *,
    n_max: int = 100_000,
    beta: float = 0.01,
    last: float = 0.5,
    first: int = 32,
    ratio: float = 1.2,
    batch: int = 32,
) -> Plan:
    """Return the test of H0: p ≤ `threshold`.

    Args:
        threshold: p0 in [1/2, 1), rounded up (`gaussian_threshold`).
        alpha: failure rate of a certificate, in (0, 1).
        n_max: the most draws, at most 10**6.
        beta: how many certificates may be lost for stopping early, in (0, 1).
        last: w, the part of α for the test with all n_max draws, in (0, 1).
        first: draws at the first look.
        ratio: of one look to the one before.
        batch: looks are multiples of it, but for the first and the last.

    Raises:
        ValueError: parameters out of range, or n_max too small to certify anything: the message says what it takes.
    """
    if not 0.5 <= threshold <= 1:
        raise ValueError(f"threshold must lie in [1/2, 1], not {threshold!r}")
    if not all(0 < share < 1 for share in (alpha, beta, last)):
        raise ValueError(f"alpha, beta and last must lie between 0 and 1, not {alpha!r}, {beta!r}, {last!r}")
    if n_max > N_LARGEST:
        raise ValueError(f"n_max must be at most {N_LARGEST}, not {n_max}")
    needed = draws_to_decide(threshold, alpha, last)
    if n_max < needed:
        raise ValueError(
            f"{n_max} draws can never prove a probability above {threshold:.6g} at alpha = {alpha:g}: "
            f"n_max = {needed} needed"
        )
    looks = schedule(n_max, min(first, n_max), ratio, batch)
    final = int(
        _fewest(np.array([n_max]), lambda k, n: -log_tail(k, n, threshold), 2 * _MARGIN - math.log(alpha * last))[0]
    )
    accept = _fewest(looks, lambda k, n: log_evidence(k, n, threshold, last, n_max, final), _MARGIN - math.log(alpha))
    aim = max(threshold, min(float(accept[-1]), n_max - 0.5) / n_max)
    lost = _fewest(looks, lambda k, n: log_wealth(k, n, 1 - aim, PRIOR[::-1]), -math.log(beta))
    futile = looks - lost
    for table in (looks, accept, futile):
        table.flags.writeable = False  # the cache gives it to everybody
    return Plan(threshold, alpha, beta, last, looks, accept, futile, final)


def draws_to_decide(threshold: float, alpha: float, last: float = 0.5) -> int:
    """Return the fewest draws at most, n_max, with which a test of H0: p ≤ `threshold` can certify anything.

    Then only the bet on the last look is ever won, with hits alone: α w > p0^n. Raises ValueError where p0 ≥ 1.
    """
    return draws_needed(threshold, alpha * last * math.exp(-2 * _MARGIN))


def decide(test: Plan, draw: Draw, samples: int) -> Decisions:
    """Draw for `samples` samples, each until it is told, and return what was found.

    Each sample's certificate fails with probability at most `test.alpha`. What a hit is has to be fixed beforehand: the
    class that n0 independent draws chose, as in CERTIFY (Cohen et al. 2019), or the label.

    Raises:
        ValueError: `draw` gave something else than whole numbers from 0 to the draws asked for.
    """
    hits = np.zeros(samples, dtype=np.int64)
    verdict = np.full(samples, Verdict.EXHAUSTED, dtype=np.int64)
    draws = np.zeros(samples, dtype=np.int64)
    active, drawn = np.arange(samples), 0
    for look, accept, futile in zip(test.looks.tolist(), test.accept.tolist(), test.futile.tolist(), strict=True):
        if not len(active):
            break
        new = np.asarray(draw(active, look - drawn))
        if new.dtype.kind not in "iu" or new.shape != active.shape or (new < 0).any() or (new > look - drawn).any():
            raise ValueError(f"draw must return {len(active)} whole numbers from 0 to {look - drawn}")
        hits[active] += new
        drawn = draws[active] = look
        sure, vain = hits[active] >= accept, hits[active] <= futile
        verdict[active[sure]] = Verdict.CERTIFIED
        if look < test.n_max:
            verdict[active[vain]] = Verdict.FUTILE
        active = active[~(sure | vain)]
    return Decisions(verdict, hits, draws)


def _fewest(n: Integers, value: Callable[[Integers, Integers], Floats], limit: float) -> Integers:
    """Return for each n the smallest k from 0 to n with value(k, n) ≥ limit, or n + 1; `value` rises with k."""
    below, above = np.full_like(n, -1), n + 1
    while (above - below > 1).any():
        middle = (below + above) // 2
        # Where it is found already, the middle is `below`, which may be −1.
        enough = value(np.maximum(middle, 0), n) >= limit
        open_ = above - below > 1
        above, below = np.where(open_ & enough, middle, above), np.where(open_ & ~enough, middle, below)
    return above
