"""Third-party distributions as pip installs them: `tox -e downstream` puts those next to this file on the path."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.downstream

HERE = Path(__file__).parent
BROKEN = {
    "robench-bad-import": "broken",
    "robench-bad-exit": "broken",
    "robench-bad-hook": "broken",
    "robench-bad-arguments": "broken",
    "robench-bad-api": "incompatible",
    "robench-bad-no-api": "incompatible",
}
EXAMPLE = {
    ("datasets", "halves"),
    ("transforms", "every"),
    ("models", "halves"),
    ("wrappers", "scaled"),
    ("noises", "laplace"),
    ("attacks", "descent"),
    ("attack_modifiers", "again"),
    ("certifiers", "hyperplane"),
    ("bounds", "twins"),
    ("recipes", "logistic"),
    ("importers", "csv-radii"),
}


def run(*command: str, exit_code: int = 0, path: Path | None = None) -> str:
    """Run `python -m …` in a fresh process; returns stdout. `path` is put before what is importable."""
    environment = dict(os.environ)
    if path is not None:
        environment["PYTHONPATH"] = os.pathsep.join([str(path), environment.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert done.returncode == exit_code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def robench(*command: str, exit_code: int = 0, path: Path | None = None) -> str:
    return run("robench", *command, exit_code=exit_code, path=path)


def test_every_distribution_next_to_this_file_is_installed():
    folders = {folder.parent.name for folder in HERE.glob("robench-*/pyproject.toml")}
    assert folders == {
        *BROKEN,
        "robench-example",
        "robench-liars",
        "robench-bad-factory",
        "robench-twin-one",
        "robench-twin-two",
    }
    for name in folders:
        assert metadata.version(name) == "1.0"


def test_good_plugins_are_listed_and_every_bad_one_is_left_out_with_its_reason():
    document = json.loads(robench("plugins", "--json"))
    modules = {one["distribution"]: one for one in document["modules"] if one["distribution"] != "robench"}
    for name, state in BROKEN.items():
        assert modules[name]["state"] == state
        assert modules[name]["why"]
    assert modules["robench-example"]["state"] == "ok"
    listed = {(one["kind"], one["name"]) for one in document["plugins"] if one["distribution"] == "robench-example"}
    assert listed == EXAMPLE
    built_in = [one for one in document["modules"] if one["distribution"] == "robench"]
    assert built_in and all(one["state"] == "ok" for one in built_in)


def test_duplicate_names_disable_each_other_and_leave_the_built_in_alone():
    attacks = {
        one["name"]: one for one in json.loads(robench("plugins", "--json"))["plugins"] if one["kind"] == "attacks"
    }
    assert attacks["pgd"]["distribution"] == "robench"
    assert "twin" not in attacks
    for one, other in (("one", "two"), ("two", "one")):
        assert f"robench-twin-{other}" in attacks[f"robench-twin-{one}/twin"]["hidden_by"]
    assert "what two makes of it" in robench("plugins", "show", "robench-twin-two/twin", "--json")


def test_the_example_passes_its_own_tests():
    folder = HERE / "robench-example"
    out = run(
        "pytest",
        "-q",
        "--noconftest",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
        "-c",
        os.devnull,
        str(folder / "tests"),
    )
    assert " passed" in out
    assert "skipped" not in out


def test_the_example_is_seen_in_evidence_in_checks_and_on_the_page(tmp_path):
    results = str(tmp_path / "results")
    command = ["-m", "halves | scaled", "-d", "halves:n=30 | every:k=2", "-a", "descent | again", "-c", "none"]
    robench("eval", *command, "--norm", "linf", "--eps", "0.1", "--out", results)
    command = ["-m", "halves", "-d", "halves:n=30", "-a", "descent", "-c", "hyperplane"]
    document = json.loads(robench("eval", *command, "--norm", "linf", "--eps", "0.1", "--out", results, "--json"))
    (result,) = document["results"]
    assert {one["evaluator"] for one in result["evaluators"]} >= {"descent", "hyperplane"}
    assert 0 < result["certified_accuracy"] <= result["empirical_accuracy"] < 1
    robench("check", results)
    robench("leaderboard", "build", results, "--out", str(tmp_path / "site"))
    pages = "".join(file.read_text(encoding="utf-8") for file in (tmp_path / "site").rglob("*.html"))
    assert "halves | scaled" in pages
    assert "halves:n=30" in pages


@pytest.mark.parametrize(
    ("attack", "exit_code"),
    [("nan", 3), ("shape", 3), ("raises", 3), ("success", 0), ("box", 0), ("budget", 0)],
)
def test_no_lying_attack_is_believed(tmp_path, attack, exit_code):
    command = [
        "-m",
        "halves",
        "-d",
        "halves:n=30",
        "-a",
        f"liar-{attack}",
        "-c",
        "none",
        "--norm",
        "linf",
        "--eps",
        "0.01",
    ]
    out = robench("eval", *command, "--out", str(tmp_path), "--json", exit_code=exit_code)
    # No sample lies within 0.025 of the boundary (gap 0.05 in l2, four numbers): nothing can be broken at 0.01.
    (result,) = json.loads(out)["results"]
    assert result["empirical_accuracy"] == 1.0


def test_check_finds_the_unsound_certifier(tmp_path):
    command = [
        "-m",
        "halves",
        "-d",
        "halves:n=30",
        "-a",
        "descent",
        "-c",
        "liar-radius",
        "--norm",
        "linf",
        "--eps",
        "0.1",
    ]
    (result,) = json.loads(robench("eval", *command, "--out", str(tmp_path), "--json"))["results"]
    assert result["certified_accuracy"] > result["empirical_accuracy"]
    assert "liar-radius" in robench("check", str(tmp_path), exit_code=1)


def test_the_bound_is_stored_and_a_lying_one_is_not(tmp_path):
    command = ["-d", "halves:n=30", "--norm", "l2", "--eps", "0.1", "--eps", "0.2", "--out", str(tmp_path)]
    (bound,) = json.loads(robench("bound", "twins", *command, "--json"))["bounds"]
    assert [row["value"] for row in bound["rows"]] == [1.0, 1.0]
    for name in ("rising", "nan", "short", "words", "raises"):
        robench("bound", f"liar-{name}", *command, exit_code=2)
    assert [folder.name for folder in tmp_path.glob("*/_bounds/*")] == ["twins"]


@pytest.mark.parametrize("kind", ["attack", "bound", "certifier", "noise"])
def test_a_new_plugin_installs_and_passes_its_own_test(tmp_path, kind):
    folder, site = tmp_path / "fresh", tmp_path / "site"
    robench("plugins", "new", f"fresh-{kind}", "--kind", kind, "--out", str(folder))
    run("pip", "install", "--quiet", "--no-deps", "--target", str(site), str(folder))
    assert f"fresh-{kind}" in robench("plugins", path=site)
    out = run(
        "pytest",
        "-q",
        "--noconftest",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
        "-c",
        os.devnull,
        str(folder),
        path=site,
    )
    assert "2 passed" in out
