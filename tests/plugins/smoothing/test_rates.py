"""How often certificates are false, in every mode of the certifier itself: at most at α, and more is seen.

Votes of a binary linear classifier are binomial counts with p = Φ(margin/σ), the closed form; so they are drawn here
without any network, and what is simulated is all that the certifier does with them.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from oracles.binomial import at_most_by_chance
from robench.binomial import lower_bound
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.smoothing._sequence import plan
from robench_plugins.smoothing._terms import Decision, Radius
from robench_plugins.smoothing.certify import Smoothing
from robench_plugins.smoothing.noises import Gaussian, Uniform

SIGMA = 0.5
TRIALS = {0.05: 20_000, 0.001: 200_000}
PLANTED = {0.05: 1.2, 0.001: 1.5}
levels = pytest.mark.parametrize("alpha", TRIALS)
margins = pytest.mark.parametrize("margin", [0.2, 0.5, 1.2])


@dataclass
class Vote:
    """A vote with known shares: those of the classes and of no class, the same at every input."""

    shares: tuple[float, ...]
    noise: object = field(default_factory=lambda: Gaussian(SIGMA))
    seed: int = 0

    graph = base = None
    input_shape = (1,)
    dtype, device, fingerprint, n, alpha = torch.float64, torch.device("cpu"), "0" * 64, 1000, 0.001

    @property
    def classes(self):
        return len(self.shares) - 1

    def sample(self, x, stream):
        raise NotImplementedError

    def draws(self, x, stream):
        return Counts(self.shares, np.random.default_rng(self.seed))


class Counts:
    def __init__(self, shares, rng):
        self.shares, self.rng = shares, rng

    def count(self, samples, draws):
        return torch.from_numpy(self.rng.multinomial(np.asarray(draws, dtype=np.int64), self.shares)).long()


def binary(margin, noise=None, seed=0):
    p = float(ndtr(margin / SIGMA))
    return Vote((1 - p, p, 0.0), noise or Gaussian(SIGMA), seed)


def certify(vote, count, eps=None, norm="l2", label=1, **settings):
    certifier = Smoothing(mode="radius" if eps is None else "decide", **settings)
    x, y = torch.zeros(count, 1, dtype=torch.float64), torch.full((count,), label)
    threat = Threat(norm, eps, Domain.unbounded())
    return certifier.certify(vote, x, y, threat, Stream.for_samples(0, "test", range(count)))


# ------------------------------------------------------------- the closed form


@pytest.mark.parametrize("margin", [0.1, 0.5, 1.0, 1.6])
def test_finite_radii_are_those_of_the_closed_form(margin):
    """σ Φ⁻¹(p_low): against the binomial distribution of the count at Φ(margin/σ), whose tail p_low makes α."""
    n, alpha = 2000, 0.01
    made = certify(binary(margin), 2000, n=n, n0=300, alpha=alpha)
    p = float(ndtr(margin / SIGMA))
    said = [detail for detail in made.detail if "hits" in detail]
    for radius, detail in zip(made.lower.tolist()[:200], made.detail, strict=False):
        if "hits" in detail and radius > 0:
            low = float(ndtr(radius / SIGMA))
            assert binom.sf(detail["hits"] - 1, n, low) == pytest.approx(alpha, rel=1e-6)
    # Quantiles of the radius are those of the count, and all certificates together have its distribution.
    for level in (0.1, 0.5, 0.9):
        expected = float(SIGMA * ndtri(lower_bound(int(binom.ppf(level, n, p)), n, alpha)))
        found = made.lower[[("hits" in detail) for detail in made.detail]].quantile(level).item()
        assert found == pytest.approx(max(expected, 0.0), abs=0.1 * SIGMA / math.sqrt(n) * 5)
    assert len(said) >= 1900 or margin < 0.3


@levels
def test_abstentions_are_those_of_the_closed_form(alpha):
    """It abstains exactly where the count does not prove more than one half: a binomial event."""
    n, count = 500, 4000
    made = certify(binary(0.05), count, n=n, n0=1000, alpha=alpha)
    enough = next(k for k in range(n // 2, n) if binom.sf(k - 1, n, 0.5) <= alpha)
    asked = [status for status, detail in zip(made.status, made.detail, strict=True) if "hits" in detail]
    expected = float(binom.cdf(enough - 1, n, ndtr(0.05 / SIGMA)))
    assert set(asked) == {"abstain", "certified"}
    deviation = math.sqrt(expected * (1 - expected) / len(asked))
    assert abs(asked.count("abstain") / len(asked) - expected) < 5 * deviation + 1e-9


# ------------------------------------------------------- false certificates, at α


@levels
@margins
@pytest.mark.parametrize("settings", [{}, {"sides": 2}, {"n0": 200, "tolerance": 0.05}], ids=["fixed", "two", "pilot"])
def test_false_radii_are_at_most_alpha(alpha, margin, settings):
    """On the certifier's own terms, in bulk: hits at p exactly, the radius beyond the margin or at it is false."""
    trials, n = TRIALS[alpha], 2000
    rng, p = np.random.default_rng(1), float(ndtr(margin / SIGMA))
    terms = Radius(Gaussian(SIGMA), "l2", 1, 2, settings.get("n0", 100), n, alpha, *_more(settings))
    draws = np.full(trials, n)
    if "tolerance" in settings:
        pilot = rng.binomial(terms.n0, p, trials)
        told = {votes: terms.draws(votes) for votes in np.unique(pilot).tolist()}
        draws = np.array([told[votes] for votes in pilot.tolist()])
        assert len(set(draws.tolist())) > 3
    hits = rng.binomial(draws, p)
    radii, _, _ = terms.bounds(hits, draws - hits, draws)
    false = int((radii >= margin).sum())
    assert false <= at_most_by_chance(trials, alpha)
    if settings.get("sides") != 2:
        assert false > 0.1 * alpha * trials  # the level is used, as far as whole counts allow


