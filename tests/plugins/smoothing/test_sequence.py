"""The wealth is a martingale at the threshold, certificates fail at most at their rate, whoever stops when."""

import math
import subprocess
import sys

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import ndtr
from scipy.stats import binom

from oracles.binomial import at_most_by_chance, precise_tail
from robench.binomial import lower_bound
from robench_plugins.smoothing._looks import schedule
from robench_plugins.smoothing._radii import draws_needed, gaussian_threshold
from robench_plugins.smoothing._sequence import Verdict, decide, plan
from robench_plugins.smoothing._wealth import PRIOR, log_wealth

thresholds = st.floats(0.5, 0.999)
priors = st.sampled_from([PRIOR, (1.0, 1.0), (0.5, 0.5), (3.0, 0.1)])


def drawn(test, p, trials, seed=0):
    """Hits up to every look, [trials, L]."""
    batches = np.diff(test.looks, prepend=0)
    return np.random.default_rng(seed).binomial(batches, p, (trials, len(batches))).cumsum(axis=1)


def ends(test, p):
    """Exact probabilities of (certified, stopped early) by recursion over the looks."""
    alive, certified, futile, before = np.ones(1), 0.0, 0.0, 0
    for look, accept, vain in zip(test.looks, test.accept, test.futile, strict=True):
        alive = np.convolve(alive, binom.pmf(np.arange(look - before + 1), look - before, p))
        certified += alive[accept:].sum()
        alive[accept:] = 0
        if look < test.n_max:
            futile += alive[: vain + 1].sum()
            alive[: vain + 1] = 0
        before = look
    return certified, futile


@pytest.mark.parametrize("threshold", [0.5, 0.84, 0.999])
@pytest.mark.parametrize(("hits", "n"), [(0, 0), (1, 1), (0, 1), (9, 10), (10, 10), (3, 10)])
def test_wealth_is_the_mixture(hits, n, threshold):
    a, b = 1.0, 1.0

    def ratio(p):
        return (p / threshold) ** hits * ((1 - p) / (1 - threshold)) ** (n - hits)

    expected = quad(ratio, threshold, 1, epsabs=0, epsrel=1e-11)[0] / (1 - threshold)
    assert float(np.exp(log_wealth(hits, n, threshold, (a, b)))) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [10**4, 10**6])
@pytest.mark.parametrize("threshold", [0.5, 0.8413, 0.99865])
def test_wealth_of_many_draws_against_forty_digits(n, threshold):
    deviation = math.sqrt(n * threshold * (1 - threshold))
    for away in (-5, 0, 3, 5, 30):
        hits = min(n, int(n * threshold + away * deviation))
        with mp.workdps(40):
            left, misses = 1 - mp.mpf(threshold), n - hits

            def above(a, b, left=left):
                return b * mp.log(left) + a * mp.log(1 - left) - mp.log(b) + mp.log(series(a + b, b + 1, left))

            exact = above(1 + hits, misses + mp.mpf(1) / 2) - above(1, mp.mpf(1) / 2)
            exact -= hits * mp.log(1 - left) + misses * mp.log(left)
            assert abs(float(log_wealth(hits, n, threshold)) - exact) < 1e-8


def series(a, c, x):
    """₂F₁(a, 1; c; x)."""
    total, term, i = mp.mpf(0), mp.mpf(1), 0
    while term > total * mp.mpf(10) ** -30:
        total += term
        term *= (a + i) / (c + i) * x
        i += 1
    return total


def test_a_prior_that_has_no_part_above_the_threshold_is_refused():
    with pytest.raises(ValueError, match="prior"):
        log_wealth(3, 3, 0.999999, (1.0, 100.0))


def test_wealth_underflows_to_less():
    hits = np.array([0, 1000, 10_000, 100_000, 500_000, 900_000])
    found = log_wealth(hits, 10**6, 0.99)
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()
    assert (found < -10).all()


