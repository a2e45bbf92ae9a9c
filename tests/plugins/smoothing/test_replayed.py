"""Certificates derived again from their counts, counts drawn again: honest ones pass, planted ones are caught."""

import json
import math
import re

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from scipy.stats import binom

from oracles.voters import half
from robench.contracts import CountingCertifier
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.smoothing._recount import differ, refuted
from robench_plugins.smoothing._sequence import plan
from robench_plugins.smoothing.certify import Smoothing
from robench_plugins.smoothing.noises import Gaussian
from robench_plugins.smoothing.smooth import SmoothedClassifier

SIGMA = 0.5
EPS = 0.2
MARGINS = (0.05, 0.19, 0.21, 0.3, 0.6, 1.5, -0.4)
CERTIFIERS = [
    Smoothing(n=5000),
    Smoothing(n=5000, sides=2),
    Smoothing(n=20_000, n0=500, tolerance=0.02),
    Smoothing(mode="decide", n=5000),
]
certifiers = pytest.mark.parametrize("certifier", CERTIFIERS, ids=lambda one: f"{one.mode}-{one.sides}-{one.tolerance}")
VOTE = SmoothedClassifier(half(), Gaussian(SIGMA), "smooth:sigma=0.5")


def threat(certifier):
    return Threat("l2", EPS if certifier.per_eps else None, Domain.unbounded())


def rows(certifier, margins=MARGINS, seed=0):
    """Inputs, certificates, and details as a table of evidence keeps them."""
    x = VOTE.base.at(*margins)
    streams = Stream.for_samples(seed, "test", range(len(margins)))
    made = certifier.certify(VOTE, x, torch.ones(len(x), dtype=torch.int64), threat(certifier), streams)
    return x, made, json.loads(json.dumps(made.detail))


def rederive(certifier, *details, label=1):
    return certifier.rederive(VOTE, torch.full((len(details),), label), details, threat(certifier))


def refusal(certifier, detail):
    """The reason for which counts are refused."""
    made = rederive(certifier, detail)
    assert (made.lower.tolist(), made.status) == ([0.0], ["error"])
    return made.detail[0]["reason"]


def recount(certifier, x, details, seed=1):
    return certifier.recount(VOTE, x, details, threat(certifier), Stream.for_samples(seed, "test", range(len(x))))


@certifiers
def test_honest_counts_prove_the_same_again_and_may_be_right(certifier):
    x, made, details = rows(certifier)
    assert isinstance(certifier, CountingCertifier)
    assert any(made.lower) and not all(made.lower)
    again = rederive(certifier, *details)
    assert (again.lower.tolist(), again.status) == (made.lower.tolist(), made.status)
    assert again.confidence.tolist() == made.confidence.tolist() == [0.999] * len(x)
    other = rederive(certifier, *details, label=0)
    assert not other.lower.any() and set(other.status) == {"open"}
    for seed in range(3):
        assert recount(certifier, x, details, seed) == [None] * len(x)
    assert recount(certifier, x[:0], []) == []


@certifiers
def test_the_recorded_bounds_are_not_believed(certifier):
    _, made, details = rows(certifier)
    lies = [{**one, "p_low": 1.0, "p_up": 0.0, "p0": 0.0, "verdict": "certified"} for one in details]
    assert rederive(certifier, *lies).lower.tolist() == made.lower.tolist()


@certifiers
def test_inflated_counts_are_caught_and_the_others_left_alone(certifier):
    x, _, details = rows(certifier, (0.05, 0.6, 0.02, 0.3, -0.4))
    planted = [dict(one) for one in details]
    best = {**details[1], "votes0": details[0]["votes0"]}
    if certifier.tolerance is not None:
        best = {**details[0], "hits": details[0]["n"]}
    planted[0], planted[2] = best, {**best, "votes0": details[2]["votes0"]}
    if certifier.tolerance is not None:
        planted[2] = {**details[2], "hits": details[2]["n"]}
    assert rederive(certifier, planted[0]).lower > 0.15
    found = recount(certifier, x, planted)
    assert [one is not None for one in found] == [True, False, True, False, False]
    assert "fresh" in found[0] and "\n" not in found[0]


