"""`robench run`: what it prints, its exit codes, and what it does with files that are no suites."""

import json

import pytest
from typer.testing import CliRunner

from robench.cli import app

SUITE = """
samples = "0:12"
[[evaluations]]
models = ["digits-standard", { spec = "digits-ibp", name = "[red]Mine" }]
datasets = "digits"
threats = [{ norm = "linf", eps = ["0.05", "0.1"] }, { norm = "l2", eps = 0.25 }]
attacks = "fgsm"
"""
BROKEN = """
robench_api = 1
from dataclasses import dataclass
from robench import hookimpl

@dataclass(frozen=True)
class Broken:
    def load(self, device, dtype):
        raise ValueError("no weights\\n\\x1b[2J")

@hookimpl
def robench_register_models(register):
    register("broken", f"{__name__}:Broken", summary="a test's")
"""


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["run", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def suite(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text(SUITE)
    return file


def test_a_table_a_line_per_cell_and_what_comes_next(tmp_path, suite):
    result = run(suite, "--out", tmp_path / "out")
    lines = result.stdout.splitlines()
    assert lines[0] == "digits test, 12 samples: certified – empirical accuracy"
    assert lines[2].split() == ["clean", "linf", "0.05", "l2", "0.25"]
    assert lines[3].startswith("Standard CNN ") and lines[4].startswith("[red]Mine ")
    assert (
        lines[-1]
        == f"next: robench check {tmp_path / 'out'}  |  robench leaderboard build {tmp_path / 'out'} --out site"
    )
    assert [line[:6] for line in result.stderr.splitlines()] == ["[1/4] ", "[2/4] ", "[3/4] ", "[4/4] "]
    again = run(suite, "--out", tmp_path / "out")
    assert again.stdout == result.stdout
    assert all(line.endswith("is complete already") for line in again.stderr.splitlines())
    assert run(suite, "--out", tmp_path / "out", "--quiet").stderr == ""


def test_a_dry_run_lists_the_cells_and_writes_nothing(tmp_path, suite):
    result = run(suite, "--out", tmp_path / "out", "--dry-run")
    assert result.stdout.splitlines()[0] == "evaluations[0]  digits-standard on digits, linf 0.05 0.1: to do"
    assert result.stdout.splitlines()[-1] == "4 of 4 cells to do"
    assert not (tmp_path / "out").exists()
    run(suite, "--out", tmp_path / "out", "-q")
    document = json.loads(run(suite, "--out", tmp_path / "out", "--dry-run", "--json").stdout)
    assert [(cell["state"], cell["done"], cell["n"]) for cell in document["cells"]] == [("complete", 12, 12)] * 4


def test_json_is_one_document_of_cells_and_results(tmp_path, suite):
    result = run(suite, "--out", tmp_path / "out", "--json")
    assert result.stderr == ""
    document = json.loads(result.stdout)
    assert document["schema"] == 1
    assert [(cell["model"], cell["norm"], cell["eps"], cell["state"]) for cell in document["cells"]] == [
        ("digits-standard", "linf", ["0.05", "0.1"], "done"),
        ("digits-standard", "l2", ["0.25"], "done"),
        ("digits-ibp", "linf", ["0.05", "0.1"], "done"),
        ("digits-ibp", "l2", ["0.25"], "done"),
    ]
    reported = CliRunner().invoke(app, ["report", str(tmp_path / "out"), "--json"])
    key = ("classifier", "norm", "eps_value")
    expected = sorted(json.loads(reported.stdout)["results"], key=lambda one: [one[name] for name in key])
    assert sorted(document["results"], key=lambda one: [one[name] for name in key]) == expected


def test_failures_are_listed_and_the_exit_code_is_3(tmp_path, suite, site):
    site.write("robench-t-broken", BROKEN)
    site.load()
    suite.write_text(SUITE.replace('"digits-standard", ', '"broken", '))
    result = run(suite, "--out", tmp_path / "out", code=3)
    assert "\x1b" not in result.output
    assert "robench: 2 of 4 cells failed; the others are kept" in result.stderr
    assert (
        "  evaluations[0]: broken on digits, linf 0.05 0.1: ValueError: no weights �[2J" in result.stderr.splitlines()
    )
    assert "[red]Mine" in result.stdout
    assert "Traceback" not in result.stderr
    shown = CliRunner().invoke(app, ["run", str(suite), "--out", str(tmp_path / "out")], obj={"debug": True})
    assert "| Traceback (most recent call last):" in shown.stderr.splitlines()
    plan = run(suite, "--out", tmp_path / "out", "--dry-run", code=3)
    assert "broken on digits, l2 0.25: fails: " in plan.stdout
    suite.write_text(SUITE.replace('["digits-standard", { spec = "digits-ibp", name = "[red]Mine" }]', '"broken"'))
    nothing = run(suite, "--out", tmp_path / "out", code=3)
    assert nothing.stdout.startswith("next: ")


def test_an_interrupt_is_130_and_says_how_to_go_on(tmp_path, suite, monkeypatch):
    def stop(self, number, done, total, figures):
        if number == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("robench.cli._bars.Bars.update", stop)
    result = run(suite, "--out", tmp_path / "out", code=130)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("robench: interrupted; 1 of 4 cells are complete") and last.endswith(
        "the same command goes on"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[evaluations]]\nmodels = 3", "evaluations[0].models[0]: must be a table"),
        (SUITE.replace("digits-standard", "a\\u001b[31m"), "evaluations[0].models[0].spec: holds control"),
        (SUITE.replace("digits-standard", "checkpoint:../../../../etc"), "evaluations[0].models[0]: "),
        ("\x00", "not TOML"),
    ],
)
def test_bad_files_are_one_line_before_anything_runs(tmp_path, suite, text, said):
    suite.write_text(text)
    result = run(suite, "--out", tmp_path / "out", code=2)
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"robench: {suite}: {said}") and line.isprintable()
    assert not (tmp_path / "out").exists()