@settings(deadline=None)
@given(thresholds, priors, st.floats(0, 1))
def test_wealth_is_a_martingale_at_the_threshold_and_falls_below_it(threshold, prior, share):
    n, k = np.meshgrid(np.arange(40), np.arange(40))
    n, k = n[k <= n], k[k <= n]
    now = np.exp(log_wealth(k, n, threshold, prior))
    hit, miss = (np.exp(log_wealth(k + more, n + 1, threshold, prior)) for more in (1, 0))
    assert threshold * hit + (1 - threshold) * miss == pytest.approx(now, rel=1e-9)
    p = share * threshold
    assert (p * hit + (1 - p) * miss <= now * (1 + 1e-9)).all()
    assert (hit >= miss).all()
    assert log_wealth(0, 0, threshold, prior) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_evidence_is_a_martingale_up_to_the_last_look(threshold):
    test = plan(threshold, 0.01, n_max=130)
    n, k = np.meshgrid(np.arange(130), np.arange(130))
    n, k = n[k <= n], k[k <= n]
    now = np.exp(test.log_evidence(k, n))
    hit, miss = (np.exp(test.log_evidence(k + more, n + 1)) for more in (1, 0))
    assert threshold * hit + (1 - threshold) * miss == pytest.approx(now, rel=1e-9)
    assert (0.9 * threshold * hit + (1 - 0.9 * threshold) * miss <= now * (1 + 1e-9)).all()
    assert float(test.log_evidence(0, 0)) == pytest.approx(0, abs=1e-9)
    # The bet is on an event of probability at most its part of α.
    assert precise_tail(test.final, 130, threshold) <= test.alpha * test.last
    assert precise_tail(test.final - 1, 130, threshold) > test.alpha * test.last * (1 - 1e-5)


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize("threshold", [0.5, 0.84])
def test_the_table_is_what_the_evidence_says(threshold, alpha):
    test = plan(threshold, alpha, n_max=200, first=8, batch=1)
    for look, accept, futile in zip(test.looks.tolist(), test.accept.tolist(), test.futile.tolist(), strict=True):
        evidence = test.log_evidence(np.arange(look + 1), look)
        assert (np.diff(evidence) >= 0).all()
        assert (evidence >= math.log(1 / alpha) + 1e-6).sum() == look + 1 - accept
        aim = test.accept[-1] / test.n_max
        against = log_wealth(look - np.arange(look + 1), look, 1 - aim, PRIOR[::-1])
        assert (against >= math.log(1 / test.beta)).sum() == futile + 1
        assert futile < accept


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize("threshold", [0.5, 0.8413447460685429, 0.9772498680518208])
@pytest.mark.parametrize("looks", [{"ratio": 1.2}, {"first": 1, "ratio": 1, "batch": 1}])
def test_exact_failure_rates(threshold, alpha, looks):
    """Without simulation: at the threshold at most α, below it less; where certificates are due at most β are lost."""
    test = plan(threshold, alpha, n_max=600, **looks)
    at, below = ends(test, threshold)[0], ends(test, threshold - 0.01)[0]
    assert 0.2 * alpha < at <= alpha
    assert below < at
    aim = test.accept[-1] / test.n_max
    assert ends(test, aim)[1] <= test.beta


@pytest.mark.parametrize(("alpha", "trials"), [(0.05, 40_000), (0.001, 400_000)])
@pytest.mark.parametrize("threshold", [0.5, 0.8413447460685429])
def test_decisions_fail_at_most_at_their_rate(threshold, alpha, trials):
    test = plan(threshold, alpha, n_max=3000, ratio=1.5)
    failed = int(test.judge(drawn(test, threshold, trials)).certified.sum())
    assert 0.2 * alpha * trials < failed <= at_most_by_chance(trials, alpha)


@pytest.mark.parametrize(("alpha", "times", "trials"), [(0.05, 1.2, 40_000), (0.001, 1.5, 400_000)])
def test_a_sequence_that_fails_more_often_is_seen(alpha, times, trials):
    """The plant: the same tables, made for the largest α at which they fail at most `times` as often as they may."""
    low, high = alpha, min(20 * alpha, 0.4)
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        enough = ends(plan(0.84, middle, n_max=5000, ratio=1.5), 0.84)[0] >= times * alpha
        low, high = (low, middle) if enough else (middle, high)
    test = plan(0.84, low, n_max=5000, ratio=1.5)
    assert 0.9 * times * alpha < ends(test, 0.84)[0] < times * alpha
    failed = int(test.judge(drawn(test, 0.84, trials)).certified.sum())
    assert failed > at_most_by_chance(trials, alpha)


def test_an_adversary_who_looks_after_every_draw_gains_nothing():
    """It stops at the largest evidence; the same adversary gains much from bounds made for a fixed n."""
    trials, n, p, alpha = 20_000, 500, 0.84, 0.05
    test = plan(p, alpha, n_max=n)
    hits = (np.random.default_rng(0).random((trials, n)) < p).cumsum(axis=1)
    counts, draws = np.meshgrid(np.arange(n + 1), np.arange(n + 1))
    evidence = np.where(counts <= draws, test.log_evidence(np.minimum(counts, draws), draws), -np.inf)
    best = evidence[np.arange(1, n + 1), hits].max(axis=1)
    failed = int((best >= math.log(1 / alpha)).sum())
    limit = at_most_by_chance(trials, alpha)
    assert 0.3 * alpha * trials < failed <= limit
    proven = np.zeros((n + 1, n + 1), dtype=bool)
    proven[1:] = lower_bound(np.minimum(counts, draws)[1:], draws[1:], alpha) > p
    assert int(proven[np.arange(1, n + 1), hits].any(axis=1).sum()) > 3 * limit


