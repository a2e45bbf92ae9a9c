"""smoothadv: votes over half-spaces against their closed form, gradients against Φ's, every pass counted."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm as normal
from torch import Tensor

from oracles.voters import Base, Constant, half
from robench.classifier import Counted
from robench.errors import SpecError
from robench.registry import load_plugins
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.attacks.gradients import ascent
from robench_plugins.datasets.digits import Digits
from robench_plugins.smoothing._soft import SoftVote, trial_margins
from robench_plugins.smoothing.noises import Uniform
from robench_plugins.smoothing.smooth import Smooth, SmoothedClassifier
from robench_plugins.smoothing.smoothadv import SmoothAdv

ORDER = {"linf": math.inf, "l2": 2, "l1": 1}
DUAL = {"linf": 1, "l2": 2, "l1": math.inf}


class Sharp(Base):
    """A half-space whose logits are `scale` times the distance to its boundary: softmax and vote differ."""

    def __init__(self, scale=1.0, size=6, dtype=torch.float64):
        super().__init__((size,), dtype)
        self.weight, self.scale = half(size, dtype).weight, scale

    def scores(self, x: Tensor) -> Tensor:
        margin = self.scale * (x.flatten(1) * self.weight).sum(1)
        return torch.stack([-margin, margin], 1) / 2


class Three(Base):
    """Three planes through the origin of the plane, 120° apart."""

    def __init__(self):
        super().__init__((2,))
        self.classes = 3
        turns = 2 * math.pi * torch.arange(3, dtype=torch.float64) / 3
        self.ways = torch.stack([turns.cos(), turns.sin()], 1)

    def scores(self, x: Tensor) -> Tensor:
        return (x[:, None] * self.ways).sum(2) * 8


def smooth(base, sigma=0.5):
    return Smooth(sigma=sigma).wrap(base)


def streams(count, seed=0):
    return Stream.for_samples(seed, "test", range(count))


def attacked(attack, classifier, x, y, eps, norm="l2", domain=None, seed=0):
    threat = Threat(norm, eps, domain or Domain.unbounded())
    return attack.perturb(classifier, x, y, threat, streams(len(x), seed))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@settings(max_examples=6)
@given(
    scale=st.sampled_from([1e-3, 0.3, 5.0, 1e4]),
    eps=st.floats(0.05, 1.0),
    sigma=st.sampled_from([0.12, 0.5, 1.0]),
    seed=st.integers(0, 2**20),
)
def test_beyond_the_margin_of_a_half_space_the_vote_is_lost(norm, scale, eps, sigma, seed):
    """p = Φ(m/σ): the vote is lost just where the base errs, m / ‖w‖* away. Whatever the logits' unit."""
    base = Sharp(scale)
    reach = eps * float(np.linalg.norm(base.weight.numpy(), DUAL[norm]))
    margins = reach * torch.tensor([0.3, 1 / 1.05, 1 / 0.95, 1.5], dtype=torch.float64)
    x, y = margins[:, None] * base.weight, torch.ones(4, dtype=torch.int64)
    points = attacked(SmoothAdv(draws=8, steps=12), smooth(base, sigma), x, y, eps, norm, seed=seed).points
    left = points @ base.weight
    assert float((points - x).norm(ORDER[norm], dim=1).max()) <= eps * (1 + 1e-9)
    assert (normal.cdf(left.numpy() / sigma) < 0.5).tolist() == [True, True, False, False]
    assert torch.allclose(left, margins - reach, rtol=0, atol=0.02 * reach)


@pytest.mark.parametrize("options", [{"loss": "ce"}, {"fresh": False}, {"schedule": "cosine"}, {"restarts": 3}])
def test_every_form_of_it_finds_the_half_space(options):
    base = Sharp(4.0)
    x, y = torch.linspace(0.1, 1, 7, dtype=torch.float64)[:, None] * base.weight, torch.ones(7, dtype=torch.int64)
    points = attacked(SmoothAdv(draws=8, steps=10, **options), smooth(base), x, y, 1.05).points
    assert ((points @ base.weight) < 0).all()


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_the_direction_is_the_gradient_of_phi(loss):
    """Steep logits make the soft vote the hard one, whose gradient on a half-space is along its normal vector."""
    base = Sharp(50.0)
    x, y = torch.tensor([[0.3, 0.1, -0.2, 0.0, 0.5, 0.1]], dtype=torch.float64), torch.tensor([1])
    vote = SoftVote(smooth(base, 0.5), streams(1), 4000)
    p = float(normal.cdf(float((x @ base.weight)[0]) / 0.5))
    assert float(vote.logits(x)[0, 1].exp()) == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 4000))
    way = ascent(vote, x, y, loss).direction[0]
    assert float(-(way / way.norm()) @ base.weight) > 1 - 1e-9


