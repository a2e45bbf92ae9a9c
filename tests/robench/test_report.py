import io
import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from oracles.evidence import composite, fake_run, info, probed_run, toy_runs
from robench.cli import app
from robench.health import CATALOGUE
from robench.metrics import results, summarise
from robench.report import age, bracket, cost, print_results, print_runs, result_lines, run_rows, safe
from robench.runs import Flag, find_runs

INF = float("inf")


def two_sided(number=0, **more):
    run = fake_run(number, n=4, **more).clean({0: True, 1: True, 2: True, 3: False})
    run.add("pgd", "attack", "linf", 0.1, {0: ("open", 0, INF), 1: ("falsified", 0, 0.0625), 2: ("open", 0, INF)})
    run.witness("pgd", "linf", 0.1, 1, [0.0625, 0, 0, 0])
    run.add("ibp", "certificate", "linf", 0.1, {0: ("certified", 0.1, INF), 2: ("open", 0, INF)})
    return run


def test_lines_hold_the_figures():
    lines = result_lines(results([two_sided()]))
    assert lines[0] == "net  on toy test, 4 samples"
    assert "75.0 %" in lines[1] and "[19.4, 99.4]" in lines[1]
    assert "linf 0.1" in lines[2] and "25.0 – 50.0 %" in lines[2] and "[0.6, 93.2]" in lines[2]
    assert len(lines) == 3


def test_the_health_of_attacks_stands_beside_the_figures():
    small, large = results([probed_run(0, "masked", bad={"blackbox-stronger": 0.5})])
    lines = result_lines([small, large])
    assert [line.rpartition(", ")[2] for line in lines if "linf 1/" in line] == ["health clean", "health flagged"]
    (reason,) = [line for line in lines if line.strip().startswith("health: ")]
    assert reason.endswith(f"{CATALOGUE['blackbox-stronger'].text}, on 50 % of 60 samples")
    assert lines.index(reason) > next(i for i, line in enumerate(lines) if "linf 1/8" in line)
    assert "health" not in result_lines(results([proven()]))[-1]


def test_a_flag_says_what_to_do_once():
    small, large = results([probed_run(0, "masked", bad={"blackbox-stronger": 0.5})])
    assert [line for line in result_lines([large, large]) if "docs/health.md" in line] == result_lines([large])[-1:]
    assert "docs/health.md" not in "".join(result_lines([small]))


def test_who_was_not_probed_is_told_how_where_a_probe_can():
    def told(*stages, access="gradients", broken=()):
        rows = {i: ("falsified", 0, 0.0625) if i in broken else ("open", 0, INF) for i in range(2)}
        run = fake_run(n=2, evaluators=(composite("mine", **dict.fromkeys(stages, "gradients")),) if stages else
                       (info("mine", access=access),))  # fmt: skip
        run.clean({0: True, 1: True}).add("mine", "attack", "linf", 0.1, rows)
        for i in broken:
            run.witness("mine", "linf", 0.1, i, [0.0625, 0, 0, 0])
        return result_lines(results([run]))[-1].rpartition(", ")[2]

    assert told() == told("first") == "health unprobed (add -a probe)"
    assert told(access="logits") == told(broken=(0, 1)) == "health unprobed"


def proven():
    run = fake_run(n=1, evaluators=(("ibp", "certificate"),)).clean({0: True})
    return run.add("ibp", "certificate", "linf", 0.1, {0: ("certified", 0.1, INF)})


def test_flags_of_all_budgets_are_told_once():
    run = fake_run(n=2, eps=("0.1", "0.2"), evaluators=(("pgd", "attack"),)).clean({0: True, 1: True})
    run.add("pgd", "attack", "linf", 0.1, {0: ("open", 0, INF), 1: ("open", 0, INF)})
    run.add("pgd", "attack", "linf", 0.2, {0: ("error", 0, INF), 1: ("open", 0, INF)})
    lines = result_lines(results([run]))
    assert [line.strip().split(":")[0] for line in lines if "one-sided" in line] == ["one-sided"]
    (error,) = [position for position, line in enumerate(lines) if "errors:" in line]
    assert "0.2" in lines[error - 1]


def test_a_side_that_was_switched_off_is_a_bound_not_a_zero():
    attacked = fake_run(n=1, evaluators=(("pgd", "attack"),)).clean({0: True})
    attacked.add("pgd", "attack", "linf", 0.1, {0: ("open", 0, INF)})
    assert bracket(results([attacked])[0]) == "≤ 100.0 %"
    certified = fake_run(n=1, evaluators=(("ibp", "certificate"),)).clean({0: True})
    certified.add("ibp", "certificate", "linf", 0.1, {0: ("certified", 0.1, INF)})
    assert bracket(results([certified])[0]) == "≥ 100.0 %"
    assert bracket(results([fake_run(n=1, evaluators=()).clean({0: True})])[0]) == "-"


