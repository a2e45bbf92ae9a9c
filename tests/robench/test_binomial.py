"""Bounds never cross the exact ones, and fail as often as they may."""

from fractions import Fraction
from math import comb

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betainc, betaincinv
from scipy.stats import binomtest, fisher_exact

from oracles.binomial import DIGITS, at_most_by_chance, exact_tail, precise_tail
from robench import binomial
from robench.binomial import (
    ABSTAIN,
    LARGEST,
    fisher_tails,
    lower_bound,
    predict,
    top_two_pvalue,
    two_sided,
    upper_bound,
)

LEVELS = (0.2, 0.05, 0.001, 1e-6)

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.floats(1e-6, 0.5)


@pytest.mark.parametrize("alpha", LEVELS)
@pytest.mark.parametrize("n", [1, 2, 3, 7, 12, 31])
def test_bounds_against_exact_tails(n, alpha):
    k = np.arange(n + 1)
    for hits, low, up in zip(
        k.tolist(), lower_bound(k, n, alpha).tolist(), upper_bound(k, n, alpha).tolist(), strict=True
    ):
        assert exact_tail(hits, n, low) <= Fraction(alpha) or hits == low == 0
        assert hits == 0 or exact_tail(hits, n, low * (1 + 1e-8)) > Fraction(alpha)
        assert 1 - exact_tail(hits + 1, n, up) <= Fraction(alpha) or (hits, up) == (n, 1)
        assert hits == n or 1 - exact_tail(hits + 1, n, up * (1 - 1e-8)) > Fraction(alpha)


@pytest.mark.parametrize("n", [10**3, 10**5, 10**6, LARGEST])
def test_bounds_of_many_draws_against_forty_digits(n):
    for hits in (n, n - 1, n - 130, int(0.9987 * n), int(0.84 * n), n // 2, 3, 1):
        low = float(lower_bound(hits, n, 0.001))
        tail = precise_tail(hits, n, low)
        assert 1 - 1e-8 < tail / mp.mpf(0.001) <= 1
        assert abs(float(betainc(hits, n - hits + 1, low)) / tail - 1) < 1e-11


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (970, 1000), (99_000, 100_000)])
def test_two_sided_is_scipys_interval(hits, n):
    low, up = two_sided(hits, n, 0.01)
    interval = binomtest(hits, n).proportion_ci(0.99, "exact")
    assert (float(low), float(up)) == pytest.approx((interval.low, interval.high), rel=1e-8)


def test_all_hits_is_a_root():
    assert float(lower_bound(100_000, 100_000, 0.001)) == pytest.approx(0.001 ** (1 / 100_000), rel=1e-12)
    assert float(upper_bound(0, 500, 0.001)) == pytest.approx(1 - 0.001 ** (1 / 500), rel=1e-8)


@given(counts, levels)
def test_bounds_enclose_the_share(count, alpha):
    hits, n = count
    assert 0 <= lower_bound(hits, n, alpha) <= hits / n <= upper_bound(hits, n, alpha) <= 1
    assert lower_bound(hits, n, alpha) < 1
    assert upper_bound(hits, n, alpha) == pytest.approx(1 - float(lower_bound(n - hits, n, alpha)), abs=1e-15)


@given(counts, levels, st.integers(1, 50))
def test_bounds_are_monotone(count, alpha, more):
    hits, n = count
    low, up = float(lower_bound(hits, n, alpha)), float(upper_bound(hits, n, alpha))
    assert lower_bound(hits + more, n + more, alpha) >= low  # hits more
    assert lower_bound(hits, n + more, alpha) <= low  # misses more
    assert upper_bound(hits + more, n + more, alpha) >= up >= upper_bound(hits, n + more, alpha)
    assert lower_bound(hits, n, alpha / 2) <= low
    assert upper_bound(hits, n, alpha / 2) >= up
    if hits < n:
        assert lower_bound(hits + 1, n, alpha) > low
        assert upper_bound(hits + 1, n, alpha) > up or up == 1


@pytest.mark.parametrize(
    "wrong", [lambda a, b, y: 1.0 + 0 * a, lambda a, b, y: np.nan * a, lambda a, b, y: -1.0 + 0 * a]
)
def test_a_wrong_inverse_is_not_believed(monkeypatch, wrong):
    exact = lower_bound(np.arange(21), 20, 0.01)
    monkeypatch.setattr(binomial, "betaincinv", wrong)
    found = lower_bound(np.arange(21), 20, 0.01)
    assert (found >= 0).all()
    assert (found <= exact * (1 + 1e-7)).all()


def test_an_inverse_that_is_slightly_high_is_corrected(monkeypatch):
    monkeypatch.setattr(binomial, "betaincinv", lambda a, b, y: betaincinv(a, b, y * (1 + 2.5e-9)))
    for hits, low in enumerate(lower_bound(np.arange(21), 20, 0.01).tolist()):
        assert hits == 0 or exact_tail(hits, 20, low) <= Fraction(0.01)


@pytest.mark.parametrize(
    ("hits", "n", "alpha", "reason"),
    [
        (-1, 5, 0.1, "hits"),
        (6, 5, 0.1, "hits"),
        (0, 0, 0.1, "from 1 to"),
        (1, LARGEST + 1, 0.1, "from 1 to"),
        (1.5, 5, 0.1, "whole"),
        (1, 5, 0.0, "alpha"),
        (1, 5, 1.0, "alpha"),
        (1, 5, float("nan"), "alpha"),
    ],
)
def test_refusals(hits, n, alpha, reason):
    for bound in (lower_bound, upper_bound, two_sided):
        with pytest.raises(ValueError, match=reason):
            bound(hits, n, alpha)


