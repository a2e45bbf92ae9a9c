"""`robench scale` on digits: trainings, evaluations, the record, and going on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from robench.cli import app
from robench.registry import load_plugins
from robench.scaling import find_scales, make_plan

SCALE = (
    *("scale", "aol:epochs=2,batch=100,width=16,depth=2", "-d", "digits", "--sizes", "50+100+200", "--seeds", "2"),
    *("--norm", "l2", "--eps", "36/255", "-a", "none", "-c", "lipschitz", "--samples", "0:80"),
)


def call(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(words))
    return done.exit_code, done.stdout, done.stderr


def test_a_curve_from_training_to_law_and_again_without_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, said = call(*SCALE, "--json", "--target", "0.99")
    assert code == 0, said
    document = json.loads(out)
    assert [member["epochs"] for member in document["members"]] == [4, 4, 4, 4, 2, 2]  # steps stay the same
    assert [curve["quantity"] for curve in document["curves"]] == ["clean", "certified"]
    certified = document["curves"][1]
    assert (certified["norm"], certified["eps"], certified["samples"]) == ("l2", "36/255", 80)
    assert [level["n"] for level in certified["levels"]] == [50, 100, 200]
    assert certified["targets"][0]["target"] == 0.99
    assert document["nearest"]["n"] == [50, 100, 200]
    assert document["nearest"]["median"] == sorted(document["nearest"]["median"], reverse=True)

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "models").rglob("*") if path.is_file()}
    code, out, said = call(*SCALE)
    assert code == 0, said
    assert said.count("is trained already") == 6
    assert said.count("is complete already") == 6
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "certified l2 36/255  on 80 samples, 2 seeds" in out
    assert len(find_scales(tmp_path / "results")) == 2

    code, out, _ = call(*SCALE, "--dry-run")
    assert code == 0
    assert out.count(": trained ") == 6

    other = [word if word != "digits" else "digits | noise-labels:0.5" for word in SCALE]
    code, out, _ = call(*other, "--dry-run")
    assert code == 0
    assert out.count(": to do ") == 6  # other data have folders of their own

    (one,), (two,) = ((tmp_path / "models").glob(f"*/n50-seed{seed}-*") for seed in (0, 1))
    shutil.rmtree(two)
    shutil.copytree(one, two)
    code, out, _ = call(*SCALE, "--dry-run")
    assert code == 0
    assert out.count(": trained ") == 5
    assert "50 samples, seed 1, 4 epochs: fails, " in out, out
    assert "seed (0, not 1)" in out, out
    code, _, said = call(*SCALE)
    assert code == 3
    assert "choose another --models" in said
    assert "--resume" not in said and "--out" not in said


def test_more_sizes_later_leave_what_is_there(tmp_path: Path) -> None:
    """At equal steps a larger largest size makes all trainings longer: other checkpoints, beside the first."""
    plans = [make_plan(SCALE[1], "digits", sizes, range(1), "steps", tmp_path) for sizes in ("50+100", "50+100+800")]
    folders = [{member.folder for member in plan.members} for plan in plans]
    assert not folders[0] & folders[1]
    again = make_plan(SCALE[1], "digits", "50+100", range(2), "steps", tmp_path)
    assert folders[0] < {member.folder for member in again.members}


def test_the_record_names_no_place_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    secret = tmp_path / "alice"
    secret.mkdir()
    rng = np.random.default_rng(0)
    x = rng.random((60, 6), np.float32)
    y = (x[:, 0] > 0.5).astype(np.int64)
    np.savez(secret / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    code, _, said = call(
        *("scale", "aol:epochs=1,batch=20,width=8,depth=2", "-d", f"npz:{secret}/data.npz"),
        *("--sizes", "20+40", "--seeds", "1", "--norm", "l2", "--eps", "0.1", "-a", "none", "-c", "lipschitz"),
    )
    assert code == 0, said
    for manifest in (tmp_path / "results").rglob("manifest.json"):
        assert "alice" not in manifest.read_text()
    (scale,) = find_scales(tmp_path / "results")
    assert scale.manifest.command.startswith("robench scale aol:batch=20,depth=2,epochs=1,width=8 -d ")
    assert scale.manifest.command.endswith("--sizes 20+40 --seeds 1 --norm l2 --eps 0.1 -a none -c lipschitz")
    assert scale.manifest.environment.versions["torch"]


def test_a_training_that_fails_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file stands where one checkpoint would go."""
    monkeypatch.chdir(tmp_path)
    plan = make_plan(SCALE[1], "digits", "50+100+200", range(2), "steps", Path("models"))
    plan.members[3].folder.parent.mkdir(parents=True)
    plan.members[3].folder.write_text("in the way")
    code, out, said = call(*SCALE)
    assert code == 3
    assert "100 samples, seed 1 failed: " in said
    assert "1 training without a figure" in out
    assert "on 80 samples, 1 seed" in out


