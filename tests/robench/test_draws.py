"""Classifiers that draw through every command: figures apart, no rank, no certificate, draws made again."""

import json
import shutil

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from oracles.pages import pages_of
from oracles.random_linear import RandomLinear
from robench import PluginError
from robench.api import evaluate, replay
from robench.check import check
from robench.cli import app
from robench.evaluation import Settings, execute, prepare
from robench.evidence import EVIDENCE
from robench.runs import Run, find_runs

MODEL = "digits-standard | noise:sigma=0.2"
ASKED = ["eval", "-m", MODEL, "-d", "digits | subset:n=12", "--eps", "0.05", "--eps", "0.1", "--draws", "20"]
ATTACKS = ["-a", "pgd:steps=2,targets=0 | eot:draws=3"]


def robench(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    shown = robench(*ASKED, *ATTACKS, "--out", out)
    assert shown.exit_code == 0, shown.output
    assert "expected accuracies over 20 draws a point, by pgd:steps=2,targets=0 | eot:draws=3" in shown.stderr
    assert "randomized: draws at inference" in shown.stdout
    assert "–" not in shown.stdout.split("evidence:")[0]  # no bracket
    return out


def test_check_report_and_replay_agree(folder):
    assert robench("check", folder).exit_code == 0
    document = json.loads(robench("report", folder, "--json").stdout)
    assert [entry["eps"] for entry in document["results"]] == ["0.05", "0.1"]
    assert all(entry["randomized"]["clean_accuracy"] > 0.5 for entry in document["results"])
    last = document["results"][1]["randomized"]
    assert last["attacked_accuracy"] < last["clean_accuracy"] - 0.1
    assert "linf 0.1" in robench("report", folder).stdout
    (again,) = json.loads(robench("replay", folder, "--json").stdout)["runs"]
    assert (again["problems"], again["clean"], again["witnesses"]) == ([], 12, 24)


def test_the_site_shows_them_on_no_board(folder, tmp_path):
    assert robench("leaderboard", "build", folder, "--out", tmp_path / "site").exit_code == 0
    files = {path.name: path.read_bytes() for path in (tmp_path / "site").iterdir()}
    pages = pages_of(files)
    assert {"index.html", "randomized.html"} <= set(pages)
    assert not [name for name in pages if name.endswith("-linf.html")]
    assert MODEL in pages["randomized.html"].text
    assert "pgd:steps=2,targets=0 | eot:draws=3" in pages["randomized.html"].text
    assert "randomized.html" in pages["index.html"].links
    assert len(json.loads(files["results.json"])["results"]) == 2


def test_a_site_holds_both_kinds(folder, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(folder, results)
    plain = ["eval", "-m", "digits-standard", "-d", "digits | subset:n=12", "--eps", "0.1", "-a", "fgsm", "-c", "none"]
    assert robench(*plain, "--out", results).exit_code == 0
    assert robench("check", results).exit_code == 0
    shown = robench("report", results).stdout
    assert 0 < shown.index("one-sided") < shown.index(f"{MODEL}  on")
    assert robench("leaderboard", "build", results, "--out", tmp_path / "site").exit_code == 0
    board = next((tmp_path / "site").glob("*-linf.html")).read_text()
    assert "noise" not in board


def test_the_default_attacks_run_through_eot_and_no_certifier_does():
    planned = robench("eval", "-m", MODEL, "-d", "digits | subset:n=12", "--eps", "0.1", "--dry-run", "--json")
    document = json.loads(planned.stdout)
    assert document["request"]["draws"] == 100
    assert document["request"]["evaluators"]
    assert all(spec.endswith(" | eot") for spec in document["request"]["evaluators"])
    assert {spec: why for spec, why in document["skipped"].items() if "draws at inference" in why}.keys() >= {"ibp"}


def test_no_schedule_is_the_default_where_nothing_is_ever_broken(site):
    site.write(
        "robench-t-schedule",
        """
from dataclasses import dataclass

from robench import hookimpl

robench_api = 1


@hookimpl
def robench_register_attacks(register):
    register("schedule", f"{__name__}:Schedule", default=True)
    register("plain", f"{__name__}:Plain", default=True)


@dataclass(frozen=True)
class Schedule:
    def stages(self, classifier, threat):
        yield "plain", Plain(), None


@dataclass(frozen=True)
class Plain:
    def perturb(self, classifier, x, y, threat, stream):
        raise NotImplementedError
""",
    )
    site.load()
    model = RandomLinear()
    (prepared,) = prepare(Settings(model, model.samples(4), ["0.1"]))
    assert "plain | eot" in [one.spec for one in prepared.plan.evaluators]
    assert "nothing is where a classifier draws" in prepared.skipped["schedule | eot"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-c", "ibp"], "ibp does not apply to .* it draws at inference: r\\* is not defined"),
        (["-a", "none"], "there is nothing to run, as no certifier applies: leave out -a none"),
        (["--draws", "0"], "0 draws: ask for 1 to 1000000"),
    ],
)
def test_what_cannot_be_asked_is_one_line(words, message, tmp_path):
    import re

    shown = robench(
        "eval", "-m", MODEL, "-d", "digits | subset:n=12", "--eps", "0.1", *words, "--out", tmp_path / "out"
    )
    assert shown.exit_code == 2
    assert re.search(message, shown.stderr), shown.stderr
    assert not (tmp_path / "out").exists()


def test_what_votes_over_its_draws_is_not_taken_for_what_merely_draws(tmp_path):
    class Voting(RandomLinear):
        def predict(self, x, stream, alpha):
            raise NotImplementedError

    class Counting(RandomLinear):
        n, alpha = 10, 0.1

        def draws(self, x, stream):
            raise NotImplementedError

    for kind, missing in ((Voting, "draws, base, noise, n, alpha"), (Counting, "base, noise")):
        with pytest.raises(PluginError, match=f"votes over its draws, but has no {missing}"):
            evaluate(kind(), RandomLinear().samples(4), eps="0.1", out=tmp_path)


def test_an_interrupted_run_goes_on_to_the_same_rows(tmp_path):
    model = RandomLinear(sigma=0.4)
    data = model.samples(12)

    def run(folder, size, stop=None):
        settings = Settings(model, data, ["0.05", "0.1"], attacks=["pgd:steps=3,targets=0"], batch_size=size, draws=10)
        (prepared,) = prepare(settings)

        def progress(done, total, counts):
            if stop is not None and done >= stop:
                raise KeyboardInterrupt

        found = Run.find_resumable(folder, prepared.manifest.request)
        with found or Run.create(folder, prepared.manifest) as one:
            execute(prepared, one, progress)
        return one

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "two", 4, stop=8)
    rows = []
    for one in (run(tmp_path / "one", 4), run(tmp_path / "two", 4), run(tmp_path / "three", 5)):
        table = one.evidence().to_pandas().drop(columns=["run", "seconds"])
        table = table.astype("object").sort_values(["sample", "evaluator", "eps"]).reset_index(drop=True)
        rows.append(table.map(str).to_numpy().tolist())
    assert rows[0] == rows[1]
    # Another batch size: the same rows, but for the last digit of an attack's own figures.
    plain = [[[cell for cell in row if not cell.startswith("{")] for row in table] for table in rows]
    assert plain[0] == plain[2]


