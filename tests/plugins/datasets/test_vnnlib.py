"""The dataset `vnnlib`: instances, shapes, samples of boxes; counterexamples that another runtime executes."""

import csv
import gzip
import json
import math
import re
import shutil
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from oracles.nets import blobs, trained
from robench.api import evaluate
from robench.cli import app
from robench.errors import DataError, InputError
from robench_plugins.datasets.vnnlib import Vnnlib

SHAPE = (1, 2, 3)


def property_of(x, eps, label, classes=3, clip=True, digits=None):
    """A property of the linf ball around `x`, in the competition's form."""
    low, high = x.astype(np.float64) - eps, x.astype(np.float64) + eps
    if clip:
        low, high = low.clip(0, 1), high.clip(0, 1)
    write = repr if digits is None else f"{{:.{digits}f}}".format
    lines = [f"; label {label}"]
    lines += [f"(declare-const X_{i} Real)" for i in range(x.size)]
    lines += [f"(declare-const Y_{j} Real)" for j in range(classes)]
    for i, (a, b) in enumerate(zip(low.ravel().tolist(), high.ravel().tolist(), strict=True)):
        lines += [f"(assert (<= X_{i} {write(b)}))", f"(assert (>= X_{i} {write(a)}))"]
    cases = [f"(and (>= Y_{j} Y_{label}))" for j in range(classes) if j != label]
    return "\n".join([*lines, f"(assert (or {' '.join(cases)}))", ""])


