"""Third-party plugins in whole evaluations: a good one is seen everywhere, and no liar is believed."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import robench
from robench.registry import KINDS
from robench.scaffold import render
from sites import THIRD_PARTY

EXAMPLE = THIRD_PARTY / "robench-example" / "src" / "robench_example"
CLASSES = {
    "datasets": ("halves", "Halves"),
    "transforms": ("every", "Every"),
    "models": ("halves", "HalvesModel"),
    "wrappers": ("scaled", "Scaled"),
    "noises": ("laplace", "Laplace"),
    "attacks": ("descent", "Descent"),
    "attack_modifiers": ("again", "Again"),
    "certifiers": ("hyperplane", "Hyperplane"),
    "bounds": ("twins", "Twins"),
    "recipes": ("logistic", "Logistic"),
    "importers": ("csv-radii", "CsvRadii"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_is_what_plugins_new_writes(kind):
    name, class_name = CLASSES[kind]
    module = EXAMPLE / f"{KINDS[kind].noun.replace(' ', '_')}.py"
    assert module.read_text(encoding="utf-8") == render(kind, name, class_name)


@pytest.fixture
def installed(site):
    site.add("robench-example")
    site.add("robench-liars")
    site.load()


def evaluate(out: Path, attacks=(), certifiers=(), model="halves", eps=("0.05", "0.1")):
    lines: list[str] = []
    made = robench.evaluate(
        model, "halves:n=40", eps=list(eps), attacks=attacks, certifiers=certifiers, out=out, warn=lines.append
    )
    return made, made.evidence, lines


def radii() -> np.ndarray:
    """The distance in linf from each sample to Σ x_i = d / 2: |Σ x_i − d / 2| / d, the box aside."""
    from robench.registry import load_plugins

    x = load_plugins().resolve("datasets", "halves:n=40").value.load("test").x
    return np.abs(x.astype(np.float64).sum(1) - 2) / 4


def test_the_example_is_seen_in_evidence_and_agrees_with_the_closed_form(installed, tmp_path):
    _, rows, _ = evaluate(tmp_path, ["descent | again:times=3"], ["hyperplane"])
    assert set(rows.evaluator) == {"clean", "descent | again:times=3", "hyperplane"}
    assert set(rows.classifier) == {"halves"}
    exact = radii()
    proven = rows[rows.evaluator == "hyperplane"].set_index("sample").lower
    assert (proven < exact[proven.index]).all()
    np.testing.assert_allclose(proven, exact[proven.index], rtol=1e-6)
    found = rows[(rows.evaluator == "descent | again:times=3") & np.isfinite(rows.upper)]
    assert len(found) > 5
    assert (found.upper >= exact[found["sample"]]).all()
    # Without a corner of the box in the way, whatever can be broken at ε is.
    for eps in (0.05, 0.1):
        broken = set(found[found.upper <= eps]["sample"])
        assert broken <= set(np.flatnonzero(exact <= eps))
        assert len(broken) >= 0.7 * (exact <= eps).sum()


def test_a_wrapper_and_a_transform_of_a_third_party_name_the_function_and_the_selection(installed, tmp_path):
    wrapped = robench.evaluate(
        "halves | scaled:factor=3", "halves:n=40 | every:k=4", eps=0.1, attacks=["descent"], certifiers=(), out=tmp_path
    )
    plain, _, _ = evaluate(tmp_path, ["descent"])
    first, second = wrapped.run.manifest, plain.run.manifest
    assert first.classifier.canonical == "halves | scaled:factor=3"
    assert first.classifier.fingerprint != second.classifier.fingerprint
    assert (first.dataset.canonical, first.dataset.hash) == ("halves:n=40", second.dataset.hash)
    assert set(wrapped.evidence["sample"]) == set(range(0, 40, 4))


def test_run_hooks_of_a_third_party_are_called(installed, tmp_path, monkeypatch):
    monkeypatch.setenv("ROBENCH_EXAMPLE_LOG", str(tmp_path / "log"))
    made, rows, _ = evaluate(tmp_path / "results", ["descent"])
    log = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {one["run"] for one in log} == {made.run.manifest.run}
    assert log[0] == {"event": "started", "run": made.run.manifest.run, "evaluators": ["descent"]}
    assert log[-1]["event"] == "finished"
    assert sum(one["rows"] for one in log[1:-1]) == len(rows)


@pytest.mark.parametrize(
    ("attack", "status", "warning"),
    [
        ("liar-nan", {"error", "open"}, None),
        ("liar-shape", {"error"}, "points are torch.float32 [41, 4], expected floats [40, 4]"),
        ("liar-success", {"open"}, None),
        ("liar-raises", {"error"}, "RuntimeError: the second step went wrong"),
    ],
)
def test_the_runner_believes_no_attack(installed, tmp_path, attack, status, warning):
    made, rows, lines = evaluate(tmp_path, [attack])
    judged = rows[rows.evaluator == attack]
    assert set(judged.status) == status
    assert np.isinf(judged.upper).all()
    for result in made.summary["results"]:
        assert result["empirical_accuracy"] == result["clean_accuracy"] == 1.0
        assert (result["errors"] > 0) == ("error" in status)
    assert warning is None or any(warning in line for line in lines)


@pytest.mark.parametrize("attack", ["liar-box", "liar-budget"])
def test_points_outside_the_threat_count_only_for_what_is_left_of_them_inside(installed, tmp_path, attack):
    _, rows, _ = evaluate(tmp_path, [attack])
    found = rows[(rows.evaluator == attack) & (rows.status == "falsified")]
    assert len(found) > 0
    assert (found.upper <= found.eps).all()
    assert (found.upper >= radii()[found["sample"]]).all()


def test_check_finds_the_unsound_certifier_although_its_samples_count_as_certified(installed, tmp_path):
    made, rows, _ = evaluate(tmp_path, ["descent"], ["liar-radius"])
    exact = radii()
    false = rows[(rows.evaluator == "liar-radius") & (rows.lower > exact[rows["sample"]])]
    assert len(false) == 40
    for result in made.summary["results"]:
        assert result["certified_accuracy"] > (exact > result["eps_value"]).mean()
        assert result["contradictions"] > 0
    result = CliRunner().invoke(_app(), ["check", str(tmp_path), "--json"])
    assert result.exit_code == 1
    broken = rows[(rows.evaluator == "descent") & np.isfinite(rows.upper)]
    provable = {
        int(i) for i in broken["sample"] if broken[broken["sample"] == i].upper.min() < 1.5 * exact[i] * (1 - 1e-6)
    }
    assert provable
    for sample in provable:
        assert f"sample {sample} " in result.stdout or f'"sample": {sample}' in result.stdout
    assert "liar-radius" in result.stdout


def test_check_finds_nothing_about_the_honest_example(installed, tmp_path):
    evaluate(tmp_path, ["descent"], ["hyperplane"])
    assert CliRunner().invoke(_app(), ["check", str(tmp_path)]).exit_code == 0


def test_a_certifier_that_raises_costs_its_own_rows_only(installed, tmp_path):
    _, rows, lines = evaluate(tmp_path, ["descent"], ["liar-open-mouth"], eps=["0.1"])
    falsified = set(rows[(rows.evaluator == "descent") & (rows.status == "falsified")]["sample"])
    died = rows[rows.evaluator == "liar-open-mouth"]
    assert set(died.status) == {"error"}
    assert set(died["sample"]) == set(range(40)) - falsified  # what is settled is not asked about
    assert falsified
    assert any("liar-open-mouth: RuntimeError: the solver died" in line for line in lines)


def test_the_importer_of_a_third_party_writes_evidence(installed, tmp_path):
    file = tmp_path / "their-net.csv"
    file.write_text("index,label,prediction,radius\n0,3,3,0.25\n1,1,2,0\n5,7,7,0\n", encoding="utf-8")
    command = ["import", "csv-radii:source=https://example.org/x", str(file), "--out", str(tmp_path / "results")]
    result = CliRunner().invoke(_app(), command)
    assert result.exit_code == 0, result.output
    rows = robench.load(tmp_path / "results")
    assert set(rows.classifier) == {"their-net"}
    proven = rows[rows.evaluator == "csv-radii"].set_index("sample")
    assert proven.lower.to_dict() == {0: np.nextafter(0.25, 0), 5: 0.0}
    assert proven.status.to_dict() == {0: "certified", 5: "open"}


def test_a_recipe_of_a_third_party_trains_a_checkpoint_that_evaluates(installed, tmp_path):
    command = ["train", "logistic:epochs=400", "-d", "halves:n=40", "--out", str(tmp_path / "net")]
    result = CliRunner().invoke(_app(), command)
    assert result.exit_code == 0, result.output
    made, _, _ = evaluate(tmp_path / "results", ["descent"], ["hyperplane"], model=f"checkpoint:{tmp_path / 'net'}")
    (first, _) = made.summary["results"]
    assert first["certified_accuracy"] <= first["empirical_accuracy"] <= first["clean_accuracy"]
    assert first["clean_accuracy"] > 0.9


def _app():
    from robench.cli import app

    return app


@pytest.mark.parametrize(
    ("bound", "complaint"),
    [
        ("liar-rising", "the ceiling rises with ε: 0.75 after 0.5"),
        ("liar-nan", "value nan is no accuracy in 0 … 1"),
        ("liar-short", "1 values for 2 ε"),
        ("liar-words", "direction 'sideways' is not ceiling or floor"),
        ("liar-raises", "failed on halves:n=40 in linf: RuntimeError: the matching went wrong"),
    ],
)
def test_no_answer_that_cannot_be_one_is_stored(installed, tmp_path, bound, complaint):
    with pytest.raises(robench.PluginError, match=bound) as caught:
        robench.bound(bound, "halves:n=40", norm="linf", eps=["0.05", "0.1"], out=tmp_path)
    assert complaint in str(caught.value) and "robench-liars 1.0" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_check_finds_the_ceiling_that_is_too_low(installed, tmp_path):
    evaluate(tmp_path, ["descent"], ["hyperplane"], eps=("0.02",))
    robench.bound("twins", "halves:n=40", norm="linf", eps="0.01", out=tmp_path)
    assert CliRunner().invoke(_app(), ["check", str(tmp_path)]).exit_code == 0
    run = robench.bound("liar-low:value=0.25", "halves:n=40", norm="linf", eps="0.01", out=tmp_path)
    result = CliRunner().invoke(_app(), ["check", str(tmp_path), "--json"])
    assert result.exit_code == 1
    (finding,) = json.loads(result.stdout)["findings"]
    certified = (radii() > 0.01).mean()
    assert (finding["code"], finding["norm"], finding["evaluators"]) == ("ceiling", "linf", ["hyperplane"])
    assert finding["values"]["ceiling"] == 0.25 and 0.25 < finding["values"]["certified"] <= certified
    assert run.manifest.run in finding["text"] and "halves" in finding["text"] and "liar-low" in finding["text"]