def test_a_training_that_diverged_is_no_point_of_the_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its checkpoint holds the last good epoch, which is less compute than the others had; now and when asked again."""
    monkeypatch.chdir(tmp_path)
    said_once = iter(["the loss became nan in epoch 3"])
    monkeypatch.setattr("robench.training.stopped", lambda history: next(said_once, None))
    for _ in range(2):
        code, out, said = call(*SCALE)
        assert code == 3
        assert "50 samples, seed 0 failed: the loss became nan in epoch 3" in said
        assert "1 training without a figure" in out
        assert "on 80 samples, 1 seed" in out
    assert list((tmp_path / "models").glob("*/n50-seed0-*/checkpoint.json"))


def test_the_threat_is_what_the_recipe_proposes_unless_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ("scale", "aol", "-d", "digits", "--sizes", "50+100", "--seeds", "1", "--dry-run")
    for given, says in (((), "l2 at ε = 36/255"), (("--eps", "0.5"), "l2 at ε = 0.5"), (("--norm", "l2"), "36/255")):
        code, _, said = call(*asked, *given)
        assert code == 0
        assert f"evaluated in {says}" in said or says in said
    assert call(*asked, "--norm", "linf", "--eps", "0.1")[2] == ""
    code, _, said = call(*asked, "--norm", "linf")  # the recipe's ε is one of l2
    assert code == 2 and "no ε given" in said


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("--sizes", "50:2000:x2"), "there are 1347 to train on"),
        (("--sizes", "many"), "no list of sizes"),
        (("--target", "1.5"), "between 0 and 1"),
        (("--compute", "time"), "hold steps or epochs constant"),
        (("-c", "lipshitz"), "did you mean 'lipschitz'"),
        (("--eps", "8/0"), "8/0"),
        (("--norm", "l3"), "l3"),
        (("-d", "digits | subset:n=500"), "subset already"),
        (("--samples", "abc"), "abc"),
    ],
)
def test_bad_requests_are_one_line_before_any_training(
    change: tuple[str, str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = list(SCALE)
    if change[0] in words and change[0] not in ("-c", "--eps"):
        words[words.index(change[0]) + 1] = change[1]
    else:
        words += change
    code, out, said = call(*words)
    assert (code, out) == (2, "")
    assert says in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_compute_is_held_constant() -> None:
    """As in Prach & Lampert 2025: a k-th of the samples, k times the epochs, where batches are full."""
    plan = make_plan("aol:epochs=6,batch=100", "digits", "100+200+400+1200", range(1), "steps", Path("models"))
    assert [member.epochs for member in plan.members] == [72, 36, 18, 6]
    for member in plan.members:
        recipe = load_plugins().resolve("recipes", member.recipe).value
        assert recipe.epochs * -(-member.n // recipe.batch) == 72
    same = make_plan("aol:epochs=6", "digits", "100+200", range(1), "epochs", Path("models"))
    assert {member.epochs for member in same.members} == {6}
