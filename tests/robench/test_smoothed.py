"""Smoothed classifiers through every command: a run for each vote, both sides, figures, replay, a board."""

import json

import pytest
import torch
from scipy.stats import binom
from typer.testing import CliRunner

from oracles.pages import pages_of
from robench import InputError
from robench.api import evaluate, load, replay
from robench.check import check
from robench.cli import app
from robench.metrics import results
from robench.runs import find_runs

DATA = ["-d", "digits | subset:n=12", "--norm", "l2", "--eps", "0.25", "--eps", "0.5"]
FAST = "smoothadv:draws=4,steps=4"


def robench(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The base and four votes over it, in one command."""
    out = tmp_path_factory.mktemp("results")
    votes = [word for sigma in ("0.12", "0.25", "0.5", "1") for word in ("-c", f"smoothing:n=1000,sigma={sigma}")]
    shown = robench("eval", "-m", "digits-gaussian", *DATA, "-a", "pgd:steps=4", "-a", FAST, *votes, "--out", out)
    assert shown.exit_code == 0, shown.output
    assert "who picks one of these 4 votes by its figures spends α 4 times" in shown.stderr
    assert "smoothing:n=1000,sigma=0.12 can never certify ε = 0.5" in shown.stderr
    return out


def test_each_vote_is_a_subject_of_its_own_and_the_base_another(folder):
    runs = {run.manifest.classifier.canonical: run.manifest for run in find_runs(folder)}
    names = ["digits-gaussian", *(f"digits-gaussian | smooth:sigma={sigma}" for sigma in ("0.12", "0.25", "0.5", "1"))]
    assert sorted(runs) == sorted(names)
    assert len({manifest.classifier.fingerprint for manifest in runs.values()}) == 5
    asked = {name: [info.canonical for info in runs[name].evaluators] for name in names}
    assert asked["digits-gaussian"] == ["pgd:steps=4"]  # the attack on votes is left out there
    assert asked[names[2]] == ["pgd:steps=4 | eot", FAST, "smoothing:n=1000,sigma=0.25"]
    assert not runs["digits-gaussian"].classifier.smoothed
    vote = runs[names[1]]
    assert (vote.classifier.smoothed, vote.classifier.randomized, vote.classifier.opaque) == (True, False, False)
    assert (vote.request.draws, vote.request.alpha) == (1000, 0.001)


def test_the_vote_is_the_same_function_by_either_name(folder):
    planned = robench("eval", "-m", "digits-gaussian | smooth:n=50,sigma=0.25", *DATA, "-a", "none", "-c", "smoothing",
                      "--dry-run", "--json")  # fmt: skip
    known = {run.manifest.classifier.fingerprint for run in find_runs(folder)}
    assert json.loads(planned.stdout)["request"]["fingerprint"] in known


def test_check_report_replay_and_board_agree(folder, tmp_path):
    checked = check(find_runs(folder))
    assert checked.findings == ()
    told = [note for note in checked.notes if "contradictions in l2 with statistical bounds" in note]
    assert len(told) == 4
    document = json.loads(robench("report", folder, "--json").stdout)
    by_name = {(entry["classifier"], entry["eps"]): entry for entry in document["results"]}
    assert len(by_name) == 10
    quarter = by_name["digits-gaussian | smooth:sigma=0.25", "0.25"]
    assert quarter["certified_accuracy"] > 0.6
    assert quarter["empirical_accuracy"] >= quarter["certified_accuracy"]
    assert quarter["average_certified_radius"] > 0.3
    assert quarter["statistical"]["false_at_most"] == int(binom.ppf(0.999, 12, 0.001))
    assert by_name["digits-gaussian", "0.25"]["statistical"] is None
    assert by_name["digits-gaussian | smooth:sigma=0.12", "0.5"]["certified_accuracy"] == 0
    shown = robench("replay", folder)
    assert shown.exit_code == 0, shown.output
    assert "statistical certificates derived again" in shown.stdout
    assert robench("leaderboard", "build", folder, "--out", tmp_path / "site").exit_code == 0
    pages = pages_of({path.name: path.read_bytes() for path in (tmp_path / "site").iterdir()})
    board = next(page for name, page in pages.items() if name.endswith("-l2.html"))
    for sigma in ("0.12", "0.25", "0.5", "1"):
        assert f"digits-gaussian | smooth:sigma={sigma}" in board.text
    assert "Gaussian-noise CNN" in board.text


def test_attack_and_certificates_run_by_default(tmp_path):
    planned = robench("eval", "-m", "digits-gaussian | smooth:sigma=0.25", *DATA, "-c", "smoothing", "--dry-run",
                      "--json")  # fmt: skip
    document = json.loads(planned.stdout)
    assert document["request"]["evaluators"] == ["smoothadv", "smoothing"]
    assert any(spec.startswith("portfolio") for spec in document["skipped"])
    assert (
        "add -c"
        not in robench("eval", "-m", "digits-gaussian", *DATA, "-c", "smoothing:sigma=0.25", "--dry-run").stdout
    )
    both = robench("eval", "-m", "digits-gaussian", *DATA, "-c", "smoothing:sigma=0.25", "--dry-run", "--json")
    first, second = json.loads(both.stdout)["runs"]
    assert first["request"]["evaluators"] == ["portfolio"]
    assert second["request"]["evaluators"] == ["smoothadv", "smoothing:sigma=0.25"]


def test_draws_are_asked_of_the_vote_itself():
    words = ["eval", "-m", "digits-gaussian | smooth:n=50,sigma=0.25", *DATA, "-c", "smoothing", "--dry-run"]
    assert "--draws is not for votes" in robench(*words, "--draws", "7").stdout
    assert "--draws" not in robench(*words).stdout


def test_what_is_missing_is_told():
    vote = ["eval", "-m", "digits-gaussian | smooth:n=11,sigma=0.25", *DATA, "-a", FAST, "--dry-run"]
    shown = robench(*vote).stdout
    assert "nothing certifies digits-gaussian | smooth:n=11,sigma=0.25 at small cost: add -c smoothing" in shown
    assert "11 draws can falsify no sample at alpha = 0.001 over 2 attempts: take smooth:n=12 at least" in shown
    enough = robench(
        "eval", "-m", "digits-gaussian | smooth:n=12,sigma=0.25", *DATA, "-a", FAST, "--dry-run", "-c", "none"
    )
    assert "note" not in enough.stdout


def test_several_votes_over_a_named_model_have_names_of_their_own(tmp_path):
    made = evaluate("digits-gaussian", "digits | subset:n=4", eps="0.1", norm="l2", attacks="none", name="mine",
                    certifiers=["smoothing:n=300,sigma=0.5", "smoothing:n=300,sigma=0.25"], out=tmp_path)  # fmt: skip
    assert [run.manifest.display.name for run in made.runs] == ["mine | smooth:sigma=0.5", "mine | smooth:sigma=0.25"]
    assert [one["classifier"].partition(":")[2] for one in made.summary["results"]] == ["sigma=0.5", "sigma=0.25"]
    assert str(made).index("sigma=0.5") < str(made).index("sigma=0.25")


def test_from_python_and_resumed(tmp_path):
    ask = {"dataset": "digits | subset:n=6", "eps": "0.25", "norm": "l2", "attacks": "none", "out": tmp_path}
    votes = ["smoothing:n=500,sigma=0.25", "smoothing:mode=decide,n=2000,sigma=0.25", "smoothing:n=500,sigma=0.5"]
    made = evaluate("digits-gaussian", **ask, certifiers=votes)
    assert [run.manifest.classifier.canonical for run in made.runs] == [
        "digits-gaussian | smooth:sigma=0.25",
        "digits-gaussian | smooth:sigma=0.5",
    ]
    assert len(made.summary["results"]) == 2
    assert set(made.evidence["run"]) == {run.manifest.run for run in made.runs}
    assert "smooth:sigma=0.5" in str(made)
    again = evaluate("digits-gaussian", **ask, certifiers=votes, resume=True)
    assert [run.manifest.run for run in again.runs] == [run.manifest.run for run in made.runs]


def test_a_vote_over_an_object_is_replayed_with_the_object(tmp_path):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    x = torch.rand(6, 1, 8, 8)
    data = x.numpy(), net(x).argmax(1).numpy()
    made = evaluate(net, data, norm="l2", eps="0.05", attacks="none", certifiers="smoothing:n=300,sigma=0.25",
                    out=tmp_path)  # fmt: skip
    assert made.run.manifest.classifier.canonical == "python:Sequential | smooth:sigma=0.25"
    assert replay(made.run, model=net, dataset=data).problems == []
    assert replay(made.run.location, model=net, dataset=data).problems == []
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    with pytest.raises(InputError, match="is not the function evaluated"):
        replay(made.run, model=other, dataset=data)


def test_what_cannot_be_resumed_is_refused_before_anything_runs(tmp_path):
    class Unnamed:
        per_eps, deterministic = False, False

        def wraps(self, classifier):
            return "smooth:sigma=0.25"

        def certify(self, classifier, x, y, threat, stream):
            raise NotImplementedError

    with pytest.raises(InputError, match="no run can be resumed with python:Unnamed"):
        evaluate("digits-gaussian", "digits | subset:n=4", eps="0.1", norm="l2", attacks="fgsm",
                 certifiers=[Unnamed()], out=tmp_path, resume=True)  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_other_seeds_stand_beside_each_other(tmp_path):
    """The rows of every seed count: with three the statements hold at three times the α."""
    for seed in range(3):
        evaluate("digits-gaussian | smooth:sigma=0.25", "digits | subset:n=6", eps="0.25", norm="l2", seed=seed,
                 attacks="none", certifiers="smoothing:n=500", out=tmp_path)  # fmt: skip
    (result,) = results(find_runs(tmp_path))
    alone = [one.average_radius for run in find_runs(tmp_path) for one in results([run])]
    assert result.statement.alpha == pytest.approx(0.003)
    assert result.average_radius >= max(alone)
    rows = load(tmp_path)
    assert set(rows.loc[rows["kind"] == "certificate", "confidence"]) == {0.999}


@pytest.mark.parametrize(
    ("model", "certifier", "message"),
    [
        ("digits-gaussian", "smoothing", "sigma"),
        ("digits-gaussian | smooth:sigma=0.25", "smoothing:sigma=0.5", "0.25"),
        ("digits-gaussian", "smoothing:sigma=0", "sigma"),
        ("digits-gaussian", "smoothing:sigma=-1", "sigma"),
        ("digits-gaussian", "smoothing:alpha=0,sigma=0.25", "alpha"),
        ("digits-gaussian", "smoothing:alpha=1,sigma=0.25", "alpha"),
        ("digits-gaussian", "smoothing:n=50,sigma=0.25", "n = .* needed"),
        ("digits-gaussian", "smoothing:mode=decide,n=50,sigma=0.25", "n = .* needed"),
        ("digits-gaussian | noise:sigma=0.1", "smoothing:sigma=0.25", "draws"),
        ("digits-gaussian | noise:sigma=0.1 | smooth:sigma=0.25", "smoothing", "draws at inference"),
    ],
)
def test_bad_input_is_one_line(model, certifier, message, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        evaluate(model, "digits | subset:n=4", eps="0.5", norm="l2", attacks="none", certifiers=certifier, out=tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_whole_numbers_are_no_inputs(tmp_path):
    x, y = torch.zeros(3, 1, 8, 8, dtype=torch.uint8).numpy(), torch.zeros(3, dtype=torch.int64).numpy()
    with pytest.raises(InputError, match="need floats"):
        evaluate("digits-gaussian", (x, y), eps="0.5", norm="l2", attacks="none", certifiers="smoothing:sigma=0.25",
                 out=tmp_path)  # fmt: skip


def test_noise_that_drowns_in_rounding_is_refused(tmp_path):
    ask = {"dataset": "digits | subset:n=4", "eps": "1e-7", "norm": "l2", "attacks": "none", "out": tmp_path}
    with pytest.raises(InputError, match=r"drowns in the rounding of float32 inputs up to 1: take 0\.00012"):
        evaluate("digits-gaussian", **ask, certifiers="smoothing:n=300,sigma=1e-6")
    assert not list(tmp_path.iterdir())
    evaluate("digits-gaussian", **ask, certifiers="smoothing:n=300,sigma=1e-6", precision="fp64")


def test_noise_certifies_its_own_norms_alone(tmp_path):
    with pytest.raises(InputError, match="l1"):
        evaluate("digits-gaussian", "digits | subset:n=4", eps="0.5", norm="l1", attacks="none",
                 certifiers="smoothing:n=500,sigma=0.25", out=tmp_path)  # fmt: skip
    made = evaluate("digits-gaussian", "digits | subset:n=4", eps="0.1", norm="l1", attacks="none",
                    certifiers="smoothing:n=500,noise=uniform,sigma=0.25", out=tmp_path)  # fmt: skip
    assert made.run.manifest.classifier.canonical == "digits-gaussian | smooth:noise=uniform,sigma=0.25"
    assert made.summary["results"][0]["certified_accuracy"] > 0