def test_a_linear_classifier_is_certified_up_to_its_margin():
    """p = Φ(margin/σ), the closed form: never beyond the margin but by chance, nearly always somewhat below it."""
    sigma, margin, alpha, trials = 0.5, 0.5, 0.05, 5000
    p = float(ndtr(margin / sigma))
    beyond = plan(gaussian_threshold(margin, sigma), alpha)
    assert beyond.judge(drawn(beyond, p, trials)).certified.sum() <= at_most_by_chance(trials, alpha)
    within = plan(gaussian_threshold(0.95 * margin, sigma), alpha)
    found = within.judge(drawn(within, p, trials))
    assert found.certified.mean() > 0.99
    assert found.draws.mean() < 20_000
    far = plan(gaussian_threshold(0.5 * margin, sigma), alpha)
    assert far.judge(drawn(far, p, trials)).draws.mean() < 150
    wrong = beyond.judge(drawn(beyond, 0.5, trials))
    assert not wrong.certified.any()
    assert wrong.draws.mean() < 60
    assert set(wrong.verdict.tolist()) == {Verdict.FUTILE}


def test_the_last_look_is_nearly_as_good_as_fixed_draws():
    for threshold in (0.84, 0.9987):
        test = plan(threshold)
        k = np.arange(int(threshold * test.n_max), test.n_max + 1)
        fixed = k[np.argmax(lower_bound(k, test.n_max, test.alpha) > threshold)]
        deviation = math.sqrt(test.n_max * threshold * (1 - threshold))
        assert fixed <= test.accept[-1] <= fixed + 0.3 * deviation


@pytest.mark.parametrize("p", [0.6, 0.84, 0.86, 0.9, 1.0])
def test_decide_is_judge_and_asks_only_about_what_is_open(p):
    test = plan(0.84, n_max=5000)
    hits = drawn(test, p, 200, seed=7)
    calls = []

    def draw(samples, count):
        look = len(calls)
        before = hits[samples, look - 1] if look else 0
        calls.append((samples, count))
        return hits[samples, look] - before

    found, expected = decide(test, draw, 200), test.judge(hits)
    for name in ("verdict", "hits", "draws"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()
    assert sum(len(samples) * count for samples, count in calls) == found.draws.sum()
    assert [count for _, count in calls] == np.diff(test.looks, prepend=0).tolist()[: len(calls)]
    assert (found.draws[found.verdict == Verdict.EXHAUSTED] == 5000).all()
    assert (test.log_evidence(found.hits, found.draws)[found.certified] >= math.log(1 / test.alpha)).all()


@pytest.mark.parametrize(
    "wrong", [lambda s, n: [0.5] * len(s), lambda s, n: [n + 1] * len(s), lambda s, n: [-1] * len(s), lambda s, n: 3]
)
def test_draws_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="draw must return 3 whole numbers from 0 to 32"):
        decide(plan(0.84), wrong, 3)


def test_no_samples():
    assert decide(plan(0.84), lambda samples, count: [], 0).certified.tolist() == []


def test_looks():
    looks = schedule(100_000)
    assert (looks[0], looks[-1], len(looks)) == (32, 100_000, 39)
    assert (looks[:-1] % 32 == 0).all()
    assert (np.diff(looks) > 0).all()
    assert schedule(5, 1, 1, 1).tolist() == [1, 2, 3, 4, 5]
    assert schedule(32).tolist() == [32]
    assert plan(0.5, 0.1, n_max=20).looks.tolist() == [20]
    for wrong in ((0,), (10, 11), (10, 0), (10, 1, 0.5), (10, 1, 1, 0)):
        with pytest.raises(ValueError, match="looks need"):
            schedule(*wrong)


@pytest.mark.parametrize("threshold", [0.6, 0.84, 0.9987])
def test_too_few_draws_say_how_many_it_takes(threshold):
    needed = draws_needed(threshold, 0.0005)
    with pytest.raises(ValueError, match=f"n_max = {needed} needed"):
        plan(threshold, n_max=needed - 1)
    enough = plan(threshold, n_max=needed)
    assert enough.fewest <= enough.accept[-1] <= needed
    with pytest.raises(ValueError, match="no number of draws"):
        plan(1.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"threshold": 0.4}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"alpha": 0.0}, "alpha"),
        ({"beta": 1.0}, "beta"),
        ({"last": 0.0}, "last"),
        ({"n_max": 10**6 + 1}, "at most"),
    ],
)
def test_refusals(change, reason):
    with pytest.raises(ValueError, match=reason):
        plan(**{"threshold": 0.84, **change})


def test_plans_are_shared_and_cannot_be_changed():
    assert plan(0.84) is plan(0.84)
    for table in (plan(0.84).looks, plan(0.84).accept, plan(0.84).futile):
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 0


def test_judge_wants_every_look():
    with pytest.raises(ValueError, match="39 looks"):
        plan(0.84).judge(np.zeros((3, 4), dtype=int))


def test_needs_no_torch():
    modules = ", ".join(
        f"robench_plugins.smoothing._{name}" for name in ("looks", "pilot", "radii", "sequence", "wealth")
    )
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
