"""Radii are rounded down, thresholds up, and a linear classifier's are its margins."""

import math
from fractions import Fraction

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

from oracles.binomial import DIGITS, at_most_by_chance, exact_tail
from robench.binomial import lower_bound, upper_bound
from robench.numerics import open_to_closed
from robench_plugins.smoothing._radii import (
    draws_needed,
    gaussian_radius,
    gaussian_threshold,
    gaussian_two_sided,
    largest_radius,
    linf_from_l2,
    two_sided_radius,
    uniform_radius,
    uniform_threshold,
)

sigmas = st.floats(1e-3, 1e3)
probabilities = st.floats(0, 1)


def quantile(p):
    """Φ⁻¹(p) to many digits."""
    with mp.workdps(DIGITS):
        return mp.sqrt(2) * mp.erfinv(2 * mp.mpf(p) - 1)


def distribution(x):
    with mp.workdps(DIGITS):
        return mp.erfc(-x / mp.sqrt(2)) / 2


@given(st.floats(0.5, 1, exclude_min=True, exclude_max=True), sigmas)
def test_gaussian_radius_is_below_the_exact_one(p, sigma):
    found = float(gaussian_radius(p, sigma))
    exact = mp.mpf(sigma) * quantile(p)
    assert found == 0 or found < exact
    assert found >= exact * (1 - 1e-13)


@given(probabilities, probabilities, sigmas)
def test_two_sided_radius_is_below_the_exact_one(low, up, sigma):
    found = float(two_sided_radius(low, up, sigma))
    if low <= min(up, 1 - low):
        assert found == 0
    elif 1e-30 < low < 1 and up > 1e-30:
        with mp.workdps(DIGITS):
            below = min(mp.mpf(up), 1 - mp.mpf(low))
        exact = mp.mpf(sigma) / 2 * (quantile(low) - quantile(below))
        assert found == 0 or found < exact
        assert found >= exact - 1e-10 * sigma


@given(st.floats(0.5, 1), sigmas)
def test_two_sided_radius_of_what_one_side_knows_is_the_one_sided(p, sigma):
    one = float(gaussian_radius(p, sigma))
    for up in (1.0, 1 - p):
        assert float(two_sided_radius(p, up, sigma)) == pytest.approx(one, abs=1e-9 * sigma)


@given(st.floats(0.5, 1), st.floats(1e-3, 1e3))
def test_uniform_radius_is_below_the_exact_one(p, half_width):
    found = float(uniform_radius(p, half_width))
    exact = 2 * Fraction(half_width) * (Fraction(p) - Fraction(1, 2))
    assert found == 0 or Fraction(found) < exact
    assert Fraction(found) >= exact * (1 - Fraction(1, 10**15)) - Fraction(1, 10**300)


def test_abstains_up_to_a_half():
    for radius in (gaussian_radius, uniform_radius):
        assert radius([0, 0.3, 0.5], 1.0).tolist() == [0, 0, 0]
        assert radius(np.nextafter(0.5, 1), 1.0) >= 0
    assert two_sided_radius([0.5, 0.2], [0.5, 0.4], 1.0).tolist() == [0, 0]
    assert gaussian_radius(1.0, 1.0) == np.inf
    assert uniform_radius(1.0, 0.5) == np.nextafter(np.nextafter(np.nextafter(0.5, 0), 0), 0)


def test_radii_are_of_closed_balls():
    p = np.linspace(0.5, 1, 1001)
    bare = np.array([float(0.25 * quantile(q)) if 0.5 < q < 1 else 0.0 for q in p[:-1]])
    assert (torch.from_numpy(gaussian_radius(p[:-1], 0.25)) <= open_to_closed(torch.from_numpy(bare))).all()


@given(st.floats(0, 6), sigmas)
def test_gaussian_threshold_is_above_the_exact_one(z, sigma):
    eps = z * sigma
    found = gaussian_threshold(eps, sigma)
    with mp.workdps(DIGITS):
        exact = distribution(mp.mpf(eps) / mp.mpf(sigma))
    assert exact <= found <= exact * (1 + mp.mpf(10) ** -13)


@given(st.floats(0, 1), st.floats(1e-3, 1e3))
def test_uniform_threshold_is_above_the_exact_one(share, half_width):
    eps = share * half_width
    exact = Fraction(1, 2) + Fraction(eps) / Fraction(half_width) / 2
    found = uniform_threshold(eps, half_width)
    assert min(exact, 1) <= Fraction(found) <= min(exact * (1 + Fraction(1, 10**14)), 1)


@given(st.floats(1e-3, 3), st.floats(1e-6, 1e-3))
def test_a_radius_takes_its_threshold(eps, more):
    for radius, threshold in ((gaussian_radius, gaussian_threshold), (uniform_radius, uniform_threshold)):
        p0 = threshold(eps, 4.0)
        assert radius(p0 - 1e-12, 4.0) < eps <= radius(min(p0 + more, 1), 4.0)


