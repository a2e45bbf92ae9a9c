"""Runs about votes in `check` and in the figures: what differs by chance is held against chance."""

import math

import pytest
from scipy.stats import binom

from oracles.evidence import fake_run, info
from robench.binomial import lower_bound
from robench.check import check
from robench.metrics import RHO, results
from robench.runs import find_runs

INF = math.inf
N = 500
ALPHA = 0.001
STATUS = {0: ("correct", INF), -1: ("abstain", INF)}


def by_chance(alpha):
    """How many of N statements that fail with probability `alpha` may be wrong: the .999 quantile."""
    return int(binom.ppf(0.999, N, alpha))


def vote_run(number=0, predictions=None, broken=(), radii=None, attacks=True, confidence=1 - ALPHA):
    """A run about a vote over N samples of class 0: what it predicts (0), where it is broken, what is certified (1)."""
    evaluators = (("smoothadv", "attack"), ("smoothing", "certificate"))[not attacks :]
    made = fake_run(number, net="vote", norm="l2", eps=("0.5",), n=N, evaluators=evaluators)
    vote = made.manifest.classifier.model_copy(update={"smoothed": True})
    made.manifest = made.manifest.replace(classifier=vote)
    seen = dict.fromkeys(range(N), 0) | (predictions or {})
    for value in sorted(set(seen.values())):
        status, upper = STATUS.get(value, ("incorrect", 0.0))
        rows = {i: (status, 0.0, upper) for i in seen if seen[i] == value}
        made.add("clean", "clean", None, None, rows, prediction=value, confidence=1 - ALPHA)
    right = [i for i in seen if seen[i] == 0]
    if attacks:
        rows = {i: ("falsified", 0, 0.5) if i in broken else ("open", 0, INF) for i in right}
        made.add("smoothadv", "attack", "l2", 0.5, rows, confidence=1 - ALPHA)
        for i in broken:
            made.witness("smoothadv", "l2", 0.5, i, [0.5, 0, 0, 0], l2=0.5)
    lower = dict.fromkeys(right, 1.0) | (radii or {})
    rows = {i: ("certified" if lower[i] else "abstain", lower[i], INF) for i in right}
    made.add("smoothing", "certificate", "l2", None, rows, confidence=confidence)
    return made


def checked(tmp_path, *runs):
    for one in runs:
        one.save(tmp_path)
    return check(find_runs(tmp_path))


def test_expected_contradictions_are_told_beside_none(tmp_path):
    outcome = checked(tmp_path, vote_run())
    assert outcome.findings == ()
    most = by_chance(3 * ALPHA)  # a certificate, an attempt and the prediction
    assert outcome.notes == (
        f"vote: 0 contradictions in l2 with statistical bounds; up to {most} of {N} are expected at α = 0.003",
    )


def test_certificates_that_nobody_attacked_have_nothing_to_contradict(tmp_path):
    assert checked(tmp_path, vote_run(attacks=False)).notes == ()


def test_contradictions_are_held_against_the_joint_error(tmp_path):
    most = by_chance(3 * ALPHA)
    few = checked(tmp_path / "few", vote_run(broken=range(most)))
    assert (few.findings, len(few.notes)) == ((), 1)
    (finding,) = checked(tmp_path / "many", vote_run(broken=range(most + 1))).findings
    assert (finding.code, finding.values["observed"], finding.values["expected"]) == ("chance", most + 1, most)


def test_predictions_of_two_runs_may_differ_by_chance(tmp_path):
    """Abstaining contradicts nothing; two classes do, and so often with probability at most 2 α each."""
    first = vote_run(predictions={0: -1, 1: 1})
    alike = checked(tmp_path / "a", first, vote_run(1, predictions={2: -1, 1: -1}))
    assert alike.findings == ()
    assert not [note for note in alike.notes if "different classes" in note]

    most = by_chance(2 * ALPHA)
    for count, code in ((most, []), (most + 1, ["chance"])):
        other = vote_run(1, predictions=dict.fromkeys(range(10, 10 + count), 1), attacks=False)
        outcome = checked(tmp_path / str(count), vote_run(attacks=False), other)
        about = [one for one in outcome.findings if "different classes" in one.text]
        assert [one.code for one in about] == code
        assert any("different classes" in note for note in outcome.notes) == (not code)


@pytest.mark.parametrize("confidence", [1.0, None])
def test_nobody_erases_what_his_failures_spent(tmp_path, confidence):
    """Rows about votes are tests, also those that came to nothing; whoever hides them would buy radius."""
    made = vote_run(attacks=False, radii={7: 0.0})
    again = vote_run(1, attacks=False, radii=dict.fromkeys(range(N), 0.0), confidence=confidence)
    findings = checked(tmp_path, made, again).findings
    assert {(one.code, one.runs) for one in findings} == {("row", (again.manifest.run,))}
    assert len(findings) == N
    assert "is a test's, and claims to be sure" in findings[0].text