def test_the_soft_vote_and_its_gradient_by_finite_differences_and_by_hand():
    classifier, x = smooth(Three()), torch.tensor([[0.4, 0.1], [-0.2, 0.7]], dtype=torch.float64)
    vote = SoftVote(classifier, streams(2), 5, fresh=False)
    assert torch.autograd.gradcheck(vote.logits, (x.clone().requires_grad_(),))
    drawn = classifier.sample(x.repeat(5, 1), streams(2).repeat(5, "look", 0)).reshape(5, 2, 3)
    exponentials = drawn.exp()
    expected = (exponentials / exponentials.sum(2, keepdim=True)).mean(0).log()
    assert torch.allclose(vote.logits(x), expected, rtol=1e-12)


def test_draws_are_fresh_at_every_step_or_the_same():
    x = torch.zeros(3, 2, dtype=torch.float64)
    for fresh in (True, False):
        vote = SoftVote(smooth(Three()), streams(3), 4, fresh)
        first, second = vote.logits(x), vote.logits(x)
        assert torch.equal(first, second) != fresh
        assert not torch.equal(first[0], first[1])


def test_logits_far_apart_neither_overflow_nor_vanish():
    vote = SoftVote(smooth(Sharp(1e6), 0.01), streams(1), 3)
    x, y = Sharp().weight[None], torch.tensor([1])
    now = ascent(vote, x, y, "ce")
    assert torch.isfinite(vote.logits(x)).all()
    assert not now.flat.any()


def trouble(bad):
    class Trouble(Sharp):
        def scores(self, x):
            return super().scores(x).masked_fill(bad(x)[:, None], torch.nan)

    return Trouble()


def test_flat_and_broken_classifiers_give_points_within_the_budget():
    class Flat(Sharp):
        def scores(self, x):
            return super().scores(x) * 0

    x, y = 0.5 * torch.ones(5, 6, dtype=torch.float64), torch.ones(5, dtype=torch.int64)
    for base in (Flat(), trouble(lambda x: x[:, 0] > 0.6), trouble(lambda x: x[:, 0] == x[:, 0])):
        for norm in ("linf", "l2", "l1"):
            for restarts in (1, 2):
                made = attacked(
                    SmoothAdv(draws=2, steps=4, restarts=restarts, trial=4), smooth(base), x, y, 0.3, norm, Domain()
                )
                assert torch.isfinite(made.points).all()
                assert ((made.points - x).norm(ORDER[norm], dim=1) <= 0.3 * (1 + 1e-6)).all()
                assert made.points.min() >= 0
                assert made.points.max() <= 1


def test_a_trial_counts_votes():
    base = half(6)
    margins = [-0.5, 0.0, 0.3, 2.0]
    x, y = base.at(*margins), torch.ones(4, dtype=torch.int64)
    for copies in (7, 4000):
        got = trial_margins(smooth(base), x, y, streams(4), 4000, copies)
        expected = 2 * normal.cdf(np.array(margins) / 0.5) - 1
        assert np.abs(got.numpy() - expected).max() < 5 / math.sqrt(4000)
    assert torch.equal(
        trial_margins(smooth(base), x, y, streams(4), 100, 3), trial_margins(smooth(base), x, y, streams(4), 100, 64)
    )
    broken = trouble(lambda x: x[:, 0] == x[:, 0])
    assert trial_margins(smooth(broken), torch.zeros(1, 6, dtype=torch.float64), y[:1], streams(1), 9, 4) == 0
    tie, origin = Constant(1.0, 1.0), torch.zeros(2, 3, dtype=torch.float64)
    assert trial_margins(smooth(tie), origin, torch.tensor([0, 1]), streams(2), 9, 4).tolist() == [0, 0]


def test_of_several_runs_the_worst_point_is_proposed_and_the_lost_leave():
    base = half(6)
    x, y = base.at(0.2, 3.0), torch.ones(2, dtype=torch.int64)
    counted = Counted(smooth(base))
    made = attacked(SmoothAdv(draws=4, steps=5, restarts=3, trial=50), counted, x, y, 1.0)
    forwards, backwards = counted.take()
    assert made.passes.forwards.tolist() == [70, 210]
    assert made.passes.backwards.tolist() == [20, 60]
    assert (forwards, backwards) == (280, 80)
    assert made.detail[0]["trial"] < -0.3
    assert made.detail[0]["run"] == 0
    assert made.detail[1]["trial"] > 0.9
    tireless = attacked(SmoothAdv(draws=4, steps=5, restarts=3, trial=50, early_exit=False), counted, x, y, 1.0)
    assert tireless.passes.forwards.tolist() == [210, 210]


@pytest.mark.parametrize("draws", [1, 3, 40])
def test_every_pass_is_counted_and_no_more_rows_are_in_memory_than_the_batch_or_one_sample_takes(draws):
    base = half(6)
    x, y = base.at(*np.linspace(0.1, 1, 12)), torch.ones(12, dtype=torch.int64)
    counted = Counted(smooth(base))
    made = attacked(SmoothAdv(draws=draws, steps=4), counted, x, y, 0.3)
    assert counted.take() == (12 * 4 * draws, 12 * 4 * draws)
    assert made.passes.forwards.tolist() == made.passes.backwards.tolist() == [4 * draws] * 12
    assert max(base.passes) <= max(12, draws)


