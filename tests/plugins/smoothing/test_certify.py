"""The certifier of smoothed classifiers: closed form, rate of false certificates, abstentions, cost."""

import json
import math
import re
from fractions import Fraction

import pytest
import torch
from scipy.stats import binomtest, norm

from oracles.voters import Base, Constant, Half, half
from robench.binomial import lower_bound
from robench.contracts import Certifier
from robench.errors import InputError, SpecError
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench.votes import winner
from robench_plugins.smoothing._pilot import draws_for_radius
from robench_plugins.smoothing._radii import gaussian_radius, gaussian_two_sided, largest_radius
from robench_plugins.smoothing.certify import Smoothing
from robench_plugins.smoothing.noise import NoisyClassifier
from robench_plugins.smoothing.noises import Gaussian, Uniform
from robench_plugins.smoothing.smooth import Smooth, SmoothedClassifier

SIGMA = 0.5
RARE = 1e-6


def streams(count, seed=0):
    return Stream.for_samples(seed, "test", range(count))


def smoothed(base, noise=None):
    return SmoothedClassifier(base, noise or Gaussian(SIGMA), "smooth:sigma=0.5")


class Wedge(Base):
    """Class 1 right of a line through the plane, behind it two halves: shares .4, .3 and .3 at the origin."""

    def __init__(self):
        super().__init__((2,))
        self.classes = 3

    def scores(self, x):
        edge = SIGMA * float(norm.ppf(0.6))
        right, upper = x[:, 0] > edge, x[:, 1] > 0
        return torch.stack([(~right & upper), right, (~right & ~upper)], 1).double()


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


def test_an_epsilon_out_of_reach_is_open_and_nothing_is_drawn():
    base = half()
    made = decisions(base, base.at(2.0, 3.0), ones(2), 1.5, n=1000)
    assert made.status == ["open", "open"]
    assert not made.lower.any()
    needed = re.search(r"n = (\d+) needed$", made.detail[0]["reason"])
    assert decisions(base, base.at(9.0), ones(1), 1.5, n=int(needed[1])).status == ["certified"]
    made = decisions(base, base.at(2.0), ones(1), 0.9, noise=Uniform(SIGMA), name="l1")
    assert "no number of draws" in made.detail[0]["reason"]
    assert sum(base.passes) == 100 + int(needed[1])


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


def test_no_class_is_nobodys_label():
    x, nobody = torch.zeros(2, 3).double(), torch.tensor([2, 2])
    tie = Constant(1.0, 1.0)
    for made in (radii(tie, x, nobody, n=200), decisions(tie, x, nobody, 0.1)):
        assert made.status == ["open", "open"]
        assert not made.lower.any()


class RowByRow(Gaussian):
    """Draws that do not depend on how many are asked for at once."""

    def fill(self, out, generator):
        for row in out:
            super().fill(row, generator)


class Recorder(Half):
    def scores(self, x):
        self.seen = [*getattr(self, "seen", []), *map(tuple, x.tolist())]
        return super().scores(x)


@pytest.mark.parametrize("settings", [{}, {"sides": 2}, {"tolerance": 0.05}, {"mode": "decide"}])
def test_the_draws_that_choose_the_class_are_not_those_of_the_certificate(settings):
    base = Recorder(torch.linspace(-1, 2, 4, dtype=torch.float64))
    threat = Threat("l2", 0.2 if "mode" in settings else None, Domain.unbounded())
    vote, x = smoothed(base, RowByRow(SIGMA)), base.at(0.5, 0.6)
    made = Smoothing(n=1000, n0=300, **settings).certify(vote, x, ones(2), threat, streams(2))
    assert made.status == ["certified"] * 2
    pilot, certificate = base.seen[:600], base.seen[600:]
    assert len(certificate) == sum(detail["n"] for detail in made.detail)
    assert len(set(pilot)) == 600
    assert len(set(certificate)) == len(certificate)
    assert not set(pilot) & set(certificate)


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
    assert "two sides" in Smoothing(sides=2).applies(smoothed(base, Uniform(1.0)), "l1")
    assert "without a vote" in Smoothing().applies(NoisyClassifier(base, 0.1), "l2")
    with pytest.raises(InputError, match="wrap it"):
        Smoothing().certify(base, base.at(0.1), ones(1), Threat("l2", None, Domain.unbounded()), streams(1))
    with pytest.raises(ValueError, match="needs a budget"):
        Smoothing(mode="decide").certify(
            smoothed(base), base.at(0.1), ones(1), Threat("l2", None, Domain.unbounded()), streams(1)
        )


