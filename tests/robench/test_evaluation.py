"""Whole evaluations from Python: evidence, repeatability, order, resume, and bad input."""

import json
import multiprocessing
import os
import random
import signal
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import robench
from oracles.export import export
from oracles.interrupted import long_evaluation
from oracles.nets import blobs, trained
from robench.api import evaluate
from robench.check import check
from robench.classifier import Counted
from robench.cli import app
from robench.contracts import Attack, Proposal
from robench.errors import InputError, PluginError
from robench.evaluation import _execute
from robench.evidence import decode_points
from robench.runner import Judge
from robench.runner import evaluate_chunk as chunk
from robench.runs import find_runs
from robench.samples import Samples
from robench.threat import Domain

KEY = ["sample", "evaluator", "norm", "eps"]


def rows(evaluation, drop=("run", "seconds")):
    """Return the evidence in a fixed order, without what may differ between equal runs."""
    frame = evaluation.evidence if hasattr(evaluation, "evidence") else evaluation
    frame = frame.drop(columns=[name for name in (*drop, "started", "finished") if name in frame])
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.CategoricalDtype):
            frame[name] = frame[name].astype(object)
    return frame.sort_values(KEY, na_position="first").reset_index(drop=True)


SHORT = {"eps": ["0.02", "0.05"], "attacks": "pgd:steps=10"}
"""For tests that need some attack and any outcomes."""


def equal(one, other):
    pd.testing.assert_frame_equal(rows(one), rows(other), check_categorical=False)


def test_both_sides_end_in_one_table(tmp_path):
    done = evaluate(trained(), blobs(), eps=["0.01", "0.05"], out=tmp_path)
    assert done.run.manifest.complete
    frame = done.evidence
    kinds = frame.groupby("kind", observed=True)["sample"].nunique()
    assert kinds["clean"] == 60
    assert {"attack", "certificate"} <= set(kinds.index)
    small, large = done.summary["results"]
    assert (small["eps"], large["eps"]) == ("0.01", "0.05")
    for result in (small, large):
        assert result["certified_accuracy"] <= result["empirical_accuracy"] <= result["clean_accuracy"]
        assert result["contradictions"] == result["errors"] == 0
    assert large["empirical_accuracy"] < small["empirical_accuracy"]
    assert check([done.run]).findings == ()
    assert len(robench.load(tmp_path)) == len(frame)


def test_a_side_that_is_off_is_null(tmp_path):
    one = evaluate(trained(), blobs(), eps="0.05", attacks=(), out=tmp_path).summary["results"][0]
    assert one["empirical_accuracy"] is None
    assert one["certified_accuracy"] is not None
    other = evaluate(trained(), blobs(), eps="0.05", certifiers=(), out=tmp_path).summary["results"][0]
    assert other["certified_accuracy"] is None
    assert other["empirical_accuracy"] is not None


def test_a_repeated_run_is_equal_to_the_bit(tmp_path):
    first, second = (evaluate(trained(), blobs(), eps=["0.02", "0.05"], out=tmp_path / str(i)) for i in range(2))
    equal(first, second)
    assert first.run.witnesses().drop_columns(["run"]).equals(second.run.witnesses().drop_columns(["run"]))


@pytest.mark.parametrize("size", [1, 7, 256])
def test_keys_and_statuses_do_not_depend_on_the_batch(size, tmp_path):
    whole = evaluate(trained(()), blobs(), precision="fp64", out=tmp_path / "a", **SHORT)
    part = evaluate(trained(()), blobs(), precision="fp64", batch_size=size, out=tmp_path / "b", **SHORT)
    # A linear model in float64: the very same statuses.
    pd.testing.assert_frame_equal(rows(whole)[[*KEY, "status"]], rows(part)[[*KEY, "status"]])


def misclassified(done, net, data):
    """Ask about every witness of a run again, by the judge's rules."""
    classifier = robench.from_module(net, data.shape, device="cpu", dtype=torch.float32)
    table = done.run.witnesses()
    points = torch.from_numpy(np.array(decode_points(table)))
    labels = torch.from_numpy(data.y[table["sample"].to_numpy()])
    return Judge(Counted(classifier)).confirm(points, labels)[0]


