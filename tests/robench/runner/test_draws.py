"""Classifiers that draw: counts from the runner's own draws, at points that no lucky draw can buy."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from oracles.random_linear import RandomLinear
from robench.classifier import Counted
from robench.contracts import Attack, CompositeAttack, Proposal
from robench.errors import InputError
from robench.runner import Evaluator, Plan, evaluate_chunk, refuse_undeclared_randomness
from robench.streams import Stream
from robench.threat import Epsilon


@dataclass(frozen=True)
class Optimal(Attack):
    """The steepest step of length `share` ε against the noiseless margin."""

    share: float = 1.0

    def perturb(self, classifier, x, y, threat, stream):
        w = classifier._inner.weight
        return Proposal(x - self.share * threat.eps * w.sign() * (1 - 2 * y)[:, None])


@dataclass(frozen=True)
class Lucky(Attack):
    """Proposes the clean input, and swears that its draws were wrong."""

    draws: int = 50

    def perturb(self, classifier, x, y, threat, stream):
        for k in range(self.draws):
            classifier.sample(x, stream.child(k))
        return Proposal(x, [{"margin": -1.0, "correct": 0, "draws": self.draws}] * len(x))


def run(classifier, evaluators, eps=("0.1",), data=None, size=1000, draws=50, seed=0, norm="linf"):
    data = data if data is not None else classifier.samples()
    named = [Evaluator(f"e{i}", "attack", one) for i, one in enumerate(evaluators)]
    plan = Plan(classifier, data, norm, [Epsilon.parse(e) for e in eps], named, seed, draws)
    rows, witnesses = [], []
    for start in range(0, len(data), size):
        made = evaluate_chunk(plan, start, min(start + size, len(data)), size, print)
        assert made.predictions == [None] * min(size, len(data) - start)
        for block in made.blocks:
            for i, row in enumerate(block.rows):
                detail = json.loads(block.detail[i])
                bounds = block.lower[i], block.upper[i], block.confidence[i]
                assert bounds == (0, np.inf, 1)
                cost = int(block.forwards[i]), int(block.backwards[i])
                key = block.evaluator, block.eps, int(data.index[row + start])
                rows.append((*key, block.status[i], detail, cost))
        witnesses += made.witnesses
    return rows, witnesses


def counts(rows, evaluator, key="correct"):
    return {row[2]: row[4][key] for row in rows if row[0] == evaluator and row[3] == "open"}


def test_counts_follow_the_closed_form():
    model = RandomLinear(sigma=0.5)
    data, draws = model.samples(), 2000
    rows, witnesses = run(model, [Optimal()], data=data, draws=draws)
    for name, truth in (("clean", model.accuracy(data.x, data.y)), ("e0", model.accuracy(data.x, data.y, "linf", 0.1))):
        for key in ("correct", "trial"):
            found = counts(rows, name, key)
            assert set(found) == set(data.index.tolist())
            share = np.array([found[i] for i in data.index.tolist()]) / draws
            assert np.abs(share - truth).max() < 5 * (0.25 / draws) ** 0.5
    assert {row[3] for row in rows} == {"open"}
    apart = [row[4]["distance"] for row in rows if row[0] == "e0"]
    assert len(apart) == len(data)
    assert 0.0999 < min(apart) <= max(apart) <= 0.1
    assert sum(len(one.rows) for one in witnesses) == len(data)


def test_an_attack_s_own_draws_count_nowhere():
    model = RandomLinear(sigma=2.0)  # half of all single draws are wrong somewhere
    data, draws = model.samples(), 2000
    rows, _ = run(model, [Lucky()], data=data, draws=draws)
    truth = model.accuracy(data.x, data.y)
    share = np.array([counts(rows, "e0")[i] for i in data.index.tolist()]) / draws
    assert np.abs(share - truth).max() < 5 * (0.25 / draws) ** 0.5
    assert not np.array_equal(share, [counts(rows, "clean")[i] / draws for i in data.index.tolist()])


def test_trial_and_reported_draws_are_independent():
    model = RandomLinear(sigma=1.0)
    data = model.samples(n=400)
    rows, _ = run(model, [], data=data, draws=50)
    p = model.accuracy(data.x, data.y)
    sd = np.sqrt(50 * p * (1 - p))
    one, two = (
        np.array([counts(rows, "clean", key)[i] for i in data.index.tolist()]) - 50 * p for key in ("trial", "correct")
    )
    z = (one / sd, two / sd)
    assert abs(np.corrcoef(*z)[0, 1]) < 4 / 400**0.5
    assert all(abs(v.std() - 1) < 0.15 and abs(v.mean()) < 4 / 400**0.5 for v in z)


def test_counts_do_not_depend_on_batch_size_or_order_and_follow_the_seed():
    model = RandomLinear()
    data = model.samples()
    whole, _ = run(model, [Optimal()], data=data)
    for size in (1, 7):
        assert sorted(map(str, run(model, [Optimal()], data=data, size=size)[0])) == sorted(map(str, whole))
    again = counts(run(model, [Optimal()], data=data.select(np.arange(len(data))[::-1]))[0], "e0")
    assert again == counts(whole, "e0")
    assert counts(run(model, [Optimal()], data=data, seed=1)[0], "e0") != again


def test_other_evaluators_norms_and_budgets_have_other_draws():
    model, data = RandomLinear(sigma=1.0), RandomLinear().samples()
    two, _ = run(model, [Optimal(0.0), Optimal(0.0)], eps=("0.1", "0.2"), data=data)
    other, _ = run(model, [Optimal(0.0)], eps=("0.1",), data=data, norm="l2")
    found = [
        [row[4]["correct"] for row in rows if row[:2] == key]
        for rows, key in (
            (two, ("e0", 0.1)),
            (two, ("e1", 0.1)),
            (two, ("e0", 0.2)),
            (two, ("clean", None)),
            (other, ("e0", 0.1)),
        )
    ]
    assert all(one != two for i, one in enumerate(found) for two in found[:i])


def test_every_pass_is_charged_and_no_more_rows_asked_at_once_than_a_batch_holds():
    model = RandomLinear()
    data = model.samples()
    rows, _ = run(model, [Optimal(), Lucky(3)], data=data, draws=30)
    assert {row[5] for row in rows if row[0] in ("clean", "e0")} == {(60, 0)}
    assert {row[5] for row in rows if row[0] == "e1"} == {(63, 0)}
    assert sum(row[5][0] for row in rows) == sum(model.asked)
    model.asked.clear()
    run(model, [Optimal()], data=data, draws=30, size=7)
    assert max(model.asked) <= 7


def test_samples_that_no_trial_draw_gets_right_are_settled():
    model = RandomLinear(sigma=0.05)
    data, draws = model.samples(), 20
    rows, _ = run(model, [Optimal(), Optimal()], eps=("0.05", "0.2"), data=data, draws=draws)
    trial = counts(rows, "clean", "trial")
    alive = {i for i, count in trial.items() if count}
    assert {row[2] for row in rows if row[0] == "e0" and row[1] == 0.05} == alive
    assert len(alive) < len(data)
    for name, eps in (("e0", 0.05), ("e1", 0.05), ("e0", 0.2)):
        here = {row[2]: row[4]["trial"] for row in rows if row[:2] == (name, eps)}
        assert set(here) == alive
        alive = {i for i, count in here.items() if count}


def test_points_are_projected_and_errors_are_no_evidence():
    @dataclass(frozen=True)
    class Wild(Attack):
        def perturb(self, classifier, x, y, threat, stream):
            points = x + 5.0
            points[0] = torch.nan
            return Proposal(points)

    model = RandomLinear()
    rows, witnesses = run(model, [Wild()])
    wild = [row for row in rows if row[0] == "e0"]
    assert [row[3] for row in wild].count("error") == 1
    assert "correct" not in next(row[4] for row in wild if row[3] == "error")
    assert max(row[4]["distance"] for row in wild if row[3] == "open") <= 0.1
    assert sum(len(one.rows) for one in witnesses) == len(wild) - 1


def test_draws_that_are_not_finite_are_not_correct():
    class Broken(RandomLinear):
        def sample(self, x, stream):
            out = super().sample(x, stream)
            return torch.where(stream.child("nan").uniform((1,)) < 0.5, torch.nan, out)

    model = Broken(sigma=0.01)
    rows, _ = run(model, [Optimal()], draws=40)
    assert {row[3] for row in rows} == {"error"}
    assert {row[0] for row in rows} == {"clean"}
    assert 10 < max(row[4]["correct"] for row in rows) < 30


def test_a_schedule_is_told_the_trial_draws_alone():
    told = []

    @dataclass(frozen=True)
    class Twice(CompositeAttack):
        def stages(self, classifier, threat):
            told.append((yield "one", Optimal(), None))
            told.append((yield "two", Optimal(), None))

    model = RandomLinear(sigma=0.05)
    rows, _ = run(model, [Twice()], draws=20)
    first = {row[2]: row[4]["trial"] for row in rows if row[0] == "one"}
    assert told[0].broken.sum() == sum(count == 0 for count in first.values()) > 0
    assert {row[2] for row in rows if row[0] == "two"} == {i for i, count in first.items() if count}
    assert ((told[0].margin < 0) | (told[0].margin.isnan()) | ~told[0].broken).all()


def test_draws_must_follow_from_the_stream():
    class Global(RandomLinear):
        def sample(self, x, stream):
            return torch.randn(len(x), 2)

    refuse_undeclared_randomness(RandomLinear(), RandomLinear().samples())
    with pytest.raises(InputError, match="differ for equal streams"):
        refuse_undeclared_randomness(Global(), RandomLinear().samples())


def test_a_counted_classifier_says_that_it_draws():
    from robench.classifier import is_random

    assert is_random(Counted(RandomLinear()))
    assert is_random(RandomLinear())
    assert len(Counted(RandomLinear()).sample(torch.rand(3, 6), Stream.for_samples(0, "e", range(3)))) == 3
