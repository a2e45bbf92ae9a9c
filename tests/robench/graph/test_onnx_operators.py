"""ONNX operators in the spellings that exporters use, against onnxruntime where it runs them."""

import numpy as np
import pytest
import torch

from robench.errors import GraphError
from robench.graph import GraphModule, from_onnx

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

RNG = np.random.default_rng(0)
F32 = np.float32


def weight(*shape):
    return RNG.normal(size=shape).astype(F32)


def ints(*values):
    return np.array(values, np.int64)


class Net:
    """A little ONNX network under construction: `n("Relu", "x")` returns the output's name."""

    def __init__(self, shape, batch=1, opset=17):
        self.nodes, self.constants, self.opset = [], [], opset
        self.input = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def __call__(self, op, *inputs, outputs=1, **attributes):
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        out = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, names, out, **attributes))
        return out[0] if outputs == 1 else out

    def model(self, output):
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "net", [self.input], [result], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)

    def save(self, output, path):
        path.write_bytes(self.model(output).SerializeToString())
        return path


def flat(n, name):
    return n("Flatten", name)


def shape_idiom(n, name):
    """x.view(x.size(0), -1), as the TorchScript exporter writes it."""
    size = n("Gather", n("Shape", name), np.array(0, np.int64), axis=0)
    return n("Reshape", name, n("Concat", n("Unsqueeze", size, ints(0)), ints(-1), axis=0))


def sliced_shape_idiom(n, name):
    """The same as the dynamo exporter writes it."""
    return n("Reshape", name, n("Concat", n("Shape", name, start=0, end=1), ints(-1), axis=0))


def arithmetic_idiom(n, name):
    """A target size computed from the other sizes: 2 * 5 * 6."""
    shape = n("Shape", name)
    sizes = [n("Gather", shape, np.array(i, np.int64)) for i in (1, 2, 3)]
    total = n("Mul", n("Mul", sizes[0], sizes[1]), n("Cast", sizes[2], to=TensorProto.INT64))
    batch = n("Slice", shape, ints(0), ints(1), ints(0))
    return n("Reshape", name, n("Concat", batch, n("Unsqueeze", total, ints(0)), axis=0))


