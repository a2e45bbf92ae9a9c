"""ONNX files as ONNX Runtime executes them: the answers, the identity, and what hostile files get."""

import gzip
import sys

import numpy as np
import pytest
import torch
from torch import nn

from robench.classifier import margins
from robench.errors import DataError, GraphError, InputError, RobenchError
from robench.registry import load_plugins

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FLOAT, DOUBLE, HALF, INT = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT64
NUMPY = {FLOAT: np.float32, DOUBLE: np.float64, HALF: np.float16}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


def write(path, net, batch="batch", kind=FLOAT, extra=(), outputs=None, shape=(4,)):
    """Write the net, then `extra` nodes from `y`; returns the path."""
    arrays = {name.replace(".", "_"): value.numpy().astype(NUMPY[kind]) for name, value in net.state_dict().items()}
    nodes = [
        helper.make_node("Gemm", ["x", "0_weight", "0_bias"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "2_weight", "2_bias"], ["y"], transB=1),
        *extra,
    ]
    outputs = outputs or [("y", kind, [batch, 3])]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, [batch, *shape])],
        [helper.make_tensor_value_info(*one) for one in outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def loaded(spec, dtype=torch.float32):
    return load_plugins().resolve("models", f"onnxruntime:{spec}").value.load(torch.device("cpu"), dtype)


@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_the_answers_are_the_networks_whatever_batch_the_file_fixes(batch, net, tmp_path):
    classifier = loaded(write(tmp_path / "net.onnx", net, batch))
    assert (classifier.input_shape, classifier.classes, classifier.dtype) == ((4,), 3, torch.float32)
    assert (classifier.graph, classifier.outputs, classifier.identified) == (None, "logits", True)
    assert classifier.runtime["onnxruntime"]
    for count in (1, 4, 7):
        x = torch.rand(count, 4)
        with torch.no_grad():
            torch.testing.assert_close(classifier.logits(x), net(x), rtol=1e-5, atol=1e-6)
    assert classifier.logits(torch.rand(0, 4)).shape == (0, 3)


def test_networks_in_other_precisions_run_in_theirs(net, tmp_path):
    x = torch.rand(5, 4)
    with torch.no_grad():
        expected = net(x)
    double = loaded(write(tmp_path / "double.onnx", net, kind=DOUBLE), torch.float64)
    torch.testing.assert_close(double.logits(x.double()).float(), expected)
    half = loaded(write(tmp_path / "half.onnx", net, kind=HALF))
    torch.testing.assert_close(half.logits(x), expected, rtol=0, atol=5e-3)
    assert double.runtime["onnxruntime"].endswith(", float64, CPU")
    # Asked for in another precision, the runtime still computes in its own: inputs are rounded on the way.
    torch.testing.assert_close(loaded(tmp_path / "double.onnx").logits(x), expected)
    finer = loaded(tmp_path / "half.onnx", torch.float64)
    assert (finer.dtype, finer.logits(x.double()).dtype) == (torch.float64, torch.float64)
    assert torch.equal(finer.logits(x.double()).float(), half.logits(x))
    assert finer.fingerprint != half.fingerprint


def test_what_the_importer_refuses_runs(net, tmp_path):
    file = write(
        tmp_path / "net.onnx", net, extra=[helper.make_node("Round", ["y"], ["z"])], outputs=[("z", FLOAT, ["n", 3])]
    )
    with pytest.raises(GraphError, match="Round"):
        load_plugins().resolve("models", f"onnx:{file}").value.load(torch.device("cpu"), torch.float32)
    x = torch.rand(6, 4) * 9
    with torch.no_grad():
        assert torch.equal(loaded(file).logits(x), net(x).round())


LABELS = [helper.make_node("ArgMax", ["y"], ["label"], axis=1, keepdims=0)]


def test_labels_alone_give_one_hot_logits(net, tmp_path):
    file = write(tmp_path / "net.onnx", net, extra=LABELS, outputs=[("label", INT, ["n"])])
    with pytest.raises(InputError, match="output 'label' holds labels alone: give classes=N"):
        loaded(file)
    classifier = loaded(f"{file},classes=3")
    assert classifier.outputs == "labels"
    x = torch.rand(20, 4) * 9
    with torch.no_grad():
        y = net(x).argmax(1)
    assert margins(classifier.logits(x), y).tolist() == [1] * 20
    with pytest.raises(InputError, match="labels from"):
        loaded(f"{file},classes=2").logits(x)


def test_of_several_outputs_the_scores_decide_or_the_one_named(net, tmp_path):
    both = [("label", INT, ["n"]), ("y", FLOAT, ["n", 3])]
    file = write(tmp_path / "net.onnx", net, extra=LABELS, outputs=both)
    scores, labels = loaded(file), loaded(f"{file},output=label,classes=3")
    assert (scores.outputs, labels.outputs) == ("logits", "labels")
    assert scores.fingerprint != labels.fingerprint
    twice = write(tmp_path / "two.onnx", net, extra=[helper.make_node("Neg", ["y"], ["z"])],
                  outputs=[("y", FLOAT, ["n", 3]), ("z", FLOAT, ["n", 3])])  # fmt: skip
    with pytest.raises(InputError, match="give output=NAME; it has 'y'"):
        loaded(twice)
    x = torch.rand(3, 4)
    assert torch.equal(loaded(f"{twice},output=y").logits(x), -loaded(f"{twice},output=z").logits(x))


def test_open_shapes_are_asked_for(net, tmp_path):
    file = write(tmp_path / "net.onnx", net, shape=("width",))
    with pytest.raises(InputError, match="leaves open: give shape="):
        loaded(file)
    assert loaded(f"{file},shape=4").input_shape == (4,)
    with pytest.raises(DataError, match="onnxruntime fails on inputs"):
        loaded(f"{file},shape=5")
    with pytest.raises(InputError, match=r"has as \[4\]"):
        loaded(f"{write(tmp_path / 'fixed.onnx', net)},shape=5")


def test_the_identity_is_the_content_wherever_it_stands(net, tmp_path):
    file = write(tmp_path / "net.onnx", net)
    (tmp_path / "other").mkdir()
    moved = tmp_path / "other/renamed.onnx.gz"
    moved.write_bytes(gzip.compress(file.read_bytes()))
    assert loaded(file).fingerprint == loaded(moved).fingerprint
    torch.manual_seed(1)
    other = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    assert loaded(write(tmp_path / "two.onnx", other)).fingerprint != loaded(file).fingerprint


def external(file, location, weight):
    """Move a weight of the file out to `location`."""
    model = onnx.load(str(file))
    tensor = next(one for one in model.graph.initializer if one.name == "2_bias")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    file.write_bytes(model.SerializeToString())
    return weight.astype(np.float32).tobytes()


def test_external_data_come_from_the_files_own_folder_alone(net, tmp_path):
    (tmp_path / "in").mkdir()
    bias = net[2].bias.detach().numpy()
    inside = write(tmp_path / "in/net.onnx", net)
    plain = loaded(inside).logits(torch.ones(1, 4))
    (tmp_path / "in/weights.bin").write_bytes(external(inside, "weights.bin", bias))
    first = loaded(inside)
    assert torch.equal(first.logits(torch.ones(1, 4)), plain)
    (tmp_path / "in/weights.bin").write_bytes((bias + 1).tobytes())
    again = loaded(inside)
    assert again.fingerprint != first.fingerprint
    torch.testing.assert_close(again.logits(torch.ones(1, 4)), plain + 1)
    (tmp_path / "outside.bin").write_bytes(bias.tobytes())
    for location in ("../outside.bin", str(tmp_path / "outside.bin")):
        escaping = write(tmp_path / "in/net.onnx", net)
        external(escaping, location, bias)
        with pytest.raises(DataError, match="outside the file's folder"):
            loaded(escaping)


def test_external_data_of_branches_do_not_escape_either(net, tmp_path):
    value = helper.make_tensor("c", FLOAT, [3], [0.0] * 3)
    value.ClearField("float_data")
    value.data_location = TensorProto.EXTERNAL
    value.external_data.add(key="location", value="/etc/hostname")
    out = [helper.make_tensor_value_info("c", FLOAT, [3])]
    branch = helper.make_graph([], "branch", [], out, [value])
    extra = [
        helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("t", TensorProto.BOOL, [], [True])),
        helper.make_node("If", ["yes"], ["c"], then_branch=branch, else_branch=branch),
        helper.make_node("Add", ["y", "c"], ["z"]),
    ]
    file = write(tmp_path / "net.onnx", net, extra=extra, outputs=[("z", FLOAT, ["n", 3])])
    with pytest.raises(DataError, match="outside the file's folder"):
        loaded(file)