def test_another_vote_than_the_one_asked_for_is_refused_with_both():
    vote = smoothed(half())
    assert Smoothing(sigma=SIGMA).applies(vote, "l2") is None
    assert Smoothing(sigma=SIGMA).wraps(vote) is None
    uniform = smoothed(half(), Uniform(SIGMA))
    assert Smoothing(noise="gaussian").applies(uniform, "l1") is None  # as if nothing were asked for
    assert "Gaussian" in Smoothing(noise="gaussian", sigma=SIGMA).applies(uniform, "l1")
    for wanted, shown in (
        (Smoothing(sigma=0.25), "Gaussian(sigma=0.25)"),
        (Smoothing(sigma=SIGMA, noise="uniform"), "Uniform(sigma=0.5)"),
        (Smoothing(noise="uniform"), "Uniform(sigma=0.5)"),
    ):
        why = wanted.applies(vote, "l2")
        assert "Gaussian(sigma=0.5)" in why and shown in why and "\n" not in why


@pytest.mark.parametrize("noise", ["gaussian", "uniform", "(laplace)", "(laplace:tail=3)"])
@pytest.mark.parametrize("sigma", [0.25, 1.0, 3e-5, 1e20])
def test_a_base_is_wrapped_by_the_canonical_spec(site, noise, sigma):
    site.write("robench-t-noise", LAPLACE)
    plugins = site.load()
    base, text = half(), f"sigma={sigma!r}".replace("e+", "e")
    certifier = plugins.resolve("certifiers", f"smoothing:noise={noise},{text}").value
    wrapper = plugins.resolve("wrappers", f"smooth:noise={noise},{text}")
    assert certifier.wraps(base) == wrapper.canonical
    other = plugins.resolve("wrappers", certifier.wraps(base)).value.wrap(base)
    assert other.fingerprint == wrapper.value.wrap(base).fingerprint
    assert other.noise == wrapper.value.wrap(base).noise
    assert other.noise.sigma == sigma
    norm = other.noise.norms[0]
    assert certifier.applies(base, norm) is None
    assert certifier.applies(other, norm) is None
    assert certifier.wraps(NoisyClassifier(base, 0.1)) is None
    with pytest.raises(InputError, match=re.escape(wrapper.canonical)):
        certifier.certify(base, base.at(0.1), ones(1), Threat(norm, None, Domain.unbounded()), streams(1))


LAPLACE = """
from dataclasses import dataclass
from robench import hookimpl, param
from robench_plugins.smoothing.noises import Uniform
robench_api = 1

@hookimpl
def robench_register_noises(register):
    register("laplace", f"{__name__}:Laplace")

@dataclass(frozen=True)
class Laplace(Uniform):
    tail: int = param(2, "another parameter", minimum=1)
"""


def test_the_noise_with_its_parameters_is_part_of_the_function(site):
    site.write("robench-t-noise", LAPLACE)
    wrap = site.load().resolve
    specs = ["laplace", "(laplace:tail=2)", "(robench-t-noise/laplace)", "(laplace:tail=3)", "uniform"]
    made = [wrap("wrappers", f"smooth:noise={one},sigma=1").value.wrap(half()) for one in specs]
    assert made[0].fingerprint == made[1].fingerprint == made[2].fingerprint
    assert len({one.fingerprint for one in made}) == 3
    assert made[3].noise.tail == 3
    assert wrap("wrappers", "smooth:sigma=1,noise=(laplace:tail=3)").full.endswith("noise=(laplace:tail=3),sigma=1")
    for wrong, why in (("(laplace:0.5)", "leave out sigma"), ("(laplace:sigma=1)", "leave out sigma")):
        with pytest.raises(SpecError, match=why):
            wrap("wrappers", f"smooth:noise={wrong},sigma=1")
    with pytest.raises(SpecError, match="no noise is called 'laplac'; did you mean 'laplace'"):
        wrap("wrappers", "smooth:noise=laplac,sigma=1")
    with pytest.raises(SpecError, match="nothing can be chained to a noise"):
        wrap("wrappers", "smooth:noise=(laplace | uniform),sigma=1")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": 0.51}, "alpha"),
        ({"alpha": math.nan}, "alpha"),
        ({"sigma": 0.0}, "sigma"),
        ({"sigma": math.inf}, "sigma"),
        ({"n": 0}, "n must"),
        ({"n0": 0}, "n0 must"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"mode": "decide", "n": 10**6 + 1}, "n must be from 1 to 1000000"),
        ({"mode": "decide", "sides": 2}, "mode=radius"),
        ({"mode": "decide", "tolerance": 0.1}, "mode=radius"),
    ],
)
def test_bad_parameters_are_refused_in_one_line(wrong, why):
    with pytest.raises(ValueError, match=why) as caught:
        Smoothing(**wrong)
    assert "\n" not in str(caught.value)
    for name, value in wrong.items():
        if name in ("alpha", "sigma"):
            with pytest.raises(ValueError, match=name):
                Smooth(**{"sigma": 1.0, name: value})


