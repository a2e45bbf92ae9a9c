"""Replay of smoothed classifiers: honest votes come out again, forged ones are found, and chance is bounded."""

import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import beta, binom, binomtest, norm
from typer.testing import CliRunner

import oracles.counting
from oracles.forging import edit_manifest, rewrite
from oracles.nets import blobs, trained
from robench import _replay, _replay_redraw, _replay_votes, registry
from robench._replay_certificates import Claim, counts_told, unproven
from robench._replay_redraw import Redraw, unlike
from robench._replay_votes import moved
from robench.api import evaluate, replay
from robench.binomial import lower_bound
from robench.check import check
from robench.cli import app
from robench.errors import InputError
from robench.graph import from_torch, save
from robench.registry import Plugins, Source, find_sources
from robench.runs import Run, find_runs
from robench.votes import Ballot

N = 400
SMOOTH = f"smooth:n={N},sigma=0.1"
ATTACK = "pgd:steps=3,targets=0 | eot:draws=4"
ALL = 10**6


@pytest.fixture(scope="module", autouse=True)
def counting():
    """The certifiers of `oracles.counting`, beside those installed."""
    plugins = Plugins.load([*find_sources(), Source("oracles.counting", lambda: oracles.counting, "robench-t", "1")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "load_plugins", lambda: plugins)
        yield


@pytest.fixture(autouse=True)
def same_rows(monkeypatch):
    """Fresh draws that depend on the seed alone, and not on the name of a run of today."""
    monkeypatch.setattr(_replay, "Redraw", lambda run, rows, seed: Redraw("run", rows, seed))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A run of a vote with every clean status, witnesses and statistical certificates."""
    folder = tmp_path_factory.mktemp("votes")
    net = trained((16,))
    save(from_torch(net, (6,)), folder / "net", {})
    x, y = np.array(blobs(60).x), blobs(60).y.copy()
    y[:3] = (y[:3] + 1) % 3  # some that the vote gets wrong
    x[3] = between(net, x[3], x[np.flatnonzero(y[4:] != y[3])[0] + 4])  # one where it does not tell
    np.savez(folder / "data.npz", x=x, y=y)
    model, dataset = f"checkpoint:{folder / 'net'} | {SMOOTH}", f"npz:{folder / 'data.npz'}"
    settings = {"eps": ["0.05", "0.2"], "norm": "l2", "attacks": [ATTACK]}
    certifiers = ["counts", "counts-silent", "counts-short"]
    # One part: it is rewritten as a whole.
    done = evaluate(model, dataset, certifiers=certifiers, out=folder / "results", batch_size=64, **settings)
    kinds = {tuple(pair) for pair in done.evidence[["kind", "status"]].astype(str).to_numpy()}
    assert {("clean", "correct"), ("clean", "incorrect"), ("clean", "abstain"), ("attack", "falsified")} <= kinds
    assert check([done.run]).findings == ()
    return folder


def between(net, one, other):
    """The point between two of different classes where the net turns to another class than the first's."""

    def found(x):
        return net(torch.from_numpy(x)).argmax().item()

    for _ in range(30):
        middle = (one + other) / 2
        one, other = (middle, other) if found(middle) == found(one) else (one, middle)
    return one


@pytest.fixture
def copy(original, tmp_path):
    """A copy of the run's folder to spoil."""
    (run,) = find_runs([original / "results"])
    return Path(shutil.copytree(run.location, tmp_path / "results" / "run"))


def problems(folder, original, redraw=0):
    found = replay(Run.open(folder), search=[original], redraw=redraw, seed=1).problems
    return [problem for problem in found if problem.evaluator != "counts-short"]


def test_an_honest_run_comes_out_as_recorded(original):
    (run,) = find_runs([original / "results"])
    frame = run.evidence().to_pandas()
    falsified = int((frame["status"] == "falsified").sum())
    certified = int(((frame["lower"] > 0) & (frame["evaluator"] == "counts")).sum())
    assert min(falsified, certified) > 12
    plain = replay(run, search=[original], redraw=0)
    assert (plain.problems, plain.clean, plain.witnesses, plain.certificates) == ([], 60, falsified, 0)
    assert (plain.rederived, plain.redrawn, plain.seed) == (2 * certified, 0, None)  # counts and counts-short
    assert plain.not_replayed == {"counts-silent": "statistical"}
    full = replay(run, search=[original], redraw=ALL, seed=1)
    assert full.redrawn == 60 + falsified + 2 * certified
    assert full.seed == 1
    assert {problem.evaluator for problem in full.problems} == {"counts-short"}
    said = f"cannot be drawn again: recount gives {certified - 1} answers about {certified} samples"
    assert {problem.text for problem in full.problems} == {said}


def test_other_batches_give_the_same_votes(original, monkeypatch):
    (run,) = find_runs([original / "results"])
    monkeypatch.setattr("robench._replay_asker.automatic_batch_size", lambda samples: 7)
    found = replay(run, search=[original], redraw=3)
    assert {problem.evaluator for problem in found.problems} == {"counts-short"}
    assert found.redrawn == 3 * 4  # clean, the attack, counts, counts-short


def test_a_seed_repeats_a_replay_and_is_fresh_otherwise(original, monkeypatch):
    (run,) = find_runs([original / "results"])
    asked = []
    monkeypatch.setattr(_replay_votes, "unlike", lambda votes, now: asked.append((votes.tolist(), now.tolist())))
    for seed in (5, 5, 6, None, None):
        found = replay(run, search=[original], redraw=2, seed=seed)
        assert seed is None or found.seed == seed
    once, again, other, *fresh = (asked[i : i + 4] for i in range(0, len(asked), 4))
    assert once == again
    assert once != other
    assert fresh[0] != fresh[1]
    assert any(votes != now for votes, now in itertools.chain(once, other))  # from streams that the run had not


def test_rows_are_chosen_by_the_seed_alone_and_evenly():
    rows = [{"sample": i, "evaluator": "e", "norm": "l2", "eps": None} for i in range(20)]

    def chosen(seed, of=rows, many=5, run="r"):
        return [row["sample"] for row in Redraw(run, many, seed).chosen(of)]

    assert chosen(1) == chosen(1, rows[::-1])
    assert chosen(1, many=0) == []
    assert sorted(chosen(1, many=ALL)) == list(range(20))
    assert sorted(chosen(1)) != sorted(chosen(1, run="s"))
    times = np.bincount([one for seed in range(400) for one in chosen(seed)], minlength=20)
    assert (abs(times - 100) < 5 * (400 * 0.25 * 0.75) ** 0.5).all()


def test_the_certificates_drawn_anew_are_random_ones(original, monkeypatch):
    (run,) = find_runs([original / "results"])
    asked = []

    def recount(self, classifier, x, details, threat, stream):
        asked.append(x.sum().item())
        return [None] * len(x)

    monkeypatch.setattr(oracles.counting.Counts, "recount", recount)
    for seed in (1, 2, 1):
        replay(run, search=[original], redraw=1, seed=seed)
    by_seed = [asked[i : i + 2] for i in (0, 2, 4)]
    assert by_seed[0] == by_seed[2] != by_seed[1]


def edit(where, change):
    """Pass one row, as a dict with its detail parsed, through `change`."""

    def changed(frame):
        for name in ("status", "kind", "evaluator", "detail"):
            frame[name] = frame[name].astype(object)
        at = frame.index[where(frame)][0]
        row = frame.loc[at].to_dict()
        row["detail"] = json.loads(row["detail"])
        change(row)
        if not isinstance(row["detail"], str) and row["detail"] is not None:
            row["detail"] = json.dumps(row["detail"])
        for name, value in row.items():
            frame.at[at, name] = value
        return frame

    return changed


def told(**values):
    """An edit of the detail."""
    return lambda row: row["detail"].update(values)


def recorded(**values):
    return lambda row: row.update(values)


def both(*changes):
    return lambda row: [change(row) for change in changes]


def swapped(row):
    """The votes of the label and of the class that won, exchanged."""
    votes, label = row["detail"]["votes"], str(row["label"])
    winner = max((name for name in votes if name != label), key=votes.__getitem__)
    votes[label], votes[winner] = votes[winner], votes.get(label, 0)


def as_correct(row):
    row.update(status="correct", prediction=row["label"], upper=np.inf)


def inflated(row):
    """All hits, and the radius that they prove."""
    row["detail"]["hits"] = 300
    row["lower"] = 0.1 * float(norm.ppf(0.001 ** (1 / 300)))


def incorrect(frame):
    return frame["status"] == "incorrect"


def correct(frame):
    return frame["status"] == "correct"


def falsified(frame):
    return frame["status"] == "falsified"


def certified(frame):
    hits = frame["detail"].map(lambda text: json.loads(text or "{}").get("hits", 300))
    return (frame["evaluator"] == "counts") & (frame["status"] == "certified") & (hits < 270)


@pytest.mark.parametrize(
    ("where", "change", "said"),
    [
        (incorrect, as_correct, "recorded correct, its votes say incorrect"),
        (incorrect, both(as_correct, swapped), "were for other classes than now"),
        (incorrect, recorded(upper=0.5), "recorded upper 0.5"),
        (incorrect, recorded(label=0, prediction=0), "recorded label"),
        (correct, recorded(confidence=0.9999), "recorded confidence 0.9999, its test gives 0.999"),
        (correct, both(told(alpha=0.0001), recorded(status="abstain", prediction=-1)), "its votes say correct"),
        (correct, recorded(prediction=-1), "recorded prediction -1"),
        (correct, both(told(alpha=0.01), recorded(confidence=0.99)), "spends alpha = 0.01, and 0.001 were"),
        (falsified, both(told(alpha=0.001), recorded(confidence=0.999)), "spends alpha = 0.001, and 0.0005 were"),
        (falsified, told(alpha=1e-300), "its votes do not tell that another class than the label wins"),
        (falsified, swapped, "were for other classes than now"),
        (falsified, recorded(upper=0.01), "the evidence says 0.01"),
        (falsified, told(votes={"none": N}), "were for other classes than now"),
        (certified, recorded(lower=0.3), "recorded lower 0.3, its counts prove 0.0"),
        (certified, recorded(confidence=0.9999), "recorded confidence 0.9999, its counts give 0.999"),
        (certified, recorded(confidence=1.0), "recorded as a proof, now with confidence 0.999"),
        (certified, told(**{"class": 7}), "its counts prove 0.0"),
        (certified, recorded(status="abstain"), "recorded abstain, its counts say certified"),
        (certified, told(n=10**6, hits=10**6), "cannot be derived again: they are no counts"),
    ],
)
def test_edits_are_found(where, change, said, copy, original):
    rewrite(copy, "evidence", edit(where, change))
    found = problems(copy, original)
    assert len(found) == 1
    assert said in found[0].text


@pytest.mark.parametrize(
    ("where", "detail"),
    [(correct, None), (falsified, "[" * 50_000), (certified, '{"n":300,"hits":-5}'), (certified, "[" * 50_000)],
)
def test_details_that_no_run_could_have_written_are_problems_and_no_crash(where, detail, copy, original):
    rewrite(copy, "evidence", edit(where, recorded(detail=detail)))
    (found,) = problems(copy, original, redraw=ALL)
    assert re.search("tells no votes|cannot be derived again", found.text)


@pytest.mark.parametrize("detail", [None, "null", "[]", "7", "{", '"hits"', "[" * 50_000])
def test_a_certificates_detail_is_an_object_or_refused(detail):
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        counts_told(detail)
    assert counts_told('{"hits":1e400}') == {"hits": np.inf}


def test_a_row_is_held_against_all_that_its_counts_prove():
    row = {"lower": 0.5, "status": "certified", "confidence": 0.99}
    assert unproven(row, Claim(0.5 - 1e-12, "certified", 0.99)) is None
    assert unproven(row, Claim(0.6, "certified", 0.999)) is None
    for claim, said in (
        (Claim(0.4, "certified", 0.99), "recorded lower 0.5, its counts prove 0.4"),
        (Claim(0.0, "open", 0.99, "class 3"), "recorded lower 0.5, its counts prove 0.0: class 3"),
        (Claim(np.nan, "certified", 0.99), "recorded lower 0.5, its counts prove nan"),
        (Claim(0.5, "abstain", 0.99), "recorded certified, its counts say abstain"),
        (Claim(0.5, "certified", 0.98), "recorded confidence 0.99, its counts give 0.98"),
        (Claim(0.5, "error", 0.99, "n = -1"), "cannot be derived again: n = -1"),
    ):
        assert unproven(row, claim) == said
    assert unproven({**row, "confidence": None}, Claim(0.5, "certified", 0.99)).startswith("recorded confidence None")


def test_one_row_that_a_certifier_chokes_on_does_not_condemn_the_others(copy, original):
    rewrite(copy, "evidence", edit(certified, told(hits=None, n=None, **{"class": []})))
    rewrite(copy, "evidence", edit(certified, lambda row: row["detail"].pop("n")))
    found = problems(copy, original)
    assert len(found) == 2
    assert all("cannot be derived again" in problem.text for problem in found)


def test_inflated_counts_are_found_by_fresh_draws(copy, original):
    """Counts and radius fit each other; only draws tell."""
    rewrite(copy, "evidence", edit(certified, inflated))
    assert problems(copy, original) == []
    (found,) = problems(copy, original, redraw=ALL)
    assert found.kind == "certificate"
    assert found.text.startswith("recorded hits = 300, drawn again from the run's stream ")
    edit_manifest(copy, lambda m: m["environment"].update(device="cuda (NVIDIA H200)"))  # whose draws are others
    (found,) = problems(copy, original, redraw=ALL)
    assert (found.kind, found.text) == ("certificate", "fresh draws say otherwise")


def test_counts_inflated_by_what_chance_could_do_are_found_by_the_runs_own_draws(copy, original):
    """Every row a little: no fresh draws tell one of them from luck."""

    def a_little(row):
        hits = row["detail"]["hits"] = row["detail"]["hits"] + 4
        row["lower"] = max(0.0, 0.1 * float(norm.ppf(beta.ppf(0.001, hits, 301 - hits))) * (1 - 1e-9))

    rewrite(copy, "evidence", edit(certified, a_little))
    (found,) = problems(copy, original, redraw=ALL)
    assert "drawn again from the run's stream" in found.text


def test_votes_of_tried_seeds_are_found_by_fresh_draws(copy, original, monkeypatch):
    """As if the run's own streams had given these votes: what is left are fresh ones."""
    rewrite(copy, "evidence", edit(incorrect, both(as_correct, swapped)))
    rewrite(copy, "evidence", edit(falsified, both(swapped, swapped, told(votes={"0": 1, "1": N - 1}))))
    monkeypatch.setattr(_replay_votes, "moved", lambda ballot, now: None)
    monkeypatch.setattr(_replay_votes, "witness_claim", lambda ballot, prediction, label: None)
    assert problems(copy, original) == []
    found = problems(copy, original, redraw=ALL)
    assert [problem.kind for problem in found] == ["clean", "witness"]
    assert all("of fresh ones (by chance: below 1e-06)" in problem.text for problem in found)


def test_draws_of_another_device_are_compared_as_draws(copy, original):
    edit_manifest(copy, lambda m: m["environment"].update(device="cuda (NVIDIA H200)"))
    edit_manifest(copy, lambda m: m["request"].update(seed=9))  # the draws come out otherwise
    shown = replay(Run.open(copy), search=[original], redraw=0)
    assert shown.problems == []
    assert shown.not_replayed["votes of the run"].startswith("drawn on cuda (NVIDIA H200); cpu has other draws")
    rewrite(copy, "evidence", edit(falsified, swapped))
    assert len(problems(copy, original)) == 1
    edit_manifest(copy, lambda m: m["environment"].update(device="cpu (x86_64, 1 threads)"))
    assert len(problems(copy, original)) > 20  # streams of another seed


def halfway(frame):
    """A witness halfway back to the clean input, at the distances that it then has: still within its ε."""
    clean = frame["clean"].dropna()
    at = frame.index[(frame["eps"] == 0.2) & frame["clean"].notna()][0]
    point, start = (np.frombuffer(frame.loc[at, name], "<f4") for name in ("point", "clean"))
    frame.at[at, "point"] = ((point + start) / 2).astype("<f4").tobytes()
    assert len(clean)
    return frame


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (halfway, "away, the evidence says"),
        (lambda frame: frame.iloc[1:], "no witness is kept"),
        (lambda frame: frame.assign(prediction=(frame["prediction"] + 1) % 3), "recorded prediction"),
        (lambda frame: frame.assign(l2=frame["l2"] / 2), "smaller than the point's own"),
    ],
)
def test_points_are_measured_again(change, said, copy, original):
    rewrite(copy, "witnesses", change)
    assert any(said in problem.text for problem in problems(copy, original))