def test_thresholds_out_of_reach():
    assert uniform_threshold(0.5, 0.5) == uniform_threshold(2, 0.5) == 1
    assert gaussian_threshold(40, 1) == 1
    assert gaussian_threshold(0, 1) == uniform_threshold(0, 1) == 0.5
    with pytest.raises(ValueError, match="no number of draws"):
        draws_needed(1.0, 0.001)


@given(st.floats(0, 1e3), st.integers(1, 10**6))
def test_linf_ball_lies_in_the_l2_ball(radius, dimension):
    found = float(linf_from_l2(radius, dimension))
    assert Fraction(found) ** 2 * dimension <= Fraction(radius) ** 2
    assert found >= radius / math.sqrt(dimension) * (1 - 1e-15) - 1e-300


def test_linf_keeps_infinity_and_squares():
    assert linf_from_l2([0, np.inf], 7).tolist() == [0, np.inf]
    assert linf_from_l2(3.0, 1) == 3
    for wrong in (-1.0, np.nan):
        with pytest.raises(ValueError, match="radii"):
            linf_from_l2(wrong, 3)
    with pytest.raises(ValueError, match="dimension"):
        linf_from_l2(1.0, 0)


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize("threshold", [0.5, 0.84134, 0.977, 0.99865])
def test_draws_needed_is_the_smallest(threshold, alpha):
    n = draws_needed(threshold, alpha)
    assert lower_bound(n, n, alpha) > threshold
    assert n == 1 or lower_bound(n - 1, n - 1, alpha) <= threshold
    if n < 60:
        assert exact_tail(n, n, threshold) < Fraction(alpha) <= exact_tail(n - 1, n - 1, threshold)


def test_draws_needed_for_radii():
    assert draws_needed(gaussian_threshold(0.75, 0.25), 0.001) == 5114
    assert largest_radius(0.25, 100_000, 0.001) == pytest.approx(0.9528, abs=1e-4)
    n = draws_needed(gaussian_threshold(0.8, 0.25), 0.001)
    assert largest_radius(0.25, n, 0.001) >= 0.8 > largest_radius(0.25, n - 1, 0.001)


def test_a_linear_classifier_has_its_margin_as_radius():
    """p = Φ(margin/σ): the certificate from the expected count approaches the margin from below."""
    sigma, margin = 0.5, np.array([0.1, 0.5, 1.0])
    found = [
        gaussian_radius(lower_bound(np.floor(n * ndtr(margin / sigma)).astype(int), n, 0.001), sigma)
        for n in (10**4, 10**6)
    ]
    assert (found[0] < found[1]).all()
    assert (found[1] < margin).all()
    assert found[1] == pytest.approx(margin, rel=0.02)


@pytest.mark.parametrize("p", [(0.7, 0.3), (0.55, 0.3, 0.15), (0.34, 0.33, 0.33)])
def test_radii_from_counts_fail_at_most_at_their_rate(p):
    """The radius at the true probabilities is exact for the worst classifier (Cohen et al. 2019, theorem 2)."""
    trials, n, alpha = 200_000, 1000, 0.001
    votes = np.random.default_rng(len(p)).multinomial(n, p, trials)
    both = gaussian_two_sided(votes[:, 0], votes[:, 1:].max(axis=1), n, alpha, 1.0)
    truth = float(quantile(p[0]) - quantile(p[1])) / 2
    assert (both > truth).sum() <= at_most_by_chance(trials, alpha)
    one = gaussian_radius(lower_bound(votes[:, 0], n, alpha), 1.0)
    assert (one > max(float(quantile(p[0])), 0)).sum() <= at_most_by_chance(trials, alpha)


def test_two_sided_gains_where_the_rest_is_spread():
    one = gaussian_radius(lower_bound(6000, 10_000, 0.001), 1.0)
    assert gaussian_two_sided(6000, 500, 10_000, 0.001, 1.0) > 2 * one
    assert gaussian_two_sided(6000, 4000, 10_000, 0.001, 1.0) == pytest.approx(
        float(two_sided_radius(lower_bound(6000, 10_000, 0.0005), upper_bound(4000, 10_000, 0.0005), 1.0))
    )


@pytest.mark.parametrize("wrong", [-0.1, 1.1, np.nan])
def test_what_is_no_probability_is_refused(wrong):
    for call in (gaussian_radius, uniform_radius, lambda p, s: two_sided_radius(p, 0.1, s)):
        with pytest.raises(ValueError, match="probabilities"):
            call(wrong, 1.0)


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan, np.inf])
def test_what_is_no_noise_is_refused(wrong):
    for call in (
        gaussian_radius,
        uniform_radius,
        lambda p, s: two_sided_radius(p, 0.1, s),
        gaussian_threshold,
        uniform_threshold,
    ):
        with pytest.raises(ValueError, match="positive"):
            call(0.7, wrong)


@pytest.mark.parametrize("wrong", [-1.0, np.nan, np.inf])
def test_what_is_no_radius_is_refused(wrong):
    for call in (gaussian_threshold, uniform_threshold):
        with pytest.raises(ValueError, match="radius"):
            call(wrong, 1.0)
    with pytest.raises(ValueError, match="alpha"):
        draws_needed(0.9, 1.0)
