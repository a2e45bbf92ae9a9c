import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from oracles.evidence import composite, fake_run, info
from robench.check import CODES, check
from robench.cli import app
from robench.evidence import to_parquet
from robench.runs import find_runs

INF = math.inf
F32 = float(np.float32(0.05))
OPEN = dict.fromkeys(range(3), ("open", 0, INF))


def honest(number=0, **more):
    """Four samples: certified, broken with a witness, open, misclassified."""
    run = fake_run(number, n=4, **more).clean({0: True, 1: True, 2: True, 3: False})
    run.add("pgd", "attack", "linf", 0.1, {0: ("open", 0, INF), 1: ("falsified", 0, F32), 2: ("open", 0, INF)})
    run.witness("pgd", "linf", 0.1, 1, [0.05, 0.0, 0.05, 0.0])
    run.add("ibp", "certificate", "linf", 0.1, {0: ("certified", 0.1, INF), 2: ("open", 0, INF)})
    return run


def found(tmp_path, *runs):
    for run in runs:
        run.save(tmp_path)
    return check(find_runs(tmp_path))


def codes(outcome):
    return [finding.code for finding in outcome.findings]


def test_honest_evidence_passes(tmp_path):
    outcome = found(tmp_path, honest(0), honest(1))
    assert (outcome.findings, outcome.notes) == ((), ())
    assert outcome.counts == {"runs": 2, "classifiers": 1, "samples": 4, "rows": 18, "witnesses": 2, "bounds": 0}


def test_a_certificate_above_a_witness_is_named(tmp_path):
    liar = fake_run(1, n=4, evaluators=(("liar", "certificate"),)).clean({0: True, 1: True, 2: True, 3: False})
    liar.add("liar", "certificate", "linf", None, dict.fromkeys(range(3), ("certified", 0.07, INF)))
    (finding,) = found(tmp_path, honest(), liar).findings
    assert (finding.code, finding.sample, finding.norm) == ("contradiction", 1, "linf")
    assert finding.evaluators == ("liar", "pgd")
    assert len(finding.runs) == 2
    assert finding.values == {"lower": 0.07, "upper": F32}
    assert all(word in finding.text for word in ("sample 1", "liar", "pgd", "0.07", "0.05", *finding.runs))


@pytest.mark.parametrize(("radius", "contradicts"), [(math.nextafter(F32, 0), False), (F32, True)])
def test_closed_balls_touch_at_equality(tmp_path, radius, contradicts):
    other = fake_run(1, n=4, evaluators=(("lip", "certificate"),)).clean({0: True, 1: True, 2: True, 3: False})
    other.add("lip", "certificate", "linf", None, {**OPEN, 1: ("certified", radius, INF)})
    assert codes(found(tmp_path, honest(), other)) == ["contradiction"] * contradicts


@pytest.mark.parametrize(
    ("norm", "radius", "contradicts"),
    [
        ("l2", 0.0708, True),  # the witness lies at (0.05, 0, 0.05, 0): 0.0707 in l2, 0.1 in l1
        ("l2", 0.0707, False),
        ("l1", 0.1001, True),
        ("l1", 0.0999, False),
    ],
)
def test_norms_meet_in_the_witness(tmp_path, norm, radius, contradicts):
    other = fake_run(1, n=4, norm=norm, evaluators=(("lip", "certificate"),))
    other.clean({0: True, 1: True, 2: True, 3: False})
    other.add("lip", "certificate", norm, None, {**OPEN, 1: ("certified", radius, INF)})
    outcome = found(tmp_path, honest(), other)
    assert codes(outcome) == ["contradiction"] * contradicts
    assert all(finding.norm == norm for finding in outcome.findings)


def test_other_functions_are_another_matter(tmp_path):
    other = fake_run(1, net="other", n=4, evaluators=(("liar", "certificate"),))
    other.clean({0: True, 1: True, 2: True, 3: False})
    other.add("liar", "certificate", "linf", None, {**OPEN, 1: ("certified", 9.0, INF)})
    assert found(tmp_path, honest(), other).findings == ()