def test_an_open_row_called_falsified_has_no_witness(copy, original):
    opened = both(recorded(status="falsified", upper=0.04), told(votes={"0": N}))
    rewrite(copy, "evidence", edit(lambda f: (f["kind"] == "attack") & (f["status"] == "open"), opened))
    (found,) = problems(copy, original)
    assert found.text == "the evidence says falsified, but no witness is kept"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m["classifier"].update(smoothed=False), "that the classifier votes is recorded as False"),
        (lambda m: m["classifier"].update(smoothed=False, randomized=True), "draws at inference is recorded as True"),
        (lambda m: m["request"].update(draws=2**31 - 1), "no votes are taken with 2147483647 draws"),
        (lambda m: m["request"].update(draws=None), "no votes are taken with None draws"),
        (lambda m: m["request"].update(alpha=0.5), "alpha of a prediction is recorded as 0.5, but is 0.001"),
        (lambda m: m["request"].update(draws=N // 2), "n of a prediction is recorded as 200, but is 400"),
    ],
)
def test_a_manifest_that_misdescribes_the_vote_is_found(change, said, copy, original):
    edit_manifest(copy, change)
    assert any(said in problem.text for problem in problems(copy, original))


def test_what_is_allowed_for_rounding_hides_no_verdict():
    """Brute force: whatever a forger moves, the votes drawn again test at twice the recorded α."""
    for n, alpha in ((40, 0.01), (1000, 0.001), (8_000, 1e-5)):
        passed = 0
        for true in range(n // 2 + int(n**0.5), n // 2 + int(2.5 * n**0.5)):
            for forged in range(true, min(n, true + 3 + n // 500), 1 + n // 5000):
                said = moved(Ballot(alpha, torch.tensor([forged, n - forged, 0])), torch.tensor([true, n - true, 0]))
                if said is None and binomtest(forged, n).pvalue <= alpha:
                    passed += true < forged
                    assert binomtest(true, n).pvalue <= 2 * alpha
                if true == forged:
                    assert said is None
        assert passed


@pytest.mark.parametrize(("n", "m"), [(14, 14), (12, 40), (30, 30)])
@pytest.mark.parametrize("level", [1e-6, 0.2])
def test_equal_votes_are_called_unlike_at_the_stated_rate(n, m, level, monkeypatch):
    """By enumeration, at every p; a level of 0.2 is one that is used up in part."""
    monkeypatch.setattr(_replay_redraw, "FALSE_ALARM", level)
    cells = [(a, b) for a in range(n + 1) for b in range(m + 1)]
    called = [unlike(np.array([a, n - a]), np.array([b, m - b])) is not None for a, b in cells]
    a, b = np.array([cell for cell, hit in zip(cells, called, strict=True) if hit]).T
    rates = [float((binom.pmf(a, n, p) * binom.pmf(b, m, p)).sum()) for p in np.linspace(0.01, 0.99, 99)]
    assert 0 < max(rates) <= level
    assert level < 0.1 or max(rates) > level / 10


def test_unlike_names_the_class_and_has_power():
    assert unlike(np.array([540, 450, 10]), np.array([540, 450, 10])) is None
    assert unlike(np.array([540, 450, 10]), np.array([500, 490, 10])) is None
    assert unlike(np.array([640, 350, 10]), np.array([500, 490, 10])) in (0, 1)
    assert unlike(np.array([500, 500, 0]), np.array([495, 465, 40])) == 2


def test_certificates_of_smoothing_about_the_vote_that_it_makes(original, tmp_path):
    """A run about `M | smooth`, which `-c smoothing:sigma=…` on M made: radii, and decisions that stopped early."""
    certifiers = ["smoothing:n=300,sigma=0.1", "smoothing:mode=decide,n=2000,sigma=0.1"]
    model, data = f"checkpoint:{original / 'net'}", f"npz:{original / 'data.npz'}"
    ask = {"attacks": (), "certifiers": certifiers, "out": tmp_path / "r", "batch_size": 64}
    made = evaluate(model, data, eps="0.05", norm="l2", **ask)
    assert made.run.manifest.classifier.smoothed
    honest = replay(made.run, search=[original], redraw=ALL, seed=1)
    assert (honest.problems, honest.not_replayed) == ([], {})
    assert honest.rederived == (made.evidence["lower"] > 0).sum() > 60
    assert honest.redrawn == honest.rederived + 60

    def all_hits(row):
        row["detail"].update(hits=300, p_low=float(lower_bound(300, 300, 0.001)))
        row["lower"] = 0.1 * float(norm.ppf(row["detail"]["p_low"]))

    def few(frame):
        hits = frame["detail"].map(lambda text: json.loads(text or "{}").get("hits", 300))
        return (frame["evaluator"] == certifiers[0]) & (frame["lower"] > 0) & (hits < 250)

    folder = Path(made.run.location)
    rewrite(folder, "evidence", edit(few, all_hits))
    assert problems(folder, original) == []
    (found,) = problems(folder, original, redraw=ALL)
    assert found.text.startswith("recorded hits = 300, drawn again from the run's stream ")
    rewrite(folder, "evidence", edit(few, recorded(lower=0.2)))
    assert "recorded lower 0.2, its counts prove 0.0" in problems(folder, original)[0].text


def test_the_command_says_what_was_derived_and_drawn(original, copy):
    given_ = [str(copy), "--files", str(original), "--redraw", "1"]
    rewrite(copy, "evidence", lambda frame: frame[frame["evaluator"] != "counts-short"])
    shown = CliRunner().invoke(app, ["replay", *given_])
    assert shown.exit_code == 0, shown.output
    assert re.search(r"\n  \d+ statistical certificates derived again from their counts\n", shown.stdout)
    (seed,) = re.findall(r"\n  3 rows held against fresh draws: --seed (\d+) repeats them\n", shown.stdout)
    (run,) = json.loads(CliRunner().invoke(app, ["replay", *given_, "--seed", seed, "--json"]).stdout)["runs"]
    assert (run["seed"], run["redrawn"], run["problems"]) == (int(seed), 3, [])
    assert run["rederived"] > 12
    assert CliRunner().invoke(app, ["replay", *given_, "--redraw", "-1"]).exit_code == 2
    with pytest.raises(InputError, match="ask for 0 or more"):
        replay(Run.open(copy), search=[original], redraw=-1)
