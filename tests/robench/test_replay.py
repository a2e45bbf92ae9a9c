"""Replay reproduces every verdict, and finds what was edited on disk even where the hashes were edited along."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import robench
from oracles.forging import edit_manifest, rewrite
from oracles.nets import blobs, trained
from robench.api import evaluate, replay
from robench.cli import app
from robench.errors import InputError
from robench.graph import from_torch, save
from robench.runs import Run, find_runs

EPS = 0.05


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A run with clean errors, witnesses and certificates, on files that replay can find."""
    folder = tmp_path_factory.mktemp("replay")
    save(from_torch(trained((16,)), (6,)), folder / "net", {})
    y = blobs(40).y.copy()
    y[:3] = (y[:3] + 1) % 3  # some that the classifier gets wrong
    np.savez(folder / "data.npz", x=np.asarray(blobs(40).x), y=y)
    model, data = f"checkpoint:{folder / 'net'}", f"npz:{folder / 'data.npz'}"
    done = evaluate(model, data, eps=str(EPS), attacks=["pgd:steps=5,targets=0"], out=folder / "results")
    statuses = set(done.evidence["status"])
    assert {"correct", "incorrect", "falsified", "certified", "open"} <= statuses
    return folder


@pytest.fixture
def copy(original, tmp_path):
    """A copy of the run's folder to spoil."""
    (run,) = find_runs([original / "results"])
    return Path(shutil.copytree(run.location, tmp_path / "results" / "run"))


def problems(folder, original):
    return replay(Run.open(folder), search=[original]).problems


def test_an_honest_run_comes_out_as_recorded(original):
    (run,) = find_runs([original / "results"])
    result = replay(run, search=[original])
    assert result.problems == []
    frame = run.evidence().to_pandas()
    assert result.clean == 40
    assert result.witnesses == (frame["status"] == "falsified").sum() > 0
    assert result.certificates == (frame["status"] == "certified").sum() > 0
    assert result.not_replayed == {}


def first(frame, column, value):
    return frame.index[frame[column] == value][0]


def set_at(column, chosen, value):
    def change(frame):
        row = first(frame, *chosen)
        for name in ("status", "kind", "evaluator"):
            frame[name] = frame[name].astype(object)
        frame.loc[row, column] = value(frame.loc[row, column]) if callable(value) else value
        return frame

    return change


def as_certified(frame):
    """Claim a certificate where there is none."""
    row = frame.index[(frame["kind"] == "certificate") & (frame["status"] == "open")][0]
    frame["status"] = frame["status"].astype(object)
    frame.loc[row, ["lower", "status"]] = [EPS, "certified"]
    return frame


def as_open_with_a_bound(frame):
    row = frame.index[(frame["kind"] == "certificate") & (frame["status"] == "open")][0]
    frame.loc[row, "lower"] = EPS
    return frame


def moved(frame):
    """Move a witness back onto half the way, where the sample is still classified correctly."""
    point = np.frombuffer(frame.loc[0, "point"], "<f4").copy()
    clean = np.frombuffer(frame.loc[0, "clean"], "<f4") if frame.loc[0, "clean"] else point
    frame.at[0, "point"] = ((point + clean) / 2 if frame.loc[0, "clean"] else point * 0 + 0.5).astype("<f4").tobytes()
    return frame


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("witnesses", moved, "classified correctly|away"),
        ("witnesses", lambda frame: frame.iloc[1:], "no witness is kept"),
        ("evidence", set_at("upper", ("status", "falsified"), lambda upper: upper / 2), "away"),
        ("evidence", set_at("upper", ("status", "falsified"), lambda upper: upper * 1.01), "away"),
        ("evidence", as_certified, "recorded lower"),
        ("evidence", as_open_with_a_bound, "recorded lower"),
        ("evidence", set_at("status", ("status", "incorrect"), "correct"), "now incorrect"),
        ("evidence", lambda f: f.assign(label=(f["label"] + 1) % 3, prediction=(f["prediction"] + 1) % 3), "label"),
    ],
)
def test_edits_are_found(kind, change, said, copy, original):
    import re

    rewrite(copy, kind, change)
    found = problems(copy, original)
    assert found
    assert any(re.search(said, problem.text) for problem in found), found


def test_an_edit_that_forgets_the_hash_is_found_too(copy, original):
    rewrite(copy, "evidence", lambda frame: frame.assign(seconds=0.0), hashes=False)
    assert [problem.kind for problem in problems(copy, original)] == ["part"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m["dataset"].update(domain=[0.5, 0.50001]), "the domain"),
        (lambda m: m["classifier"].update(input_shape=[3, 2]), "the input shape"),
        (lambda m: m["classifier"].update(classes=4), "classes"),
        (lambda m: m["dataset"].update(n=39), "number of samples"),
        (lambda m: m["dataset"].update(samples_hash="0" * 64), "samples' hash"),
    ],
)
def test_a_manifest_that_misdescribes_is_found(change, said, copy, original):
    edit_manifest(copy, change)
    assert any(said in problem.text for problem in problems(copy, original))


