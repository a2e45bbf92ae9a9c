"""The certifier of smoothed classifiers: closed form, rate of false certificates, abstentions, cost."""

import json
import math

import pytest
import torch
from scipy.stats import binomtest, norm

from oracles.voters import Constant, half
from robench.binomial import lower_bound
from robench.contracts import Certifier
from robench.errors import InputError
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.smoothing._radii import gaussian_radius, largest_radius
from robench_plugins.smoothing.certify import Smoothing
from robench_plugins.smoothing.noises import Gaussian, Uniform
from robench_plugins.smoothing.smooth import SmoothedClassifier

SIGMA = 0.5
RARE = 1e-6


def streams(count, seed=0):
    return Stream.for_samples(seed, "test", range(count))


def smoothed(base, noise=None):
    return SmoothedClassifier(base, noise or Gaussian(SIGMA), "smooth:sigma=0.5")


def ones(count):
    return torch.ones(count, dtype=torch.int64)


def radii(base, x, y, seed=0, noise=None, name="l2", **settings):
    threat = Threat(name, None, Domain.unbounded())
    return Smoothing(**settings).certify(smoothed(base, noise), x, y, threat, streams(len(x), seed))


def decisions(base, x, y, eps, seed=0, noise=None, name="l2", **settings):
    threat = Threat(name, eps, Domain.unbounded())
    return Smoothing(mode="decide", **settings).certify(smoothed(base, noise), x, y, threat, streams(len(x), seed))


def test_it_is_a_certifier():
    assert isinstance(Smoothing(), Certifier)
    assert not Smoothing().per_eps
    assert Smoothing(mode="decide").per_eps


def test_radius_is_that_of_the_count_and_below_the_margin():
    base = half()
    margins = [0.1, 0.3, 0.6, 1.0]
    made = radii(base, base.at(*margins), ones(4), n=20_000, n0=1000)
    assert made.status == ["certified"] * 4
    assert made.confidence.tolist() == [0.999] * 4
    for margin, lower, detail in zip(margins, made.lower.tolist(), made.detail, strict=True):
        assert detail["n"] == 20_000
        assert detail["looks"] == 1
        assert detail["class"] == 1
        assert binomtest(detail["hits"], 20_000, float(norm.cdf(margin / SIGMA))).pvalue > RARE
        assert detail["p_low"] == lower_bound(detail["hits"], 20_000, 0.001)
        assert lower == gaussian_radius(detail["p_low"], SIGMA)
        assert 0.7 * margin < lower < margin
    json.dumps(made.detail, allow_nan=False)


def test_all_hits_give_the_largest_radius():
    made = radii(Constant(0.0, 1.0), torch.zeros(1, 3).double(), ones(1), n=5000)
    assert made.lower.tolist() == [largest_radius(SIGMA, 5000, 0.001)]


def test_linf_is_derived_from_l2():
    base = half(16)
    x = base.at(0.6)
    wide, narrow = (radii(base, x, ones(1), name=name, n=2000).lower for name in ("l2", "linf"))
    assert narrow.item() == pytest.approx(wide.item() / 4, rel=1e-12)
    assert narrow <= wide / 4


def test_uniform_noise_certifies_in_l1():
    base = half(1)
    base.weight = torch.tensor([1.0], dtype=torch.float64)
    made = radii(base, base.at(0.4), ones(1), noise=Uniform(SIGMA), name="l1", n=20_000)
    assert 0.33 < made.lower.item() < 0.4


def test_it_abstains_at_the_boundary():
    base = half()
    made = radii(base, base.at(*[1e-4] * 30), ones(30), n=500, n0=1)
    chosen = [detail["class"] == 1 for detail in made.detail]
    assert 5 < sum(chosen) < 25
    assert {status for status, one in zip(made.status, chosen, strict=True) if one} == {"abstain"}
    assert not made.lower.any()


def test_another_class_than_the_label_is_not_drawn_for():
    base = half()
    made = radii(base, base.at(0.5, -0.5), torch.tensor([0, 1]), n=10_000)
    assert made.status == ["open", "open"]
    assert not made.lower.any()
    assert sum(base.passes) == 200
    assert [detail["class"] for detail in made.detail] == [1, 0]
    assert "hits" not in made.detail[0]


def test_ties_and_nan_certify_nothing():
    x = torch.zeros(2, 3).double()
    for logits in ((1.0, 1.0), (math.nan, 1.0), (0.0, math.inf)):
        for made in (radii(Constant(*logits), x, ones(2), n=200), decisions(Constant(*logits), x, ones(2), 0.1)):
            assert made.status == ["open", "open"]
            assert [detail["class"] for detail in made.detail] == [-1, -1]