@pytest.mark.parametrize("options", [{}, {"restarts": 2, "loss": "ce"}, {"fresh": False, "schedule": "cosine"}])
def test_points_depend_on_neither_batch_nor_order_and_follow_the_seed(options):
    base = Sharp(3.0)
    classifier, attack = smooth(base), SmoothAdv(draws=5, steps=4, **options)
    x = torch.randn(9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = (x @ base.weight > 0).long()
    threat = Threat("l2", 0.4, Domain.unbounded())
    whole = attack.perturb(classifier, x, y, threat, streams(9))
    assert torch.equal(whole.points, attack.perturb(classifier, x, y, threat, streams(9)).points)
    for rows in (torch.arange(9).flip(0), torch.tensor([3]), torch.arange(2, 8), torch.arange(0)):
        part = attack.perturb(classifier, x[rows], y[rows], threat, streams(9).select(rows))
        assert torch.equal(part.points, whole.points[rows])
        assert part.detail == [whole.detail[int(i)] for i in rows]
    curved = smooth(Three())
    x, y = torch.tensor([[0.5, 0.1]], dtype=torch.float64), torch.tensor([0])
    one, other = (attacked(attack, curved, x, y, 0.3, seed=seed).points for seed in (0, 1))
    assert not torch.equal(one, other)


def test_no_gradient_reaches_the_parameters():
    net = torch.nn.Linear(4, 3)

    class Module(Base):
        def scores(self, x):
            return net(x)

    base = Module((4,), torch.float32)
    base.classes = 3
    state = torch.get_rng_state()
    attacked(SmoothAdv(draws=3, steps=3, restarts=2), smooth(base), torch.zeros(4, 4), torch.zeros(4).long(), 0.5)
    assert net.weight.grad is None
    assert torch.equal(torch.get_rng_state(), state)


def test_uniform_noise():
    base = half(6)
    classifier = SmoothedClassifier(base, Uniform(0.5), "smooth:noise=uniform,sigma=0.5")
    x, y = base.at(0.4), torch.tensor([1])
    points = attacked(SmoothAdv(), classifier, x, y, 0.42).points
    assert float((points @ base.weight)[0]) < 0


def test_on_digits_it_wins_votes_that_pgd_on_the_base_loses():
    """200 samples, σ = .5: what draws of nobody's say about the points of both."""
    plugins, test = load_plugins(), Digits().load("test")
    base = plugins.resolve("models", "digits-gaussian").value.load(torch.device("cpu"), torch.float32)
    x, y = torch.tensor(test.x[:100]), torch.tensor(test.y[:100])
    threat = Threat("l2", 0.5, test.domain)
    classifier = smooth(base)
    pgd = plugins.resolve("attacks", "pgd:targets=0,early_exit=false").value
    lost = {}
    for name, attack, target in (("pgd", pgd, base), ("smoothadv", SmoothAdv(), classifier)):
        points = attack.perturb(target, x, y, threat, streams(100)).points
        votes = classifier.draws(points, streams(100, 9)).count(range(100), [1000] * 100)
        label = votes.gather(1, y[:, None])[:, 0]
        lost[name] = int((votes.scatter(1, y[:, None], -1).amax(1) > label).sum())
    assert lost["smoothadv"] >= lost["pgd"] + 3


def test_where_it_applies():
    attack, vote = load_plugins().resolve("attacks", "smoothadv").value, smooth(half(6))
    assert attack == SmoothAdv()
    assert (attack.randomized, attack.per_eps, attack.access) == (True, True, "gradients")
    for norm in ("linf", "l2", "l1"):
        assert attack.applies(vote, norm) is None
        assert attack.applies(Counted(vote), norm) is None
    assert "votes over noise" in attack.applies(half(6), "l2")

    class Blunt(Sharp):
        def scores(self, x):
            return super().scores(x).detach()

    assert "no gradients" in attack.applies(smooth(Blunt()), "l2")
    x, y = half(6).at(0.1), torch.tensor([1])
    with pytest.raises(ValueError, match="none"):
        attack.perturb(vote, x, y, Threat("l2", None, Domain()), streams(1))


@pytest.mark.parametrize(
    "text",
    [
        "smoothadv:draws=0",
        "smoothadv:steps=0",
        "smoothadv:restarts=0",
        "smoothadv:loss=mse",
        "smoothadv:step=0",
        "smoothadv:trial=0",
        "smoothadv:m=3",
    ],
)
def test_settings_without_a_meaning_are_refused(text):
    with pytest.raises(SpecError):
        load_plugins().resolve("attacks", text)