def test_a_runner_up_with_too_few_votes_is_caught():
    certifier = CERTIFIERS[1]
    x, _, details = rows(certifier, (0.1,))
    hits, n = details[0]["hits"], details[0]["n"]
    lie = {**details[0], "second": (n - hits + 1) // 2}
    honest, inflated = rederive(certifier, details[0], lie).lower.tolist()
    assert inflated > honest + 0.05
    assert "another class" in recount(certifier, x, [lie])[0]


def test_a_decision_stopped_where_no_test_stops_is_refused():
    certifier = CERTIFIERS[3]
    _, _, (one,) = rows(certifier, (0.3,))
    test = plan(Gaussian(SIGMA).threshold(EPS, "l2", 12), 0.001, n_max=5000)
    look = int(np.searchsorted(test.looks, one["n"]))
    assert one["hits"] >= test.accept[look]
    for change, why in (
        ({"n": one["n"] + 1}, "does not look"),
        ({"hits": int(test.accept[look]) - 1}, "goes on"),
        ({"hits": one["n"]}, "had stopped"),
    ):
        assert why in refusal(certifier, {**one, **change})
        assert why in recount(certifier, VOTE.base.at(0.3), [{**one, **change}])[0]


HOSTILE = [
    {"n": 0},
    {"n": -1},
    {"n": 10**40},
    {"n": 5000.0},
    {"n": True},
    {"n": None},
    {"n": "5000"},
    {"hits": -1},
    {"hits": 10**9},
    {"hits": math.nan},
    {"hits": [1]},
    {"hits": None},
    {"n0": 1},
    {"votes0": 101},
    {"votes0": 1},
    {"class": 2},
    {"class": -1},
    {"class": "1"},
]


@certifiers
@pytest.mark.parametrize("change", HOSTILE, ids=str)
def test_counts_that_no_run_could_have_made_are_refused(certifier, change):
    x, _, (one,) = rows(certifier, (0.6,))
    if "votes0" in change and certifier.n0 != 100:
        change = {"votes0": change["votes0"] * 6}
        change = change if change["votes0"] > 500 else {"votes0": 1}
    why = refusal(certifier, {**one, **change})
    assert "must be" in why or "take" in why
    assert "\n" not in why and len(why) < 150
    assert recount(certifier, x, [{**one, **change}]) == [why]


def test_more_draws_than_the_pilot_asked_for_are_refused():
    certifier = CERTIFIERS[2]
    _, _, (one,) = rows(certifier, (0.3,))
    assert re.search(r"first votes take \d+ draws", refusal(certifier, {**one, "n": 2 * one["n"]}))


def test_rows_without_counts_prove_nothing():
    for certifier in CERTIFIERS:
        for detail in ({}, {"reason": "out of reach"}, {"class": 0, "n0": 100, "votes0": 60}):
            made = rederive(certifier, detail)
            assert (made.lower.tolist(), made.status) == ([0.0], ["open"])
            assert recount(certifier, VOTE.base.at(0.1), [detail]) == [None]


@pytest.mark.parametrize("p", [0.5, 0.9, 0.999])
def test_exact_false_alarms_of_fixed_draws(p):
    """Summed over every pair of counts: at most the rate."""
    n, draws, rate = 60, 80, 0.01
    k, f = np.arange(n + 1), np.arange(draws + 1)
    weight = np.outer(binom.pmf(k, n, p), binom.pmf(f, draws, p))
    alarm = np.array([[differ(int(a), n, int(b), draws, rate) for b in f] for a in k])
    assert weight[alarm].sum() <= rate


@pytest.mark.parametrize("margin", [0.0, 0.02, 0.2])
def test_false_alarms_of_stopped_draws_are_rare(margin):
    """An adversary stops at the most surplus ever seen; Fisher's test, made for fixed draws, is misled by it."""
    rng, rate, trials, n = np.random.default_rng(0), 0.05, 2000, 1000
    p = float(ndtr(margin / SIGMA))
    hits = (rng.random((trials, n)) < p).cumsum(axis=1)
    made = np.arange(1, n + 1)
    at = ((hits - made * p) / np.sqrt(made)).argmax(axis=1)
    k, fresh = hits[np.arange(trials), at].tolist(), rng.binomial(5000, p, trials).tolist()
    alarms = sum(refuted(a, m + 1, f, 5000, rate) for a, m, f in zip(k, at.tolist(), fresh, strict=True))
    misled = sum(differ(a, m + 1, f, 5000, rate) for a, m, f in zip(k[:500], at.tolist(), fresh, strict=False))
    assert alarms <= rate * trials
    assert misled > 2 * rate * 500


def test_stopped_draws_of_another_probability_are_seen_from_both_sides():
    assert refuted(95, 100, 600, 1000, 1e-6)
    assert refuted(32, 100, 800, 1000, 1e-6)
    assert not refuted(95, 100, 930, 1000, 1e-6)
    assert not refuted(100, 100, 1000, 1000, 1e-6)
    assert refuted(0, 100, 1000, 1000, 1e-6)