def test_a_hidden_sample_is_found(copy, original):
    rewrite(copy, "evidence", lambda frame: frame[frame["sample"] != frame["sample"].iloc[0]])
    assert any("samples" in problem.text for problem in problems(copy, original))


def test_other_models_data_and_imports_are_refused(original, copy, tmp_path):
    save(from_torch(trained((16,), seed=1), (6,)), tmp_path / "other", {})
    np.savez(tmp_path / "other.npz", x=np.asarray(blobs(40, seed=3).x), y=blobs(40, seed=3).y)
    run = Run.open(copy)
    with pytest.raises(InputError, match="not the function evaluated"):
        replay(run, model=f"checkpoint:{tmp_path / 'other'}", search=[original])
    with pytest.raises(InputError, match="not the data evaluated"):
        replay(run, dataset=f"npz:{tmp_path / 'other.npz'}", search=[original])
    with pytest.raises(InputError, match=r"data\.npz@sha256"):
        replay(run, search=[tmp_path])
    edit_manifest(copy, lambda m: m.update(origin="imported", trust="imported", source="a paper"))
    with pytest.raises(InputError, match="imported"):
        replay(Run.open(copy), search=[original])


def test_python_objects_need_a_name(tmp_path):
    done = evaluate(trained(), blobs(), eps="0.05", attacks=(), out=tmp_path)
    with pytest.raises(InputError, match="-d DATASET"):
        replay(done.run)
    assert replay(done.run, model=trained(), dataset=blobs()).problems == []
    with pytest.raises(InputError, match="not the function evaluated"):
        replay(done.run, model=trained(seed=1), dataset=blobs())


def test_one_run_that_cannot_be_asked_does_not_hide_the_others(copy, original, tmp_path):
    evaluate(trained(), blobs(), eps="0.05", attacks=(), out=tmp_path / "more")
    both = CliRunner().invoke(app, ["replay", str(copy), str(tmp_path / "more"), "--files", str(original)])
    assert both.exit_code == 0
    assert "no differences" in both.stdout
    (line,) = both.stderr.splitlines()[-1:]
    assert line.startswith("robench: not replayed: run ") and "robench.replay(run, model=…, dataset=…)" in line
    alone = CliRunner().invoke(app, ["replay", str(tmp_path / "more")])
    assert alone.exit_code == 2
    assert "name its file with -d DATASET, or from Python robench.replay(run, " in alone.stderr
    assert "not replayed" not in alone.stderr


def test_data_that_is_another_run_s_is_not_held_against_the_others(copy, original, tmp_path):
    """-d and -m count for the runs that they fit; others have their own, or are left out with a word."""
    evaluate(trained(), blobs(), eps="0.05", attacks=(), out=tmp_path / "more")
    x, y = np.asarray(blobs(30, seed=3).x), blobs(30, seed=3).y
    np.savez(tmp_path / "third.npz", x=x, y=y)
    evaluate(f"checkpoint:{original / 'net'}", (x, y), eps="0.05", attacks=(), out=tmp_path / "third")
    given = ["-d", f"npz:{tmp_path / 'third.npz'}", "--files", str(original)]
    outcome = CliRunner().invoke(app, ["replay", str(copy), str(tmp_path / "more"), str(tmp_path / "third"), *given])
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout.count("no differences") == 2
    assert "is not the data evaluated" in outcome.stderr and outcome.stderr.count("not replayed") == 1
    assert "it used a Python object (python:InMemory): robench.replay(run, " in outcome.stderr
    single = CliRunner().invoke(app, ["replay", str(copy), *given])
    assert single.exit_code == 2 and "is not the data evaluated" in single.stderr


def test_the_command_says_what_it_found(copy, original):
    good = CliRunner().invoke(app, ["replay", str(original / "results"), "--files", str(original), "--json"])
    assert good.exit_code == 0
    assert json.loads(good.stdout)["runs"][0]["problems"] == []
    rewrite(copy, "evidence", as_certified)
    bad = CliRunner().invoke(app, ["replay", str(copy), "--files", str(original)])
    assert bad.exit_code == 1
    assert "recorded lower 0.05, now open" in bad.stdout


def test_imported_runs_are_left_out_beside_others(copy, original, tmp_path):
    other = Path(shutil.copytree(copy, tmp_path / "results" / "published"))
    published = {"origin": "imported", "trust": "imported", "source": "a paper"}
    edit_manifest(other, lambda m: m.update(run=f"{m['run'][:-6]}abcdef", **published))
    beside = CliRunner().invoke(app, ["replay", str(tmp_path / "results"), "--files", str(original)])
    assert beside.exit_code == 0, beside.output
    assert "no differences" in beside.stdout
    (line,) = beside.stderr.splitlines()[-1:]
    assert line.startswith("robench: not replayed: run ") and "was imported from a paper" in line
    alone = CliRunner().invoke(app, ["replay", str(other), "--files", str(original)])
    assert alone.exit_code == 2
    assert "not replayed" not in alone.stderr


def test_it_is_public():
    assert robench.replay is replay