def test_a_statistical_certifier_is_never_sure(tmp_path):
    told = info("smoothing", "certificate", "l2", deterministic=False)
    for confidence, found in ((1.0, 1), (0.999, 0)):
        made = fake_run(norm="l2", evaluators=(told,), n=1).clean({0: True})
        made.add("smoothing", "certificate", "l2", None, {0: ("certified", 0.5, INF)}, confidence=confidence)
        assert len(checked(tmp_path / str(confidence), made).findings) == found


def test_labels_that_differ_are_no_chance(tmp_path):
    other = vote_run(1)
    other.add("late", "attack", "l2", 0.5, {0: ("open", 0, INF)}, label=1)
    assert "clean" in {finding.code for finding in checked(tmp_path, vote_run(), other).findings}


def test_abstaining_is_not_correct_and_counted_apart():
    (result,) = results([vote_run(predictions={0: -1, 1: 1})])
    assert (result.clean.count, result.abstained, result.n) == (N - 2, 1, N)
    assert result.document()["abstained"] == 1
    (joined,) = results([vote_run(predictions={0: -1}), vote_run(1, predictions={1: -1})])
    assert (joined.clean.count, joined.abstained) == (N - 2, 2)  # whoever asks again buys nothing
    assert not {"disputed", "contradictions"} & {flag.code for flag in joined.flags}


def test_a_claim_gives_way_to_a_witness():
    (result,) = results([vote_run(broken=range(3))])
    assert (result.certified.count, result.empirical.count) == (N - 3, N - 3)


def test_the_average_radius_counts_every_sample():
    (result,) = results([vote_run(predictions={0: -1, 1: 1}, radii={2: 0.25, 3: 0.0})])
    assert result.average_radius == pytest.approx((N - 4 + 0.25) / N)
    assert result.document()["average_certified_radius"] == result.average_radius
    (endless,) = results([vote_run(radii={2: INF})])
    assert endless.average_radius is None


def test_what_all_certificates_say_together():
    (result,) = results([vote_run(predictions={0: -1}, radii={1: 0.25})])
    said = result.document()["statistical"]
    most = by_chance(ALPHA)
    assert said == {
        "alpha": pytest.approx(ALPHA),
        "rho": RHO,
        "certified": N - 2,
        "false_at_most": most,
        "robust_at_least": N - 2 - most,
        "population_at_least": pytest.approx(float(lower_bound(N - 2, N, RHO)) - ALPHA),
    }
    assert f"no more than {most} of the {N - 2} certificates fail" in " ".join(flag.text for flag in result.flags)
    (untold,) = results([vote_run(confidence=None)])
    assert untold.statement is None


def test_an_interval_is_open_where_nobody_tells_how_often_a_side_is_wrong():
    (told,), (untold,) = (results([vote_run(confidence=one, attacks=False)]) for one in (1 - ALPHA, None))
    assert told.joint_interval.lower > 0.9
    assert untold.joint_interval.lower == 0
    assert untold.certified.interval == told.certified.interval


def test_the_failure_rate_is_not_that_of_what_came_out():
    """Samples that were tried twice and certified neither time count with both tries."""
    first = vote_run(attacks=False, radii=dict.fromkeys(range(100), 0.0))
    again = vote_run(1, attacks=False, radii=dict.fromkeys(range(N), 0.0))
    again.manifest = again.manifest.replace(evaluators=())
    again.builder._clear()
    again.add("clean", "clean", None, None, dict.fromkeys(range(N), ("correct", 0.0, INF)), confidence=1 - ALPHA)
    again.add("other", "certificate", "l2", None, dict.fromkeys(range(100), ("abstain", 0.0, INF)), confidence=0.97)
    (result,) = results([first, again])
    assert result.certified.count == N - 100
    assert result.statement.alpha == pytest.approx(ALPHA + 0.03)


def test_other_seeds_buy_no_radius():
    """Of 40 runs the largest radius holds at 40 times the α; of 60 only the least that every run has shown."""
    alone = {0: 2.0}
    some = [vote_run(k, attacks=False, radii=alone if k == 7 else {}) for k in range(40)]
    (result,) = results(some)
    assert result.subject.radii("l2").best_lower[0] == 2.0
    assert result.subject.radii("l2").lower_confidence[0] == pytest.approx(1 - 40 * ALPHA)
    assert result.statement.alpha == pytest.approx(40 * ALPHA)
    more = [vote_run(k, attacks=False, radii=alone if k == 7 else {}) for k in range(60)]
    (result,) = results(more)
    assert result.subject.radii("l2").best_lower[0] == 1.0
    assert result.statement.alpha == pytest.approx(ALPHA)