@pytest.mark.parametrize("size", [1, 7])
def test_statuses_of_nets_hardly_depend_on_the_batch(size, tmp_path):
    data = blobs(400, seed=5)
    given = {"eps": "0.03", "attacks": "pgd:steps=10"}
    whole = evaluate(trained((32, 32)), data, out=tmp_path / "a", **given)
    part = evaluate(trained((32, 32)), data, batch_size=size, out=tmp_path / "b", **given)
    one, other = rows(whole), rows(part)
    assert one[KEY].equals(other[KEY])
    assert (one["status"] == other["status"]).mean() >= 0.995
    for done in (whole, part):
        assert misclassified(done, trained((32, 32)), data).all()
    assert check([whole.run, part.run]).findings == ()


def test_an_onnx_export_is_the_same_classifier(tmp_path):
    net = trained((16,))
    file = export(net, (6,), tmp_path / "net.onnx", dynamo=True, free_batch=True)
    one = evaluate(net, blobs(), out=tmp_path / "a", **SHORT)
    other = evaluate(f"onnx:{file}", blobs(), out=tmp_path / "b", **SHORT)
    assert one.run.manifest.classifier.fingerprint == other.run.manifest.classifier.fingerprint
    shares = ("clean_accuracy", "certified_accuracy", "empirical_accuracy")
    for first, second in zip(one.summary["results"], other.summary["results"], strict=True):
        assert [first[name] for name in shares] == [second[name] for name in shares]


def test_two_sample_orders_give_the_same_rows(tmp_path):
    data = blobs()
    order = np.random.default_rng(0).permutation(len(data))

    class Shuffled:
        def load(self, split):
            return data.select(order)

    net = trained(())
    whole = evaluate(net, data, eps=["0.02", "0.05"], precision="fp64", out=tmp_path / "a")
    shuffled = evaluate(net, Shuffled(), eps=["0.02", "0.05"], precision="fp64", out=tmp_path / "b")
    pd.testing.assert_frame_equal(rows(whole)[[*KEY, "status"]], rows(shuffled)[[*KEY, "status"]])


def test_samples_choose_rows_and_leave_the_identity_alone(tmp_path):
    whole = evaluate(trained(), blobs(), eps="0.05", out=tmp_path)
    part = evaluate(trained(), blobs(), eps="0.05", samples="10:20", out=tmp_path)
    assert part.run.manifest.dataset.hash == whole.run.manifest.dataset.hash
    assert part.run.manifest.dataset.samples_hash != whole.run.manifest.dataset.samples_hash
    one, other = rows(whole), rows(part)
    pd.testing.assert_frame_equal(
        one[one["sample"].between(10, 19)][[*KEY, "status"]].reset_index(drop=True), other[[*KEY, "status"]]
    )


def test_a_budget_that_covers_the_domain_is_pointed_out(tmp_path):
    warnings = []
    evaluate(trained(), blobs(), eps="8", attacks="fgsm", certifiers="none", out=tmp_path, warn=warnings.append)
    assert warnings == ["ε = 8 covers the whole domain [0, 1]: is it 8/255?"]