def test_without_points_the_norm_inequalities_still_contradict(tmp_path):
    """Imported rows have no witnesses: l2 certified 0.5 in 4 dimensions means linf 0.25."""
    imported = {"fingerprint": "import:" + "0" * 64, "origin": "imported", "trust": "imported", "source": "a table"}
    run = fake_run(n=1, **imported, evaluators=(("a", "attack"), ("c", "certificate"))).clean({0: True})
    run.add("a", "attack", "linf", 0.25, {0: ("falsified", 0, 0.2)})
    run.add("c", "certificate", "l2", None, {0: ("certified", 0.5, INF)})
    (finding,) = found(tmp_path, run).findings
    assert (finding.code, finding.norm) == ("contradiction", "linf")


def statistical(contradictions, n=500, confidence=0.999):
    run = fake_run(
        n=n, norm="l2", eps=("0.5",), evaluators=(("pgd", "attack"), ("smoothing", "certificate")), shape=(2,)
    )
    run.clean(dict.fromkeys(range(n), True))
    rows = {i: ("falsified", 0, 0.5) if i < contradictions else ("open", 0, INF) for i in range(n)}
    run.add("pgd", "attack", "l2", 0.5, rows)
    for i in range(contradictions):
        run.witness("pgd", "l2", 0.5, i, [0.5, 0.0], l2=0.5)
    certified = dict.fromkeys(range(n), ("certified", 0.6, INF))
    return run.add("smoothing", "certificate", "l2", None, certified, confidence=confidence)


def test_statistical_contradictions_are_held_against_their_expected_number(tmp_path):
    few = found(tmp_path / "few", statistical(4))
    assert few.findings == ()
    assert "up to 4 of 500 are expected" in few.notes[0]
    (finding,) = found(tmp_path / "many", statistical(5)).findings
    assert finding.code == "chance"
    assert finding.values == {"observed": 5, "expected": 4, "alpha": pytest.approx(0.001)}
    assert "samples 0, 1, 2, 3, 4" in finding.text
    unknown = found(tmp_path / "unknown", statistical(5, confidence=None))
    assert unknown.findings == ()
    assert "not told" in unknown.notes[0]


def test_clean_rows_that_disagree(tmp_path):
    other = fake_run(1, n=4).clean({0: True, 1: False, 2: True, 3: False})
    (finding,) = [f for f in found(tmp_path, honest(), other).findings if f.code == "clean"]
    assert (finding.sample, len(finding.runs)) == (1, 2)
    assert "predictions 0, 1" in finding.text


def test_labels_that_disagree(tmp_path):
    other = fake_run(1, n=4)
    other.add("clean", "clean", None, None, dict.fromkeys(range(4), ("correct", 0, INF)), label=1, prediction=1)
    outcome = found(tmp_path, honest(), other)
    assert {f.sample for f in outcome.findings if "labels" in f.text} == {0, 1, 2, 3}


