"""Random evidence about a truth that is known, and every figure recomputed row by row in plain Python."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.evidence import fake_run
from robench.check import check
from robench.metrics import attribution, curve, results, subjects, summarise
from robench.runs import find_runs

INF = math.inf
EPS = ("0.1", "1/4", "0.5")
OPEN = st.sampled_from(["open", "timeout", "abstain"])
VALUES = {"0.1": 0.1, "1/4": 0.25, "0.5": 0.5}


@st.composite
def honest_runs(draw):
    """One to three runs about one net whose true radii are drawn first; nothing they say is false."""
    n = draw(st.integers(1, 6))
    truth = [draw(st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.3, 0.7])) for _ in range(n)]
    runs = []
    for number in range(draw(st.integers(1, 3))):
        run = fake_run(number, eps=EPS, n=n, evaluators=(("pgd", "attack"), ("deep", "attack"), ("ibp", "certificate")))
        run.clean({i: r > 0 for i, r in enumerate(truth)})
        right = [i for i, r in enumerate(truth) if r > 0]
        for text in EPS:
            eps = VALUES[text]
            attacked, proven = {}, {}
            for i in right:
                found = truth[i] <= eps and draw(st.booleans())
                attacked[i] = ("falsified", 0.0, eps) if found else (draw(OPEN), 0.0, INF)
                certain = truth[i] > eps and draw(st.booleans())
                proven[i] = ("certified", eps, INF) if certain else (draw(OPEN), 0.0, INF)
            if right:
                run.add("pgd", "attack", "linf", eps, attacked)
                run.add("ibp", "certificate", "linf", eps, proven)
        if right:
            nearest = {i: ("falsified", 0.0, draw(st.sampled_from([truth[i], 0.9]))) for i in right}
            run.add("deep", "attack", "linf", None, nearest)
        runs.append(run)
    return runs, truth


def rows_of(runs):
    return [row for run in runs for row in run.evidence().to_pylist()]


@settings(max_examples=30)
@given(honest_runs())
def test_figures_are_those_of_the_rows(drawn):
    runs, truth = drawn
    rows = rows_of(runs)
    correct = {i for i, r in enumerate(truth) if r > 0}
    found = results(runs)
    assert [result.eps.text for result in found] == sorted(EPS, key=VALUES.get)
    for result in found:
        eps = result.eps.value
        lower = {i: max([r["lower"] for r in rows if r["sample"] == i], default=0) for i in correct}
        upper = {i: min([r["upper"] for r in rows if r["sample"] == i], default=INF) for i in correct}
        assert result.n == len(truth)
        assert result.clean.count == len(correct)
        assert result.certified.count == sum(lower[i] >= eps for i in correct)
        assert result.empirical.count == sum(upper[i] > eps for i in correct)
        assert result.contradictions == result.errors == 0
        # The chain of DESIGN 1, with the true robust accuracy in the middle.
        robust = sum(truth[i] > eps for i in correct)
        assert result.certified.count <= robust <= result.empirical.count <= result.clean.count
        assert result.joint_interval.lower <= robust / len(truth) <= result.joint_interval.upper
        for counts in result.evaluators:
            assert counts.n == sum(r["evaluator"] == counts.evaluator and r["eps"] in (None, eps) for r in rows)
            outcomes = (counts.certified, counts.falsified, counts.open, counts.abstain, counts.timeout, counts.error)
            assert sum(outcomes) == counts.n - (len(correct) * len(runs) if counts.kind == "clean" else 0)


@settings(max_examples=25)
@given(honest_runs(), st.randoms())
def test_neither_the_order_of_runs_nor_of_rows_matters(drawn, random):
    runs, _ = drawn
    expected = summarise(runs)
    for run in runs:
        order = list(range(len(run.evidence())))
        random.shuffle(order)
        run.table = run.evidence().take(order)
    random.shuffle(runs)
    assert summarise(runs) == expected


@settings(max_examples=25)
@given(honest_runs())
def test_curves_are_monotone_and_pass_through_every_result(drawn):
    runs, _ = drawn
    subject = subjects(runs)[0]
    line = curve(subject, "linf")
    assert line.eps[0] == 0.0
    for values in (line.certified, line.empirical):
        assert all(a >= b for a, b in itertools.pairwise(values))
    for result in results(runs):
        at = max(i for i, eps in enumerate(line.eps) if eps <= result.eps.value)
        assert line.certified[at] == result.certified.value
        assert line.empirical[at] == result.empirical.value
    if subject.correct.any():
        assert line.searched == tuple(sorted(VALUES.values()))
        assert line.everywhere  # the minimum-norm search


@settings(max_examples=25)
@given(honest_runs())
def test_every_settled_sample_is_attributed_once_and_to_the_oldest_run(drawn):
    runs, _ = drawn
    subject = subjects(runs)[0]
    for result in results(runs):
        eps = result.eps.value
        broken = attribution(subject, "linf", eps, "falsified")
        assert sum(broken.values()) == result.n - result.empirical.count
        assert broken.get("clean", 0) == result.n - result.clean.count
        assert sum(attribution(subject, "linf", eps, "certified").values()) == result.certified.count


def test_attribution_follows_the_order_asked_within_a_run():
    run = fake_run(evaluators=(("zeta", "attack"), ("alpha", "attack")), n=2).clean({0: True, 1: True})
    run.add("alpha", "attack", "linf", 0.1, {0: ("falsified", 0, 0.02), 1: ("falsified", 0, 0.02)})
    run.add("zeta", "attack", "linf", 0.1, {0: ("falsified", 0, 0.1)})
    assert attribution(subjects([run])[0], "linf", 0.1, "falsified") == {"alpha": 1, "zeta": 1}


def test_the_document_has_exactly_the_fields_of_the_design():
    run = fake_run(eps=("8/255",), n=2).clean({0: True, 1: False})
    run.add("pgd", "attack", "linf", 8 / 255, {0: ("open", 0, INF)})
    run.add("ibp", "certificate", "linf", 8 / 255, {0: ("certified", 8 / 255, INF)})
    document = summarise([run])
    assert set(document) == {"schema", "run", "results"}
    assert (document["schema"], document["run"]) == (1, run.manifest.run)
    (result,) = document["results"]
    assert set(result) == {
        *("classifier", "fingerprint", "dataset", "norm", "eps", "eps_value", "n", "clean_accuracy"),
        *("certified_accuracy", "empirical_accuracy", "ceiling", "intervals", "contradictions", "errors", "flags"),
        *("abstained", "average_certified_radius", "statistical"),
        *("audit", "evaluators", "health", "randomized"),
    }
    assert (result["eps"], result["eps_value"], result["ceiling"]) == ("8/255", 8 / 255, None)
    assert result["clean_accuracy"] == result["certified_accuracy"] == result["empirical_accuracy"] == 0.5
    intervals = result["intervals"]
    assert (intervals["level"], intervals["method"]) == (0.95, "clopper-pearson")
    assert intervals["joint"] == [intervals["certified_accuracy"][0], intervals["empirical_accuracy"][1]]
    assert set(result["evaluators"][0]) == {
        *("evaluator", "kind", "n", "certified", "falsified", "open", "abstain", "timeout", "error"),
        *("forwards", "backwards", "seconds"),
    }


@pytest.mark.parametrize(
    ("evaluators", "certified", "empirical"),
    [
        ((("pgd", "attack"),), None, 0.0),
        ((("ibp", "certificate"),), 0.0, None),
        ((("bab", "verifier"),), 0.0, 0.0),
        ((), None, None),
    ],
)
def test_a_side_is_null_only_where_it_was_not_asked_for(evaluators, certified, empirical):
    """Every sample is misclassified, so no evaluator leaves a row; what was asked still decides."""
    run = fake_run(n=2, evaluators=evaluators).clean({0: False, 1: False})
    (result,) = summarise([run])["results"]
    assert (result["certified_accuracy"], result["empirical_accuracy"]) == (certified, empirical)
    assert (result["intervals"]["certified_accuracy"] is None) == (certified is None)
    assert [e["evaluator"] for e in result["evaluators"]] == ["clean", *(name for name, _ in evaluators)]


def test_a_sample_in_error_is_unbroken_uncertified_and_flagged():
    run = fake_run(n=3).clean({0: True, 1: True, 2: True})
    run.add("pgd", "attack", "linf", 0.1, {0: ("error", 0, INF), 1: ("open", 0, INF), 2: ("open", 0, INF)})
    run.add("ibp", "certificate", "linf", 0.1, {0: ("certified", 0.1, INF), 1: ("certified", 0.1, INF)})
    (result,) = results([run])
    assert (result.certified.count, result.empirical.count, result.errors) == (1, 3, 1)
    assert "errors" in {flag.code for flag in result.flags}
    assert not result.rankable
    # Below the ε at which the error was met, the certificate stands.
    assert subjects([run])[0].radii("linf").certified(0.05).tolist() == [True, True, False]


def test_a_clean_pass_in_error_is_not_correct():
    run = fake_run(n=2).clean({0: True})
    run.add("clean", "clean", None, None, {1: ("error", 0, INF)}, prediction=None)
    (result,) = results([run])
    assert (result.clean.count, result.n, result.errors) == (1, 2, 1)


def test_witnesses_count_in_every_norm_and_certificates_carry_over():
    run = fake_run(n=2, shape=(4,)).clean({0: True, 1: True})
    run.add("pgd", "attack", "linf", 0.5, {0: ("falsified", 0, 0.5), 1: ("open", 0, INF)})
    run.witness("pgd", "linf", 0.5, 0, [0.5, 0.5, 0.0, 0.0])
    run.add("ibp", "certificate", "linf", 0.25, {1: ("certified", 0.25, INF)})
    run.add("lip", "certificate", "l2", None, {1: ("certified", 0.3, INF)})
    subject = subjects([run])[0]
    assert subject.radii("linf").upper.tolist() == [0.5, INF]
    assert subject.radii("l2").upper[0] == pytest.approx(math.sqrt(0.5), rel=1e-12)
    assert subject.radii("l1").upper[0] == pytest.approx(1.0, rel=1e-12)
    assert subject.radii("l2").lower.tolist() == [0.0, 0.3]
    assert subject.radii("l1").lower.tolist() == [0.0, 0.3]
    assert subject.radii("linf").lower.tolist() == [0.0, 0.25]  # above 0.3 / sqrt(4)


def test_where_nothing_was_searched_a_flag_says_so():
    run = fake_run(n=1, eps=("0.1", "0.2")).clean({0: True})
    run.add("pgd", "attack", "linf", 0.1, {0: ("open", 0, INF)})
    run.add("ibp", "certificate", "linf", 0.1, {0: ("open", 0, INF)})
    at, beyond = results([run])
    assert (at.flags, at.rankable) == ((), True)
    assert {flag.code for flag in beyond.flags} == {"unsearched"}
    assert not beyond.rankable


def test_runs_about_one_function_are_merged_and_others_are_not():
    first = fake_run(0, n=2).clean({0: True, 1: True})
    first.add("pgd", "attack", "linf", 0.1, {0: ("falsified", 0, 0.1), 1: ("open", 0, INF)})
    second = fake_run(1, n=2).clean({0: True, 1: True})
    second.add("pgd:steps=9", "attack", "linf", 0.1, {0: ("open", 0, INF), 1: ("falsified", 0, 0.1)})
    other = fake_run(2, net="other", n=2).clean({0: True, 1: True})
    other.add("pgd", "attack", "linf", 0.1, {0: ("open", 0, INF), 1: ("open", 0, INF)})
    merged, alone = results([other, second, first])
    assert (merged.subject.classifier, merged.empirical.count) == ("net", 0)
    assert (alone.subject.classifier, alone.empirical.count) == ("other", 2)
    assert summarise([first, second])["run"] == [first.manifest.run, second.manifest.run]


def flags(*runs):
    return {flag.code for result in results(runs) for flag in result.flags}


def test_flags_say_what_a_reader_must_know():
    run = fake_run(n=3).clean({0: True, 1: True, 2: True})
    run.add("pgd", "attack", "linf", 0.1, dict.fromkeys(range(3), ("open", 0, INF)))
    run.add("ibp", "certificate", "linf", 0.1, dict.fromkeys(range(3), ("open", 0, INF)))
    assert flags(run) == set()

    contradiction = fake_run(1, n=3).clean({0: True, 1: True, 2: True})
    contradiction.add("ibp", "certificate", "linf", 0.1, {1: ("certified", 0.1, INF)})
    contradiction.add("pgd", "attack", "linf", 0.1, {1: ("falsified", 0, 0.1)})
    (result,) = results([run, contradiction])
    assert result.contradictions == 1
    assert not result.rankable
    assert "contradictions" in flags(run, contradiction)

    assert "incomplete" in flags(fake_run(n=1, complete=False).clean({0: True}))
    assert "imported" in flags(
        fake_run(n=1, fingerprint="import:" + "0" * 64, origin="imported", trust="imported").clean({0: True})
    )
    assert "disputed" in flags(run, fake_run(2, n=3).clean({0: False}))

    only = fake_run(n=2, evaluators=(("pgd", "attack"),)).clean({0: True, 1: True})
    only.add("pgd", "attack", "linf", 0.1, {0: ("open", 0, INF)}, detail={"reason": "numerical"})
    assert flags(only) == {"one-sided", "numerical", "coverage"}


def test_probabilistic_rows_say_so_and_the_joint_interval_pays_for_them():
    run = fake_run(n=4, norm="l2", evaluators=(("smoothing", "certificate"), ("pgd", "attack")))
    run.clean(dict.fromkeys(range(4), True))
    run.add("pgd", "attack", "l2", 0.1, dict.fromkeys(range(4), ("open", 0, INF)))
    run.add("smoothing", "certificate", "l2", None, dict.fromkeys(range(4), ("certified", 0.2, INF)), confidence=0.99)
    (result,) = results([run])
    assert result.confidence == pytest.approx(0.99)
    assert result.joint_interval.lower == pytest.approx(result.certified.interval.lower - 0.01)
    assert {flag.code for flag in result.flags} == {"probabilistic"}

    again = fake_run(1, n=4, norm="l2", evaluators=(("smoothing", "certificate"),)).clean({0: True})
    again.add("smoothing", "certificate", "l2", None, {0: ("abstain", 0, INF)}, confidence=0.99)
    (result,) = results([run, again])
    assert result.certified.count == 4
    assert result.confidence == pytest.approx(0.98)  # the failure spends its α too

    silent = fake_run(2, norm="l2", n=1, evaluators=(("smoothing", "certificate"),)).clean({0: True})
    silent.add("smoothing", "certificate", "l2", None, {0: ("certified", 0.2, INF)}, confidence=None)
    (result,) = results([silent])
    assert result.confidence is None
    assert "confidence-unknown" in {flag.code for flag in result.flags}


def test_contradictions_between_probable_statements_are_held_against_the_expected_number():
    def run(broken):
        made = fake_run(n=500, norm="l2", evaluators=(("smoothing", "certificate"), ("pgd", "attack")))
        made.clean(dict.fromkeys(range(500), True))
        proven = dict.fromkeys(range(500), ("certified", 0.2, INF))
        made.add("smoothing", "certificate", "l2", None, proven, confidence=0.999)
        found = {i: ("falsified", 0, 0.1) if i < broken else ("open", 0, INF) for i in range(500)}
        made.add("pgd", "attack", "l2", 0.1, found)
        return made

    (few,) = results([run(4)])
    assert (few.contradictions, few.rankable) == (0, True)
    (many,) = results([run(5)])
    assert (many.contradictions, many.rankable) == (0, False)
    assert "chance-contradictions" in {flag.code for flag in many.flags}


@pytest.mark.parametrize(
    ("confidence", "broken", "code"),
    [(0.999, 1, "probabilistic"), (0.999, 6, "chance-contradictions"), (None, 6, "confidence-unknown")],
)
def test_chance_is_judged_alike_at_every_budget_and_by_check(tmp_path, confidence, broken, code):
    made = fake_run(n=1000, norm="l2", eps=("0.5", "2"), evaluators=(("smoothing", "certificate"), ("pgd", "attack")))
    made.clean(dict.fromkeys(range(1000), True))
    proven = dict.fromkeys(range(1000), ("certified", 1.0, INF))
    made.add("smoothing", "certificate", "l2", None, proven, confidence=confidence)
    for eps in (0.5, 2.0):
        found = {i: ("falsified", 0, 0.5) if i < broken else ("open", 0, INF) for i in range(1000)}
        made.add("pgd", "attack", "l2", eps, found)
        for i in range(broken):
            made.witness("pgd", "l2", eps, i, [0.5, 0, 0, 0], l2=0.5)
    for result in results([made]):
        about = [flag for flag in result.flags if "contradict each other" in flag.text]
        assert [flag.code for flag in about] == [code], result.eps
        assert result.rankable == (code != "chance-contradictions")
    made.save(tmp_path)
    outcome = check(find_runs(tmp_path))
    assert [finding.code for finding in outcome.findings] == ["chance"] * (code == "chance-contradictions")
    assert len(outcome.notes) == (code != "chance-contradictions")


def test_nothing_is_no_error():
    assert summarise([]) == {"schema": 1, "run": [], "results": []}
    assert results([fake_run(n=0)]) == []


def test_a_large_table_is_summarised_column_by_column():
    n = 200_000
    run = fake_run(n=n)
    run.builder.add_rows(
        evaluator="clean", kind="clean", norm=None, eps=None, sample=np.arange(n), label=0, prediction=0,
        lower=0.0, upper=INF, status="correct",
    )  # fmt: skip
    radius = np.linspace(0, 0.2, n)
    run.builder.add_rows(
        evaluator="ibp", kind="certificate", norm="linf", eps=None, sample=np.arange(n), label=0, prediction=0,
        lower=radius, upper=INF, status="certified",
    )  # fmt: skip
    (result,) = results([run])
    assert result.certified.count == int((radius >= 0.1).sum())
