"""Classifiers without gradients: which attacks run, what refuses and says why, with scores or labels alone."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import robench
from oracles.classifiers import mlp
from robench.classifier import margins
from robench.cli import app
from robench.errors import InputError

INNER = mlp((6, 20, 3), seed=2)


def classifier(outputs):
    """The net behind an array interface: no gradients, no graph."""

    def answers(x):
        logits = INNER.function(torch.from_numpy(x)).detach().numpy()
        return logits if outputs == "logits" else logits.argmax(1)

    return robench.from_function(answers, (6,), 3, outputs=outputs, identity="a net")


def data(count=12):
    x = torch.rand(200, 6, generator=torch.Generator().manual_seed(0))
    logits = INNER.function(x).detach()
    y = logits.argmax(1)
    rows = (margins(logits, y) > 0.05).nonzero()[:count, 0]
    return x[rows].numpy(), y[rows].numpy()


def evaluated(outputs, tmp_path, **settings):
    notes = []
    settings = {"eps": "0.3", "out": tmp_path, "warn": notes.append, **settings}
    return robench.evaluate(classifier(outputs), data(), **settings), notes


@pytest.mark.parametrize(("outputs", "default"), [("logits", "square"), ("labels", "hopskipjump")])
def test_without_a_request_the_first_default_that_applies_runs(outputs, default, tmp_path):
    done, _ = evaluated(outputs, tmp_path)
    (info,) = done.run.manifest.evaluators
    assert (info.canonical, info.default) == (default, True)
    assert info.access == outputs
    (result,) = done.summary["results"]
    assert result["empirical_accuracy"] < 0.8
    assert result["certified_accuracy"] is None


def test_scores_and_decisions_break_about_the_same(tmp_path):
    broken = {}
    for outputs, attack in (("logits", "square:queries=1000"), ("labels", "hopskipjump:queries=1000")):
        done, _ = evaluated(outputs, tmp_path / outputs, attacks=attack)
        rows = done.evidence
        rows = rows[rows["kind"] == "attack"]
        broken[outputs] = set(rows[rows["upper"] <= 0.3]["sample"])
        assert (rows["backwards"] == 0).all()
    both = broken["logits"] & broken["labels"]
    assert len(both) >= 0.8 * max(map(len, broken.values())) > 0


def test_one_search_by_labels_answers_every_epsilon(tmp_path):
    done, _ = evaluated("labels", tmp_path, attacks="hopskipjump:queries=500", eps=["0.05", "0.2", "0.6"])
    accuracies = [result["empirical_accuracy"] for result in done.summary["results"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] > accuracies[-1]
    points = done.run.witnesses()
    assert set(points["margin"].to_pylist()) == {-1.0}


@pytest.mark.parametrize("outputs", ["logits", "labels"])
@pytest.mark.parametrize("attack", ["pgd", "fgsm", "apgd", "ddn", "fmn", "cw", "deepfool", "fab"])
def test_gradient_attacks_refuse_and_name_those_that_apply(outputs, attack, tmp_path):
    with pytest.raises(InputError) as raised:
        evaluated(outputs, tmp_path, attacks=attack, norm="l2")
    message = str(raised.value)
    assert "gives no gradients" in message
    named = message.partition("these apply: ")[2].split(", ")
    assert {"hopskipjump", "transfer:source=…"} <= set(named)
    assert ("square" in named) == (outputs == "logits")
    assert not {"pgd", "apgd", "fgsm", "fmn", "autoattack"} & set(named)
    assert "\n" not in message
    assert not list(tmp_path.iterdir())


def test_square_refuses_labels_alone(tmp_path):
    with pytest.raises(InputError, match=r"labels alone: a random search needs scores; these apply: .*hopskipjump"):
        evaluated("labels", tmp_path, attacks="square")


@pytest.mark.parametrize("certifier", ["ibp", "linear", "lipschitz"])
def test_certifiers_of_the_graph_say_why_they_do_not_apply(certifier, tmp_path):
    with pytest.raises(InputError, match=f"{certifier} reads the network's graph, and this classifier has none"):
        evaluated("logits", tmp_path, certifiers=certifier, norm="l2")


def test_a_classifier_with_a_graph_gets_the_first_default(tmp_path):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 3)).eval()
    done = robench.evaluate(net, data(4), eps="0.01", out=tmp_path)
    attacks = [info.canonical for info in done.run.manifest.evaluators if info.side == "attack"]
    first = robench.registry.load_plugins().defaults("attacks")[0][0].name
    assert attacks == [first]
    assert first not in ("square", "hopskipjump")


def test_the_plan_says_which_defaults_were_left_out(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    nodes = [helper.make_node("Round", ["x"], ["r"]), helper.make_node("MatMul", ["r", "w"], ["y"])]
    weight = onnx.numpy_helper.from_array(np.eye(6, 3, dtype=np.float32), "w")
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 6), ("y", 3))
    ]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    x = np.eye(6, dtype=np.float32)[:3]
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(3))
    command = ["eval", "-m", f"onnxruntime:{tmp_path}/net.onnx", "-d", f"npz:{tmp_path}/data.npz", "--eps", "0.6"]
    plan = json.loads(CliRunner().invoke(app, [*command, "--dry-run", "--json"]).stdout)
    assert plan["request"]["evaluators"] == ["square"]
    assert any("gives no gradients" in why for why in plan["skipped"].values())
    assert any("has none" in why for why in plan["skipped"].values())
    done = CliRunner().invoke(app, [*command, "-a", "square:queries=200", "--out", str(tmp_path / "out"), "--json"])
    (result,) = json.loads(done.stdout)["results"]
    assert result["clean_accuracy"] == 1
    assert result["empirical_accuracy"] == 0
    versions = next((tmp_path / "out").glob("*/*/*/manifest.json")).read_text()
    assert "onnxruntime" in json.loads(versions)["environment"]["versions"]


def test_answers_that_are_no_answers_end_the_command_in_one_line(tmp_path):
    broken = robench.from_function(lambda x: np.zeros((len(x), 2)), (6,), 3, identity="broken")
    with pytest.raises(InputError, match="logits must be numbers"):
        robench.evaluate(broken, data(), eps="0.1", out=tmp_path)
    noisy = np.random.default_rng(0)
    random = robench.from_function(lambda x: noisy.normal(size=(len(x), 3)), (6,), 3, identity="random")
    with pytest.raises(InputError, match="different logits for the same input"):
        robench.evaluate(random, data(), eps="0.1", out=tmp_path)
    centred = robench.from_function(lambda x: x[:, :3] - x[:, :3].mean(0), (6,), 3, identity="centred")
    with pytest.raises(InputError, match="depend on the others in its batch"):
        robench.evaluate(centred, data(), eps="0.1", out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_resuming_needs_an_identity(tmp_path):
    hidden = torch.Generator()

    def function(x, hidden=hidden):
        return INNER.function(torch.from_numpy(x)).detach().numpy()

    unnamed = robench.from_function(function, (6,), 3)
    settings = {"eps": "0.1", "attacks": "square:queries=50", "out": tmp_path, "resume": True}
    with pytest.raises(InputError, match="cannot be told"):
        robench.evaluate(unnamed, data(), **settings)
    named = robench.from_function(function, (6,), 3, identity="v1")
    first, again = (robench.evaluate(named, data(), **settings) for _ in range(2))
    assert first.run.manifest.run == again.run.manifest.run
    assert dataclasses.asdict(first)["summary"] == dataclasses.asdict(again)["summary"]
