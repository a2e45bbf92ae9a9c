"""The VNN-COMP networks give onnxruntime's logits, on any batch."""

import gzip

import numpy as np
import pytest
import torch

from robench.graph import GraphClassifier, GraphModule, from_onnx

onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.data

FILES = {
    "mnist_fc/onnx/mnist-net_256x2.onnx.gz": ((784, 1), 10),
    "mnist_fc/onnx/mnist-net_256x4.onnx.gz": ((784, 1), 10),
    "oval21/onnx/cifar_base_kw.onnx.gz": ((3, 32, 32), 10),
    "oval21/onnx/cifar_wide_kw.onnx.gz": ((3, 32, 32), 10),
    "cifar10_resnet/onnx/resnet_2b.onnx": ((3, 32, 32), 10),
    "test/test_sat.onnx": ((1, 1, 5), 5),
    "test/test_unsat.onnx": ((1, 1, 5), 5),
    "test/test_nano.onnx": ((1,), 1),
    "test/test_tiny.onnx": ((1,), 1),
    "test/test_small.onnx": ((1,), 1),
}


@pytest.mark.parametrize("name", FILES)
def test_the_logits_are_those_of_onnxruntime(name, data_folder):
    path = data_folder / "vnncomp" / name
    shape, classes = FILES[name]
    graph = from_onnx(path)
    assert (graph.input_shape, graph.classes) == (shape, classes)
    content = path.read_bytes()
    session = onnxruntime.InferenceSession(gzip.decompress(content) if path.suffix == ".gz" else content)
    source = session.get_inputs()[0]
    x = np.random.default_rng(0).uniform(0, 1, (7, *shape)).astype(np.float32)
    theirs = np.stack([session.run(None, {source.name: row.reshape(source.shape)})[0].reshape(-1) for row in x])
    module = GraphModule(graph)
    for rows in (slice(0, 1), slice(0, 7)):
        np.testing.assert_allclose(module(torch.from_numpy(x[rows])).numpy(), theirs[rows], rtol=1e-5, atol=2e-6)


def test_published_test_nets_with_one_output_are_no_classifiers(data_folder):
    with pytest.raises(Exception, match="at least 2 logits"):
        GraphClassifier(from_onnx(data_folder / "vnncomp/test/test_nano.onnx"))
