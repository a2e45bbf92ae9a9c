"""Ceilings against certificates: proofs contradict surely, statistical ones only beyond chance."""

import json
import math

import pytest
from typer.testing import CliRunner

from oracles.bounds import fake_bound, save
from oracles.evidence import fake_run
from robench.check import CODES, check_folders
from robench.cli import app

INF = math.inf


def certified(count, *, n=40, eps=0.1, confidence=1.0, unbroken=None):
    """A run in which `count` of `n` samples are certified at ε and an attack leaves `unbroken` of them."""
    kinds = (("cert", "certificate"), *((("pgd", "attack"),) if unbroken is not None else ()))
    run = fake_run(0, n=n, eps=(str(eps),), evaluators=kinds).clean(dict.fromkeys(range(n), True))
    if unbroken is not None:
        rows = {i: ("open", 0, INF) if i < unbroken else ("falsified", 0, eps) for i in range(n)}
        run.add("pgd", "attack", "linf", eps, rows)
    left = range(n if unbroken is None else unbroken)
    rows = {i: ("certified", eps, INF) if i < count else ("open", 0, INF) for i in left}
    run.add("cert", "certificate", "linf", eps, rows, confidence=confidence)
    return run


@pytest.fixture
def outcome(tmp_path):
    def of(run, *bounds):
        run.save(tmp_path)
        for bound in bounds:
            save(tmp_path, bound)
        made = check_folders(tmp_path)
        return [one for one in made.findings if one.code in ("ceiling", "chance", "bound")], made.notes

    return of


def test_as_many_proofs_as_the_ceiling_allows_pass(outcome):
    assert outcome(certified(20), fake_bound({"0.05": 0.5}, samples=range(40))) == ([], ())


def test_one_proof_too_many_is_named(outcome):
    bound = fake_bound({"0.02": 0.9, "0.05": 0.5, "0.1": 0.25, "0.2": 0.1}, samples=range(40))
    found, _ = outcome(certified(21), bound)
    assert [(one.code, one.norm, one.values) for one in found] == [
        ("ceiling", "linf", {"eps": 0.05, "certified": 0.525, "ceiling": 0.5}),
        ("ceiling", "linf", {"eps": 0.1, "certified": 0.525, "ceiling": 0.25}),
    ]
    assert found[0].evaluators == ("cert",) and bound.manifest.run in found[0].runs and len(found[0].runs) == 2
    words = ("net", "21 of 40", "linf 0.05", "0.525", "0.5 of oracle", bound.manifest.run, "1 more")
    assert all(word in found[0].text for word in words)


def test_a_proof_in_another_norm_counts_where_it_carries_over(outcome):
    """Within 0.1 in linf nothing is misclassified, so within 0.1 in l2 and l1 neither."""
    found, _ = outcome(certified(21), fake_bound({"0.1": 0.5}, norm="l1", samples=range(40)))
    assert [(one.code, one.norm) for one in found] == [("ceiling", "l1")]


@pytest.mark.parametrize(("extra", "code"), [(1, None), (3, None), (4, "chance"), (20, "chance")])
def test_statistical_certificates_may_be_wrong_as_often_as_chance_explains(outcome, extra, code):
    """Each of 30 is wrong with probability 0.01: the binomial quantile at 0.999 is 3."""
    bound = fake_bound({"0.1": (30 - extra) / 40}, samples=range(40))
    found, notes = outcome(certified(30, confidence=0.99), bound)
    assert [one.code for one in found] == [code] * (code is not None)
    text = found[0].text if code else notes[0]
    assert f"{extra} more than the ceiling" in text and "by chance" in text
    if code:
        assert "no more than 3 " in text


def test_nothing_is_concluded_from_confidences_that_nobody_tells(outcome):
    found, notes = outcome(certified(30, confidence=None), fake_bound({"0.1": 0.1}, samples=range(40)))
    assert found == [] and any("nothing can be concluded" in note for note in notes)


def test_weak_attacks_are_a_note(outcome):
    found, notes = outcome(certified(0, unbroken=30), fake_bound({"0.1": 0.5}, samples=range(40)))
    assert found == []
    (note,) = [note for note in notes if "too weak" in note]
    assert "30 of 40 samples are unbroken at linf 0.1, 10 more than the ceiling 0.5 of oracle" in note


@pytest.mark.parametrize("changes", [{"samples": range(39)}, {"dataset": "other"}, {"norm": "l2", "split": "train"}])
def test_a_ceiling_about_other_samples_says_nothing(outcome, changes):
    bound = fake_bound({"0.1": 0.0}, **{"samples": range(40), **changes})
    assert outcome(certified(40), bound) == ([], ())


@pytest.mark.parametrize("first", [0, 20])
def test_a_second_run_about_more_samples_hides_nothing(outcome, tmp_path, first):
    """20 of the run's 20 samples are proven; among another run's 40 no ceiling is about them."""
    some = range(first, first + 20)
    run = fake_run(0, n=20, evaluators=(("cert", "certificate"),)).clean(dict.fromkeys(some, True))
    run.add("cert", "certificate", "linf", 0.1, dict.fromkeys(some, ("certified", 0.1, INF)))
    run.save(tmp_path)
    more = fake_run(1, n=40).clean(dict.fromkeys(range(40), True))
    found, _ = outcome(more, fake_bound({"0.1": 0.95}, samples=some))
    assert [(one.code, one.values) for one in found] == [("ceiling", {"eps": 0.1, "certified": 1.0, "ceiling": 0.95})]
    assert "20 of 20 samples" in found[0].text and "1 more" in found[0].text


def test_a_rising_ceiling_and_a_floor_above_a_ceiling_are_findings(outcome):
    rising = fake_bound({"0.05": 0.5, "0.1": 0.75}, samples=range(40))
    floor = fake_bound({"0.05": 0.25, "0.1": 0.625}, number=1, name="floor", direction="floor", samples=range(40))
    population = fake_bound(
        {"0.1": 1.0}, number=2, name="many", direction="floor", scope="population", samples=range(40)
    )
    found, _ = outcome(certified(1), rising, floor, population)
    assert [(one.code, one.runs[0]) for one in found] == [
        ("bound", rising.manifest.run),
        ("ceiling", floor.manifest.run),
    ]
    assert "rises to 0.75 at linf 0.1" in found[0].text
    assert found[1].values == {"eps": 0.1, "floor": 0.625, "ceiling": 0.5}


def test_damaged_bounds_are_findings_and_the_others_count(tmp_path):
    certified(21).save(tmp_path)
    save(tmp_path, fake_bound({"0.1": 0.5}, samples=range(40)))
    edited = save(tmp_path, fake_bound({"0.1": 0.9}, number=1, name="edited", samples=range(40)))
    (edited / "bound.parquet").write_bytes(b"nothing")
    made = check_folders(tmp_path)
    assert [one.code for one in made.findings] == ["bound", "ceiling"]
    assert "edited since it was written" in made.findings[0].text
    assert made.counts["bounds"] == 1
    shown = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert shown.exit_code == 1
    assert CODES["ceiling"] in shown.stdout and CODES["bound"] in shown.stdout and "1 bound:" in shown.stdout
    document = json.loads(CliRunner().invoke(app, ["check", str(tmp_path), "--json"]).stdout)
    assert [one["code"] for one in document["findings"]] == ["bound", "ceiling"]
