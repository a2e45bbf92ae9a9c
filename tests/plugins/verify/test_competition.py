"""`bab` on instances of the verification competition: its answers, and its counterexamples in another runtime."""

import csv
import gzip
import json
import re
from fractions import Fraction

import numpy as np
import pytest
from typer.testing import CliRunner

from robench.cli import app

pytestmark = pytest.mark.data
NET = "mnist-net_256x2"
WORDS = {"unsat": "certified", "holds": "certified", "sat": "falsified", "violated": "falsified"}
LEAST = 3
"""Tools that must agree for their answer to be taken as the truth."""


def text_of(path):
    packed = path.with_name(path.name + ".gz")
    return gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()


def published(folder):
    """What at least `LEAST` tools say and at most one contradicts, by property's name."""
    said = {}
    for file in sorted(folder.glob("*/mnist_fc.csv")):
        for row in csv.reader(file.read_text().splitlines()):
            if NET in row[1] and row[4] in WORDS:
                said.setdefault(row[2].rpartition("/")[2], []).append(WORDS[row[4]])
    found = {}
    for name, words in said.items():
        most = max(set(words), key=words.count)
        if words.count(most) >= LEAST and len(words) - words.count(most) <= 1:
            found[name] = most
    return found


@pytest.fixture(scope="module")
def answers(data_folder, tmp_path_factory):
    """The first 17 instances, through the command line; statuses by property, and the exported counterexamples."""
    pytest.importorskip("onnx")
    bench, folder = data_folder / "vnncomp" / "mnist_fc", tmp_path_factory.mktemp("competition")
    words = ["eval", "-m", f"onnx:{bench}/onnx/{NET}.onnx.gz", "-d", f"vnnlib:{bench},net={NET}", "--samples", "0:17"]
    done = CliRunner().invoke(
        app, [*words, "-a", "none", "-c", "bab:timeout=60", "--out", str(folder / "res"), "--json"]
    )
    assert done.exit_code == 0, done.output
    export = ["export", "vnncomp", str(folder / "res"), "--out", str(folder / "tool"), "--files", str(bench.parent)]
    said = CliRunner().invoke(app, export)
    assert said.exit_code == 0, said.output
    rows = csv.reader((folder / "tool" / "mnist_fc.csv").read_text().splitlines())
    statuses = {row[2].rpartition("/")[2]: row[4] for row in rows}
    return statuses, sorted((folder / "tool" / "counterexamples").iterdir()), json.loads(done.stdout)


def test_answers_are_those_that_the_published_tools_agree_on(answers, data_folder):
    statuses, _, document = answers
    truth = published(data_folder / "vnncomp" / "results")
    assert len(statuses) == 17
    assert {name: WORDS.get(word, word) for name, word in statuses.items()} == {name: truth[name] for name in statuses}
    assert set(statuses.values()) == {"sat", "unsat"}
    (result,) = document["results"]
    assert result["certified_accuracy"] == result["empirical_accuracy"] == list(statuses.values()).count("unsat") / 17


def test_counterexamples_replay_in_the_closed_box(answers, data_folder):
    """Decimals as rational numbers, outputs by onnxruntime, no tolerance."""
    runtime = pytest.importorskip("onnxruntime")
    statuses, files, _ = answers
    bench = data_folder / "vnncomp" / "mnist_fc"
    session = runtime.InferenceSession(text_of(bench / "onnx" / f"{NET}.onnx"))
    wanted = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in wanted.shape]
    names = [re.fullmatch(rf"{NET}_(.+)\.counterexample", file.name)[1] for file in files]
    assert sorted(f"{name}.vnnlib" for name in names) == sorted(k for k, word in statuses.items() if word == "sat")
    for name, file in zip(names, files, strict=True):
        text = text_of(bench / "vnnlib" / f"{name}.vnnlib").decode()
        point = {int(i): Fraction(value) for i, value in re.findall(r"\(X_(\d+) ([^ )]+)\)", file.read_text())}
        bounds = re.findall(r"\((<=|>=) X_(\d+) ([^ )]+)\)", text)
        assert len(bounds) == 2 * len(point) == 2 * np.prod(shape)
        for side, i, value in bounds:
            assert point[int(i)] <= Fraction(value) if side == "<=" else point[int(i)] >= Fraction(value)
        x = np.array([float(point[i]) for i in range(len(point))], dtype=np.float32)
        assert [Fraction(float(value)) for value in x] == [point[i] for i in range(len(point))]
        out = session.run(None, {wanted.name: x.reshape(shape)})[0].ravel()
        rivals = re.findall(r"\(>= Y_(\d+) Y_(\d+)\)", text) + [
            (b, a) for a, b in re.findall(r"\(<= Y_(\d+) Y_(\d+)\)", text)
        ]
        assert any(out[int(a)] >= out[int(b)] for a, b in rivals), name