def save_onnx(path, net, shape=SHAPE):
    """Write a stack of linear layers and ReLUs as an ONNX file."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights, last = [helper.make_node("Flatten", ["x"], ["v0"])], [], "v0"
    for i, layer in enumerate(net):
        name = f"v{i + 1}"
        if isinstance(layer, nn.Linear):
            weights.append(numpy_helper.from_array(layer.weight.detach().numpy(), f"w{i}"))
            weights.append(numpy_helper.from_array(layer.bias.detach().numpy(), f"b{i}"))
            nodes.append(helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [name], transB=1))
        else:
            nodes.append(helper.make_node("Relu", [last], [name]))
        last = name
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *shape]),
        helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, net[-1].out_features]),
    ]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    data = model.SerializeToString()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    assert onnx.checker.check_model(model) is None


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """A benchmark's folder: two networks, properties at three ε, some gzipped."""
    folder = tmp_path_factory.mktemp("bench") / "blobs"
    (folder / "onnx").mkdir(parents=True)
    (folder / "vnnlib").mkdir()
    net = trained()
    save_onnx(folder / "onnx" / "first.onnx.gz", net)
    save_onnx(folder / "onnx" / "second.onnx", trained((8, 8), seed=1))
    data = blobs(12)
    rows = []
    for i in range(12):
        eps, label = (0.005, 0.1, 0.25)[i % 3], int(net(torch.from_numpy(data.x[i : i + 1])).argmax())
        text = property_of(data.x[i], eps, label)
        if i % 2:
            (folder / "vnnlib" / f"prop_{i}.vnnlib.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / "vnnlib" / f"prop_{i}.vnnlib").write_text(text)
        rows.append(f"onnx/first.onnx,vnnlib/prop_{i}.vnnlib,{60 + i}")
        rows.append(f"onnx/second.onnx,vnnlib/prop_{i}.vnnlib,30")
    (folder / "instances.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def copy(benchmark, tmp_path):
    return shutil.copytree(benchmark, tmp_path / "blobs")


def test_samples_are_the_instances_of_one_network(benchmark):
    samples = Vnnlib(benchmark, net="first").load("test")
    assert samples.shape == SHAPE and samples.x.dtype == np.float32
    assert samples.index.tolist() == list(range(0, 24, 2))
    assert samples.regions.names == tuple(f"vnnlib/prop_{i}.vnnlib" for i in range(12))
    assert samples.regions.seconds.tolist() == [60 + i for i in range(12)]
    assert samples.regions.kind(samples.y) == "labels"
    assert samples.classes == ("0", "1", "2")
    net = trained()
    assert samples.y.tolist() == net(torch.from_numpy(blobs(12).x)).argmax(1).tolist()
    assert (samples.domain.lower, samples.domain.upper) == (0, 1)
    # Boxes cut off at the domain's sides give back the sample, not the middle of what is left.
    assert np.abs(samples.x.reshape(12, 6) - blobs(12).x).max() < 1e-7
    table = Vnnlib(benchmark / "instances.csv", net="second").load("test")
    assert table.index.tolist() == list(range(1, 24, 2))


def test_x_lies_in_its_box_whatever_the_rounding(tmp_path):
    x = np.random.default_rng(0).random((4, 6)).astype(np.float32)
    for i in range(4):
        (tmp_path / f"{i}.vnnlib").write_text(property_of(x[i], 1e-9, 0, digits=(8, 12, 20, 9)[i], clip=i % 2 == 0))
        samples = Vnnlib(tmp_path / f"{i}.vnnlib").load("test")
        inside = samples.regions.least <= samples.regions.most
        point = samples.x[0].astype(np.float64)
        assert ((point >= samples.regions.least[0]) & (point <= samples.regions.most[0]))[inside[0]].all()
        assert samples.shape == (6,)  # flat: no network tells a shape


def test_a_box_of_its_own_has_no_domain(tmp_path):
    (tmp_path / "p.vnnlib").write_text(property_of(np.array([0.5, 3.0]), 0.25, 1))
    samples = Vnnlib(tmp_path / "p.vnnlib").load("test")
    assert (samples.domain.lower, samples.domain.upper) == (0, 1)  # cut off at 1
    (tmp_path / "q.vnnlib").write_text(property_of(np.array([0.5, 3.0]), 0.25, 1, clip=False))
    samples = Vnnlib(tmp_path / "q.vnnlib").load("test")
    assert not samples.domain.bounded
    assert samples.x.tolist() == [[0.5, 3.0]]
    (tmp_path / "r.vnnlib").write_text(property_of(np.array([0.5, 0.4]), 0.25, 1))
    assert not Vnnlib(tmp_path / "r.vnnlib").load("test").domain.bounded  # nothing says where it ends


def test_one_property_takes_the_shape_of_the_network_beside_it(benchmark):
    file = benchmark / "vnnlib" / "prop_1.vnnlib.gz"
    samples = Vnnlib(file, net="first").load("test")
    assert samples.shape == SHAPE and samples.regions.names == ("prop_1.vnnlib",)
    assert samples.regions.seconds.tolist() == [math.inf]
    with pytest.raises(InputError, match=r"no third\.onnx beside it or in \.\./onnx"):
        Vnnlib(file, net="third").load("test")
    for net in ("../onnx/first", "first.onnx"):
        with pytest.raises(InputError, match="give a network's name"):
            Vnnlib(file, net=net).load("test")


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ("onnx/first.onnx,vnnlib/prop_0.vnnlib", r"instances\.csv, line 1: 2 columns"),
        ("\nonnx/first.onnx,vnnlib/none.vnnlib,60", r"line 2: no file vnnlib/none\.vnnlib, with or without \.gz"),
        ("onnx/first.onnx,../../etc/passwd,60", "line 1: the property lies outside the folder"),
        ("/onnx/first.onnx,vnnlib/prop_0.vnnlib,60", "line 1: the network lies outside the folder"),
        ("onnx/first.onnx,vnnlib/prop_0.vnnlib,0", "line 1: '0' is no number of seconds above 0"),
        ("onnx/first.onnx,vnnlib/prop_0.vnnlib,nan", "no number of seconds"),
        ("onnx/first.onnx,vnnlib/prop_0.vnnlib,soon\x1b[1m", r"'soon\\x1b\[1m' is no number"),
        ("onnx/first.onnx,,60", "line 1: no name of a property"),
        ("", "holds no instances"),
        ('onnx/first.onnx,"vnnlib/prop_0.vnnlib,60', "line 1: not a line of a table"),
    ],
)
def test_bad_instances_are_refused_with_their_line(copy, rows, why):
    (copy / "instances.csv").write_text(rows)
    with pytest.raises(DataError, match=why):
        Vnnlib(copy).load("test")