BUILD = {
    "gemm": lambda n: n("Gemm", flat(n, "x"), weight(60, 3), weight(3)),
    "gemm transposed": lambda n: n("Gemm", flat(n, "x"), weight(3, 60), weight(1, 3), transB=1),
    "gemm scaled": lambda n: n("Gemm", flat(n, "x"), weight(60, 3), weight(1), alpha=0.3, beta=-2.0),
    "gemm without bias": lambda n: n("Gemm", flat(n, "x"), weight(60, 3), beta=0.0),
    "gemm plus activation": lambda n: n(
        "Gemm", flat(n, "x"), weight(60, 3), n("MatMul", flat(n, "x"), weight(60, 3)), beta=0.5
    ),
    "matmul and add": lambda n: n("Add", weight(3), n("MatMul", flat(n, "x"), weight(60, 3))),
    "sum": lambda n: flat(n, n("Sum", "x", n("Relu", "x"), n("Tanh", "x"))),
    "subtraction both ways": lambda n: flat(n, n("Sub", weight(2, 1, 1), n("Sub", "x", weight(1, 2, 5, 6)))),
    "products": lambda n: flat(n, n("Div", n("Mul", np.array(0.5, F32), "x"), weight(1, 1, 5, 6))),
    "difference of activations": lambda n: flat(n, n("Sub", n("Relu", "x"), n("Sigmoid", "x"))),
    "negation": lambda n: flat(n, n("Neg", "x")),
    "leaky relu": lambda n: flat(n, n("LeakyRelu", "x", alpha=0.2)),
    "leaky relu by default": lambda n: flat(n, n("LeakyRelu", "x")),
    "prelu": lambda n: flat(n, n("PRelu", "x", F32(0.3) * np.ones((1, 1, 1), F32))),
    "clip": lambda n: flat(n, n("Clip", "x", np.array(-0.2, F32), np.array(0.3, F32))),
    "clip above": lambda n: flat(n, n("Clip", "x", "", np.array(0.3, F32))),
    "conv": lambda n: flat(n, n("Conv", "x", weight(4, 2, 3, 3), weight(4), pads=[0, 1, 2, 1], strides=[2, 1])),
    "conv grouped and dilated": lambda n: flat(n, n("Conv", "x", weight(4, 1, 2, 2), group=2, dilations=[2, 1])),
    "conv same upper": lambda n: flat(n, n("Conv", "x", weight(3, 2, 2, 2), auto_pad="SAME_UPPER")),
    "conv same lower": lambda n: flat(n, n("Conv", "x", weight(3, 2, 2, 3), auto_pad="SAME_LOWER", strides=[2, 2])),
    "conv valid": lambda n: flat(n, n("Conv", "x", weight(3, 2, 2, 3), auto_pad="VALID", kernel_shape=[2, 3])),
    "padded conv": lambda n: flat(n, n("Conv", n("Pad", "x", ints(0, 0, 1, 0, 0, 0, 0, 2)), weight(3, 2, 2, 2))),
    "batch norm": lambda n: flat(
        n, n("BatchNormalization", "x", weight(2), weight(2), weight(2), np.abs(weight(2)) + 1, epsilon=0.01)
    ),
    "max pool": lambda n: flat(n, n("MaxPool", "x", kernel_shape=[2, 3], strides=[1, 2], pads=[1, 1, 0, 1])),
    "max pool with ceil": lambda n: flat(n, n("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 4], ceil_mode=1)),
    "max pool same": lambda n: flat(n, n("MaxPool", "x", kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER")),
    "average pool": lambda n: flat(n, n("AveragePool", "x", kernel_shape=[2, 3], pads=[1, 1, 0, 1])),
    "average pool with pads": lambda n: flat(
        n, n("AveragePool", "x", kernel_shape=[2, 3], pads=[1, 1, 0, 1], count_include_pad=1)
    ),
    "global average pool": lambda n: flat(n, n("GlobalAveragePool", "x")),
    "reduce mean": lambda n: flat(n, n("ReduceMean", "x", axes=[1, -1], keepdims=0)),
    "reshape to one": lambda n: n("Reshape", "x", ints(1, -1)),
    "reshape with 0": lambda n: flat(n, n("Reshape", "x", ints(0, 0, 30))),
    "reshape from -1": lambda n: n("Reshape", "x", ints(-1, 60)),
    "shape idiom": lambda n: shape_idiom(n, "x"),
    "sliced shape idiom": lambda n: sliced_shape_idiom(n, "x"),
    "arithmetic idiom": lambda n: arithmetic_idiom(n, "x"),
    "constant node": lambda n: n("Reshape", "x", n("Constant", value_ints=[1, 60])),
    "constant tensor": lambda n: flat(n, n("Add", "x", n("Constant", value=numpy_helper.from_array(weight(6), "v")))),
    "constant of shape": lambda n: flat(
        n, n("Add", "x", n("ConstantOfShape", ints(6), value=numpy_helper.from_array(weight(1), "v")))
    ),
    "folded weights": lambda n: n("MatMul", flat(n, "x"), n("Transpose", n("Mul", weight(3, 60), weight(3, 1)))),
    "expanded constant": lambda n: flat(n, n("Add", "x", n("Expand", weight(6), ints(5, 6)))),
    "flatten at 0": lambda n: n("Flatten", "x", axis=0),
    "flatten at -3": lambda n: n("Flatten", "x", axis=-3),
    "squeeze and unsqueeze": lambda n: flat(n, n("Squeeze", n("Unsqueeze", "x", ints(1, -1)), ints(1))),
    "transpose": lambda n: flat(n, n("Transpose", "x", perm=[0, 3, 1, 2])),
    "concat": lambda n: flat(n, n("Concat", "x", n("Relu", "x"), axis=-2)),
    "split": lambda n: flat(n, n("Concat", *n("Split", "x", ints(4, 2), outputs=2, axis=3)[::-1], axis=3)),
    "equal split": lambda n: flat(n, n("Concat", *n("Split", "x", outputs=2, axis=1)[::-1], axis=1)),
    "slice": lambda n: flat(n, n("Slice", "x", ints(1, -4), ints(2**62, 6), ints(2, 3), ints(2, 1))),
    "slice of the whole batch": lambda n: flat(n, n("Slice", "x", ints(0, 1), ints(2**63 - 1, 3), ints(0, 2))),
    "gather one": lambda n: flat(n, n("Gather", "x", np.array(-1, np.int64), axis=2)),
    "gather neighbours": lambda n: flat(n, n("Gather", "x", ints(1, 2), axis=2)),
    "pad": lambda n: flat(n, n("Pad", "x", ints(0, 0, 1, 0, 0, 1, 0, 2), np.array(0.5, F32))),
    "dropout and identity": lambda n: flat(n, n("Dropout", n("Identity", "x"))),
    "cast": lambda n: flat(n, n("Cast", n("Cast", "x", to=TensorProto.DOUBLE), to=TensorProto.FLOAT)),
}


@pytest.mark.parametrize("case", BUILD)
def test_an_operator_agrees_with_onnxruntime_on_any_batch(case, tmp_path):
    net = Net((2, 5, 6))
    path = net.save(BUILD[case](net), tmp_path / "net.onnx")
    ours = GraphModule(from_onnx(path))
    session = onnxruntime.InferenceSession(str(path))
    x = RNG.normal(size=(7, 2, 5, 6)).astype(F32)
    theirs = np.concatenate([session.run(None, {"x": row[None]})[0] for row in x])
    for rows in (slice(0, 1), slice(0, 7)):
        np.testing.assert_allclose(ours(torch.from_numpy(x[rows])).numpy(), theirs[rows], rtol=1e-5, atol=1e-5)


OLD = {
    "clip": (7, lambda n: flat(n, n("Clip", "x", min=-0.2, max=0.3))),
    "pad": (10, lambda n: flat(n, n("Pad", "x", pads=[0, 0, 1, 0, 0, 1, 0, 2], value=0.5))),
    "slice": (9, lambda n: flat(n, n("Slice", "x", starts=[1], ends=[3], axes=[2]))),
    "squeeze": (11, lambda n: flat(n, n("Squeeze", n("Unsqueeze", "x", axes=[1]), axes=[1]))),
    "split": (11, lambda n: flat(n, n("Concat", *n("Split", "x", outputs=2, axis=3, split=[4, 2])[::-1], axis=3))),
    "dropout": (9, lambda n: flat(n, n("Dropout", "x", ratio=0.3))),
    "reduce mean by input": (18, lambda n: flat(n, n("ReduceMean", "x", ints(1, 3), keepdims=1))),
    "pad of some axes": (18, lambda n: flat(n, n("Pad", "x", ints(1, 2), "", ints(2)))),
    "equal split by count": (
        18,
        lambda n: flat(n, n("Concat", *n("Split", "x", outputs=4, axis=2, num_outputs=4), axis=3)),
    ),
}


@pytest.mark.parametrize("case", OLD)
def test_older_and_newer_spellings_agree_with_onnxruntime(case, tmp_path):
    opset, build = OLD[case]
    net = Net((2, 5, 6) if "count" not in case else (2, 8, 6), opset=opset)
    path = net.save(build(net), tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(path))
    x = RNG.normal(size=(1, *net_shape(path))).astype(F32)
    ours = GraphModule(from_onnx(path))(torch.from_numpy(x))
    np.testing.assert_allclose(ours.numpy(), session.run(None, {"x": x})[0], rtol=1e-5, atol=1e-6)


def net_shape(path):
    return from_onnx(path).input_shape


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_a_softmax_at_the_end_is_dropped(op, tmp_path):
    net = Net((2, 5, 6))
    path = net.save(n_softmax(net, op), tmp_path / "net.onnx")
    graph = from_onnx(path)
    assert graph.nodes[-1].op == "linear"
    x = RNG.normal(size=(1, 2, 5, 6)).astype(F32)
    probabilities = onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[0]
    logits = GraphModule(graph)(torch.from_numpy(x))
    ours = torch.softmax(logits, 1) if op == "Softmax" else torch.log_softmax(logits, 1)
    np.testing.assert_allclose(ours.numpy(), probabilities, rtol=1e-5, atol=1e-6)


def n_softmax(n, op):
    return n(op, n("Gemm", flat(n, "x"), weight(60, 3)), axis=1)


@pytest.mark.parametrize(
    "build",
    [
        lambda n: n("MatMul", weight(4, 3), n("MatMul", weight(3, 5), "x")),
        lambda n: n("Relu", n("Add", n("MatMul", "x", weight(5, 4)), weight(4))),
    ],
)
def test_a_net_on_a_bare_vector_runs_on_batches(build, tmp_path):
    net = Net((), batch=5)
    path = net.save(build(net), tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(path))
    x = RNG.normal(size=(7, 5)).astype(F32)
    theirs = np.stack([session.run(None, {"x": row})[0] for row in x])
    np.testing.assert_allclose(GraphModule(from_onnx(path))(torch.from_numpy(x)).numpy(), theirs, rtol=1e-5, atol=1e-6)


UNSUPPORTED = {
    "unknown operator": (lambda n: flat(n, n("Erf", "x")), "operator 'Erf' is not supported"),
    "control flow": (lambda n: flat(n, n("Loop", "x")), "operator 'Loop' is not supported"),
    "softmax inside": (lambda n: n("Relu", n_softmax(n, "Softmax")), "only as the last operator"),
    "softmax over pixels": (lambda n: n("Softmax", n("Reshape", "x", ints(1, 60)), axis=0), "is the batch"),
    "product of activations": (lambda n: flat(n, n("Mul", "x", "x")), "mul of two activations"),
    "constant over activation": (lambda n: flat(n, n("Div", weight(6), "x")), "a constant divided by"),
    "transA": (lambda n: n("Gemm", flat(n, "x"), weight(1, 3), transA=1), "transA"),
    "mixing reshape": (lambda n: n("Reshape", "x", ints(2, 30)), "does not keep the batch"),
    "mixing flatten": (lambda n: n("Flatten", "x", axis=2), "mixes the batch"),
    "squeeze of everything": (lambda n: flat(n, n("Squeeze", "x")), "Squeeze without axes"),
    "permuted batch": (lambda n: flat(n, n("Transpose", "x")), "moves the batch"),
    "mean of everything": (lambda n: flat(n, n("ReduceMean", "x")), "would mix the batch"),
    "mean of the batch": (lambda n: flat(n, n("ReduceMean", "x", axes=[0])), "is the batch"),
    "reflect": (lambda n: flat(n, n("Pad", "x", ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")), "mode 'reflect'"),
    "padded batch": (lambda n: flat(n, n("Pad", "x", ints(1, 0, 0, 0, 0, 0, 0, 0))), "Pad of the batch"),
    "negative pads": (lambda n: flat(n, n("Pad", "x", ints(0, 0, -1, 0, 0, 0, 0, 0))), "pad: padding"),
    "average pool with ceil": (
        lambda n: flat(n, n("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 4], ceil_mode=1)),
        "ceil_mode",
    ),
    "pool of one axis": (
        lambda n: flat(n, n("MaxPool", n("Reshape", "x", ints(1, 2, 30)), kernel_shape=[2])),
        "1 axes",
    ),
    "indices of a pool": (lambda n: n("MaxPool", "x", outputs=2, kernel_shape=[2, 2])[0], "its output 1 is not"),
    "unread attribute": (lambda n: flat(n, n("Relu", "x", consumed_inputs=[0])), "attribute 'consumed_inputs'"),
    "slope per channel": (lambda n: flat(n, n("PRelu", "x", weight(2, 1, 1))), "slope per channel"),
    "half precision": (lambda n: flat(n, n("Cast", "x", to=TensorProto.FLOAT16)), "Cast of an activation"),
    "training": (
        lambda n: n("BatchNormalization", flat(n, "x"), *[weight(60)] * 4, outputs=3, training_mode=1)[0],
        "training mode",
    ),
    "active dropout": (lambda n: flat(n, n("Dropout", "x", np.array(0.5, F32), np.array(True))), "random"),
    "scattered gather": (lambda n: flat(n, n("Gather", "x", ints(2, 0), axis=2)), "neighbouring"),
    "constant output": (lambda n: n("Add", weight(1, 3), weight(3)), "does not depend on the input"),
    "computed batch": (
        lambda n: n("Reshape", "x", n("Mul", n("Shape", "x"), ints(1, 1, 1, 1))),
        "computes with the batch size",
    ),
    "old operators": (None, "operator set 6 is too old"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_a_graph_cannot_express_is_refused_by_name(case, tmp_path):
    build, message = UNSUPPORTED[case]
    net = Net((2, 5, 6), opset=17 if build else 6)
    output = build(net) if build else flat(net, "x")
    path = tmp_path / "net.onnx"
    net.save(output, path)
    with pytest.raises(GraphError, match=message) as raised:
        from_onnx(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("shape", "batch", "message"),
    [(("height", 6), 1, "dimension 1 .'height'. of input 'x' is dynamic"), ((2**15, 2**15), 1, "input shape")],
)
def test_input_shapes_that_are_free_or_impossible_are_refused(shape, batch, message, tmp_path):
    net = Net(shape, batch=batch)
    path = net.save(flat(net, "x"), tmp_path / "net.onnx")
    with pytest.raises(GraphError, match=message):
        from_onnx(path)


def test_several_inputs_are_refused(tmp_path):
    net = Net((3,))
    model = net.model(net("Add", "x", "y"))
    model.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3]))
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(GraphError, match="2 inputs and 1 outputs"):
        from_onnx(path)


def test_operators_of_other_domains_are_refused_by_their_full_name(tmp_path):
    net = Net((3,))
    net("Gelu", "x", domain="com.microsoft")
    path = net.save("v0_0", tmp_path / "net.onnx")
    with pytest.raises(GraphError, match=r"com\.microsoft::Gelu"):
        from_onnx(path)


def mean_over_rows(n, name):
    rows = n("Add", name, weight(1, 5))
    return n("Add", rows, n("ReduceMean", rows, axes=[0], keepdims=1))


ROWS = {
    "mean": mean_over_rows,
    "gemm": lambda n, x: n("Gemm", n("Reshape", x, ints(1, 5)), weight(5, 3), weight(1, 3)),
    "two rows": lambda n, x: n("Flatten", n("Concat", *[n("Mul", x, weight(1, 5))] * 2, axis=0), axis=0),
    "constant minus vector": lambda n, x: n("Sub", weight(1, 1, 5), x),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_constant_with_more_axes_than_a_bare_vector_adds_axes(case, tmp_path):
    n = Net((), batch=5)
    path = n.save(ROWS[case](n, "x"), tmp_path / "net.onnx")
    x = RNG.normal(size=(3, 5)).astype(F32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = np.stack([session.run(None, {"x": row})[0].reshape(-1) for row in x])
    np.testing.assert_allclose(
        GraphModule(from_onnx(path))(torch.from_numpy(x)).numpy(), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("op", ["Identity", "Softmax"])
def test_a_net_without_operators_is_refused_as_such(op, tmp_path):
    n = Net((5,))
    path = n.save(n(op, "x"), tmp_path / "net.onnx")
    with pytest.raises(GraphError, match="the output is the input itself"):
        from_onnx(path)