def _more(settings):
    return settings.get("sides", 1), settings.get("tolerance")


@levels
@pytest.mark.parametrize("margin", [0.2, 0.6])
def test_false_radii_of_three_classes_are_at_most_alpha(alpha, margin):
    """Another class and no vote share the rest: σ/2 (Φ⁻¹(p_A) − Φ⁻¹(p_B)) is the true radius, both sides are bounds."""
    trials, n = TRIALS[alpha], 1000
    top = float(ndtr(margin / SIGMA))
    shares = np.array([top, (1 - top) / 2, (1 - top) / 2])
    truth = SIGMA / 2 * (ndtri(shares[0]) - ndtri(shares[1]))
    votes = np.random.default_rng(2).multinomial(n, shares, trials)
    terms = Radius(Gaussian(SIGMA), "l2", 1, 2, 100, n, alpha, 2)
    radii, _, _ = terms.bounds(votes[:, 0], votes[:, 1:].max(axis=1), np.full(trials, n))
    assert int((radii >= truth).sum()) <= at_most_by_chance(trials, alpha)
    assert radii.max() > 0


@levels
@pytest.mark.parametrize("margin", [0.1, 0.4])
def test_false_radii_of_uniform_noise_are_at_most_alpha(alpha, margin):
    noise, trials, n = Uniform(SIGMA), TRIALS[alpha], 1000
    hits = np.random.default_rng(3).binomial(n, 0.5 + margin / (2 * noise.half_width), trials)
    radii, _, _ = Radius(noise, "l1", 1, 2, 100, n, alpha).bounds(hits, n - hits, np.full(trials, n))
    false = int((radii >= margin).sum())
    assert 0.3 * alpha * trials < false <= at_most_by_chance(trials, alpha)


@levels
@margins
def test_false_decisions_are_at_most_alpha(alpha, margin):
    """p at the threshold of ε = margin, where the closed ball touches the boundary."""
    trials = TRIALS[alpha]
    test = Decision(Gaussian(SIGMA), "l2", 1, 2, 100, 3000, alpha, margin).test
    batches = np.diff(test.looks, prepend=0)
    hits = np.random.default_rng(4).binomial(batches, float(ndtr(margin / SIGMA)), (trials, len(batches)))
    false = int(test.judge(hits.cumsum(axis=1)).certified.sum())
    assert 0.2 * alpha * trials < false <= at_most_by_chance(trials, alpha)


@levels
def test_an_adversary_who_stops_at_will_gains_nothing(alpha):
    """It looks at the evidence at every look of a fine schedule, ignores futility, and claims at the largest."""
    trials, p = TRIALS[alpha], float(ndtr(0.5 / SIGMA))
    test = plan(Gaussian(SIGMA).threshold(0.5, "l2", 1), alpha, n_max=3000)
    looks = np.arange(20, 3001, 20)
    # The evidence that is enough, as a count at each of these looks: it rises with the hits.
    enough = np.array([_fewest(test, int(n), alpha) for n in looks])
    rng, false = np.random.default_rng(5), 0
    for _ in range(0, trials, 20_000):
        hits = rng.binomial(20, p, (20_000, len(looks))).cumsum(axis=1)
        false += int((hits >= enough).any(axis=1).sum())
    assert 0.2 * alpha * trials < false <= at_most_by_chance(trials, alpha)


def _fewest(test, n, alpha):
    evidence = test.log_evidence(np.arange(n + 1), n) >= -math.log(alpha)
    return int(evidence.argmax()) if evidence.any() else n + 1


# ----------------------------------------------------------------- the plants


