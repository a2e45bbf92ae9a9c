"""Expected accuracies: chosen by some draws, reported by others, in intervals that cover; no figure about r*."""

import json

import numpy as np
import pytest
from scipy.stats import binom

from oracles.random_linear import RandomLinear
from robench.api import evaluate
from robench.metrics import counted_draws, random_results, results, subjects, summarise
from robench.metrics._intervals import bounded_mean, clopper_pearson

R_FIGURES = ("clean_accuracy", "certified_accuracy", "empirical_accuracy", "ceiling")


@pytest.fixture(scope="module")
def model():
    return RandomLinear(sigma=0.3)


@pytest.fixture(scope="module")
def measured(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    attacks = ["pgd:steps=8,targets=0 | eot:draws=5", "fgsm | eot:draws=2"]
    return evaluate(model, model.samples(60), eps=["0.05", "0.1"], attacks=attacks, draws=200, out=out)


def test_figures_follow_the_closed_form(model, measured):
    data = model.samples(60)
    clean = model.accuracy(data.x, data.y)
    found = random_results([measured.run])
    assert [result.eps.text for result in found] == ["0.05", "0.1"]
    slack = 4 * (0.25 / (60 * 200)) ** 0.5
    for result in found:
        assert abs(result.clean.value - clean.mean()) < slack
        worst = model.accuracy(data.x, data.y, "linf", result.eps.value)
        assert abs(result.attacked.value - worst.mean()) < slack
        assert result.clean.interval.lower < clean.mean() < result.clean.interval.upper
        assert result.attacked.interval.lower < worst.mean() < result.attacked.interval.upper
        assert (result.n, result.draws, result.errors) == (60, 200, 0)
        assert {flag.code for flag in result.flags} == {"randomized"}
        costs = {one.evaluator: (one.n, one.open, one.falsified, one.certified) for one in result.evaluators}
        assert set(costs) == {"clean", "pgd:steps=8,targets=0 | eot:draws=5", "fgsm | eot:draws=2"}
        assert all(n == still and not falsified and not proven for n, still, falsified, proven in costs.values())


def test_nothing_is_said_about_r(measured):
    assert results([measured.run]) == subjects([measured.run]) == []
    document = measured.summary
    for entry in document["results"]:
        assert [entry[name] for name in R_FIGURES] == [None] * 4
        assert {entry["intervals"][name] for name in (*R_FIGURES[:3], "joint")} == {None}
        block = entry["randomized"]
        assert block["draws"] == 200
        low, high = block["intervals"]["attacked_accuracy"]
        assert low < block["attacked_accuracy"] < block["clean_accuracy"]
        assert block["attacked_accuracy"] < high
    json.dumps(document)


def test_choosing_the_worst_of_many_points_does_not_lower_what_is_reported(tmp_path):
    # Eight attacks that all propose the same point: the least of eight counts of 5 draws would be far too low.
    model = RandomLinear(sigma=1.0)
    data = model.samples(80)
    attacks = [f"fgsm:step={1 + k / 64} | eot:draws=1" for k in range(8)]
    run = evaluate(model, data, eps="0.000001", attacks=attacks, draws=5, out=tmp_path).run
    (result,) = random_results([run])
    truth = model.accuracy(data.x, data.y).mean()
    assert abs(result.attacked.value - truth) < 4 * (0.25 / (80 * 5)) ** 0.5
    rows = [json.loads(text) for table in run.iter_evidence() for text in table["detail"].to_pylist()]
    samples = [s for table in run.iter_evidence() for s in table["sample"].to_pylist()]
    least = np.mean([min(r["correct"] for r, t in zip(rows, samples, strict=True) if t == s) / 5 for s in set(samples)])
    assert least < truth - 0.15


def test_the_clean_input_counts_where_an_attack_only_helps(tmp_path):
    from dataclasses import dataclass

    from robench.contracts import Proposal

    @dataclass(frozen=True)
    class Helpful:
        randomized = True

        def perturb(self, classifier, x, y, threat, stream):
            w = classifier._inner.weight
            return Proposal(x + threat.eps * w.sign() * (1 - 2 * y)[:, None])

    model = RandomLinear(sigma=0.3)
    data = model.samples(60)
    run = evaluate(model, data, eps="0.1", attacks=[Helpful()], draws=300, out=tmp_path).run
    (result,) = random_results([run])
    assert abs(result.attacked.value - result.clean.value) < 0.02


def test_runs_add_up_and_a_point_within_a_smaller_budget_counts_at_a_larger_one(model, tmp_path):
    data = model.samples(60)
    attack = "pgd:steps=8,targets=0 | eot:draws=5"
    strong = evaluate(model, data, eps="0.1", attacks=[attack], draws=200, out=tmp_path).run
    weak = evaluate(model, data, eps="0.2", attacks=["pgd:steps=1,step=0.01,targets=0,random_start=false"], draws=200,
                    out=tmp_path).run  # fmt: skip
    (alone,) = random_results([weak])
    small, large = random_results([strong, weak])
    assert alone.attacked.value > small.attacked.value + 0.05
    assert abs(large.attacked.value - small.attacked.value) < 0.02
    assert random_results([weak, strong]) == [small, large]


@pytest.mark.parametrize(
    "detail",
    [None, "", "{}", "[1]", "7", '{"draws": 0, "trial": 0, "correct": 0}', '{"draws": 5, "trial": 6, "correct": 0}',
     '{"draws": 5, "trial": 0, "correct": -1}', '{"draws": 5.0, "trial": 0, "correct": 1}',
     '{"draws": true, "trial": true, "correct": true}', '{"draws": 5, "trial": 1, "correct": 1, "distance": "far"}',
     '{"draws": 5, "trial": 1, "correct": 1, "distance": NaN}',
     '{"draws": 5, "trial": 1, "correct": 1, "distance": -1}'],
)  # fmt: skip
def test_counts_that_cannot_be_right_are_none(detail):
    assert counted_draws(detail) == {}


def test_counts_are_read():
    assert counted_draws('{"draws": 5, "trial": 0, "correct": 5}') == {
        "draws": 5, "trial": 0, "correct": 5, "distance": 0.0}  # fmt: skip


@pytest.mark.parametrize("n", [1, 7, 60, 1000])
@pytest.mark.parametrize("p", [0.0, 0.03, 0.5, 0.9, 1.0])
def test_the_interval_covers_the_mean_of_coins_and_is_hardly_wider_than_the_exact_one(n, p):
    inside = [bounded_mean(k / n, n) for k in range(n + 1)]
    covered = sum(binom.pmf(k, n, p) for k, ends in enumerate(inside) if ends.lower <= p <= ends.upper)
    assert covered >= 0.95
    for k, ends in enumerate(inside):
        exact = clopper_pearson(k, n)
        assert ends.upper - ends.lower <= 1.4 * (exact.upper - exact.lower) + 1e-12
        assert ends.lower <= k / n <= ends.upper


def test_the_interval_of_nothing_and_of_the_impossible():
    assert bounded_mean(0.0, 0) == (0.0, 1.0)
    assert bounded_mean(1.0, 10).upper == 1.0
    with pytest.raises(ValueError, match="no interval"):
        bounded_mean(1.1, 10)


def test_summaries_hold_both_kinds(measured, tmp_path):
    import torch

    torch.manual_seed(0)
    plain = evaluate(torch.nn.Linear(6, 2).eval(), RandomLinear().samples(10), eps="0.1", attacks=["fgsm"],
                     certifiers=(), out=tmp_path).run  # fmt: skip
    document = summarise([plain, measured.run])
    assert [entry["randomized"] is None for entry in document["results"]] == [True, False, False]
    assert set(document["results"][0]) == set(document["results"][1])
