"""The built-in sources of classifiers: a checkpoint and an ONNX file of one net are one function."""

import numpy as np
import pytest
import torch
from torch import nn

from robench.classifier import Classifier
from robench.contracts import Model
from robench.errors import RobenchError
from robench.graph import fingerprint, from_torch, save
from robench.registry import load_plugins

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


@pytest.fixture
def checkpoint(net, tmp_path):
    save(from_torch(net, (4,)), tmp_path / "net", {})
    return tmp_path / "net"


@pytest.fixture
def onnx_file(net, tmp_path):
    state = {name.replace(".", "_"): tensor.numpy() for name, tensor in net.state_dict().items()}
    nodes = [
        helper.make_node("Gemm", ["x", "0_weight", "0_bias"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "2_weight", "2_bias"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(array, name) for name, array in state.items()],
    )
    path = tmp_path / "net.onnx"
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(content.SerializeToString())
    return path


def loaded(spec, dtype=torch.float32):
    resolved = load_plugins().resolve("models", spec)
    (part,) = resolved.parts
    assert isinstance(part.value, Model)
    return resolved, part.value.load(torch.device("cpu"), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_sources_give_the_net_and_its_fingerprint(net, checkpoint, onnx_file, dtype):
    x = torch.rand(7, 4, dtype=dtype)
    with torch.no_grad():
        expected = net.to(dtype)(x)
    for spec in (f"checkpoint:{checkpoint}", f"onnx:{onnx_file}"):
        _, classifier = loaded(spec, dtype)
        assert isinstance(classifier, Classifier)
        assert (classifier.input_shape, classifier.classes, classifier.dtype) == ((4,), 3, dtype)
        assert classifier.fingerprint == fingerprint(from_torch(net.float(), (4,)), dtype)
        np.testing.assert_allclose(classifier.logits(x).numpy(), expected.numpy(), rtol=1e-6, atol=1e-6)


def test_their_canonical_specs_hold_no_path(checkpoint, onnx_file):
    for spec, name in ((f"checkpoint:{checkpoint}", "net"), (f"onnx:{onnx_file}", "net.onnx")):
        canonical = loaded(spec)[0].canonical
        assert str(checkpoint.parent) not in canonical
        assert f"{name}@sha256:" in canonical


@pytest.mark.parametrize("spec", ["checkpoint:{}/none", "onnx:{}/none.onnx", "onnx:{}/net/graph.json", "checkpoint:{}"])
def test_what_is_missing_or_foreign_is_refused_in_one_line(spec, checkpoint):
    with pytest.raises(RobenchError) as raised:
        loaded(spec.format(checkpoint.parent))
    assert "\n" not in str(raised.value)