@levels
@pytest.mark.parametrize("sides", [1, 2])
def test_radii_that_fail_more_often_are_seen(alpha, sides):
    """Bounds made for the largest level at which they fail at most 1.2 (1.5) times as often as they may."""
    trials, n, wanted = TRIALS[alpha], 100_000, PLANTED[alpha] * alpha
    margin = 0.3
    p = float(ndtr(margin / SIGMA))
    counts = np.arange(int(n * p), n + 1)
    tails = binom.sf(counts - 1, n, p)
    size = float(tails[tails <= wanted].max())
    assert 0.97 * wanted < size
    # On two sides the bounds of two classes fail together, at the rate of one of them.
    terms = Radius(Gaussian(SIGMA), "l2", 1, 2, 100, n, sides * size * (1 + 1e-6), sides)
    hits = np.random.default_rng(6).binomial(n, p, trials)
    false = int((terms.bounds(hits, n - hits, np.full(trials, n))[0] >= margin * (1 - 1e-6)).sum())
    assert at_most_by_chance(trials, alpha) < false <= at_most_by_chance(trials, wanted)


@levels
def test_a_pilot_that_is_counted_as_well_is_seen(alpha):
    """Draws added only where the first did not prove enough, all of them counted: each sample has two chances."""
    trials, n, margin = TRIALS[alpha], 2000, 0.3
    rng, p = np.random.default_rng(10), float(ndtr(margin / SIGMA))
    terms = Radius(Gaussian(SIGMA), "l2", 1, 2, 100, 50_000, alpha)
    hits, draws = rng.binomial(n, p, trials), np.full(trials, n)
    false = 0
    for more in (0, 6000, 24_000):
        hits, draws = hits + rng.binomial(more, p, len(hits)), draws + more
        beyond = terms.bounds(hits, draws - hits, draws)[0] >= margin
        false += int(beyond.sum())
        hits, draws = hits[~beyond], draws[~beyond]
    assert false > at_most_by_chance(trials, alpha)


@levels
def test_a_pilot_with_a_larger_level_is_seen(alpha):
    trials, wanted, margin = TRIALS[alpha], PLANTED[alpha] * alpha, 0.3
    rng, p = np.random.default_rng(11), float(ndtr(margin / SIGMA))
    terms = Radius(Gaussian(SIGMA), "l2", 1, 2, 200, 100_000, wanted, 1, 0.004)
    pilot = rng.binomial(terms.n0, p, trials)
    told = {votes: terms.draws(votes) for votes in np.unique(pilot).tolist()}
    draws = np.array([told[votes] for votes in pilot.tolist()])
    hits = rng.binomial(draws, p)
    false = int((terms.bounds(hits, draws - hits, draws)[0] >= margin).sum())
    assert at_most_by_chance(trials, alpha) < false <= at_most_by_chance(trials, wanted)


@levels
def test_an_adversary_against_fixed_bounds_is_seen(alpha):
    """Clopper-Pearson at every look, each at the full α: what `decide` would be without its sequence."""
    trials, margin = TRIALS[alpha], 0.5
    p = float(ndtr(margin / SIGMA))
    test = plan(Gaussian(SIGMA).threshold(margin, "l2", 1), alpha, n_max=3000)
    batches = np.diff(test.looks, prepend=0)
    hits = np.random.default_rng(7).binomial(batches, p, (trials, len(batches))).cumsum(axis=1)
    enough = [int((lower_bound(np.arange(n + 1), n, alpha) > test.threshold).argmax()) or n + 1 for n in test.looks]
    assert int((hits >= np.array(enough)).any(axis=1).sum()) > 2 * at_most_by_chance(trials, alpha)


# --------------------------------------------- the whole certifier, end to end


@pytest.mark.parametrize(
    ("settings", "eps"),
    [({}, None), ({"sides": 2}, None), ({"n0": 200, "tolerance": 0.05}, None), ({}, 0.3)],
    ids=["fixed", "two", "pilot", "decide"],
)
def test_the_certifier_keeps_its_rate_from_end_to_end(settings, eps):
    count, alpha, margin = 20_000, 0.05, 0.3
    made = certify(binary(margin, seed=8), count, eps, n=1000, alpha=alpha, **settings)
    false = sum(
        status == "certified" and lower >= margin
        for status, lower in zip(made.status, made.lower.tolist(), strict=True)
    )
    assert false <= at_most_by_chance(count, alpha)
    assert false > (0 if settings.get("sides") == 2 else 0.2 * alpha * count)


def test_a_class_that_its_own_draws_chose_at_a_tie_is_certified_at_most_at_alpha():
    """Whichever is chosen, independent draws decide."""
    count, alpha = 20_000, 0.05
    vote = Vote((0.5, 0.5, 0.0), seed=9)
    for label in (0, 1):
        made = certify(vote, count, n=1000, n0=10, alpha=alpha, label=label)
        assert sum(lower > 0 for lower in made.lower.tolist()) <= at_most_by_chance(count, alpha)
