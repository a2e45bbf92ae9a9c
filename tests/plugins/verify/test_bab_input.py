"""`bab` and what goes wrong around it: bad parameters, memory, errors, no time. None of it ends in `certified`."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from oracles.decisions import decide, ties
from oracles.enumeration import exact_radius, random_net
from oracles.nets import blobs, trained
from oracles.random_graphs import Draft, evaluate, mlp
from robench.api import evaluate as run
from robench.cli import app
from robench.graph import Graph, GraphClassifier, Node
from robench.runs import find_runs
from robench.threat import Domain, Threat
from robench_plugins.verify._tree import attack, inner, inputs, query, search, signs
from robench_plugins.verify._tree import run as module
from robench_plugins.verify.bab import BaB

SPLITS = ("signs", "inputs")
Y = torch.zeros(1, dtype=torch.int64)


@pytest.fixture(scope="module")
def case():
    """Four samples of a network, some safe and some not, which need several rounds; their true answers."""
    weights, biases = random_net(np.random.default_rng(7), (3, 6, 5, 3))
    graph, x = mlp(weights, biases), torch.tensor(np.random.default_rng(6).random((9, 3)))
    y = evaluate(graph, x).argmax(1)
    threat = Threat("linf", 0.5, Domain())
    radii = [exact_radius(weights, biases, x[k].numpy(), int(y[k]), "linf") for k in range(9)]
    return graph, x, y, threat, ["certified" if radius > 0.5 else "falsified" for radius in radii]


# ------------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    "words",
    ["timeout=0", "timeout=-1", "timeout=nan", "timeout=inf", "batch=1", "steps=0", "split=both", "restarts=-1"],
)
def test_bad_parameters_are_refused_in_one_line(words, tmp_path):
    line = ["eval", "-m", "digits-standard", "-d", "digits", "--eps", "0.1", "-a", "none", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, [*line, "-c", f"bab:{words}"])
    assert done.exit_code == 2, done.output
    said = done.output.strip()
    assert words.partition("=")[0] in said and "bab" in said
    assert len(said.splitlines()) == 1 and "Traceback" not in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_limit_is_a_time(seconds):
    with pytest.raises(ValueError, match="timeout"):
        BaB(timeout=seconds)


def test_what_it_cannot_do_is_said_by_name():
    nodes = (Node("input", shape=(2,)), Node("erf", (0,), shape=(2,)))
    assert "erf" in (BaB().applies(SimpleNamespace(graph=Graph(nodes)), "linf") or "")
    assert "graph" in (BaB().applies(SimpleNamespace(graph=None), "linf") or "")
    smooth = Draft((2,), np.random.default_rng(0)).linear(3).add("sigmoid").linear(2).graph()
    classifier = GraphClassifier(smooth, dtype=torch.float64)
    assert "split=inputs" in (BaB(split="signs").applies(classifier, "linf") or "")
    assert BaB().applies(classifier, "linf") is None
    with pytest.raises(ValueError, match="budget"):
        BaB().certify(classifier, torch.zeros(1, 2).double(), Y, Threat("linf", None, Domain()), None)


def test_a_network_of_another_size_is_refused(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros((3, 5), np.float32), y=np.zeros(3, np.int64))
    words = ["eval", "-m", "digits-standard", "-d", f"npz:{tmp_path / 'd.npz'}", "--eps", "0.1", "-a", "none"]
    done = CliRunner().invoke(app, [*words, "-c", "bab", "--out", str(tmp_path / "res")])
    assert done.exit_code == 2, done.output
    assert len(done.output.strip().splitlines()) == 1 and "5" in done.output


# ----------------------------------------------------------------------------------------------------- memory

ERRORS = {
    "host": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    "windows": lambda: RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 12 bytes."),
    "device": lambda: torch.OutOfMemoryError("CUDA out of memory."),
    "python": MemoryError,
}


def small(monkeypatch, most, error=ERRORS["host"]):
    """Let every pass of more than `most` rows run out of memory; return the sizes that were asked."""
    asked = []
    for place in (module, signs, inputs):
        for name in ("lower_bounds", "optimise"):
            right = getattr(place, name, None)
            if right is None:
                continue

            def limited(program, region, lines, rows, *args, right=right, **named):
                asked.append(len(rows))
                if len(rows) > most:
                    raise error()
                return right(program, region, lines, rows, *args, **named)

            monkeypatch.setattr(place, name, limited)
    return asked


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
@pytest.mark.parametrize("split", SPLITS)
def test_too_little_memory_makes_batches_smaller(case, split, error, monkeypatch):
    """The answers stay the same."""
    graph, x, y, threat, wanted = case
    asked = small(monkeypatch, 8, error)
    found = decide(graph, x, y, threat, split=split, restarts=0)
    assert max(asked) > 8 >= min(asked)
    assert list(found.status) == wanted


@pytest.mark.parametrize("split", SPLITS)
def test_no_memory_at_all_is_a_timeout(case, split, monkeypatch):
    graph, x, y, threat, wanted = case
    small(monkeypatch, 0)
    found = decide(graph, x, y, threat, split=split, restarts=0)
    for k, status in enumerate(found.status):
        told = found.detail[k]
        assert (
            (status == "timeout" and "memory" in told["reason"]) or told.get("by") == "ibp" or wanted[k] == "falsified"
        )
        assert status == wanted[k] or (status == "timeout" and float(found.lower[k]) == 0.0)
    assert "timeout" in found.status


def test_no_memory_for_the_attack_still_proves(case, monkeypatch):
    graph, x, y, threat, wanted = case

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(attack.Refuter, "descend", full)
    found = decide(graph, x, y, threat, split="inputs", timeout=5.0)
    assert {(one, two) for one, two in zip(found.status, wanted, strict=True)} <= {
        ("certified", "certified"),
        ("falsified", "falsified"),
        ("timeout", "falsified"),
    }
    assert "certified" in found.status


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("split", SPLITS)
def test_the_callers_mode_changes_nothing(case, split, mode):
    graph, x, y, threat, wanted = case
    with mode():
        assert list(decide(graph, x.clone(), y.clone(), threat, split=split).status) == wanted


# ----------------------------------------------------------------------------------------------------- errors

PLACES = {
    "bounds": (module, "lower_bounds"),
    "climb": (module, "optimise"),
    "inner bounds": (module, "bounded"),
    "climb of pieces": (signs, "optimise"),
    "proof of pieces": (signs, "lower_bounds"),
    "bounds of pieces": (signs, "tightened"),
    "children": (signs.Signs, "_children"),
    "gains": (signs.Gains, "learn"),
    "points": (attack.Refuter, "consider"),
    "attack": (attack.Refuter, "descend"),
    "query": (query.Query, "unsettled"),
    "worst": (search, "worst"),
    "boxes": (inputs, "_bounded"),
    "halves": (inputs, "_halves"),
}


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyError("broken"), FloatingPointError("broken")], ids=repr)
@pytest.mark.parametrize("place", PLACES)
def test_no_error_ends_in_a_certificate(case, place, error, monkeypatch):
    """Whatever fails goes through; it fails at its second call where there is one: something is known already."""
    graph, x, y, threat, _ = case
    owner, name = PLACES[place]
    right, calls = getattr(owner, name), []

    def fails(*args, **named):
        calls.append(name)
        if len(calls) > 1:
            raise error
        return right(*args, **named)

    monkeypatch.setattr(owner, name, fails)
    split = "inputs" if owner is inputs else "signs"
    with pytest.raises(type(error)):
        decide(graph, x, y, threat, split=split, restarts=0, inner=0)


@pytest.mark.parametrize("place", [(inner, "_branched"), (inner.Signs, "proven"), (signs, "closed")])
def test_no_late_error_ends_in_a_certificate(case, place, monkeypatch):
    """The same where only some networks come."""
    graph, x, y, threat, _ = case if place[0] is not signs else (*ties(4), None)

    def fails(*_, **__):
        raise KeyError("broken")

    monkeypatch.setattr(*place, fails)
    monkeypatch.setattr(module.Effort, "stages", ((16, 1.0),))
    with pytest.raises(KeyError, match="broken"):
        decide(graph, x, y, threat, split="signs", restarts=0)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("split", SPLITS)
def test_bounds_that_are_no_numbers_prove_nothing(case, split, value, monkeypatch):
    graph, x, y, threat, wanted = case
    for place in (module, signs, inputs):
        right = place.lower_bounds

        def spoilt(*args, right=right, **named):
            made = right(*args, **named)
            made.bound[:] = value
            return made

        monkeypatch.setattr(place, "lower_bounds", spoilt)
    found = decide(graph, x, y, threat, split=split, restarts=0, timeout=0.2)
    for status, right in zip(found.status, wanted, strict=True):
        assert status != "certified" or right == "certified"  # leaves have proofs of their own


def test_an_error_within_a_run_is_a_row(monkeypatch, tmp_path):
    def fails(*_, **__):
        raise KeyError("broken")

    monkeypatch.setattr(module, "ball_margin_lower", fails)
    run(trained(), blobs(6), eps=0.001, attacks=(), certifiers="bab", out=tmp_path)
    (folder,) = find_runs(tmp_path)
    rows = [row for row in folder.evidence().to_pylist() if row["kind"] == "verifier"]
    assert {row["status"] for row in rows} == {"error"}
    assert {row["lower"] for row in rows} == {0.0}


# ------------------------------------------------------------------------------------------------------- time


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("seconds", [1e-9, 1e-3, 2e-2])
def test_hardly_any_time_gives_a_timeout_or_the_answer(case, split, seconds):
    graph, x, y, threat, wanted = case
    found = decide(graph, x, y, threat, split=split, timeout=seconds)
    for k, status in enumerate(found.status):
        assert status in (wanted[k], "timeout")
        if status == "timeout":
            assert found.detail[k]["reason"] == search.TIME
            assert float(found.lower[k]) == 0.0
    if seconds == 1e-9:
        assert "timeout" in found.status


def test_signs_are_tried_for_a_share_of_the_time(case, monkeypatch):
    """However many there are, and whatever memory they take."""
    graph, x, y, threat, wanted = case
    right, tried = signs.Signs.rehearse, []

    def noted(self, roots, most, seconds):
        tried.append(seconds)
        right(self, roots, most, 0.0)
        assert not bool(self.gains.count.any())  # no time, nothing tried

    monkeypatch.setattr(signs.Signs, "rehearse", noted)
    assert list(decide(graph, x, y, threat, split="signs", timeout=12.0, restarts=0).status) == wanted
    assert tried and max(tried) <= 3.0

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(signs.Signs, "rehearse", full)
    assert list(decide(graph, x, y, threat, split="signs", restarts=0).status) == wanted