def test_scores_that_depend_on_the_batch_are_refused(net, tmp_path):
    extra = [helper.make_node("ReduceMean", ["y"], ["m"], axes=[0]), helper.make_node("Sub", ["y", "m"], ["z"])]
    file = write(tmp_path / "net.onnx", net, extra=extra, outputs=[("z", FLOAT, ["n", 3])])
    with pytest.raises(InputError, match="depend on the others in its batch"):
        loaded(file)


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x1f\x8bnot gzip"])
def test_what_is_no_network_is_refused_in_one_line(content, tmp_path):
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(RobenchError) as raised:
        loaded(tmp_path / "net.onnx")
    assert "\n" not in str(raised.value)


def test_networks_that_the_runtime_refuses_or_that_have_other_inputs_are_told(net, tmp_path):
    unknown = write(tmp_path / "net.onnx", net, extra=[helper.make_node("Nonsense", ["y"], ["z"])],
                    outputs=[("z", FLOAT, ["n", 3])])  # fmt: skip
    with pytest.raises(GraphError, match="onnxruntime cannot run it"):
        loaded(unknown)
    model = onnx.load(str(write(tmp_path / "two.onnx", net, extra=[helper.make_node("Add", ["y", "w"], ["z"])])))
    model.graph.input.append(helper.make_tensor_value_info("w", FLOAT, [1, 3]))
    (tmp_path / "two.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(GraphError, match=r"it must have one of floats \[batch, ...\]"):
        loaded(tmp_path / "two.onnx")
    with pytest.raises(GraphError, match=r"is \[3, 3\] for 3 inputs, not \[3, 7\]"):
        loaded(f"{write(tmp_path / 'net.onnx', net)},classes=7")


def test_without_the_extra_the_message_says_what_to_install(net, tmp_path, monkeypatch):
    file = write(tmp_path / "net.onnx", net)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'robench\[onnxruntime\]'"):
        loaded(file)
