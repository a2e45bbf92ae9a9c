"""The export of counterexamples: a file for every `sat`, whatever the names; runs that answer differently."""

import csv
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import nn

from robench._export_vnncomp import _Points, export_vnncomp
from robench.api import evaluate
from robench.contracts import Certificates, Proposal
from robench.runs import find_runs
from robench_plugins.datasets.vnnlib import Vnnlib
from robench_plugins.importers.vnncomp import VnnComp

LONG = "p" * 120
NAMES = ["a/p", "b/p", "a b", "a+b", f"{LONG}q", f"{LONG}r", "P", "b/P-2"]
"""Properties, of which many come to one name of a file."""


@dataclass(frozen=True)
class Corner:
    """Proposes the corner of every box at which x_0 is least and x_1 greatest."""

    access = "nothing"
    regions = True

    def perturb(self, classifier, x, y, threat, stream):
        low, high = threat.region.inside(x)
        return Proposal(torch.stack([low[:, 0], high[:, 1]], 1), [None] * len(x))


@dataclass(frozen=True)
class Liar:
    """Certifies everything."""

    regions = True
    per_eps = True

    def certify(self, classifier, x, y, threat, stream):
        eps = torch.as_tensor(threat.eps, dtype=torch.float64).expand(len(x)).clone()
        return Certificates(eps, ["certified"] * len(x), torch.ones(len(x), dtype=torch.float64))


def folder_of(path, names):
    """Properties of f(x) = (x_0 - x_1, 0) with x_1 up to a bound of its own each, all of them unsafe."""
    declared = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1"))
    for number, name in enumerate(names):
        file = path / f"{name}.vnnlib"
        file.parent.mkdir(parents=True, exist_ok=True)
        box = (
            f"(assert (>= X_0 0.25))\n(assert (<= X_0 0.5))\n(assert (>= X_1 0))\n(assert (<= X_1 0.{300 + number}))\n"
        )
        file.write_text(f"{declared}{box}(assert (or (and (>= Y_1 Y_0))))\n")
    (path / "instances.csv").write_text("".join(f"net.onnx,{name}.vnnlib,60\n" for name in names))
    return path


@pytest.fixture
def net():
    linear = nn.Linear(2, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
        linear.bias.zero_()
    return linear.eval()


def test_every_sat_has_a_counterexample_of_its_own(net, tmp_path):
    data = Vnnlib(folder_of(tmp_path / "bench", NAMES))
    evaluate(net, data, attacks=[Corner()], certifiers=(), out=tmp_path / "res")
    made = export_vnncomp(find_runs([tmp_path / "res"]), tmp_path / "tool", model=net, dataset=data)
    (table,) = (tmp_path / "tool").glob("*.csv")
    answers = list(csv.reader(table.read_text().splitlines()))
    assert [(row[2], row[4]) for row in answers] == [(f"{name}.vnnlib", "sat") for name in NAMES]
    files = sorted((tmp_path / "tool" / "counterexamples").iterdir())
    assert files == sorted(made.counterexamples) and len(files) == len(NAMES)
    assert len({file.name.lower() for file in files}) == len(NAMES)
    # Each is its own instance's: x_1 is the box's bound, to the last double of the model's precision.
    tops = sorted(Fraction(re.search(r"\(X_1 ([^)]*)\)", file.read_text())[1]) for file in files)
    assert all(abs(top - Fraction(300 + i, 1000)) < Fraction(1, 10**6) for i, top in enumerate(tops))
    told = [re.fullmatch(r".*: (.*)\.vnnlib: .* its own is (.*)", remark) for remark in made.remarks]
    assert {one[1] for one in told} == {"b/p", "a+b", f"{LONG}r", "P", "b/P-2"}
    assert {one[2] for one in told} < {file.name for file in files}


def test_an_export_with_folders_is_imported_with_its_counterexamples(net, tmp_path):
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    names = ["a/p", "b/p", "vnnlib/q", "c/p"]
    folder = folder_of(tmp_path / "toy", names)
    weight = numpy_helper.from_array(net.weight.detach().numpy(), "w")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)], "net", ends[:1], ends[1:], [weight]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "net.onnx")
    data = f"vnnlib:{folder}"
    evaluate(f"onnx:{folder}/net.onnx", data, attacks=[Corner()], certifiers=(), out=tmp_path / "res")
    tool = tmp_path / "results" / "mine"
    export_vnncomp(find_runs([tmp_path / "res"]), tool, search=[tmp_path, folder])
    (folder / "onnx").mkdir()
    (folder / "net.onnx").rename(folder / "onnx" / "net.onnx")
    (imported,) = VnnComp().read(tmp_path / "results")
    assert dict(imported.names) == dict(enumerate(["a/p", "b/p", "q", "c/p"]))
    rows = imported.evidence("20260101T000000Z-000000").to_pylist()
    assert len(rows) == 4 and all(row["status"] == "falsified" and row["upper"] == row["eps"] for row in rows)


def test_names_of_files_are_distinct_and_short_enough():
    points = _Points(Path("out"))
    names = ["p", "q/p", "p-2", "P", f"{LONG}a", f"{LONG}b", "..", "...", "p"]
    remarks = [points.add("n" * 200 + ".onnx", f"{name}.vnnlib", name, 1 + i) for i, name in enumerate(names)]
    assert list(points.texts.values()) == names
    assert all(len(path.name) <= 255 for path in points.texts)
    assert [remark is None for remark in remarks] == [True, False, False, False, True, False, True, False, False]


@pytest.mark.parametrize("first", ["sat", "unsat"])
def test_runs_that_settle_an_instance_differently_are_named(net, first, tmp_path):
    data = Vnnlib(folder_of(tmp_path / "bench", ["a"]))
    sides = [{"attacks": [Corner()], "certifiers": ()}, {"attacks": (), "certifiers": [Liar()]}]
    for side in sides if first == "sat" else sides[::-1]:
        evaluate(net, data, **side, out=tmp_path / "res")
    runs = find_runs([tmp_path / "res"])
    assert len(runs) == 2
    order = sorted(runs, key=lambda run: run.manifest.run)
    kinds = ["sat" if "falsified" in run.evidence().column("status").to_pylist() else "unsat" for run in order]
    made = export_vnncomp(runs, tmp_path / "tool", model=net, dataset=data)
    ((*_, result, _),) = made.lines
    assert result == kinds[0]
    (remark,) = made.remarks
    assert f"a.vnnlib: {kinds[0]} by the first run that settles it, {kinds[1]} by a later one" in remark
    agreed = export_vnncomp([order[0], order[0]], tmp_path / "again", model=net, dataset=data)
    assert agreed.remarks == []