def test_false_certificates_of_a_radius_are_at_most_alpha():
    base = half(2)
    margin, alpha, count = 0.25, 0.1, 600
    made = radii(base, base.at(*[margin] * count), ones(count), n=200, n0=20, alpha=alpha)
    false = int((made.lower >= margin).sum())
    assert binomtest(false, count, alpha, "greater").pvalue > RARE
    assert false > 0  # the level is used


def test_false_decisions_are_at_most_alpha():
    base = half(2)
    eps, alpha, count = 0.25, 0.1, 600
    # The boundary is at ε exactly, where the closed ball is not robust any more.
    made = decisions(base, base.at(*[eps] * count), ones(count), eps, n=2000, n0=20, alpha=alpha)
    false = sum(status == "certified" for status in made.status)
    assert binomtest(false, count, alpha, "greater").pvalue > RARE
    assert false > 0


def test_decisions_stop_early_and_settled_samples_leave():
    base = half()
    made = decisions(base, base.at(1.2, 0.1, 0.26), ones(3), 0.25, n=20_000, n0=1000)
    assert made.status[:2] == ["certified", "open"]
    assert made.lower.tolist()[:2] == [0.25, 0.0]
    assert [detail["verdict"] for detail in made.detail][:2] == ["certified", "futile"]
    draws = [detail["n"] for detail in made.detail]
    assert max(draws[:2]) < 1000 < draws[2]
    assert sum(base.passes) == 3000 + sum(draws)
    assert made.confidence.tolist() == [0.999] * 3
    json.dumps(made.detail, allow_nan=False)


def test_decisions_in_linf_take_the_ball_around():
    base = half(16)
    x = base.at(1.0)
    assert decisions(base, x, ones(1), 0.2, name="linf", n=10_000).status == ["certified"]
    assert decisions(base, x, ones(1), 0.26, name="linf", n=10_000).status == ["open"]


def test_too_few_draws_for_an_epsilon_are_refused_with_the_number_needed():
    base = half()
    with pytest.raises(InputError, match=r"eps = 1\.5 in l2.*n = \d+ needed"):
        decisions(base, base.at(2.0), ones(1), 1.5, n=1000)
    with pytest.raises(InputError, match="no number of draws"):
        decisions(base, base.at(2.0), ones(1), 0.9, noise=Uniform(SIGMA), name="l1")
    assert base.passes == []


@pytest.mark.parametrize("mode", ["radius", "decide"])
def test_a_sample_gets_the_same_certificate_in_any_batch(mode):
    base = half(shape=(3, 2, 2))
    x, y = base.at(0.1, 0.5, -0.2, 0.3), ones(4)
    certifier = Smoothing(mode=mode, n=3000)
    threat = Threat("l2", 0.2 if mode == "decide" else None, Domain.unbounded())

    def ask(rows):
        rows = torch.tensor(rows)
        made = certifier.certify(smoothed(base), x[rows], y[rows], threat, streams(4).select(rows))
        return list(zip(made.lower.tolist(), made.status, made.detail, strict=True))

    whole = ask([0, 1, 2, 3])
    assert [ask([i])[0] for i in range(4)] == whole
    assert ask([2, 0, 3, 1]) == [whole[i] for i in (2, 0, 3, 1)]


@pytest.mark.parametrize("mode", ["radius", "decide"])
def test_no_samples_no_certificates(mode):
    base = half()
    threat = Threat("l2", 0.1 if mode == "decide" else None, Domain.unbounded())
    made = Smoothing(mode=mode).certify(smoothed(base), base.at(0.1)[:0], ones(0), threat, streams(0))
    assert made.lower.shape == (0,)
    assert made.status == []


def test_other_classifiers_and_norms_are_refused():
    base = half()
    assert "wrap it" in Smoothing().applies(base, "l2")
    assert Smoothing().applies(smoothed(base), "l2") is None
    assert "not in l1" in Smoothing().applies(smoothed(base), "l1")
    assert "l1, not in l2" in Smoothing().applies(smoothed(base, Uniform(1.0)), "l2")
    assert "n = 1000000" in Smoothing(mode="decide", n=10**7).applies(smoothed(base), "l2")
    with pytest.raises(InputError, match="wrap it"):
        Smoothing().certify(base, base.at(0.1), ones(1), Threat("l2", None, Domain.unbounded()), streams(1))
    with pytest.raises(ValueError, match="needs a budget"):
        Smoothing(mode="decide").certify(
            smoothed(base), base.at(0.1), ones(1), Threat("l2", None, Domain.unbounded()), streams(1)
        )