@pytest.mark.parametrize("alpha", [0.5, 0.25, math.nextafter(0.25, 0.0), 0.1, 0.001, 1e-9])
def test_a_vote_that_could_never_tell_is_refused(alpha):
    # Rounded up, the p-value of a power of two is above it.
    needed = next(n for n in range(1, 100) if Fraction(2, 2**n) < Fraction(alpha))
    assert Smooth(sigma=1.0, n=needed, alpha=alpha).n == needed
    assert winner(torch.tensor([[needed, 0, 0]]), alpha) == 0
    with pytest.raises(ValueError, match=f"take n = {needed} at least$") as caught:
        Smooth(sigma=1.0, n=needed - 1, alpha=alpha)
    assert "\n" not in str(caught.value)
    assert winner(torch.tensor([[needed - 1, 0, 0]]), alpha) == -1


@pytest.mark.parametrize("name", ["l2", "linf"])
@pytest.mark.parametrize("settings", [{}, {"sides": 2}, {"alpha": 0.05}, {"tolerance": 0.01}])
def test_the_draws_that_a_radius_takes(settings, name):
    vote = smoothed(half())
    for eps in (0.2, 0.9, 1.3) if name == "l2" else (0.06, 0.25, 0.37):
        why = Smoothing(n=2, **settings).out_of_reach(vote, name, eps)
        needed = int(re.search(r"n = (\d+) needed", why)[1])
        assert Smoothing(n=needed, **settings).out_of_reach(vote, name, eps) is None
        assert f"n = {needed} needed" in Smoothing(n=needed - 1, **settings).out_of_reach(vote, name, eps)
    assert "no number of draws" in Smoothing().out_of_reach(vote, "l2", 100.0)
    assert "10000000 are possible" in Smoothing().out_of_reach(vote, "l2", 2.7)


def test_the_draws_that_a_decision_takes():
    vote = smoothed(half())
    for eps in (0.2, 0.9, 1.3):
        why = Smoothing(mode="decide", n=2).out_of_reach(vote, "l2", eps)
        needed = int(re.search(r"n = (\d+) needed", why)[1])
        assert Smoothing(mode="decide", n=needed).out_of_reach(vote, "l2", eps) is None
        assert "needed" in Smoothing(mode="decide", n=needed - 1).out_of_reach(vote, "l2", eps)
    assert "1000000 are possible" in Smoothing(mode="decide").out_of_reach(vote, "l2", 2.5)
    assert "no number of draws" in Smoothing(mode="decide").out_of_reach(vote, "l2", 100.0)


def test_bounds_on_two_sides_are_those_of_the_counts():
    base = half()
    made = radii(base, base.at(0.1, 0.5), ones(2), n=5000, sides=2)
    for lower, detail in zip(made.lower.tolist(), made.detail, strict=True):
        assert detail["second"] == 5000 - detail["hits"]
        assert lower == gaussian_two_sided(detail["hits"], detail["second"], 5000, 0.001, SIGMA)
        assert 0 < detail["p_low"] < 1 - detail["p_up"] + 1e-12


def test_bounds_on_two_sides_pay_where_three_classes_share_the_votes():
    base = Wedge()
    one, two = (radii(base, torch.zeros(1, 2).double(), ones(1), n=20_000, sides=sides) for sides in (1, 2))
    assert one.status == ["abstain"]
    assert two.status == ["certified"]
    assert two.lower.item() > 0.02


def test_an_independent_pilot_sets_the_draws():
    base = half()
    x, settings = base.at(0.02, 0.3, 2.0), {"n": 20_000, "n0": 500, "tolerance": 0.02}
    made = radii(base, x, ones(3), **settings)
    told = [detail["n"] for detail in made.detail]
    expected = [
        draws_for_radius(detail["votes0"], 500, lambda p: gaussian_radius(p, SIGMA), 0.001, 0.02, n_max=20_000)
        for detail in made.detail
    ]
    assert told == expected
    assert sum(told) < 30_000
    assert sum(base.passes) == 1500 + sum(told)
    for lower, detail in zip(made.lower.tolist(), made.detail, strict=True):
        assert lower == gaussian_radius(lower_bound(detail["hits"], detail["n"], 0.001), SIGMA)
    alone = radii(base, x[:1], ones(1), **settings)
    assert alone.detail[0] == made.detail[0]