@given(st.integers(0, 300), st.integers(0, 300))
def test_pvalue_is_scipys(first, second):
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert float(top_two_pvalue(first, second)) == pytest.approx(expected, rel=2e-9)
    assert top_two_pvalue(first, second) >= expected * (1 - 1e-12)


def test_predict_gives_the_top_class_or_abstains():
    votes = np.array([[90, 5, 5], [5, 90, 5], [50, 49, 1], [0, 0, 0], [10, 0, 0], [40, 40, 20]])
    assert predict(votes, 0.001).tolist() == [0, 1, ABSTAIN, ABSTAIN, ABSTAIN, ABSTAIN]
    assert predict(votes[4], 0.01) == 0
    # 10 of 10: p = 2/1024, at the boundary rounded to abstain.
    assert predict([10, 0], 2 / 1024) == ABSTAIN


def test_predict_refuses():
    with pytest.raises(ValueError, match="two classes"):
        predict([3], 0.1)
    with pytest.raises(ValueError, match="whole"):
        predict([0.5, 1.0], 0.1)
    with pytest.raises(ValueError, match="alpha"):
        predict([1, 2], 0)
    with pytest.raises(ValueError, match="from 0 on"):
        predict([-3, -2], 0.1)


@pytest.mark.parametrize(("alpha", "times", "trials"), [(0.05, 1.2, 40_000), (0.001, 1.5, 400_000)])
@pytest.mark.parametrize("n", [200, 100_000])
def test_bounds_fail_at_their_rate_and_a_greater_one_is_seen(n, alpha, times, trials):
    """p lies exactly where α is attained. Bounds at `times` α, the plant, fail as often as that: beyond chance."""
    rng = np.random.default_rng(n)
    hits = int(0.9 * n)
    limit = at_most_by_chance(trials, alpha)
    for level, sound in ((alpha, True), (times * alpha, False)):
        p = np.nextafter(float(lower_bound(hits, n, level)) * (1 + 1e-12), 1)
        drawn = rng.binomial(n, p, trials)
        failed = int((lower_bound(np.arange(n + 1), n, level)[drawn] >= p * (1 - 1e-9)).sum())
        assert failed > 0.9 * alpha * trials * (1 if sound else times) - 4 * (alpha * trials) ** 0.5
        assert (failed <= limit) == sound


def test_predict_fails_at_most_at_its_rate():
    """Two equally likely classes: every answer counts as false."""
    trials = 200_000
    first = np.random.default_rng(0).binomial(1000, 0.5, trials)
    answers = predict(np.stack([first, 1000 - first], axis=-1), 0.001) != ABSTAIN
    assert 0 < answers.sum() <= at_most_by_chance(trials, 0.001)


def exact_share(k, n, total, other):
    """P(X = k) of the hypergeometric law, as a fraction."""
    return Fraction(comb(n, k) * comb(other, total - k), comb(n + other, total))


@given(counts, counts)
def test_fishers_tails_against_exact_fractions(first, second):
    (hits, n), (others, m) = first, second
    total = hits + others
    shares = [exact_share(k, n, total, m) if k <= total else Fraction(0) for k in range(n + 1)]
    below, above = fisher_tails(hits, n, others, m)
    for found, exact in ((below, sum(shares[: hits + 1])), (above, sum(shares[hits:]))):
        assert exact <= Fraction(found) or found == 1
        assert Fraction(found) <= exact * (1 + Fraction(1, 10**8))
    assert fisher_tails(others, m, hits, n) == pytest.approx((above, below), rel=1e-8)


def test_fishers_tails_of_many_draws_against_forty_digits():
    """From the terms by log Γ at 40 digits, outward from the count while they matter."""
    for hits, n, others, m in ((5_002_000, LARGEST, 4_997_000, LARGEST), (99_500, 100_000, 9_990, 10_000)):
        total, k, exact = hits + others, hits, mp.mpf(0)
        upward = hits * (n + m) > total * n
        with mp.workdps(DIGITS):
            term = mp.exp(log_choose(n, hits) + log_choose(m, others) - log_choose(n + m, total))
            while term > exact * mp.mpf(10) ** -15:
                exact += term
                if upward:
                    term *= mp.mpf((n - k) * (total - k)) / ((k + 1) * (m - total + k + 1))
                else:
                    term *= mp.mpf(k * (m - total + k)) / ((n - k + 1) * (total - k + 1))
                k += 1 if upward else -1
        assert abs(fisher_tails(hits, n, others, m)[upward] / exact - 1) < 2e-9


def log_choose(n, k):
    return mp.loggamma(n + 1) - mp.loggamma(k + 1) - mp.loggamma(n - k + 1)


def test_fishers_test_is_scipys_and_refuses_what_are_no_counts():
    for hits, n, others, m in ((7, 10, 1, 9), (0, 5, 5, 5), (3, 3, 4, 4), (0, 4, 0, 9)):
        table = [[hits, n - hits], [others, m - others]]
        below, above = (fisher_exact(table, side).pvalue for side in ("less", "greater"))
        assert fisher_tails(hits, n, others, m) == pytest.approx((below, above), rel=1e-8)
    for wrong in ((-1, 5, 0, 5), (6, 5, 0, 5), (1, 5, 1, LARGEST + 1)):
        with pytest.raises(ValueError, match="must be from"):
            fisher_tails(*wrong)
