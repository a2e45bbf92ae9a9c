"""`robench report --per-class`: a line per class, the worst, and the gap of a minority over trainings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from oracles.evidence import FakeRun, fake_run
from robench.cli import app

INF = float("inf")


def call(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["report", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def made(number: int, title: str, weak: int, classes: int = 3, each: int = 4) -> FakeRun:
    """`each` samples of every class: all correct and unbroken, but `weak` of the last class."""
    run = fake_run(number, net=f"net{number}", n=classes * each, evaluators=(("pgd", "attack"),),
                   display={"name": title})  # fmt: skip
    about = run.manifest.classifier.model_copy(update={"classes": classes})
    run.manifest = run.manifest.replace(classifier=about)
    for i in range(classes * each):
        label = i % classes
        shown = {"label": label, "prediction": label}
        broken = label == classes - 1 and i // classes < weak
        run.add("clean", "clean", None, None, {i: ("correct", 0.0, INF)}, **shown)
        run.add("pgd", "attack", "linf", 0.1,
                {i: ("falsified", 0.0, 0.1) if broken else ("open", 0.0, INF)}, **shown)  # fmt: skip
        if broken:
            run.witness("pgd", "linf", 0.1, i, [0.0625, 0, 0, 0])
    return run


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for number, (title, weak) in enumerate([("few", 3), ("few", 4), ("many", 0), ("many", 1)]):
        made(number, title, weak).save(tmp_path)
    return tmp_path


def test_a_line_per_class_and_the_worst(results: Path) -> None:
    code, out, said = call(results, "--per-class")
    assert code == 0, said
    first = out.split("\n\n")[0].splitlines()
    assert first[0] == "few  on toy test, 12 samples, linf 0.1"
    assert [line.split()[:2] for line in first[2:5]] == [["0", "4"], ["1", "4"], ["2", "4"]]
    assert "≤ 25.0 %" in first[4]
    assert first[-1].split("]")[1].strip() == "class 2, 75.0 below the best, 50.0 below the mean"
    assert "gap" not in out


def test_the_gap_of_a_minority_over_trainings(results: Path) -> None:
    """Of `few` 75 and 100 points, of `many` 0 and 25: means 87.5 and 12.5, apart by 75."""
    code, out, said = call(results, "--minority", "2")
    assert code == 0, said
    last = out.split("\n\n")[-1].splitlines()
    half = 12.706204736 * 12.5  # t of one degree of freedom times the standard error
    assert [line.split()[0] for line in last[1:5]] == ["few", "few", "many", "many"]
    assert f"+87.5 [{87.5 - half:+.1f}, {87.5 + half:+.1f}]" in last[2]
    assert last[-1].startswith("  many − few  empirical linf 0.1  -75.0 [")


def test_the_document_holds_classes_and_gaps(results: Path) -> None:
    code, out, said = call(results, "--per-class", "--minority", "2", "--json")
    assert code == 0, said
    document = json.loads(out)
    by_class = document["results"][0]["per_class"]
    assert [one["empirical_accuracy"] for one in by_class["classes"]] == [1.0, 1.0, 0.25]
    assert by_class["classes"][0]["certified_accuracy"] is None
    assert by_class["worst"]["empirical_accuracy"]["class"] == "2"
    assert by_class["worst"]["certified_accuracy"] is None
    gaps = {(one["name"], one["accuracy"]): one["values"] for one in document["gaps"]}
    assert gaps[("few", "empirical_accuracy")] == [0.75, 1.0]
    assert "per_class" not in json.loads(call(results, "--json")[1])["results"][0]


def test_of_many_classes_the_worst_are_shown(tmp_path: Path) -> None:
    made(0, "net", 1, classes=30, each=2).save(tmp_path)
    code, out, _ = call(tmp_path, "--per-class")
    assert code == 0
    lines = out.splitlines()
    assert lines[2].split()[0] == "29"  # the worst first
    assert lines[12] == "  the worst 10 of 30 classes; --json holds all"
    assert len(json.loads(call(tmp_path, "--per-class", "--json")[1])["results"][0]["per_class"]["classes"]) == 30


def test_what_cannot_be_told_is_one_line(tmp_path: Path) -> None:
    made(0, "net", 0).save(tmp_path / "three")
    made(0, "net", 0, classes=1).save(tmp_path / "one")
    for words, says in (
        ((tmp_path / "three", "--minority", "9"), "class '9'"),
        ((tmp_path / "one", "--per-class"), "two classes or more"),
    ):
        code, out, said = call(*words)
        assert (code, out) == (2, "")
        assert says in said and said.count("\n") == 1