ROWS = {
    "certified below": ("ibp", "certificate", "linf", 0.1, ("certified", 0.09, INF)),
    "certified nothing": ("ibp", "certificate", "linf", None, ("certified", 0.0, INF)),
    "falsified beyond": ("pgd:steps=1", "attack", "linf", 0.1, ("falsified", 0.0, 0.2)),
    "falsified nowhere": ("mn", "attack", "linf", None, ("falsified", 0.0, INF)),
    "error that proves": ("ibp", "certificate", "linf", 0.1, ("error", 0.1, INF)),
    "no norm": ("ibp", "certificate", None, 0.1, ("open", 0.0, INF)),
    "clean status elsewhere": ("ibp", "certificate", "linf", 0.1, ("correct", 0.0, INF)),
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_that_cannot_be_right(tmp_path, case):
    evaluator, kind, norm, eps, row = ROWS[case]
    run = fake_run(n=1, origin="imported", trust="imported", fingerprint="import:" + "1" * 64).clean({0: True})
    run.add(evaluator, kind, norm, eps, {0: row})
    assert "row" in codes(found(tmp_path, run))


@pytest.mark.parametrize(
    ("status", "lower", "upper", "prediction"),
    [
        ("correct", 0, 0.5, 0),
        ("incorrect", 0, INF, 1),
        ("correct", 0, INF, 1),
        ("correct", 0.1, INF, 0),
        ("open", 0, INF, 0),
    ],
)
def test_clean_rows_that_cannot_be_right(tmp_path, status, lower, upper, prediction):
    run = fake_run(n=1)
    run.add("clean", "clean", None, None, {0: (status, lower, upper)}, prediction=prediction)
    assert "row" in codes(found(tmp_path, run))


def test_a_certificate_of_a_misclassified_sample(tmp_path):
    run = fake_run(n=1).clean({0: False})
    run.add("ibp", "certificate", "linf", 0.1, {0: ("certified", 0.1, INF)}, prediction=1)
    assert set(codes(found(tmp_path, run))) == {"row", "contradiction"}


WITNESSES = {
    "none": ({}, "witness", False),
    "other distance": ({"linf": 0.06}, "distance", True),
    "too short l2": ({"l2": 0.05}, "distance", True),
    "too long l1": ({"l1": 0.11}, "distance", True),
    "not misclassified": ({"margin": 0.01}, "verdict", True),
    "no margin": ({"margin": math.nan}, "verdict", True),
    "its own label": ({"prediction": 0}, "verdict", True),
}


@pytest.mark.parametrize("case", WITNESSES)
def test_witnesses_that_cannot_be_right(tmp_path, case):
    changes, code, kept = WITNESSES[case]
    run = fake_run(n=1).clean({0: True}).add("pgd", "attack", "linf", 0.1, {0: ("falsified", 0, F32)})
    if kept:
        run.witness("pgd", "linf", 0.1, 0, [0.05, 0.0, 0.05, 0.0], **changes)
    outcome = found(tmp_path, run)
    assert set(codes(outcome)) == {code}
    assert all(finding.sample == 0 and "pgd" in finding.text for finding in outcome.findings)


def test_a_witness_outside_its_budget_or_the_domain_or_without_a_row(tmp_path):
    run = fake_run(n=3, evaluators=(("pgd", "attack"),)).clean({0: True, 1: True, 2: True})
    run.add("pgd", "attack", "linf", 0.1, {0: ("falsified", 0, 0.25), 1: ("falsified", 0, 0.0625), 2: OPEN[2]})
    run.witness("pgd", "linf", 0.1, 0, [0.25, 0, 0, 0])
    run.witness("pgd", "linf", 0.1, 1, [0.0625, -0.0625, 0, 0])
    run.witness("pgd", "linf", 0.1, 2, [0.0625, 0, 0, 0])
    outcome = found(tmp_path, run)
    assert {(f.sample, f.code) for f in outcome.findings} == {(0, "row"), (0, "distance"), (1, "point"), (2, "witness")}


def test_a_tie_at_the_decision_boundary_is_misclassified(tmp_path):
    run = fake_run(n=1).clean({0: True}).add("pgd", "attack", "linf", 0.1, {0: ("falsified", 0, F32)})
    run.witness("pgd", "linf", 0.1, 0, [0.05, 0.0, 0.0, 0.0], margin=0.0, prediction=0)
    assert found(tmp_path, run).findings == ()


def test_a_witness_edited_on_disk(tmp_path):
    run = honest().save(tmp_path)
    part = next(tmp_path.glob("**/witnesses/*.parquet"))
    forged = honest()
    forged.points.table()
    forged.found = None
    forged.witness("pgd", "linf", 0.1, 1, [0.05, 0.0, 0.05, 0.0], margin=-7.0)
    part.write_bytes(to_parquet(forged.witnesses()))
    (finding,) = check(find_runs(tmp_path)).findings
    assert finding.code == "edited"
    assert run.manifest.run in finding.text and part.name in finding.text


def test_a_part_of_another_schema_is_a_finding_and_the_others_are_still_checked(tmp_path):
    broken, _ = honest(0).save(tmp_path), honest(1).save(tmp_path)
    part = next(tmp_path.glob(f"**/{broken.manifest.run}/evidence/*.parquet"))
    part.write_bytes(part.read_bytes()[:-7])
    outcome = check(find_runs(tmp_path))
    assert codes(outcome) == ["edited", "schema"]
    assert (outcome.counts["runs"], outcome.counts["rows"]) == (2, 9)


def test_rows_about_other_samples_than_promised(tmp_path):
    run = fake_run(n=1, evaluators=()).clean({7: True})
    (finding,) = found(tmp_path / "one", run).findings
    assert finding.code == "samples" and "other samples" in finding.text
    run.manifest = run.manifest.replace(dataset=run.manifest.dataset.model_copy(update={"samples_hash": "0" * 64}))
    (finding,) = found(tmp_path / "two", run).findings
    assert finding.code == "samples" and "name different samples" in finding.text


def rewritten(tmp_path, edit, complete):
    """What check finds in an honest run after someone with all the tools changed rows: hashes and all are in order."""
    run = fake_run(n=4)
    rows = {(row["sample"], row["evaluator"]): row for row in honest().evidence().to_pylist()}
    edit(rows)
    run.table = type(honest().evidence()).from_pylist(list(rows.values()), schema=honest().evidence().schema)
    run.found = honest().witnesses()
    run.save(tmp_path, complete=complete)
    return [(finding.code, finding.sample) for finding in check(find_runs(tmp_path)).findings]


def flip(rows):
    """The misclassified sample, said to be correct, by its label too."""
    rows[3, "clean"].update(status="correct", prediction=0, upper=INF)


EDITS = {
    "nothing": (lambda rows: None, []),
    "a misclassified sample becomes correct": (flip, [("missing", 3), ("missing", 3)]),
    "a correct one becomes misclassified": (
        lambda rows: rows[0, "clean"].update(status="incorrect", prediction=1, upper=0.0),
        [("clean", 0), ("contradiction", 0), ("row", 0)],
    ),
    "an attack's row is gone": (lambda rows: rows.pop((0, "pgd")), [("missing", 0)]),
    "a falsified row is gone": (
        lambda rows: rows.pop((1, "pgd")),
        [("missing", 1), ("missing", 1), ("witness", 1)],
    ),
    "a certificate's row is gone": (lambda rows: rows.pop((2, "ibp")), [("missing", 2)]),
    "a clean row is gone": (lambda rows: rows.pop((0, "clean")), [("missing", 0), ("row", 0)]),
    "the distance is halved": (lambda rows: rows[1, "pgd"].update(upper=F32 / 2), [("distance", 1)]),
    "another budget": (lambda rows: rows[2, "pgd"].update(eps=0.2), [("missing", 2), ("row", 2)]),
    "another certifier": (lambda rows: rows[2, "ibp"].update(evaluator="lip"), [("missing", 2), ("row", 2)]),
}


@pytest.mark.parametrize("case", EDITS)
@pytest.mark.parametrize("complete", [True, False])
def test_edits_that_the_hashes_do_not_show(tmp_path, case, complete):
    edit, expected = EDITS[case]
    assert rewritten(tmp_path, edit, complete) == expected


def test_a_radius_answers_every_budget_and_a_proof_spares_the_other_certifiers(tmp_path):
    run = fake_run(n=2, evaluators=(("cheap", "certificate"), ("dear", "certificate"), ("mn", "attack")))
    run.clean({0: True, 1: True})
    run.add("cheap", "certificate", "linf", 0.1, {0: ("certified", 0.1, INF), 1: ("open", 0, INF)})
    run.add("dear", "certificate", "linf", 0.1, {1: ("open", 0, INF)})
    run.add("mn", "attack", "linf", None, {0: ("open", 0, INF), 1: ("open", 0, INF)})
    assert found(tmp_path, run).findings == ()


def test_stages_that_an_older_manifest_does_not_tell_are_not_held_against_it(tmp_path):
    run = fake_run(n=2, evaluators=(("both", "attack"),)).clean({0: True, 1: True})
    run.add("first", "attack", "linf", 0.1, {0: ("open", 0, INF)})
    assert found(tmp_path, run).findings == ()


def staged(rows):
    """A run of a composite with the stages `first` and `second`, and of `pgd`; rows: evaluator -> samples left open."""
    both = composite("both", first="gradients", second="logits")
    run = fake_run(n=3, evaluators=(both, info("pgd", access="gradients"))).clean(dict.fromkeys(range(3), True))
    for name, samples in rows.items():
        run.add(name, "attack", "linf", 0.1, dict.fromkeys(samples, ("open", 0, INF)))
    return run


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({"first": [0, 1], "second": [2], "pgd": [0, 1, 2]}, []),
        ({"first": [0], "second": [0, 2], "pgd": [0, 1, 2]}, [("missing", 1, "both")]),
        ({"first": [0, 1, 2], "pgd": [0, 1]}, [("missing", 2, "pgd")]),
        ({"both": [0, 1, 2], "pgd": [0, 1, 2]}, []),  # its schedule failed: rows of its own
        ({"first": [0, 1, 2], "pgd": [0, 1, 2], "third": [1]}, [("row", 1, "")]),
    ],
)
def test_every_sample_has_a_row_of_each_attack_and_of_a_stage_of_each_composite(tmp_path, rows, expected):
    findings = found(tmp_path, staged(rows)).findings
    assert [(one.code, one.sample, "".join(one.evaluators)) for one in findings] == expected


