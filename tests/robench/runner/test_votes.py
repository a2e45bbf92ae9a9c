"""Smoothed classifiers in the runner: what a test of votes says, and how often it may be wrong."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.stats import norm

from oracles.binomial import at_most_by_chance
from oracles.voters import half
from robench import Certificates, Domain, InputError, Proposal, Samples, SmoothedClassifier, Stream
from robench.api import evaluate
from robench.classifier import Counted
from robench.runner import Evaluator, Plan, evaluate_chunk
from robench.threat import Epsilon
from robench_plugins.smoothing.smooth import Smooth

SIGMA = 0.5


@dataclass(frozen=True)
class Step:
    """Proposes the point `far` along the normal of the half-space, towards the other class."""

    far: float = 1.0
    per_eps: ClassVar[bool] = True
    randomized: ClassVar[bool] = True

    def perturb(self, classifier, x, y, threat, stream):
        away = half().weight * self.far
        return Proposal(torch.where((y == 1)[:, None], x - away, x + away))


@dataclass(frozen=True)
class Everything:
    """Certifies a radius of 1 for whatever it is asked about."""

    per_eps: ClassVar[bool] = False
    deterministic: ClassVar[bool] = False

    def certify(self, classifier, x, y, threat, stream):
        return Certificates(torch.ones(len(x), dtype=torch.float64), ["certified"] * len(x),
                            torch.full((len(x),), 0.999, dtype=torch.float64))  # fmt: skip


class Coins:
    """A vote whose draws are coins: class 0 with probability `p`, else class 1; nothing is passed through a network."""

    input_shape, classes, dtype, device = (1,), 2, torch.float64, torch.device("cpu")
    fingerprint, graph, noise, base = "c" * 64, None, None, half()

    def __init__(self, p, n, alpha):
        self.p, self.n, self.alpha = p, n, alpha

    def sample(self, x, stream):
        return torch.cat([x * 0 + 1, x * 0], 1)

    def draws(self, x, stream):
        seeds = stream.integers((), 2**31).tolist()

        class Thrown:
            def count(this, samples, draws):
                made = np.random.default_rng(seeds[0]).binomial(draws, self.p)
                votes = np.stack([made, np.array(draws) - made, np.zeros(len(made), int)], 1)
                return torch.from_numpy(votes.astype(np.int64))

        return Thrown()


def samples_at(*margins):
    x = half().at(*margins)
    return Samples(x.numpy(), (x @ half().weight > 0).long().numpy(), np.arange(len(x)), Domain(-9, 9), ("0", "1"))


def result_of(classifier, samples, *evaluators, eps=("1.0",), limit=64):
    plan = Plan(classifier, samples, "l2", [Epsilon.parse(one) for one in eps], evaluators, 0)
    return evaluate_chunk(plan, 0, len(samples), limit, pytest.fail)


def rows(result, kind):
    return [block for block in result.blocks if block.kind == kind]


def vote(n=1000, alpha=0.001):
    return Smooth(sigma=SIGMA, n=n, alpha=alpha).wrap(half())


def test_what_plugins_are_handed_is_a_vote_that_counts():
    counted = Counted(vote(n=11))
    assert isinstance(counted, SmoothedClassifier)
    assert not isinstance(Counted(half()), SmoothedClassifier)
    assert (counted.n, counted.alpha, counted.noise) == (11, 0.001, vote().noise)
    x = half().at(1.0, -1.0)
    counted.draws(x, Stream.for_samples(0, "a", [0, 1])).count([1, 0], [3, 4])
    assert counted.take() == (7, 0)
    counted.base.logits(x)
    assert counted.take() == (2, 0)


def test_clean_samples_are_correct_incorrect_or_left_alone():
    data = samples_at(1.0, -1.0, 0.001, 1.0)
    data = Samples(data.x, np.array([1, 0, 1, 0]), data.index, data.domain, data.classes)
    result = result_of(vote(), data, Evaluator("step", "attack", Step()))
    (clean,) = rows(result, "clean")
    assert clean.status == ["correct", "correct", "abstain", "incorrect"]
    assert result.predictions == [1, 0, -1, 1]
    assert clean.upper.tolist() == [np.inf, np.inf, np.inf, 0]
    assert set(clean.confidence.tolist()) == {0.999}
    assert clean.forwards.tolist() == [1000] * 4
    (attack,) = rows(result, "attack")
    assert attack.rows.tolist() == [0, 1]


def test_a_point_is_judged_by_fresh_draws_at_its_share_of_alpha():
    """Half a σ beyond the boundary the other class has Φ(1/2) of the votes, half a σ before it the label has."""
    data = samples_at(0.5, 1.0)
    evaluators = Evaluator("near", "attack", Step(0.25)), Evaluator("far", "attack", Step(0.75))
    result = result_of(vote(), data, *evaluators, eps=("0.8", "0.9"))
    found = [(block.evaluator, block.eps, block.rows.tolist(), block.status) for block in rows(result, "attack")]
    assert found == [
        ("near", 0.8, [0, 1], ["open", "open"]),
        ("far", 0.8, [0, 1], ["falsified", "open"]),
        ("near", 0.9, [1], ["open"]),  # the witness settles sample 0
        ("far", 0.9, [1], ["open"]),
    ]
    for block in rows(result, "attack"):
        assert set(block.confidence.tolist()) == {1 - 0.001 / 4}
    (witness,) = result.witnesses
    assert witness.distances["l2"][0] == pytest.approx(0.75)
    assert witness.prediction.tolist() == [0]
    assert -witness.margin[0] == pytest.approx(2 * norm.cdf(0.5) - 1, abs=0.12)
    assert '"verified":"votes"' in witness.detail[0]


def test_certifiers_are_asked_whatever_was_falsified():
    data = samples_at(0.5, 1.0)
    evaluators = Evaluator("far", "attack", Step(0.75)), Evaluator("all", "certificate", Everything())
    result = result_of(vote(), data, *evaluators)
    (certified,) = rows(result, "certificate")
    assert certified.rows.tolist() == [0, 1]
    assert certified.confidence.tolist() == [0.999, 0.999]


def test_points_beyond_the_budget_are_brought_back_before_they_are_judged():
    result = result_of(vote(), samples_at(1.0), Evaluator("far", "attack", Step(8.0)), eps=("0.5",))
    assert rows(result, "attack")[0].status == ["open"]


def test_a_point_or_votes_that_are_not_numbers_end_in_error():
    class Nothing(Step):
        def perturb(self, classifier, x, y, threat, stream):
            return Proposal(x * torch.nan)

    result = result_of(vote(), samples_at(1.0), Evaluator("nothing", "attack", Nothing()))
    assert rows(result, "attack")[0].status == ["error"]
    assert not result.witnesses


@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_verdicts_are_wrong_no_more_often_than_they_may_be(alpha):
    """Fair coins: whichever class a verdict names is not ahead. Per sample, over clean prediction and four attempts."""
    count = 20_000
    data = Samples(np.zeros((count, 1)), np.zeros(count, dtype=np.int64), np.arange(count), Domain(-9, 9), ("0", "1"))

    class Stay(Step):
        def perturb(self, classifier, x, y, threat, stream):
            return Proposal(x)

    fair = Coins(0.5, 500, alpha)
    clean = rows(result_of(fair, data, Evaluator("a", "attack", Stay()), limit=count), "clean")[0]
    wrong = sum(one != "abstain" for one in clean.status)
    assert wrong <= at_most_by_chance(count, alpha)
    assert wrong > 0.3 * alpha * count  # the test is not so cautious that this could not fail

    class Biased(Coins):
        """The label wins on clean samples, and ties wherever anybody looks afterwards."""

        def draws(self, x, stream):
            self.p = 0.9 if not hasattr(self, "asked") else 0.5
            self.asked = True
            return super().draws(x, stream)

    four = [Evaluator(name, "attack", Stay()) for name in "ab"]
    result = result_of(Biased(0.5, 500, alpha), data, *four, eps=("0.5", "1.0"), limit=count)
    broken = {
        row
        for block in rows(result, "attack")
        for row, status in zip(block.rows.tolist(), block.status, strict=True)
        if status == "falsified"
    }
    assert len(broken) <= at_most_by_chance(count, alpha / 2)  # half of the errors name the label
    assert len(broken) > 0.1 * alpha * count


def test_batches_do_not_change_a_verdict():
    data = samples_at(*torch.linspace(0.05, 1, 7).tolist())
    results = [result_of(vote(), data, Evaluator("far", "attack", Step(0.5)), limit=limit) for limit in (1, 3, 64)]
    shown = [[(b.evaluator, b.rows.tolist(), b.status, b.detail) for b in one.blocks if b.kind == "clean"]
             for one in results]  # fmt: skip
    assert shown[0] == shown[1] == shown[2]
    merged = [
        {row: pair for b in rows(one, "attack") for row, *pair in zip(b.rows.tolist(), b.status, b.detail, strict=True)}
        for one in results
    ]
    assert merged[0] == merged[1] == merged[2]


def test_a_schedule_of_attacks_is_refused(tmp_path):
    class Schedule:
        randomized = True

        def stages(self, classifier, threat):
            yield "step", Step(), None

    with pytest.raises(InputError, match=r"it votes.*stages cannot be counted beforehand"):
        evaluate(vote(), samples_at(1.0), eps="1.0", norm="l2", attacks=[Schedule()], certifiers=(), out=tmp_path)


def test_votes_that_differ_for_equal_streams_are_refused(tmp_path):
    class Unseeded(Coins):
        def draws(self, x, stream):
            return super().draws(x, Stream.for_samples(np.random.default_rng().integers(2**31), "", range(len(x))))

    data = samples_at(*[1.0] * 16)  # two counts of 32 coins each are equal once in ten times, all of them never
    data = Samples(data.x[:, :1], data.y, data.index, data.domain, data.classes)
    with pytest.raises(InputError, match="votes differ for equal streams"):
        evaluate(Unseeded(0.5, 100, 0.001), data, eps="1.0", norm="l2", attacks=[Step()], certifiers=(), out=tmp_path)
