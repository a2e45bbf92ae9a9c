import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from robench.cli import app
from robench.contracts import Trained
from robench.graph import GraphClassifier, fingerprint, load
from robench_plugins.datasets.digits import DIGESTS, Digits
from robench_plugins.training.standard import Standard

QUICK = "standard:epochs=2,width=4"


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["train", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def refused(*arguments, match):
    result = run(*arguments, code=2)
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert re.search(match, lines[0]), lines[0]
    return lines[0]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("eps=8", "did you mean eps=8/255?"),
        ("eps=0.6", "no classifier is robust"),
        ("eps=0.5", ""),
        ("eps=8,norm=l2", ""),
    ],
)
def test_an_eps_beyond_the_domain_is_told_before_the_training(tmp_path, spec, says):
    result = run(f"pgd-at:{spec},epochs=1,steps=1,width=2", "-d", "digits | subset:n=20", "--out", folder_of(tmp_path))
    told = [line for line in result.stderr.splitlines() if "more than half the width" in line]
    assert len(told) == bool(says)
    assert says in "".join(told)


def folder_of(tmp_path):
    """Where checkpoints of a test go: a folder that holds nothing else, so that leftovers show."""
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints" / "net"


def test_a_checkpoint_says_how_it_was_made(tmp_path):
    out = folder_of(tmp_path)
    result = run(QUICK, "-d", "digits", "--out", out, "--seed", "3", "--device", "cpu")
    graph, metadata = load(out)
    assert metadata["recipe"] == QUICK
    assert "batch=64" in metadata["recipe_full"]
    assert (metadata["dataset"], metadata["dataset_hash"]) == ("digits", DIGESTS["train"])
    assert (metadata["seed"], metadata["device"], metadata["samples"]) == (3, "cpu", 1347)
    assert metadata["versions"]["torch"] == torch.__version__
    assert [set(figures) for figures in metadata["history"]] == [{"loss", "accuracy", "lr"}] * 2
    for split in ("train", "test"):
        samples = Digits().load(split)
        predicted = GraphClassifier(graph).logits(torch.tensor(samples.x)).argmax(1).numpy()
        assert metadata[f"{split}_accuracy"] == (predicted == samples.y).mean()
        assert f"{split} {metadata[f'{split}_accuracy']:.4f}" in result.stdout
    assert fingerprint(graph, torch.float32)[:16] in result.stdout
    next_command = result.stdout.splitlines()[-1].removeprefix("next").strip()
    assert shlex.split(next_command) == shlex.split(f"robench eval -m checkpoint:{out} -d digits --norm linf --eps 0.1")
    assert "2/2" in result.stderr
    assert [path.name for path in out.parent.iterdir()] == ["net"]


def test_json_is_one_document_and_equal_seeds_give_equal_files(tmp_path):
    documents, files = [], []
    for name in ("a", "b"):
        result = run(QUICK, "-d", "digits", "--out", tmp_path / name, "--device", "cpu", "--json")
        assert result.stderr == ""
        documents.append(json.loads(result.stdout))
        (tmp_path / name / "history.parquet").unlink()  # which has seconds
        files.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert documents[0]["schema"] == 1
    assert documents[0]["fingerprint"] == fingerprint(load(tmp_path / "a")[0], torch.float32)
    assert documents[0]["checkpoint"] == str(tmp_path / "a")
    for document in documents:
        del document["checkpoint"], document["seconds"]
    assert documents[0] == documents[1]
    assert files[0] == files[1]
    assert str(tmp_path) not in str(files)