def test_another_number_of_draws_is_another_request(tmp_path):
    model = RandomLinear()
    given = {"eps": "0.1", "attacks": ["fgsm"], "out": tmp_path, "resume": True}

    class Named(RandomLinear):
        identified = True

    model = Named()
    data = model.samples(4)
    first = evaluate(model, data, draws=5, **given).run.manifest.run
    assert evaluate(model, data, draws=5, **given).run.manifest.run == first
    assert evaluate(model, data, draws=6, **given).run.manifest.run != first


FORGED = {
    "more correct draws than drawn": {"detail": {"correct": 21}},
    "other draws than asked for": {"detail": {"draws": 40}},
    "no counts": {"detail": None},
    "a radius": {"upper": 0.05},
    "a certificate": {"lower": 0.01},
    "a verdict": {"status": "falsified"},
    "a point beyond the budget": {"detail": {"distance": 0.5}},
}


@pytest.mark.parametrize("name", FORGED)
def test_check_notices_forged_rows(name, folder, tmp_path):
    run = forged(folder, tmp_path, FORGED[name])
    assert [finding for finding in check([run]).findings if finding.code in ("row", "distance", "witness")]


def test_replay_notices_forged_counts(folder, tmp_path):
    run = forged(folder, tmp_path, {"detail": {"correct": 0, "trial": 0}})
    problems = [one for one in replay(run).problems if one.kind == "witness"]
    assert any("correct of 20 draws each, now" in one.text for one in problems)


def forged(folder, tmp_path, change):
    """A copy of the run whose attack row with most correct draws is changed."""
    results = tmp_path / "forged"
    shutil.copytree(folder, results)
    (run,) = find_runs(results)
    (file,) = list((results).rglob("evidence/part-*.parquet"))
    from robench.evidence import to_parquet

    rows = run.evidence().to_pylist()
    attacked = [i for i, row in enumerate(rows) if row["kind"] == "attack"]
    place = max(attacked, key=lambda i: json.loads(rows[i]["detail"])["correct"])
    for key, value in change.items():
        if key == "detail" and value is not None:
            value = json.dumps(json.loads(rows[place]["detail"]) | value)
        rows[place][key] = value
    file.write_bytes(to_parquet(pa.Table.from_pylist(rows, schema=EVIDENCE)))
    return find_runs(results)[0]
