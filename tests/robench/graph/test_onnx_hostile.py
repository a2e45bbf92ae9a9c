"""Damaged and hostile ONNX files are refused in one line: nothing is executed, nothing outside the folder is read."""

import gzip

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robench.errors import DataError, GraphError, RobenchError
from robench.graph import GraphModule, from_onnx

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

WEIGHT = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def model(nodes=None, weights=None):
    nodes = nodes or [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Gemm", ["r", "w"], ["y"], transB=1)]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(WEIGHT, "w")] if weights is None else weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def written(tmp_path, content):
    path = tmp_path / "net.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def refused(path, error=DataError, match=None):
    with pytest.raises(error, match=match) as raised:
        from_onnx(path)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400 + len(str(path))


def test_missing_empty_and_foreign_files_are_refused(tmp_path):
    refused(tmp_path / "none.onnx", match="no such file")
    refused(tmp_path, match="no such file")
    refused(written(tmp_path, b""), match="empty")
    refused(written(tmp_path, b"not a network at all"), match="not an ONNX file|holds no ONNX network")
    refused(written(tmp_path, b"\x80\x04\x95pickle" * 30), match="not an ONNX file|holds no ONNX network")
    refused(written(tmp_path, gzip.compress(model().SerializeToString())[:-30]), match="cannot be read")
    refused(written(tmp_path, b"\x1f\x8bnot gzip"), match="cannot be read")


def test_gzipped_files_are_read(tmp_path):
    graph = from_onnx(written(tmp_path, gzip.compress(model().SerializeToString())))
    x = torch.randn(5, 4)
    torch.testing.assert_close(GraphModule(graph)(x), x.relu() @ torch.from_numpy(WEIGHT).T)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    content = model().SerializeToString()
    for end in range(len(content)):
        refused(written(tmp_path, content[:end]), error=(DataError, GraphError))


@settings(max_examples=300)
@given(st.data())
def test_flipped_bytes_never_end_in_another_exception(tmp_path_factory, data):
    content = bytearray(model().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "flipped.onnx"
    path.write_bytes(bytes(content))
    try:
        from_onnx(path)
    except RobenchError as error:
        assert "\n" not in str(error)


@settings(max_examples=200)
@given(st.binary(max_size=400))
def test_random_bytes_are_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "random.onnx"
    path.write_bytes(content)
    refused(path, error=(DataError, GraphError))


def test_circles_orders_and_doubles_are_refused(tmp_path):
    circle = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    refused(written(tmp_path, model([*circle, helper.make_node("Relu", ["b"], ["y"])])), match="run in a circle")
    twice = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Tanh", ["x"], ["y"])]
    refused(written(tmp_path, model(twice)), match="'y' is given twice")
    overwritten = [helper.make_node("Relu", ["x"], ["w"]), helper.make_node("Relu", ["w"], ["y"])]
    refused(written(tmp_path, model(overwritten)), match="'w' is given twice")
    refused(written(tmp_path, model([helper.make_node("Relu", ["x"], ["z"])])), match="nothing gives the output 'y'")


def test_tensors_that_lie_about_their_shape_are_refused(tmp_path):
    for dims in ([2**40, 2**20], [4, 4], [-1, 4], [3, 5]):
        lie = numpy_helper.from_array(WEIGHT, "w")
        del lie.dims[:]
        lie.dims.extend(dims)
        refused(written(tmp_path, model(weights=[lie])), match="impossible shape|does not fill its shape")
    typed = numpy_helper.from_array(WEIGHT, "w")
    typed.data_type = 99
    refused(written(tmp_path, model(weights=[typed])), error=(DataError, GraphError), match="'w'")
    refused(written(tmp_path, model(weights=[numpy_helper.from_array(WEIGHT * np.nan, "w")])), GraphError, "not finite")
    text = helper.make_tensor("w", TensorProto.STRING, [3, 4], [b"os.system"] * 12)
    refused(written(tmp_path, model(weights=[text])), error=(DataError, GraphError))


def test_shapes_that_would_fill_the_memory_are_refused(tmp_path):
    size = numpy_helper.from_array(np.array([2**20, 2**20]), "s")
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["c"]), helper.make_node("Gemm", ["x", "c"], ["y"])]
    refused(written(tmp_path, model(nodes, [size])), GraphError, "too large")
    pads = numpy_helper.from_array(np.array([0, 0, 0, 2**50]), "p")
    refused(written(tmp_path, model([helper.make_node("Pad", ["x", "p"], ["y"])], [pads])), GraphError, "pad")
    split = helper.make_node("Split", ["x"], ["y"], axis=1, num_outputs=2**40)
    refused(written(tmp_path, model([split])), error=(DataError, GraphError))


def external(location, **entries):
    tensor = numpy_helper.from_array(WEIGHT, "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def test_external_data_are_read_from_the_files_folder(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/w.bin").write_bytes(b"head" + WEIGHT.tobytes() + b"tail")
    path = written(tmp_path, model(weights=[external("parts/w.bin", offset=4, length=48)]))
    x = torch.randn(5, 4)
    torch.testing.assert_close(GraphModule(from_onnx(path))(x), x.relu() @ torch.from_numpy(WEIGHT).T)


def test_external_data_from_anywhere_else_are_refused(tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(WEIGHT.tobytes())
    home = tmp_path / "home"
    home.mkdir()
    (home / "link.bin").symlink_to(secret)
    (home / "short.bin").write_bytes(b"1234")
    (home / "folder").mkdir()
    outside = ("../secret.bin", str(secret), "folder/../../secret.bin", "link.bin", "", "a\0b")
    for location in outside:
        refused(written(home, model(weights=[external(location)])), match="outside the file's folder")
    refused(written(home, model(weights=[external("none.bin")])), match="cannot be read")
    refused(written(home, model(weights=[external("folder")])), match="not a regular file")
    refused(written(home, model(weights=[external("short.bin", length=48)])), match="are not in")
    refused(written(home, model(weights=[external("short.bin", offset=-1)])), match="are not in")
    refused(written(home, model(weights=[external("short.bin", offset="x")])), match="no number")
    refused(written(home, model(weights=[external("short.bin")])), match="does not fill its shape")


def test_names_that_are_no_text_are_refused(tmp_path):
    content = model().SerializeToString()
    for name in (b"Relu", b"Gemm", b"transB", b"\x01w"):
        assert name in content
        refused(written(tmp_path, content.replace(name, name[:-1] + b"\xff")), match="not UTF-8|not an ONNX file")


def test_names_in_messages_are_short_and_on_one_line(tmp_path):
    name = "evil\n" * 200
    refused(written(tmp_path, model([helper.make_node(name, ["x"], ["y"])])), GraphError, "is not supported")
    refused(written(tmp_path, model([helper.make_node("Relu", [name], ["y"])])), match="which nothing before it gives")


def test_without_the_onnx_package_the_message_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    path = written(tmp_path, b"anything")
    with pytest.raises(RobenchError, match=r"pip install 'robench\[onnx\]'"):
        from_onnx(path)