def test_a_checkpoint_may_be_replaced_and_nothing_else(tmp_path):
    out = folder_of(tmp_path)
    out.mkdir()
    run(QUICK, "-d", "digits", "--out", out, "--quiet")
    before = load(out)[1]
    run(QUICK, "-d", "digits", "--out", out, "--quiet", "--seed", "1")
    assert load(out)[1]["seed"] == 1 != before["seed"]
    (out / "notes.txt").write_text("mine")
    refused(QUICK, "-d", "digits", "--out", out, match="exists and is no checkpoint: choose another folder")
    assert (out / "notes.txt").read_text() == "mine"
    file = tmp_path / "file"
    file.write_text("mine")
    refused(QUICK, "-d", "digits", "--out", file, match="exists and is no checkpoint")
    refused(QUICK, "-d", "digits", "--out", file / "below", match="cannot be written")
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["standrad", "-d", "digits"], "no recipe is called 'standrad'; did you mean 'standard'"),
        (["standard:epochs=0", "-d", "digits"], "epochs"),
        (["standard:lr=nan", "-d", "digits"], "lr"),
        (["standard:depth=3", "-d", "digits"], "no parameter 'depth'"),
        (["pgd-at:eps=-1", "-d", "digits"], "eps"),
        (["ibp:wait=1,ramp=1", "-d", "digits"], "at most 1 together"),
        (["standard", "-d", "digit"], "did you mean 'digits'"),
        (["standard", "-d", "digits | subset:n=2000"], "n=2000, but split train has 1347"),
        (["standard", "-d", "npz:nowhere.npz"], "nowhere.npz"),
        (["standard", "-d", "digits", "--device", "tpu"], "unknown device 'tpu'"),
    ],
)
def test_bad_input_is_one_line_before_any_training(tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(Standard, "train", lambda *_: pytest.fail("trained"))
    out = folder_of(tmp_path)
    refused(*arguments, "--out", out, match=re.escape(message))
    assert list(out.parent.iterdir()) == []


def test_an_npz_with_nothing_to_test_on(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = np.clip(rng.normal(y[:, None] / 2, 0.05, (60, 4)), 0, 1).astype(np.float32)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y)
    out = folder_of(tmp_path)
    result = run("standard:arch=mlp,width=2,lr=0.05", "-d", f"npz:{tmp_path / 'a.npz'}", "--out", out)
    assert re.search("no test accuracy: .* no split 'test'", result.stderr)
    assert "train 1.0000, test -" in result.stdout
    metadata = load(out)[1]
    assert metadata["test_accuracy"] is None
    assert re.fullmatch(r"npz:a\.npz@sha256:[0-9a-f]{12}", metadata["dataset"])
    assert "--eps EPS" in result.stdout
    refused("standard", "-d", f"npz:{tmp_path / 'a.npz'}", "--out", tmp_path / "b", match="use arch=mlp")


def test_divergence_leaves_nothing(tmp_path):
    out = folder_of(tmp_path)
    refused("standard:optimizer=sgd,lr=1e9,width=2", "-d", "digits", "--out", out, match="try a smaller learning rate")
    assert list(out.parent.iterdir()) == []


def test_an_interrupt_leaves_what_was_there(tmp_path, monkeypatch):
    out = folder_of(tmp_path)
    run(QUICK, "-d", "digits", "--out", out, "--quiet")
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def interrupt(self, done: int, total: int, figures: Mapping[str, object]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("robench.cli._progress.Progress.update", interrupt)
    result = run(QUICK, "-d", "digits", "--out", out, "--seed", "1", code=130)
    assert result.stderr == f"robench: interrupted; {out} is as it was; --resume goes on\n"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(path.name for path in out.parent.iterdir()) == ["net", "net.training"]


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    import errno
    import os

    out = folder_of(tmp_path)
    run(QUICK, "-d", "digits", "--out", out, "--quiet")
    before = load(out)[1]

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    refused(QUICK, "-d", "digits", "--out", out, "--quiet", "--seed", "1", match="No space left on device")
    assert load(out)[1] == before
    assert [path.name for path in out.parent.iterdir()] == ["net"]


@dataclass(frozen=True)
class Faulty:
    what: str

    def train(self, train, context):
        if self.what == "raises":
            raise RuntimeError("two\nlines")
        if self.what == "nothing":
            return None
        module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 9 if self.what == "classes" else 10))
        if self.what == "training mode":
            return Trained(module, ())
        if self.what == "operator":
            module.append(torch.nn.Hardswish())
        return Trained(module.eval(), ({"loss": float("nan")},))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("raises", "standard: failed while training: RuntimeError: two lines"),
        ("nothing", "standard: train returned NoneType"),
        ("classes", "standard: made a net with 9 logits for 10 classes"),
        ("training mode", r"in training mode: call module\.eval\(\)"),
        ("operator", "hardswish"),
    ],
)
def test_recipes_that_break_their_contract_are_named(tmp_path, monkeypatch, what, message):
    monkeypatch.setattr(Standard, "train", lambda self, *given: Faulty(what).train(*given))
    out = folder_of(tmp_path)
    refused("standard", "-d", "digits", "--out", out, match=f"(?i){message}")
    assert list(out.parent.iterdir()) == []


def test_a_history_with_nan_is_kept_as_null(tmp_path, monkeypatch):
    monkeypatch.setattr(Standard, "train", lambda self, *given: Faulty("fine").train(*given))
    out = folder_of(tmp_path)
    run("standard", "-d", "digits", "--out", out)
    assert load(out)[1]["history"] == [{"loss": None}]


def test_the_command_itself_imports_nothing_heavy():
    code = "import sys, robench.cli.train; print({'torch', 'pandas', 'pyarrow', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_what_comes_next_fits_the_recipe(tmp_path):
    out = tmp_path / "net"
    shown = CliRunner().invoke(app, ["train", "gaussian:epochs=1,sigma=0.5", "-d", "digits", "--out", str(out), "-q"])
    assert shown.exit_code == 0, shown.output
    words = shlex.split(shown.stdout.splitlines()[-1].removeprefix("next").strip())
    assert words[-6:] == ["-c", "smoothing:sigma=0.5", "--norm", "l2", "--eps", "0.5"]
    assert CliRunner().invoke(app, [*words[1:], "-a", "none", "--dry-run"]).exit_code == 0
