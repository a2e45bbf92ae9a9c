"""`robench demo`, reduced to a few samples and a quick attack; the bundled suite itself is read as it is."""

import dataclasses
import json
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from robench.cli import app
from robench.cli.demo import bundled_suite
from robench.registry import load_plugins
from robench.suite import Suite
from robench_plugins.datasets.digits import THRESHOLDS

FEW = "0:40"


def reduced() -> Suite:
    """The bundled suite on a few samples, with an attack that takes a moment."""
    whole = bundled_suite()
    return dataclasses.replace(
        whole,
        bounds=tuple(dataclasses.replace(cell, samples=FEW) for cell in whole.bounds),
        cells=tuple(
            dataclasses.replace(
                cell, settings=dataclasses.replace(cell.settings, samples=FEW, attacks=("pgd:steps=3,targets=1",))
            )
            for cell in whole.cells
        ),
    )


def demo(*arguments, code=0):
    result = CliRunner().invoke(app, ["demo", "--jobs", "1", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def test_the_bundled_suite_covers_the_zoo_and_the_thresholds():
    suite = bundled_suite()
    bundled = {entry.name for entry in load_plugins().entries("models") if entry.name.startswith("digits-")}
    assert len(bundled) >= 6
    assert {(cell.model, cell.settings.norm) for cell in suite.cells} == {
        (model, norm) for model in bundled for norm in ("linf", "l2", "l1")
    }
    for cell in suite.cells:
        budgets = {str(eps) for eps in cell.settings.eps}
        assert budgets > set(THRESHOLDS[cell.settings.norm])  # and one more, where the ceiling is below 1
        assert (cell.settings.attacks, cell.settings.certifiers, cell.settings.samples) == (None, None, None)
        assert cell.settings.split == "test"
    assert {cell.norm for cell in suite.bounds} == {"linf", "l2", "l1"}
    for bound in suite.bounds:
        for cell in suite.cells:
            if cell.settings.norm == bound.norm:
                assert {eps.value for eps in cell.settings.eps} < {eps.value for eps in bound.eps}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a reduced demo, and what it printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robench.cli.demo.bundled_suite", reduced)
        out = tmp_path_factory.mktemp("with space") / "demo"
        return out, demo("--out", out)


def test_it_ends_with_a_table_a_clean_check_and_the_sites_address(made):
    out, result = made
    lines = result.stdout.splitlines()
    assert lines[0] == "digits test, 40 samples: certified – empirical accuracy"
    table = lines[2 : lines.index("", 2)]
    assert len(table) == 1 + 6 + 2  # header, classifiers, ceilings there and elsewhere
    assert all(line.startswith("no classifier is above") for line in table[-2:])
    assert max(cell_len(line) for line in table) <= 100
    assert lines[-2].startswith("checked 18 runs, 6 classifiers") and lines[-2].endswith(", 3 bounds: nothing wrong")
    assert lines[-1].startswith("site: file:///") and " " not in lines[-1].removeprefix("site: ")
    page = Path(unquote(urlsplit(lines[-1].removeprefix("site: ")).path))
    assert page == (out / "site" / "index.html").resolve() and "digits" in page.read_text(encoding="utf-8")
    assert len([line for line in result.stderr.splitlines() if line.startswith("[")]) == 21


def test_again_it_measures_nothing_and_its_results_keep_the_chain(made, monkeypatch):
    out, first = made
    monkeypatch.setattr("robench.cli.demo.bundled_suite", reduced)
    monkeypatch.setattr("robench.suite._perform.execute", lambda *given: pytest.fail("measured again"))
    before = (out / "site" / "index.html").read_bytes()
    again = demo("--out", out, "--json")
    assert again.stderr == ""
    document = json.loads(again.stdout)
    assert (out / "site" / "index.html").read_bytes() == before
    assert {cell["state"] for cell in document["cells"]} == {"complete"}
    assert document["check"]["findings"] == []
    assert document["site"] == first.stdout.splitlines()[-1].removeprefix("site: ")
    assert len(document["results"]) == 6 * 10
    ceilings = set()
    for one in document["results"]:
        assert one["certified_accuracy"] <= min(one["empirical_accuracy"], one["ceiling"])
        assert one["contradictions"] == one["errors"] == 0
        ceilings.add((one["norm"], one["eps"], one["ceiling"]))
    assert len(ceilings) == 10  # one for all classifiers at each ε


def test_findings_are_exit_code_1(made, monkeypatch):
    from robench.check import Finding, check_folders

    found = Finding("ceiling", "something cannot be right")

    def finds(folders):
        checked = check_folders(folders)
        return dataclasses.replace(checked, findings=(found,))

    out, _ = made
    monkeypatch.setattr("robench.cli.demo.bundled_suite", reduced)
    monkeypatch.setattr("robench.check.check_folders", finds)
    monkeypatch.setattr("robench_leaderboard.build", lambda runs, site, bounds: site / "index.html")
    result = demo("--out", out, code=1)
    assert "something cannot be right" in result.stdout
    assert ": 1 finding\n" in result.stdout


def test_only_a_folder_of_its_own(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    result = demo("--out", tmp_path, code=2)
    assert result.stderr == f"robench: {tmp_path} is not empty and not a robench demo folder: choose another --out\n"
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