@pytest.mark.parametrize(
    ("forwards", "seconds", "text"),
    [
        (1, 0.25, "2 + 0 passes a sample, 0.5 s"),
        (99_999, 3600, "100k + 0 passes a sample, 2.0 h"),
        (5_000_000, 300, "5M + 0 passes a sample, 10 min"),
    ],
)
def test_cost_in_words(forwards, seconds, text):
    run = fake_run(n=1, evaluators=(("pgd", "attack"),))
    run.add("clean", "clean", None, None, {0: ("correct", 0, INF)}, forwards=1, seconds=seconds)
    run.add("pgd", "attack", "linf", 0.1, {0: ("open", 0, INF)}, forwards=forwards, seconds=seconds)
    assert cost(results([run])[0]) == text


def test_age_in_its_largest_unit():
    now = datetime(2026, 5, 1, tzinfo=UTC)
    for passed, words in [
        (timedelta(seconds=5), "just now"),
        (timedelta(minutes=1), "1 minute"),
        (timedelta(hours=5, minutes=59), "5 hours"),
        (timedelta(days=400), "400 days"),
    ]:
        assert age(now - passed, now) == words


def test_control_characters_never_reach_the_terminal():
    assert safe("a\x1b[31m\u202eb\nc") == "a�[31m�b c"
    run = two_sided()
    object.__setattr__(run.manifest, "flags", (Flag.model_construct(code="x", text="\x1b]0;owned\x07"),))
    assert all(character.isprintable() for line in result_lines(results([run])) for character in line)


def test_off_a_terminal_the_output_is_plain(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    print_results(results([two_sided()]))
    assert stream.getvalue().splitlines() == result_lines(results([two_sided()]))


def test_on_a_terminal_it_is_a_table(tmp_path):
    """Under a pseudo-terminal, with a name that looks like markup."""
    two_sided(display={"name": "[bold]net[/bold]"}).save(tmp_path)
    reader, writer = pty.openpty()
    code = "from robench.cli import main; main()"
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, "report", str(tmp_path)]
    process = subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, env=environment)
    os.close(writer)
    out = b""
    while True:
        try:
            part = os.read(reader, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not part:
            break
        out += part
    os.close(reader)
    assert process.wait() == 0, process.stderr.read()
    process.stderr.close()
    text = out.decode()
    assert "[bold]net[/bold]" in text
    assert "25.0 – 50.0 %" in text
    assert "─" in text


def test_the_commands_as_json(tmp_path):
    for run in toy_runs(n=20):
        run.save(tmp_path)
    runs = find_runs(tmp_path)
    shown = CliRunner().invoke(app, ["report", str(tmp_path), "--json"])
    assert json.loads(shown.stdout) == json.loads(json.dumps(summarise(runs)))
    listed = json.loads(CliRunner().invoke(app, ["runs", str(tmp_path), "--json"]).stdout)["runs"]
    assert [row["run"] for row in listed] == [run.manifest.run for run in runs]
    assert [row["n"] for row in listed] == [20] * 4


def test_runs_are_listed_with_their_state(tmp_path, capsys):
    two_sided(0).save(tmp_path)
    two_sided(1).save(tmp_path, complete=False)
    lines = CliRunner().invoke(app, ["runs", str(tmp_path)]).stdout.splitlines()
    assert lines[0].split("\t") == ["run", "classifier", "dataset", "ε", "samples", "state", "age"]
    assert [line.split("\t")[4:6] for line in lines[1:]] == [["4", "complete"], ["4 of 4", "incomplete"]]
    rows = run_rows(find_runs(tmp_path))
    assert [row["started"] for row in rows] == ["2026-01-02T03:04:05+00:00", "2026-01-02T03:05:05+00:00"]
    assert [row["finished"] is None for row in rows] == [False, True]
    print_runs(rows, now=datetime(2026, 1, 4, tzinfo=UTC))
    assert [line.split("\t")[6] for line in capsys.readouterr().out.splitlines()[1:]] == ["1 day", "1 day"]


def test_a_missing_folder_is_one_line_on_stderr(tmp_path):
    for command in ("report", "runs"):
        outcome = CliRunner().invoke(app, [command, str(tmp_path / "nothing")])
        assert outcome.exit_code == 2
        assert outcome.stdout == ""
        assert len(outcome.stderr.splitlines()) == 1
