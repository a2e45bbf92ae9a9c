"""Trainings that are cut short: what they leave, what they go on from, and what they refuse."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from robench.cli import app
from robench.contracts import Trained
from robench.errors import DataError, InputError, LockedError
from robench.graph import load
from robench.storage import LocalStorage
from robench.training import train
from robench_plugins.training.standard import Standard

DATA = "digits | subset:n=120"
RECIPES = {
    "adam": "standard:epochs=4,width=2,batch=50",
    "sgd": "standard:augment=crop-flip-erase,batch=50,epochs=4,lr=0.05,optimizer=sgd,schedule=one-cycle,width=2",
    "steps": "standard:drops=0.4,epochs=4,lr=0.05,momentum=0,optimizer=sgd,schedule=piecewise,width=2",
    "pgd-at": "pgd-at:epochs=4,schedule=cyclic,steps=2,width=2",
    "gradalign": "gradalign:epochs=4,width=2",
    "crown-ibp": "crown-ibp:epochs=4,width=2",
    "aol": "aol:epochs=4,width=8",
}


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    monkeypatch.setattr("robench._train_state._SELDOM", 0.0)


class Killed(BaseException):
    pass


def killer(epoch):
    def report(done, epochs, figures):
        if done == epoch:
            raise Killed

    return report


def cut(out, epoch, recipe=RECIPES["adam"], **options):
    with pytest.raises(Killed):
        train(recipe, DATA, out, device="cpu", report=killer(epoch), **options)


def made(folder):
    """What a checkpoint holds, but for the seconds."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "history.parquet"}
    return files, pq.read_table(folder / "history.parquet").drop_columns("seconds").to_pydict()


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_interrupted_training_ends_with_the_bits_of_an_uninterrupted_one(tmp_path, recipe):
    train(RECIPES[recipe], DATA, tmp_path / "whole", device="cpu", monitor="0.1")
    for name, kills in {"early": [1], "late": [3], "at the end": [4], "twice": [1, 2]}.items():
        out = tmp_path / name
        for index, epoch in enumerate(kills):
            cut(out, epoch, RECIPES[recipe], monitor="0.1", resume=index > 0)
        assert not out.exists()
        seen = []
        train(
            RECIPES[recipe],
            DATA,
            out,
            device="cpu",
            monitor="0.1",
            resume=True,
            report=lambda epoch, *_, seen=seen: seen.append(epoch),
        )
        assert seen == list(range(kills[-1] + 1, 5))
        assert made(out) == made(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["at the end", "early", "late", "twice", "whole"]


def test_of_short_epochs_not_every_state_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("robench._train_state._SELDOM", 1000.0)
    train(RECIPES["adam"], DATA, tmp_path / "whole", device="cpu")
    cut(tmp_path / "net", 3)
    seen = []
    train(
        RECIPES["adam"], DATA, tmp_path / "net", device="cpu", resume=True, report=lambda epoch, *_: seen.append(epoch)
    )
    assert seen == [2, 3, 4]
    assert made(tmp_path / "net") == made(tmp_path / "whole")


def test_a_process_that_is_killed_is_gone_on_from(tmp_path):
    code = (
        "import os, pathlib, sys\n"
        "from robench.training import train\n"
        "kill = lambda epoch, *_: epoch == 2 and os.kill(os.getpid(), 9)\n"
        "train(sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), device='cpu', report=kill)\n"
    )
    out = tmp_path / "net"
    command = [sys.executable, "-c", code, RECIPES["adam"], DATA, str(out)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    assert subprocess.run(command, check=False, env=environment).returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["net.training"]
    train(RECIPES["adam"], DATA, out, device="cpu", resume=True)
    train(RECIPES["adam"], DATA, tmp_path / "whole", device="cpu")
    assert made(out) == made(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net", "whole"]


def test_the_state_is_safetensors_with_json_in_its_header(tmp_path):
    cut(tmp_path / "net", 2)
    file = tmp_path / "net.training/state.safetensors"
    tensors = load_file(file)
    assert {"generator", "module.1.weight", "optimizer.0.exp_avg"} <= set(tensors)
    data = file.read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]
    head = json.loads(header["training"])
    assert [set(row) for row in head["history"]] == [{"loss", "accuracy", "lr"}] * 2
    assert len(head["seconds"]) == 2
    assert head["request"]["seed"] == 0
    assert "epochs=4" in head["request"]["recipe_full"]
    assert str(tmp_path) not in str(head)


def test_a_finished_training_is_not_repeated(tmp_path, monkeypatch):
    out = tmp_path / "net"
    first = train(RECIPES["adam"], DATA, out, device="cpu", resume=True)  # with nothing there: from the beginning
    monkeypatch.setattr(Standard, "train", lambda *_: pytest.fail("trained"))
    again = train(RECIPES["adam"], DATA, out, device="cpu", resume=True)
    assert (again.metadata, again.fingerprint) == (first.metadata, first.fingerprint)
    assert re.search("finished already", again.notes[0])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"recipe": RECIPES["adam"].replace("width=2", "width=3")}, r"recipe_full \(.*width=2.*, not .*width=3"),
        ({"recipe": RECIPES["sgd"]}, "recipe_full"),
        ({"dataset": "digits | subset:n=100"}, r"selection \(subset:n=120, not subset:n=100\)"),
        ({"seed": 1}, r"seed \(0, not 1\)"),
        ({"monitor": "0.2"}, r"monitor \(null, not .*0\.2"),
    ],
)
def test_another_training_is_refused_in_one_line(tmp_path, other, message):
    request = {"recipe": RECIPES["adam"], "dataset": DATA, "out": tmp_path / "net", "device": "cpu"}
    cut(tmp_path / "net", 1)
    with pytest.raises(InputError, match=f"unfinished training that differs in .*{message}") as caught:
        train(**{**request, **other}, resume=True)
    assert "\n" not in str(caught.value)
    train(**request, resume=True)
    with pytest.raises(InputError, match=f"is a checkpoint that differs in .*{message}") as caught:
        train(**{**request, **other}, resume=True)
    assert caught.value.exit_code == 2
    train(**{**request, **other})  # which may replace it
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_with_other_threads_the_bits_would_differ(tmp_path, monkeypatch):
    request = {"recipe": RECIPES["adam"], "dataset": DATA, "out": tmp_path / "net", "device": "cpu", "resume": True}
    cut(tmp_path / "net", 1)
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    with pytest.raises(
        InputError, match=rf"unfinished training that differs in threads \({threads}, not {threads + 1}\)"
    ):
        train(**request)
    monkeypatch.undo()
    train(**request)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    assert "finished already" in train(**request).notes[0]


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ("subset:n=60 | classes:keep=3+7", "classes:keep=3+7 | subset:n=60", "samples_hash"),
        ("subset:n=60 | noise-labels:0.2", "noise-labels:0.2 | subset:n=60", "dataset_hash"),
    ],
)
def test_other_samples_are_another_training_whatever_it_is_called(tmp_path, one, other, message):
    """Transforms in another order choose other samples, or label them in another way."""
    out = tmp_path / "net"
    train(RECIPES["adam"], f"digits | {one}", out, device="cpu")
    with pytest.raises(InputError, match=f"is a checkpoint that differs in .*{message}"):
        train(RECIPES["adam"], f"digits | {other}", out, device="cpu", resume=True)


