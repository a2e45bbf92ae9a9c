"""`robench bound` and where its ceilings appear afterwards: eval, report, check."""

import json
import sys

import pytest
from typer.testing import CliRunner

from oracles.bounds import fake_bound
from oracles.evidence import fake_run
from robench.bounds import Ceilings, find_bounds
from robench.cli import app
from robench.metrics import results
from robench.report import bound_document, bound_lines, ceiling, print_results, result_lines

INF = float("inf")
ASKED = ["-d", "halves:n=30", "--norm", "linf", "--eps", "1/50", "--eps", "0.01"]


@pytest.fixture
def robench(site, tmp_path):
    site.add("robench-example")
    site.add("robench-liars")
    site.load()

    def run(*words, code=0):
        out = [] if words[0] in ("check", "report") else ["--out", str(tmp_path)]
        made = CliRunner().invoke(app, [*map(str, words), *out])
        assert made.exit_code == code, made.output
        assert "Traceback" not in made.output
        return made

    return run


def test_one_document_holds_every_bound(robench, tmp_path):
    made = robench("bound", "twins", "liar-low:value=0.75", *ASKED, "--samples", "0:20", "--json")
    document = json.loads(made.stdout)
    assert made.stderr == ""
    assert [bound["bound"] for bound in document["bounds"]] == ["twins", "liar-low:value=0.75"]
    first, second = document["bounds"]
    assert (first["n"], first["split"], first["norm"]) == (20, "test", "linf")
    assert [(row["eps"], row["eps_value"], row["value"]) for row in second["rows"]] == [
        ("0.01", 0.01, 0.75),
        ("1/50", 0.02, 0.75),
    ]
    assert first["rows"][0]["detail"] == {"inputs": 20, "errors": 0}
    stored = {run.manifest.run: json.loads(json.dumps(bound_document(run))) for run in find_bounds(tmp_path)}
    assert stored == {bound["run"]: bound for bound in document["bounds"]}


def test_lines_say_what_holds_where_and_why(robench, tmp_path):
    lines = robench("bound", "twins", *ASKED, "--quiet").stdout.splitlines()
    assert lines[0] == "twins  on halves:n=30 test, 30 samples"
    assert lines[1:3] == [
        "  source: at most one label of an input is right",
        "  assumes: the classifier is a function of the input",
    ]
    assert lines[3].split() == ["linf", "0.01", "ceiling", "100.00", "%", "inputs", "30,", "errors", "0"]
    assert lines[4].split()[:4] == ["linf", "1/50", "ceiling", "100.00"]
    assert lines[5] == f"  stored: {find_bounds(tmp_path)[0].location}"


def test_resume_shows_the_equal_one(robench, tmp_path):
    first = json.loads(robench("bound", "twins", *ASKED, "--json").stdout)
    again = json.loads(robench("bound", "twins", *ASKED, "--resume", "--json").stdout)
    assert first == again and len(find_bounds(tmp_path)) == 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["bound", "twins", "-d", "halves"], "no ε given"),
        (["bound", "twin", *ASKED], "did you mean"),
        (["bound", "hyperplane", *ASKED], "that is a certifier"),
        (["bound", "twins | twins", *ASKED], "nothing can be chained to a bound"),
        (["bound", "twins", "-d", "halves", "--norm", "l9", "--eps", "1"], "unknown norm"),
        (["bound", "twins", *ASKED, "--split", "other"], "no split"),
        (["bound", "liar-rising", *ASKED], "rises with ε"),
        (["bound", "liar-raises", *ASKED], "the matching went wrong"),
    ],
)
def test_bad_input_is_one_line(robench, tmp_path, words, complaint):
    made = robench(*words, code=2)
    (line,) = [line for line in made.stderr.splitlines() if line.startswith("robench: ")]
    assert complaint in line
    assert list(tmp_path.glob("*/_bounds")) == []


def test_a_misspelt_bound_is_told_before_another_one_is_computed(robench, tmp_path):
    robench("bound", "twins", "twinz", *ASKED, code=2)
    assert find_bounds(tmp_path) == []


def test_what_was_stored_before_a_failure_is_kept(robench, tmp_path):
    robench("bound", "twins", "liar-nan", *ASKED, code=2)
    assert [run.manifest.bound.canonical for run in find_bounds(tmp_path)] == ["twins"]


def test_the_ceiling_is_seen_by_eval_report_and_check(robench, tmp_path):
    robench("bound", "liar-low:value=0.5", *ASKED)
    words = ["eval", "-m", "halves", "-d", "halves:n=30", "-a", "descent", "-c", "hyperplane", "--eps", "0.02", "-q"]
    (result,) = json.loads(robench(*words, "--json").stdout)["results"]
    assert result["ceiling"] == 0.5 < result["certified_accuracy"]
    assert "contradictions" in {flag["code"] for flag in result["flags"]}
    assert "ceiling 50.0 %" in robench(*words).stdout
    assert "ceiling 50.0 %" in robench("report", tmp_path).stdout
    document = json.loads(robench("report", tmp_path, "--json").stdout)
    assert [one["ceiling"] for one in document["results"]] == [0.5]
    found = json.loads(robench("check", tmp_path, "--json", code=1).stdout)
    assert {one["code"] for one in found["findings"]} == {"ceiling"}


def test_a_damaged_bound_costs_eval_its_ceiling_and_no_figure(robench, tmp_path):
    robench("bound", "twins", *ASKED)
    (bound,) = find_bounds(tmp_path)
    (tmp_path / bound.location / "manifest.json").write_text("{}")
    words = ["eval", "-m", "halves", "-d", "halves:n=30", "-a", "descent", "-c", "none", "--eps", "0.02", "--json"]
    made = robench(*words)
    assert json.loads(made.stdout)["results"][0]["ceiling"] is None
    assert "not a bound's manifest" in made.stderr
    robench("report", tmp_path, code=2)
    robench("check", tmp_path, code=1)


def two_sided():
    run = fake_run(n=4, eps=("0.1", "0.2"), evaluators=(("pgd", "attack"),)).clean(dict.fromkeys(range(4), True))
    for eps in (0.1, 0.2):
        run.add("pgd", "attack", "linf", eps, dict.fromkeys(range(4), ("open", 0, INF)))
    return run


def test_the_ceiling_stands_in_lines_only_where_there_is_one():
    found = results([two_sided()], Ceilings([fake_bound({"0.2": 0.625})]))
    assert [ceiling(result) for result in found] == ["-", "62.5 %"]
    lines = [line for line in result_lines(found) if "linf" in line and "ε" not in line]
    assert ["ceiling 62.5 %" in line for line in lines] == [False, True]
    assert not any("ceiling" in line for line in result_lines(results([two_sided()])))


def test_a_table_has_a_ceiling_column_only_where_there_is_one(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    print_results(results([two_sided()], Ceilings([fake_bound({"0.2": 0.625})])))
    shown = capsys.readouterr().out
    assert "ceiling" in shown.splitlines()[1] and "62.5 %" in shown
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_results(results([two_sided()]))
    assert "ceiling" not in capsys.readouterr().out


def test_hostile_text_never_reaches_the_terminal():
    lines = bound_lines(fake_bound({"0.1": 0.5}, details=[{"x\x1b[2J": "[red]\u202e", "y": 0.5, "z": None}]))
    assert all(character.isprintable() for line in lines for character in line)
    assert "x�[2J [red]�, y 0.5, z None" in lines[3]