def test_the_model_is_left_as_it_was(tmp_path):
    net = trained()
    net[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    evaluate(net, blobs(), eps="0.05", out=tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert [p.grad for p in net.parameters()] == [None] * 4
    assert [p.requires_grad for p in net.parameters()] == [False, True, True, True]


def test_a_failing_attack_is_an_error_and_nothing_is_lost(tmp_path):
    @dataclass(frozen=True)
    class Fails(Attack):
        def perturb(self, classifier, x, y, threat, stream):
            raise RuntimeError("no luck")

    warnings = []
    done = evaluate(trained(), blobs(), eps="0.05", attacks=[Fails(), "pgd"], out=tmp_path, warn=warnings.append)
    result = done.summary["results"][0]
    correct = round(result["clean_accuracy"] * 60)
    assert result["errors"] == done.run.manifest.errors == correct
    assert result["empirical_accuracy"] < result["clean_accuracy"]
    assert any(flag["code"] == "errors" for flag in result["flags"])
    assert "no luck" in warnings[0]


def test_resume_of_a_complete_run_does_nothing(tmp_path):
    first = evaluate(trained(), blobs(), eps="0.05", out=tmp_path)
    again = evaluate(trained(), blobs(), eps="0.05", out=tmp_path, resume=True)
    assert again.run.manifest.run == first.run.manifest.run
    assert len(find_runs([tmp_path])) == 1
    other = evaluate(trained(), blobs(), eps="0.05", out=tmp_path, resume=True, seed=1)
    assert other.run.manifest.run != first.run.manifest.run


def test_killed_at_twenty_random_moments_a_run_resumes_to_the_same_rows(tmp_path):
    start = time.monotonic()
    expected = long_evaluation(tmp_path / "whole")
    whole = time.monotonic() - start
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["oracles.interrupted"])
    moments = random.Random(0)
    for _ in range(20):
        child = context.Process(target=long_evaluation, args=(tmp_path / "killed",))
        child.start()
        time.sleep(moments.uniform(0, whole / 4))
        child.kill()
        child.join()
        assert child.exitcode in (-signal.SIGKILL, 0)
    resumed = long_evaluation(tmp_path / "killed")
    assert len(find_runs([tmp_path / "killed"])) == 1
    equal(expected, resumed)
    assert check([resumed.run]).findings == ()


def test_a_plugin_that_patches_its_classifier_changes_no_verdict(tmp_path):
    @dataclass(frozen=True)
    class Patches(Attack):
        def perturb(self, classifier, x, y, threat, stream):
            honest = classifier.logits
            classifier.logits = lambda z: -honest(z)
            classifier.graph = None
            return Proposal(x)

    for net in (trained(), _Opaque().eval()):
        done = evaluate(net, blobs(), eps="1e-6", attacks=[Patches(), "fgsm"], out=tmp_path)
        row = done.summary["results"][0]
        assert row["empirical_accuracy"] == row["clean_accuracy"]
        assert row["errors"] == 0


class _Opaque(nn.Module):
    """A net that no graph expresses."""

    def __init__(self):
        super().__init__()
        self.inner = trained()

    def forward(self, x):
        return torch.sin(self.inner(x))


def test_a_plugin_that_writes_into_the_weights_is_caught(tmp_path):
    @dataclass(frozen=True)
    class Writes(Attack):
        quietly: bool

        def perturb(self, classifier, x, y, threat, stream):
            for node in classifier.graph.nodes:
                for tensor in node.constants.values():
                    (tensor.data if self.quietly else tensor).add_(100.0)
            return Proposal(x)

    for quietly in (False, True):
        with pytest.raises(PluginError, match="changed the classifier's weights"):
            evaluate(trained(), blobs(), eps="0.05", attacks=[Writes(quietly)], out=tmp_path / str(quietly))
        assert not find_runs([tmp_path / str(quietly)])[0].manifest.complete


def test_what_cannot_be_told_apart_is_not_resumed(tmp_path):
    class Vague:
        """Its parameter shows nowhere."""

        per_eps = True

        def __init__(self, size):
            self.size = size

        def perturb(self, classifier, x, y, threat, stream):
            return Proposal(x + self.size)

    evaluate(trained(), blobs(), eps="0.05", attacks=[Vague(0.0)], out=tmp_path)
    with pytest.raises(InputError, match="no run can be resumed with python:Vague"):
        evaluate(trained(), blobs(), eps="0.05", attacks=[Vague(1.0)], out=tmp_path, resume=True)


def test_a_stage_named_like_another_evaluator_keeps_its_rows(tmp_path):
    @dataclass(frozen=True)
    class Composite:
        def stages(self, classifier, threat):
            yield "pgd:steps=2", Still(), None
            yield "ibp", Still(), None

    done = evaluate(
        trained(), blobs(), eps="0.05", attacks=[Composite(), "pgd:steps=2"], certifiers=["ibp"], out=tmp_path
    )
    assert {"pgd:steps=2", "pgd:steps=2#2", "ibp", "ibp#2"} <= set(done.evidence["evaluator"])


def test_the_manifest_names_the_stages_of_a_composite_and_a_resumed_run_keeps_them(tmp_path):
    @dataclass(frozen=True)
    class Composite:
        def stages(self, classifier, threat):
            outcome = yield "all", Still(), None
            if bool((outcome.margin < low).any()):
                yield "some", Nearest(), outcome.margin < low

    margins = evaluate(trained(), blobs(), eps="0.01", attacks=[Still()], certifiers="none", out=tmp_path / "margins")
    details = margins.evidence.loc[margins.evidence["kind"] == "clean", "detail"]
    first, *rest = [json.loads(text)["margin"] for text in details]
    assert first > min(rest), "the first sample shall not need the second stage"

    stages, low = {"all": ("gradients", True)}, -1.0
    settings = {"eps": ["0.01", "0.05"], "certifiers": "none", "batch_size": 1, "out": tmp_path / "results"}
    plain = evaluate(trained(), blobs(), attacks=[Composite(), Nearest()], **settings)
    (one, other) = plain.run.manifest.evaluators
    assert {name: (stage.access, stage.per_eps) for name, stage in one.stages.items()} == stages
    assert (one.access, other.access, other.stages, other.per_eps) == (None, "logits", None, False)

    with pytest.MonkeyPatch.context() as patch:  # every chunk is put at once, the second stage's turn comes later
        patch.setattr(_execute, "COMMIT_SECONDS", 0.0)
        low, killed = first, {"attacks": [Composite()], "seed": 1, "resume": True, **settings}
        patch.setattr(_execute, "evaluate_chunk", stop_after(5))
        with pytest.raises(KeyboardInterrupt):
            evaluate(trained(), blobs(), **killed)
    (left,) = [run for run in find_runs(tmp_path / "results") if not run.manifest.complete]
    known = left.manifest.evaluators[0].stages
    assert "all" in known
    done = evaluate(trained(), blobs(), **killed)
    assert done.run.manifest.run == left.manifest.run
    (composite,) = done.run.manifest.evaluators
    assert list(composite.stages) == ["all", "some"]
    assert (composite.stages["some"].access, composite.stages["some"].per_eps) == ("logits", False)
    assert check([plain.run, done.run]).findings == ()


def stop_after(count):
    """`evaluate_chunk`, interrupted after so many chunks."""
    turns = iter(range(count))

    def evaluate_chunk(*arguments):
        if next(turns, None) is None:
            raise KeyboardInterrupt
        return chunk(*arguments)

    return evaluate_chunk


@dataclass(frozen=True)
class Nearest(Attack):
    """A minimum-norm attack that asks for logits and finds nothing."""

    per_eps = False
    access = "logits"

    def perturb(self, classifier, x, y, threat, stream):
        return Proposal(x)


@dataclass(frozen=True)
class Still(Attack):
    """Proposes the clean input."""

    def perturb(self, classifier, x, y, threat, stream):
        return Proposal(x)


def test_evidence_stays_where_it_was_begun(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    @dataclass(frozen=True)
    class Wanders(Attack):
        def perturb(self, classifier, x, y, threat, stream):
            os.chdir(tmp_path / "elsewhere")
            return Proposal(x)

    evaluate(trained(), blobs(), eps="0.05", attacks=[Wanders()], out="results")
    assert not list((tmp_path / "elsewhere").iterdir())
    assert find_runs([tmp_path / "results"])[0].manifest.complete


def test_memory_mapped_data_is_read_a_batch_at_a_time(tmp_path):
    reads = []

    class Watched:
        shape, dtype = (60, 6), np.dtype(np.float32)

        def __len__(self):
            return 60

        def __getitem__(self, chosen):
            reads.append(len(np.arange(60)[chosen]))
            return np.asarray(data.x)[chosen]

    data = blobs()
    lazy = Samples(Watched(), data.y, data.index, Domain(), data.classes)
    evaluate(trained(), lazy, eps="0.05", batch_size=8, out=tmp_path)
    assert reads.count(60) == 1  # the dataset's hash
    assert max(count for count in reads if count != 60) <= 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": []}, "no ε"),
        ({"eps": "-1"}, "ε"),
        ({"norm": "l7"}, "norm"),
        ({"precision": "fp8"}, "precision"),
        ({"device": "tpu"}, "device"),
        ({"device": "cuda:99"}, "not there"),
        ({"seed": 2**63}, "seed"),
        ({"name": "n" * 600}, "name"),
        ({"name": "escape \x1b[31m"}, "name"),
        ({"meta": "nowhere.toml"}, "nowhere.toml"),
        ({"batch_size": 0}, "batch size"),
        ({"samples": "60:"}, "selects nothing"),
        ({"samples": "a:b"}, "positions"),
        ({"attacks": ["pgd", "pgd"]}, "twice"),
        ({"attacks": ["pdg"]}, "pgd"),
        ({"attacks": (), "certifiers": ()}, "both sides"),
        ({"certifiers": ["linear"]}, "does not apply"),
        ({"model": nn.Sequential(nn.Linear(7, 3)).eval()}, "takes|shape"),
        ({"model": nn.Sequential(nn.Linear(6, 2)).eval()}, "labels up to 2"),
        ({"model": nn.Sequential(nn.Linear(6, 3), nn.Dropout()).train()}, "training|evaluation mode"),
        ({"model": "checkpoint:nowhere"}, "nowhere"),
        ({"dataset": "digit"}, "digits"),
        ({"dataset": blobs().select([])}, "no samples"),
        ({"dataset": (np.full((4, 6), 2.0, np.float32), np.zeros(4, int))}, "outside the domain"),
        ({"dataset": (np.zeros((4, 6), np.int64), np.zeros(4, int))}, "floats"),
        ({"dataset": (np.zeros((4, 6), np.longdouble), np.zeros(4, int))}, "floats"),
        ({"attacks": "pgd | eot:draws=2 | eot:draws=3"}, "eot stands there twice"),
        ({"dataset": (np.zeros((4, 6), np.float32), np.zeros(3, int))}, "4 inputs but 3 labels"),
        ({"dataset": torch.utils.data.TensorDataset(torch.zeros(4, 6))}, "TensorDataset is no dataset"),
        ({"attacks": "pdg"}, "pdg"),
        ({"attacks": "none", "certifiers": "none"}, "both sides"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(change, message, tmp_path):
    given = {"model": trained(), "dataset": blobs(), "eps": "0.05", "out": tmp_path / "results"} | change
    with pytest.raises(InputError, match=message) as caught:
        evaluate(given.pop("model"), given.pop("dataset"), **given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()


def test_arrays_may_be_read_only_and_of_another_byte_order(tmp_path):
    x, y = np.array(blobs().x), blobs().y
    x.flags.writeable = False
    first = evaluate(trained(), (x, y), eps="0.05", attacks="pgd:steps=3", out=tmp_path / "a")
    second = evaluate(trained(), (x.astype(">f4"), y), eps="0.05", attacks="pgd:steps=3", out=tmp_path / "b")
    equal(first, second)


def test_undeclared_randomness_is_refused(tmp_path):
    class Noisy:
        input_shape, classes, dtype, device = (6,), 3, torch.float32, torch.device("cpu")
        fingerprint, graph = "1" * 64, None

        def logits(self, x):
            return torch.rand(len(x), 3)

    with pytest.raises(InputError, match="different logits for the same input"):
        evaluate(Noisy(), blobs(), eps="0.05", out=tmp_path / "results")

    assert not (tmp_path / "results").exists()


def test_no_space_left_in_the_middle_keeps_what_was_done(tmp_path, monkeypatch):
    from robench.storage import LocalStorage

    real, count = LocalStorage.put, iter(range(1000))

    def full(self, key, data):
        if key.startswith("evidence/") and next(count) >= 3:
            raise OSError(28, "No space left on device", key)
        return real(self, key, data)

    monkeypatch.setattr(LocalStorage, "put", full)
    monkeypatch.setattr("robench.evaluation._execute.COMMIT_SECONDS", 0.0)
    with pytest.raises(OSError, match="No space left"):
        evaluate(trained(()), blobs(), eps="0.1", attacks="pgd:steps=10", batch_size=8, out=tmp_path)
    monkeypatch.setattr(LocalStorage, "put", real)
    (run,) = find_runs([tmp_path])
    assert not run.manifest.complete
    assert run.evidence()["sample"].unique().to_pylist() == list(range(24))
    resumed = evaluate(trained(()), blobs(), eps="0.1", attacks="pgd:steps=10", batch_size=8, out=tmp_path, resume=True)
    assert resumed.run.manifest.run == run.manifest.run
    equal(
        evaluate(trained(()), blobs(), eps="0.1", attacks="pgd:steps=10", batch_size=8, out=tmp_path / "other"), resumed
    )


def test_the_command_in_the_manifest_can_be_run_again(tmp_path, monkeypatch):
    import shlex

    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path / "net")
    np.savez("data.npz", x=np.asarray(blobs().x), y=blobs().y)
    first = evaluate("checkpoint:net", "npz:data.npz | subset:n=20", eps="0.05", out="results", meta=_meta(tmp_path))
    command = first.run.manifest.command
    assert "@sha256:" in command
    again = CliRunner().invoke(app, [*shlex.split(command)[1:], "--json"])
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["results"][0]["fingerprint"] == first.run.manifest.classifier.fingerprint
    one, other = find_runs(["results"])
    assert one.manifest.request == other.manifest.request
    assert first.run.manifest.display.paper == "A paper"
    assert first.run.manifest.display.more == {"code": "https://example.org"}


def _meta(folder):
    (folder / "meta.toml").write_text('paper = "A paper"\ncode = "https://example.org"\n')
    return folder / "meta.toml"


def test_an_interrupt_keeps_finished_chunks_and_exits_130(tmp_path, monkeypatch):
    import sys

    from robench.cli import main

    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", x=np.asarray(blobs().x), y=blobs().y)
    save_checkpoint(tmp_path / "net")
    real, count = Judge.clean, iter(range(100))

    def interrupted(self, x, y):
        if next(count) == 3:
            raise KeyboardInterrupt
        return real(self, x, y)

    monkeypatch.setattr(Judge, "clean", interrupted)
    words = ["robench", "eval", "-m", "checkpoint:net", "-d", "npz:data.npz", "--eps", "0.05", "--batch-size", "8"]
    monkeypatch.setattr(sys, "argv", [*words, "--out", "results"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 130
    (run,) = find_runs(["results"])
    assert not run.manifest.complete
    assert run.evidence()["sample"].unique().to_pylist() == list(range(24))
    monkeypatch.setattr(Judge, "clean", real)
    monkeypatch.setattr(sys, "argv", [*words, "--out", "results", "--resume"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    (run,) = find_runs(["results"])
    assert run.manifest.complete


def save_checkpoint(folder):
    from robench.graph import from_torch, save

    save(from_torch(trained(), (6,)), folder, {})


def test_a_result_is_printed_as_the_command_prints_it(tmp_path):
    done = evaluate(trained(), blobs(), **SHORT, out=tmp_path)
    shown = CliRunner().invoke(app, ["report", str(tmp_path)]).stdout.splitlines()
    assert str(done).splitlines() == [*shown, f"evidence: {done.run.location}"]
    assert repr(done) == f"<Evaluation {done.run.manifest.run} in {done.run.location}>"


def test_an_object_that_is_no_classifier_yet_is_told_how_to_become_one(tmp_path):
    class Pipeline:
        def predict(self, x):
            return x

    with pytest.raises(InputError, match=r"a Pipeline .*from_sklearn.*from_module.*from_function"):
        evaluate(Pipeline(), blobs(), eps="0.1", out=tmp_path)


def test_the_manifest_names_no_path_user_or_host(tmp_path):
    import getpass
    import socket

    text = json.dumps(evaluate(trained(), blobs(), eps="0.05", out=tmp_path).run.manifest.model_dump(mode="json"))
    for secret in (str(tmp_path), socket.gethostname(), "/home"):
        assert secret not in text
    assert f'"{getpass.getuser()}"' not in text