def test_the_command_says_the_same(tmp_path):
    arguments = ["train", RECIPES["adam"], "-d", DATA, "--out", str(tmp_path / "net"), "--device", "cpu", "-q"]
    cut(tmp_path / "net", 1)
    result = CliRunner().invoke(app, [*arguments, "--seed", "3", "--resume"])
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert CliRunner().invoke(app, [*arguments, "--resume"]).exit_code == 0
    assert "finished already" in CliRunner().invoke(app, [*arguments, "--resume"]).stderr


def edited(file, change):
    """Rewrite the JSON in the header of a state, its tensors as they are."""
    data = file.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    head = json.loads(header["__metadata__"]["training"])
    change(head)
    header["__metadata__"]["training"] = json.dumps(head)
    new = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(new)) + new + data[8 + size :])


@pytest.mark.parametrize(
    "harm",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.write_bytes(b"\xff" * 8 + file.read_bytes()[8:]),
        lambda file: file.write_bytes(struct.pack("<Q", 2) + b"{}"),
        lambda file: file.write_bytes(struct.pack("<Q", 60_000) + b"[" * 60_000),
        lambda file: edited(file, lambda head: head.update(version=2)),
        lambda file: edited(file, lambda head: head.update(request=[])),
        lambda file: edited(file, lambda head: head.update(history=[{"loss": "0"}])),
        lambda file: edited(file, lambda head: head.update(history=[3], seconds=[1.0])),
        lambda file: edited(file, lambda head: head.update(seconds=[])),
        lambda file: edited(file, lambda head: head.update(seconds=[float("nan")])),
    ],
)
def test_a_state_that_is_not_one_is_refused(tmp_path, harm):
    cut(tmp_path / "net", 1)
    harm(tmp_path / "net.training/state.safetensors")
    with pytest.raises(DataError, match="not the state of a training") as caught:
        train(RECIPES["adam"], DATA, tmp_path / "net", device="cpu", resume=True)
    assert "\n" not in str(caught.value)
    train(RECIPES["adam"], DATA, tmp_path / "net", device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_tensors_of_another_network_are_refused(tmp_path):
    """The header is right, what follows is not."""
    cut(tmp_path / "net", 1)
    cut(tmp_path / "wide", 1, RECIPES["adam"].replace("width=2", "width=3"))
    file, other = (tmp_path / f"{name}.training/state.safetensors" for name in ("net", "wide"))
    request = {}
    edited(file, lambda head: request.update(head["request"]))
    edited(other, lambda head: head.update(request=request))
    file.write_bytes(other.read_bytes())
    with pytest.raises(DataError, match="does not fit this network"):
        train(RECIPES["adam"], DATA, tmp_path / "net", device="cpu", resume=True)
    edited(file, lambda head: head.update(history=[{"loss": 1.0}] * 5, seconds=[1.0] * 5))
    with pytest.raises(DataError, match="does not fit this network"):
        train(RECIPES["adam"], DATA, tmp_path / "net", device="cpu", resume=True)


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "net.training").mkdir()
    (tmp_path / "net.training/notes.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(InputError, match=r"net\.training is not empty and not a robench training folder"):
            train(RECIPES["adam"], DATA, tmp_path / "net", device="cpu", resume=resume)
    assert [path.name for path in (tmp_path / "net.training").iterdir()] == ["notes.txt"]


def test_two_processes_do_not_train_for_one_checkpoint(tmp_path):
    cut(tmp_path / "net", 1)
    before = (tmp_path / "net.training/state.safetensors").read_bytes()
    with LocalStorage(tmp_path / "net.training").lock("state.safetensors"), pytest.raises(LockedError):
        train(RECIPES["adam"], DATA, tmp_path / "net", device="cpu")
    assert (tmp_path / "net.training/state.safetensors").read_bytes() == before
    train(RECIPES["adam"], DATA, tmp_path / "net", device="cpu", resume=True)


@dataclass(frozen=True)
class Exploding:
    """Trains as it should until the loss of the third epoch is not a number."""

    def train(self, samples, context):
        history = []
        for epoch in range(1, 4):
            history.append({"loss": float("nan") if epoch == 3 else 1.0 / epoch})
            context.report(epoch, 5, history[-1])
        module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        return Trained(module.eval(), history)


def test_a_loss_that_is_not_finite_is_recorded_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(Standard, "train", lambda self, *given: Exploding().train(*given))
    training = train("standard", DATA, tmp_path / "net", device="cpu")
    (note,) = training.notes
    assert note.startswith("the loss became nan in epoch 3: training stopped, the weights are those of epoch 2")
    metadata = load(tmp_path / "net")[1]
    assert metadata["stopped"] == note
    assert metadata["history"][-1] == {"loss": None}
    assert pq.read_table(tmp_path / "net/history.parquet")["loss"].to_pylist() == [1.0, 0.5, None]


def test_the_log_has_a_row_per_epoch(tmp_path):
    training = train("ibp:epochs=3,width=2,wait=0,ramp=0.5", DATA, tmp_path / "net", device="cpu", monitor="1/10")
    table = pq.read_table(tmp_path / "net/history.parquet")
    wanted = {"epoch", "seconds", "loss", "lr", "clean", "certified", "eps", "fgsm", "pgd", "alignment"}
    assert set(table.column_names) == wanted
    rows = table.to_pydict()
    assert rows["epoch"] == [1, 2, 3]
    assert 0 < sum(rows["seconds"]) <= training.seconds
    assert rows["clean"] == [row["accuracy"] for row in training.metadata["history"]]
    assert all(pgd <= fgsm + 1e-9 for pgd, fgsm in zip(rows["pgd"], rows["fgsm"], strict=True))
    assert training.metadata["monitor"] == {"eps": "1/10", "samples": 12}
    assert training.metadata["samples"] == 108
    assert training.metadata["co_epoch"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"monitor": "none"}, "ε 'none' is not a number"),
        ({"monitor": "0.1", "dataset": "digits | subset:n=9"}, "a tenth of the samples, and there are 9"),
        ({"recipe": "standard:augment=crop", "dataset": "NPZ"}, "augment=crop needs images"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, message):
    import numpy as np

    np.savez(tmp_path / "flat.npz", x_train=np.zeros((20, 5), np.float32), y_train=np.arange(20) % 2)
    options = {key: value.replace("NPZ", f"npz:{tmp_path / 'flat.npz'}") for key, value in options.items()}
    out = tmp_path / "here/net"
    request = {"recipe": "standard:arch=mlp", "dataset": DATA, **options}
    if "augment" in request["recipe"]:
        request["recipe"] += ",arch=mlp"
    with pytest.raises(InputError, match=re.escape(message)):
        train(**request, out=out, device="cpu")
    assert not out.exists()
    assert not Path(f"{out}.training").exists()


def test_catastrophic_overfitting_and_a_recipe_that_does_not_watch_are_said(tmp_path, monkeypatch):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    figures = [{"fgsm": 0.4, "pgd": 0.3}, {"fgsm": 0.7, "pgd": 0.05}]
    for history, epoch, message in (
        (figures, 2, "catastrophic overfitting in epoch 2"),
        ([{}], None, "measures nothing"),
    ):
        monkeypatch.setattr(Standard, "train", lambda *_, history=history: Trained(module, history))
        training = train("standard", DATA, tmp_path / "net", device="cpu", monitor="0.1")
        (note,) = training.notes
        assert message in note
        assert load(tmp_path / "net")[1]["co_epoch"] == epoch