def test_a_complete_run_disguised_as_an_incomplete_one(tmp_path):
    run = honest().save(tmp_path)
    path = next(tmp_path.glob("**/manifest.json"))
    path.write_bytes(run.manifest.replace(complete=False).to_json())
    (finding,) = check(find_runs(tmp_path)).findings
    assert finding.code == "edited" and "not complete" in finding.text


@pytest.mark.parametrize("linf", [0.04, 0.08])
def test_distances_that_no_point_has_need_no_clean_input(tmp_path, linf):
    """The point lies at 0.0707 in l2: no linf distance is larger; that 0.04 is not its own takes the clean input."""
    run = fake_run(n=1).clean({0: True}).add("pgd", "attack", "linf", 0.1, {0: ("falsified", 0, linf)})
    run.witness("pgd", "linf", 0.1, 0, [0.05, 0.0, 0.05, 0.0], clean=None, linf=linf)
    assert codes(found(tmp_path, run)) == (["distance"] if linf > 0.0708 else [])


def test_every_code_is_explained():
    assert all(text.endswith(".") for text in CODES.values())


def test_the_command_names_samples_and_exits_1(tmp_path):
    honest().save(tmp_path)
    good = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert (good.exit_code, good.stdout.splitlines()[-1].endswith("nothing wrong")) == (0, True)
    assert "checked 1 run, 1 classifier, 4 samples, " in good.stdout
    liar = fake_run(1, n=4, evaluators=(("liar", "certificate"),)).clean({0: True, 1: True, 2: True, 3: False})
    liar.add("liar", "certificate", "linf", None, {**OPEN, 1: ("certified", 1.0, INF)})
    liar.save(tmp_path)
    bad = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert bad.exit_code == 1
    assert "sample 1 of net" in bad.stdout
    document = json.loads(CliRunner().invoke(app, ["check", str(tmp_path), "--json"]).stdout)
    assert document["schema"] == 1
    assert [finding["sample"] for finding in document["findings"]] == [1]


def test_a_folder_without_runs_is_bad_input(tmp_path):
    outcome = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert outcome.exit_code == 2
