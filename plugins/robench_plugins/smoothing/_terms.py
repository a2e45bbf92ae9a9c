"""What a certificate rests on besides its counts, and what counts prove on these terms: for all who ask."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np

from robench.binomial import LARGEST, Floats, Integers, lower_bound, upper_bound
from robench.contracts import Noise
from robench.threat import Norm
from robench_plugins.smoothing import _checked
from robench_plugins.smoothing._pilot import draws_for_radius
from robench_plugins.smoothing._radii import draws_needed
from robench_plugins.smoothing._sequence import N_LARGEST, Plan, draws_to_decide, plan

__all__ = ["Decision", "Radius", "Terms", "counted"]


@dataclass(frozen=True)
class Terms:
    """The noise, the norm and the shape of a vote; the draws and the failure rate of a certificate of it.

    `n0` draws choose the class; `n` are those of the certificate, at most, and `alpha` its failure rate.
    """

    noise: Noise
    norm: Norm
    dimension: int
    classes: int
    n0: int
    n: int
    alpha: float

    unproven: ClassVar[str]
    """The status of a sample whose votes were counted, and did not prove anything."""

    def threshold(self, eps: float) -> float:
        """Return the probability above which ε is certified; 1: none."""
        return _checked.threshold(self.noise, eps, self.norm, self.dimension)

    @property
    def hopeless(self) -> str:
        """What is said of an ε whose threshold is 1."""
        return f"no number of draws proves it in {self.norm} under {self.noise!r}: take a larger sigma"

    def chosen(self, detail: Mapping[str, Any]) -> int:
        """Return the votes of the class chosen, among the first draws. Raises ValueError for what cannot be."""
        counted(detail, "class", 0, self.classes - 1)
        counted(detail, "n0", self.n0, self.n0)
        # The most votes of any class, and of no class.
        return counted(detail, "votes0", -(-self.n0 // (self.classes + 1)), self.n0)


@dataclass(frozen=True)
class Radius(Terms):
    """CERTIFY, the bounds on one side or on two, with a fixed number of draws or one that an independent pilot sets."""

    unproven = "abstain"

    sides: int = 1
    tolerance: float | None = None

    def draws(self, votes0: int) -> int:
        """Return the draws of a sample whose class had `votes0` of the first n0, which are the pilot."""
        return self.n if self.tolerance is None else _pilot(self, votes0)

    def bounds(self, hits: Integers, second: Integers, n: Integers) -> tuple[Floats, Floats, Floats]:
        """Return the radii, and the bounds of the top class's and of every other class's probability behind them."""
        low = lower_bound(hits, n, self.alpha / self.sides)
        if self.sides == 1:
            return _checked.radius(self.noise, low, self.norm, self.dimension), low, 1 - low
        up = upper_bound(second, n, self.alpha / self.sides)
        return _checked.two_sided_radius(self.noise, low, up, self.norm, self.dimension), low, up

    def out_of_reach(self, eps: float) -> str | None:
        """Return why no count proves ε, and the draws that it takes; None where all hits do."""
        if self._best(self.n) >= eps:
            return None
        p0 = self.threshold(eps)
        if p0 >= 1:
            return self.hopeless
        needed = self._enough(eps, draws_needed(p0, self.alpha / self.sides))
        most = f"{self.n} draws prove {self._best(self.n):.4g} at most at alpha = {self.alpha:g}"
        return f"{most}: n = {needed} needed{_beyond(needed, LARGEST)}"

    def proven(self, detail: Mapping[str, Any]) -> float:
        """Return the radius that a row's counts prove; 0 for one without. Raises ValueError for what cannot be."""
        if "hits" not in detail:
            return 0.0
        n = self.counted(detail)[1]
        hits, second = (np.array([detail.get(key, 0)], dtype=np.int64) for key in ("hits", "second"))
        return float(self.bounds(hits, second, np.array([n]))[0][0])

    def counted(self, detail: Mapping[str, Any]) -> tuple[int, int]:
        """Return hits and draws. Raises ValueError for counts that no run could have made."""
        votes0 = self.chosen(detail)
        n = counted(detail, "n", 1, self.n)
        told = self.draws(votes0)
        # The pilot's steps are of 5 %: another machine may round to the next one.
        if abs(n - told) > (0 if self.tolerance is None else told / 16 + 1):
            raise ValueError(f"n = {n}, and {votes0} of {self.n0} first votes take {told} draws")
        hits = counted(detail, "hits", 0, n)
        if self.sides == 2:
            counted(detail, "second", -(-(n - hits) // self.classes), n - hits)
        return hits, n

    def _enough(self, eps: float, least: int) -> int:
        """Return the draws, from `least` on, whose hits prove ε: bounds are rounded. One too many: none do."""
        if least > LARGEST or self._best(least) >= eps:
            return least
        few, enough = least, LARGEST + 1
        while enough - few > 1:
            middle = (few + enough) // 2
            few, enough = (few, middle) if self._best(middle) >= eps else (middle, enough)
        return enough

    def _best(self, n: int) -> float:
        radii, _, _ = self.bounds(np.array([n]), np.array([0]), np.array([n]))
        return float(radii[0])


@dataclass(frozen=True)
class Decision(Terms):
    """Whether the radius is ε: a test that stops as soon as it knows."""

    unproven = "open"

    eps: float = 0.0

    @cached_property
    def test(self) -> Plan:
        """The test. Raises ValueError where ε is out of reach."""
        return plan(self.threshold(self.eps), self.alpha, n_max=self.n)

    def out_of_reach(self) -> str | None:
        """Return why no draws certify ε, and how many it takes; None where some do."""
        p0 = self.threshold(self.eps)
        if p0 >= 1:
            return self.hopeless
        needed = draws_to_decide(p0, self.alpha)
        if self.n < needed:
            most = f"{self.n} draws never prove a probability above {p0:.6g} at alpha = {self.alpha:g}"
            return f"{most}: n = {needed} needed{_beyond(needed, N_LARGEST)}"
        try:
            plan(p0, self.alpha, n_max=self.n)  # kept
        except ValueError as error:
            return str(error)
        return None

    def proven(self, detail: Mapping[str, Any]) -> float:
        """Return ε where a row's counts are evidence enough for it, else 0. Raises ValueError for what cannot be."""
        if "hits" not in detail:
            return 0.0
        hits, n = self.counted(detail)
        enough = float(self.test.log_evidence(hits, n)) >= -math.log(self.alpha)
        return self.eps if enough and hits >= self.test.accept[np.searchsorted(self.test.looks, n)] else 0.0

    def counted(self, detail: Mapping[str, Any]) -> tuple[int, int]:
        """Return hits and draws. Raises ValueError for counts at which no test of this ε stops."""
        self.chosen(detail)
        n = counted(detail, "n", 1, self.n)
        hits = counted(detail, "hits", 0, n)
        test = self.test
        look = int(np.searchsorted(test.looks, n))
        if test.looks[look] != n:
            raise ValueError(f"n = {n}, where the test does not look")
        if look < len(test.looks) - 1 and test.futile[look] < hits < test.accept[look]:
            raise ValueError(f"{hits} of {n} hits, where the test goes on")
        if look:
            new = n - int(test.looks[look - 1])
            fewest, most = int(test.futile[look - 1]) + 1, int(test.accept[look - 1]) - 1 + new
            if not fewest <= hits <= most:
                raise ValueError(f"{hits} of {n} hits, and the test had stopped {new} draws before")
        return hits, n


def counted(detail: Mapping[str, Any], key: str, low: int, high: int) -> int:
    """Return a whole number from `low` to `high` of a row's detail. Raises ValueError for anything else."""
    value = detail.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        wanted = f"{low}" if low == high else f"a whole number from {low} to {high}"
        shown = repr(value)
        raise ValueError(f"{key} is {shown if len(shown) <= 40 else shown[:40] + '…'}, and must be {wanted}")
    return value


def _beyond(needed: int, most: int) -> str:
    return f", and at most {most} are possible: take a larger sigma" if needed > most else ""


@lru_cache(maxsize=4096)
def _pilot(terms: Radius, votes0: int) -> int:
    assert terms.tolerance is not None

    def radius(p_low: Floats) -> Floats:
        return _checked.radius(terms.noise, p_low, terms.norm, terms.dimension)

    level = terms.alpha / terms.sides
    return draws_for_radius(votes0, terms.n0, radius, level, terms.tolerance, n_max=terms.n)