def test_what_cannot_be_loaded_says_why(copy, tmp_path):
    with pytest.raises(InputError, match="is about 2 networks: add net=NAME, one of first, second"):
        Vnnlib(copy).load("test")
    with pytest.raises(InputError, match="has no network 'firs': it has first, second"):
        Vnnlib(copy, net="firs").load("test")
    with pytest.raises(DataError, match="has no split 'train': it has test"):
        Vnnlib(copy, net="first").load("train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"instances\.csv: no such file"):
        Vnnlib(tmp_path / "empty").load("test")
    (copy / "vnnlib" / "prop_4.vnnlib").write_text(property_of(np.zeros(5), 0.1, 0))
    with pytest.raises(
        DataError, match=r"prop_4\.vnnlib: 5 inputs and 3 outputs, but vnnlib/prop_0\.vnnlib has 6 and 3"
    ):
        Vnnlib(copy, net="first").load("test")
    for i in range(12):
        (copy / "vnnlib" / f"prop_{i}.vnnlib").write_text(property_of(np.zeros(5), 0.1, 0))
        (copy / "vnnlib" / f"prop_{i}.vnnlib.gz").unlink(missing_ok=True)
    with pytest.raises(
        DataError, match=r"first\.onnx\.gz has 6 inputs and 3 outputs, but vnnlib/prop_0\.vnnlib 5 and 3"
    ):
        Vnnlib(copy, net="first").load("test")


def test_a_network_that_the_importer_refuses_still_tells_its_shape(copy):
    onnx = pytest.importorskip("onnx")
    (copy / "onnx" / "first.onnx.gz").unlink()
    save_onnx(copy / "onnx" / "first.onnx", trained())
    model = onnx.load(copy / "onnx" / "first.onnx")
    model.graph.node[2].op_type = "Erf"
    onnx.save(model, copy / "onnx" / "first.onnx")
    assert Vnnlib(copy, net="first").load("test").shape == SHAPE
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 4
    onnx.save(model, copy / "onnx" / "first.onnx")
    assert Vnnlib(copy, net="first").load("test").shape == (6,)


def test_without_the_network_inputs_stay_flat(copy):
    shutil.rmtree(copy / "onnx")
    assert Vnnlib(copy, net="first").load("test").shape == (6,)


# ----------------------------------------------------------------- runs


def exact(path):
    """A property's decimals as rational numbers, by a reading of their own: bounds and the label's rivals."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    low, high = {}, {}
    for word, i, number in re.findall(r"\((<=|>=) X_(\d+) ([^ )]+)\)", text):
        (high if word == "<=" else low)[int(i)] = Fraction(number)
    pairs = [
        (int(a), int(b)) if w == "<=" else (int(b), int(a))
        for w, a, b in re.findall(r"\((<=|>=) Y_(\d+) Y_(\d+)\)", text)
    ]
    return low, high, pairs


def read_point(path):
    """Inputs and outputs of a counterexample, exactly."""
    found = {"X": {}, "Y": {}}
    for letter, i, number in re.findall(r"\(([XY])_(\d+) ([^ )]+)\)", path.read_text()):
        found[letter][int(i)] = Fraction(number)
    return found["X"], found["Y"]


def replays(point, prop, onnx):
    """Execute a counterexample in onnxruntime: it lies in the closed box, and some rival reaches the label."""
    runtime = pytest.importorskip("onnxruntime")
    x, y = read_point(point)
    low, high, pairs = exact(prop)
    assert sorted(x) == sorted(low) == sorted(high)
    assert all(low[i] <= x[i] <= high[i] for i in x)  # rational numbers, no tolerance
    raw = onnx.read_bytes()
    session = runtime.InferenceSession(gzip.decompress(raw) if onnx.suffix == ".gz" else raw)
    wanted = session.get_inputs()[0]
    values = np.array([float(x[i]) for i in range(len(x))], dtype=np.float32)
    assert [Fraction(float(v)) for v in values] == [x[i] for i in range(len(x))]  # float32 numbers, printed exactly
    shape = [size if isinstance(size, int) else 1 for size in wanted.shape]
    out = session.run(None, {wanted.name: values.reshape(shape)})[0].ravel()
    assert any(out[a] <= out[b] for a, b in pairs)
    assert np.abs(out - [float(y[j]) for j in range(len(y))]).max() < 1e-4
    return True


@pytest.fixture(scope="module")
def ran(benchmark, tmp_path_factory):
    """A run over the first network's properties, and its export."""
    folder = tmp_path_factory.mktemp("ran")
    words = ["eval", "-m", f"onnx:{benchmark}/onnx/first.onnx.gz", "-d", f"vnnlib:{benchmark},net=first"]
    done = CliRunner().invoke(app, [*words, "-a", "pgd:steps=30", "-c", "ibp", "--out", str(folder / "res"), "--json"])
    assert done.exit_code == 0, done.output
    export = ["export", "vnncomp", str(folder / "res"), "--out", str(folder / "tool"), "--files", str(benchmark.parent)]
    said = CliRunner().invoke(app, export)
    assert said.exit_code == 0, said.output
    return folder, json.loads(done.stdout), said.output


def test_a_run_over_a_benchmark_needs_no_budget(ran, benchmark):
    _, document, _ = ran
    (result,) = document["results"]
    assert (result["eps"], result["eps_value"], result["n"]) == ("given", None, 12)
    assert 0 < result["certified_accuracy"] <= result["empirical_accuracy"] < 1
    assert result["dataset"].startswith("vnnlib:blobs@sha256:") and result["dataset"].endswith(",net=first")


def test_every_counterexample_replays_in_another_runtime(ran, benchmark):
    folder, document, said = ran
    files = sorted((folder / "tool" / "counterexamples").iterdir())
    (result,) = document["results"]
    assert len(files) == round(12 * (1 - result["empirical_accuracy"])) > 0
    for file in files:
        name = re.fullmatch(r"first_(prop_\d+)\.counterexample", file.name)[1]
        prop = next((benchmark / "vnnlib").glob(f"{name}.vnnlib*"))
        assert replays(file, prop, benchmark / "onnx" / "first.onnx.gz")
    assert f"{len(files)} sat" in said


def test_the_export_is_a_table_in_the_competitions_words(ran, benchmark):
    folder, document, _ = ran
    rows = list(csv.reader((folder / "tool" / "blobs.csv").read_text().splitlines()))
    assert [row[2] for row in rows] == [f"vnnlib/prop_{i}.vnnlib" for i in range(12)]
    assert {(row[0], row[1]) for row in rows} == {("blobs", "onnx/first.onnx")}
    counts = [row[4] for row in rows]
    (result,) = document["results"]
    assert counts.count("unsat") == round(12 * result["certified_accuracy"])
    assert {"sat", "unsat"} <= set(counts) <= {"sat", "unsat", "unknown"}
    assert all(float(row[3]) >= 0 and float(row[5]) >= 0 for row in rows)


def test_what_is_exported_can_be_imported(ran, benchmark, tmp_path):
    folder, _, _ = ran
    bench = tmp_path / "bench"
    shutil.copytree(benchmark, bench / "blobs")
    shutil.copytree(folder / "tool", bench / "results" / "robench")
    words = ["import", "vnncomp", str(bench / "results"), "--out", str(tmp_path / "res"), "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["runs"][0]["n"] == 12
    assert CliRunner().invoke(app, ["check", str(tmp_path / "res")]).exit_code == 0


def test_an_export_overwrites_nothing_and_needs_properties(ran, benchmark, tmp_path):
    folder, _, _ = ran
    again = CliRunner().invoke(
        app, ["export", "vnncomp", str(folder / "res"), "--out", str(folder / "tool"), "--files", str(benchmark.parent)]
    )
    assert again.exit_code == 2 and "is there already" in again.output
    other = CliRunner().invoke(app, ["export", "vnnlib", str(folder / "res"), "--out", str(tmp_path)])
    assert other.exit_code == 2 and "unknown format 'vnnlib': choose vnncomp" in other.output
    evaluate(trained(), blobs(4), eps=0.1, attacks=(), certifiers="ibp", out=tmp_path / "plain")
    plain = CliRunner().invoke(app, ["export", "vnncomp", str(tmp_path / "plain"), "--out", str(tmp_path / "x")])
    assert plain.exit_code == 2 and "no run here is about properties" in plain.output


def test_a_suite_takes_the_given_sets(benchmark, tmp_path):
    suite = f"""
[[evaluations]]
models = "onnx:{benchmark}/onnx/first.onnx.gz"
datasets = "vnnlib:{benchmark},net=first"
threats = {{ norm = "linf", eps = "given" }}
attacks = "pgd:steps=3"
certifiers = "ibp"
"""
    (tmp_path / "suite.toml").write_text(suite)
    done = CliRunner().invoke(app, ["run", str(tmp_path / "suite.toml"), "--out", str(tmp_path / "res")])
    assert done.exit_code == 0, done.output
    said = CliRunner().invoke(app, ["report", str(tmp_path / "res"), "--json"])
    assert [result["eps"] for result in json.loads(said.stdout)["results"]] == ["given"]
    (tmp_path / "suite.toml").write_text(suite.replace('"given"', "0.1"))
    refused = CliRunner().invoke(app, ["run", str(tmp_path / "suite.toml"), "--out", str(tmp_path / "res")])
    assert refused.exit_code != 0 and "brings a set for each sample: leave out --eps" in refused.output
    (tmp_path / "suite.toml").write_text(suite.replace(f"vnnlib:{benchmark},net=first", "digits"))
    needed = CliRunner().invoke(app, ["run", str(tmp_path / "suite.toml"), "--out", str(tmp_path / "res")])
    assert needed.exit_code != 0 and "no ε given" in needed.output


def test_replay_and_check_read_the_run(ran, benchmark):
    folder, _, _ = ran
    done = CliRunner().invoke(app, ["replay", str(folder / "res"), "--files", str(benchmark.parent), "--json"])
    assert done.exit_code == 0, done.output
    (run,) = json.loads(done.stdout)["runs"]
    assert run["problems"] == [] and run["witnesses"] > 0 and run["certificates"] > 0
    assert CliRunner().invoke(app, ["check", str(folder / "res")]).exit_code == 0


# ----------------------------------------------------------------- the competition's own


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "net", "count", "shape", "bounded"),
    [
        ("mnist_fc", "mnist-net_256x2", 30, (784, 1), True),
        ("mnist_fc", "mnist-net_256x4", 30, (784, 1), True),
        ("oval21", "cifar_base_kw", 10, (3, 32, 32), False),
        ("cifar10_resnet", "", 24, (3, 32, 32), False),
    ],
)
def test_published_benchmarks_load(data_folder, name, net, count, shape, bounded):
    samples = Vnnlib(data_folder / "vnncomp" / name, net=net).load("test")
    assert len(samples) == count and samples.x.dtype == np.float32
    assert math.prod(samples.shape) == math.prod(shape)
    assert samples.regions.kind(samples.y) == "labels"
    assert samples.domain.bounded == bounded
    point = np.asarray(samples.x[:], dtype=np.float64)
    assert ((point >= samples.regions.least) & (point <= samples.regions.most)).all()


