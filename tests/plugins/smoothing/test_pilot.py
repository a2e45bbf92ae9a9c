"""Draws by what they are worth, and certificates that do not fail more often for it."""

import numpy as np
import pytest

from oracles.binomial import at_most_by_chance
from robench.binomial import lower_bound
from robench_plugins.smoothing._pilot import draws_for_radius
from robench_plugins.smoothing._radii import gaussian_radius


def radius(sigma=0.5):
    return lambda p_low: gaussian_radius(p_low, sigma)


def test_tolerance_buys_draws():
    found = [draws_for_radius(95, 100, radius(), 0.001, tolerance) for tolerance in (0.3, 0.1, 0.03, 0.01, 1e-3, 1e-9)]
    assert found == sorted(found)
    assert found[0] < found[-1] == 100_000
    assert draws_for_radius(95, 100, radius(1.0), 0.001, 0.2) == draws_for_radius(95, 100, radius(), 0.001, 0.1)


def test_nothing_to_gain_takes_the_fewest():
    assert draws_for_radius(10, 100, radius(), 0.001, 0.01) == 100
    assert draws_for_radius(10, 100, radius(), 0.001, 0.01, n_max=50) == 50


@pytest.mark.parametrize("p", [0.7, 0.9, 0.97])
def test_the_loss_is_about_what_was_tolerated(p):
    rng = np.random.default_rng(0)
    n = [draws_for_radius(hits, 1000, radius(), 0.001, 0.02) for hits in rng.binomial(1000, p, 50).tolist()]
    short = gaussian_radius(lower_bound(rng.binomial(n, p), n, 0.001), 0.5).mean()
    long = gaussian_radius(lower_bound(rng.binomial(100_000, p, 50), 100_000, 0.001), 0.5).mean()
    assert 0.01 < long - short < 0.03
    assert np.mean(n) < 20_000


def test_certificates_fail_at_most_at_their_rate():
    trials, p, alpha = 200_000, 0.9, 0.001
    rng = np.random.default_rng(0)
    pilot = rng.binomial(100, p, trials)
    n = np.zeros(trials, dtype=np.int64)
    for hits in np.unique(pilot).tolist():
        n[pilot == hits] = draws_for_radius(hits, 100, radius(), alpha, 0.1)
    failed = int((lower_bound(rng.binomial(n, p), n, alpha) > p).sum())
    assert 0.3 * alpha * trials < failed <= at_most_by_chance(trials, alpha)


@pytest.mark.parametrize(
    "wrong",
    [
        (5, 4, 1, 0.1, 0.1),
        (-1, 4, 1, 0.1, 0.1),
        (0, 0, 1, 0.1, 0.1),
        (1, 2, 1, 0.1, 0),
        (1, 2, 1, 1, 1),
    ],
)
def test_refusals(wrong):
    with pytest.raises(ValueError, match=r"pilot|alpha"):
        draws_for_radius(*wrong[:2], radius(), *wrong[3:])