@pytest.mark.data
def test_mnist_samples_come_back_from_their_boxes(data_folder):
    samples = Vnnlib(data_folder / "vnncomp" / "mnist_fc", net="mnist-net_256x2").load("test")
    pixels = samples.x[:].reshape(30, 784)
    assert np.abs(pixels * 255 - np.round(pixels * 255)).max() < 1e-3  # whole grey values
    assert np.array_equal(np.round(pixels[:15] * 255), np.round(pixels[15:] * 255))  # the same images at both ε
    with gzip.open(data_folder / "mnist" / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
    known = {image.tobytes() for image in images}
    assert all(np.round(row * 255).astype(np.uint8).tobytes() in known for row in pixels)


@pytest.mark.data
def test_counterexamples_to_published_properties_replay(data_folder, tmp_path):
    folder = data_folder / "vnncomp" / "mnist_fc"
    model = f"onnx:{folder}/onnx/mnist-net_256x2.onnx.gz"
    evaluate(model, f"vnnlib:{folder},net=mnist-net_256x2", attacks="pgd:steps=20", certifiers=(), out=tmp_path / "r")
    words = ["export", "vnncomp", str(tmp_path / "r"), "--out", str(tmp_path / "tool"), "--files", str(folder.parent)]
    assert CliRunner().invoke(app, words).exit_code == 0
    files = sorted((tmp_path / "tool" / "counterexamples").iterdir())
    assert len(files) >= 6
    for file in files:
        name = re.fullmatch(r"mnist-net_256x2_(prop_.*)\.counterexample", file.name)[1]
        assert replays(file, folder / "vnnlib" / f"{name}.vnnlib.gz", folder / "onnx" / "mnist-net_256x2.onnx.gz")
    # What all published tools call unsat has no counterexample.
    found = {file.name.removeprefix("mnist-net_256x2_").removesuffix(".counterexample") for file in files}
    for tool in ("alpha_beta_crown", "verinet", "mn_bab", "nnenum"):
        table = csv.reader((data_folder / "vnncomp" / "results" / tool / "mnist_fc.csv").read_text().splitlines())
        unsat = {
            row[2].split("/")[-1].removesuffix(".vnnlib") for row in table if "256x2" in row[1] and row[4] == "unsat"
        }
        assert unsat and not unsat & found


@pytest.mark.data
@pytest.mark.parametrize("answer", ["sat", "unsat"])
def test_a_published_property_about_no_label_is_decided(data_folder, tmp_path, answer):
    runtime = pytest.importorskip("onnxruntime")
    folder = data_folder / "vnncomp" / "test"
    data = f"vnnlib:{folder}/test_prop.vnnlib,net=test_{answer}"
    evaluate(f"onnx:{folder}/test_{answer}.onnx", data, attacks=(), certifiers="bab", out=tmp_path / "r")
    words = ["export", "vnncomp", str(tmp_path / "r"), "--out", str(tmp_path / "t"), "--files", str(folder)]
    assert CliRunner().invoke(app, words).exit_code == 0
    (row,) = csv.reader((tmp_path / "t" / "test_prop.csv").read_text().splitlines())
    assert row[4] == answer
    for file in (tmp_path / "t").glob("counterexamples/*"):
        x, _ = read_point(file)
        low, high, _ = exact(folder / "test_prop.vnnlib")
        assert all(low[i] <= x[i] <= high[i] for i in range(5))
        session = runtime.InferenceSession(str(folder / f"test_{answer}.onnx"))
        wanted = session.get_inputs()[0]
        values = np.array([float(x[i]) for i in range(5)], dtype=np.float32).reshape(wanted.shape)
        out = session.run(None, {wanted.name: values})[0].ravel()
        assert out.argmin() == 0
    assert (tmp_path / "t" / "counterexamples").exists() == (answer == "sat")
