"""Every operator gives torch's own numbers and the shape that it says, and refuses what does not fit."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from robench.errors import GraphError
from robench.graph import OPERATORS, Graph, Node, group_sort, validate
from robench.graph.operators import apply


def tensor(*shape, seed=0, positive=False):
    drawn = np.random.default_rng((seed, *shape)).normal(size=shape)
    return torch.tensor(np.abs(drawn) + 0.5 if positive else drawn, dtype=torch.float64)


def run(op, shapes, attributes=None, constants=None, batch=3):
    """Return (output, inputs, node) of one operator on random inputs of unbatched `shapes`."""
    inputs = [tensor(batch, *shape, seed=i + 1) for i, shape in enumerate(shapes)]
    nodes = [Node("input", shape=shape) for shape in shapes]
    node = apply(op, nodes, tuple(range(len(shapes))), attributes, constants)
    out = OPERATORS[op].bind(node.attributes, node.constants)(*inputs)
    assert tuple(out.shape) == (batch, *node.shape)
    return out, inputs, node


W, B = tensor(4, 6), tensor(4)
CASES = {
    "linear": ([(6,)], {}, {"weight": W, "bias": B}, lambda x: x @ W.T + B),
    "linear without bias": ([(6,)], {}, {"weight": W}, lambda x: x @ W.T),
    "relu": ([(2, 3)], {}, {}, lambda x: x.clamp_min(0)),
    "leaky_relu": ([(2, 3)], {"slope": 0.3}, {}, lambda x: torch.where(x > 0, x, 0.3 * x)),
    "sigmoid": ([(5,)], {}, {}, lambda x: 1 / (1 + torch.exp(-x))),
    "tanh": ([(5,)], {}, {}, lambda x: 2 / (1 + torch.exp(-2 * x)) - 1),
    "neg": ([(5,)], {}, {}, lambda x: -x),
    "clip": ([(5,)], {"min": -0.5, "max": 0.25}, {}, lambda x: x.clamp(-0.5, 0.25)),
    "clip below": ([(5,)], {"min": -0.5, "max": math.inf}, {}, lambda x: x.clamp_min(-0.5)),
    "clip nothing": ([(5,)], {"min": -math.inf, "max": math.inf}, {}, lambda x: x),
    "group_sort 2": ([(4, 3)], {"group": 2}, {}, lambda x: x.view(-1, 2, 2, 3).sort(2).values.view(-1, 4, 3)),
    "group_sort 3": ([(6,)], {"group": 3}, {}, lambda x: x.view(-1, 2, 3).sort(2).values.view(-1, 6)),
    "add": ([(2, 3)], {}, {"other": tensor(1, 3)}, lambda x: x + tensor(1, 3)),
    "add larger": ([(1, 3)], {}, {"other": tensor(2, 1)}, lambda x: x + tensor(2, 1)),
    "add nodes": ([(2, 3), (2, 1)], {}, {}, lambda x, y: x + y),
    "sub": ([(2, 3)], {"reverse": 0}, {"other": tensor(2, 1)}, lambda x: x - tensor(2, 1)),
    "sub reverse": ([(2, 3)], {"reverse": 1}, {"other": tensor(2, 1)}, lambda x: tensor(2, 1) - x),
    "sub nodes": ([(2, 3), (1, 3)], {"reverse": 0}, {}, lambda x, y: x - y),
    "mul": ([(2, 3)], {}, {"other": tensor(1, 1)}, lambda x: x * tensor(1, 1)),
    "div": ([(2, 3)], {}, {"other": tensor(2, 3)}, lambda x: x / tensor(2, 3)),
    "reshape": ([(2, 6)], {"shape": (3, 4)}, {}, lambda x: x.view(-1, 3, 4)),
    "reshape flat": ([(2, 6)], {"shape": (12,)}, {}, lambda x: x.view(-1, 12)),
    "transpose": ([(2, 3, 4)], {"axes": (2, 0, 1)}, {}, lambda x: torch.einsum("bijk->bkij", x)),
    "concat": ([(2, 3), (2, 1)], {"axis": 1}, {}, lambda x, y: torch.cat([x, y], -1)),
    "pad": ([(2, 3)], {"padding": (1, 0, 0, 2), "value": 0.5}, {}, lambda x: F.pad(x, (0, 2, 1, 0), value=0.5)),
    "slice": ([(2, 7)], {"axis": 1, "start": 1, "stop": 6, "step": 2}, {}, lambda x: x[:, :, 1:6:2]),
    "mean": ([(2, 3, 4)], {"axes": (0, 2)}, {}, lambda x: x.sum((1, 3), keepdim=True) / 8),
    "global_avg_pool2d": ([(2, 3, 4)], {}, {}, lambda x: x.sum((2, 3), keepdim=True) / 12),
}


@pytest.mark.parametrize("case", CASES)
def test_an_operator_gives_the_formula(case):
    shapes, attributes, constants, formula = CASES[case]
    out, inputs, _ = run(case.split()[0], shapes, attributes, constants)
    torch.testing.assert_close(out, formula(*inputs), rtol=1e-12, atol=1e-12)


def test_every_operator_has_a_case_here():
    windows = {"conv1d", "conv2d", "batch_norm", "max_pool2d", "avg_pool2d"}
    assert {case.split()[0] for case in CASES} | windows == set(OPERATORS)


@pytest.mark.parametrize("shape", [(4,), (4, 5), (4, 3, 2)])
def test_batch_norm_gives_the_formula_per_channel(shape):
    constants = {
        "mean": tensor(4),
        "var": tensor(4, positive=True),
        "weight": tensor(4, seed=2),
        "bias": tensor(4, seed=3),
    }
    out, (x,), _ = run("batch_norm", [shape], {"eps": 0.01}, constants)
    mean, var, weight, bias = (
        constants[k].view(-1, *[1] * (len(shape) - 1)) for k in ("mean", "var", "weight", "bias")
    )
    torch.testing.assert_close(out, (x - mean) / torch.sqrt(var + 0.01) * weight + bias)


def windows(x, kernel, stride, padding, dilation, fill):
    """Cut a padded array [C, H, W] into windows [C, out_h, out_w, kernel_h, kernel_w], slowly."""
    top, left, bottom, right = padding
    wide = np.pad(x, ((0, 0), (top, bottom), (left, right)), constant_values=fill)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    rows = range(0, wide.shape[1] - reach[0] + 1, stride[0])
    columns = range(0, wide.shape[2] - reach[1] + 1, stride[1])
    return np.array(
        [[wide[:, i : i + reach[0] : dilation[0], j : j + reach[1] : dilation[1]] for j in columns] for i in rows]
    ).transpose(2, 0, 1, 3, 4)


two = st.tuples(st.integers(1, 3), st.integers(1, 3))
four = st.tuples(*[st.integers(0, 2)] * 4)


@given(kernel=two, stride=two, padding=four, dilation=two, groups=st.sampled_from([1, 2]), bias=st.booleans())
def test_conv2d_gives_the_sum_over_windows(kernel, stride, padding, dilation, groups, bias):
    weight, x = tensor(6, 4 // groups, *kernel, seed=5), tensor(1, 4, 7, 8, seed=1)
    constants = {"weight": weight} | ({"bias": tensor(6)} if bias else {})
    attributes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    out, _, _ = run("conv2d", [(4, 7, 8)], attributes, constants, batch=1)
    cut = windows(x[0].numpy(), kernel, stride, padding, dilation, 0.0)
    halves = np.split(cut, groups)
    filters = np.split(weight.numpy(), groups)
    expected = np.concatenate([np.einsum("chwij,ocij->ohw", c, f) for c, f in zip(halves, filters, strict=True)])
    expected += tensor(6).numpy()[:, None, None] * bias
    np.testing.assert_allclose(out[0].numpy(), expected, rtol=1e-10, atol=1e-10)


@given(kernel=two, stride=two, padding=four, dilation=two)
def test_max_pool_takes_the_maximum_of_each_window(kernel, stride, padding, dilation):
    attributes = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)] * 2
    if any(p >= r for p, r in zip(padding, reach, strict=True)):
        with pytest.raises(GraphError, match="window without input"):
            run("max_pool2d", [(2, 7, 8)], attributes)
        return
    out, (x,), _ = run("max_pool2d", [(2, 7, 8)], attributes, batch=1)
    cut = windows(x[0].numpy(), kernel, stride, padding, dilation, -np.inf)
    np.testing.assert_array_equal(out[0].numpy(), cut.max((3, 4)))


@given(kernel=two, stride=two, padding=four, include=st.integers(0, 1))
def test_avg_pool_takes_the_mean_of_each_window(kernel, stride, padding, include):
    attributes = {"kernel": kernel, "stride": stride, "padding": padding, "count_include_pad": include}
    if any(p >= r for p, r in zip(padding, kernel * 2, strict=True)):
        with pytest.raises(GraphError, match="window without input"):
            run("avg_pool2d", [(2, 7, 8)], attributes)
        return
    out, (x,), _ = run("avg_pool2d", [(2, 7, 8)], attributes, batch=1)
    fill = 0.0 if include else np.nan
    cut = windows(x[0].numpy(), kernel, stride, padding, (1, 1), fill)
    np.testing.assert_allclose(out[0].numpy(), np.nanmean(cut, (3, 4)), rtol=1e-12)


@given(padding=st.tuples(st.integers(0, 3), st.integers(0, 3)), stride=st.integers(1, 3), dilation=st.integers(1, 3))
def test_conv1d_is_conv2d_of_one_row(padding, stride, dilation):
    weight = tensor(3, 2, 3)
    attributes = {"stride": (stride,), "padding": padding, "dilation": (dilation,), "groups": 1}
    out, (x,), _ = run("conv1d", [(2, 9)], attributes, {"weight": weight})
    row = F.conv2d(F.pad(x, padding)[:, :, None], weight[:, :, None], stride=(1, stride), dilation=(1, dilation))
    torch.testing.assert_close(out, row[:, :, 0])


@pytest.mark.parametrize("case", CASES)
def test_an_empty_batch_stays_empty(case):
    shapes, attributes, constants, _ = CASES[case]
    out, _, node = run(case.split()[0], shapes, attributes, constants, batch=0)
    assert tuple(out.shape) == (0, *node.shape)


def test_group_sort_passes_gradients_to_where_the_values_came_from():
    x = torch.tensor([[3.0, 1.0, 2.0, 4.0]], requires_grad=True)
    (group_sort(x, 2) * torch.tensor([1.0, 10.0, 100.0, 1000.0])).sum().backward()
    assert x.grad.tolist() == [[10.0, 1.0, 100.0, 1000.0]]


CONV = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
BAD = {
    "unknown operator": ("gelu", [(3,)], {}, {}, "unknown operator 'gelu'"),
    "missing attribute": ("leaky_relu", [(3,)], {}, {}, "needs exactly"),
    "extra attribute": ("relu", [(3,)], {"slope": 1.0}, {}, "needs exactly"),
    "kind of attribute": ("leaky_relu", [(3,)], {"slope": 1}, {}, "not of kind float"),
    "bool for int": ("group_sort", [(4,)], {"group": True}, {}, "not of kind int"),
    "huge number": ("group_sort", [(4,)], {"group": 10**30}, {}, "not of kind int"),
    "nan": ("leaky_relu", [(3,)], {"slope": math.nan}, {}, "not of kind float"),
    "missing constant": ("linear", [(3,)], {}, {}, "constants missing: weight"),
    "extra constant": ("relu", [(3,)], {}, {"w": tensor(3)}, "unknown constants: w"),
    "integer constant": ("mul", [(3,)], {}, {"other": torch.ones(3, dtype=torch.int64)}, "floating point"),
    "too many inputs": ("relu", [(3,), (3,)], {}, {}, "takes 1 to 1 inputs"),
    "weight": ("linear", [(3,)], {}, {"weight": tensor(2, 4)}, "does not fit"),
    "bias": ("linear", [(4,)], {}, {"weight": tensor(2, 4), "bias": tensor(3)}, "bias has the shape"),
    "linear rank": ("linear", [(2, 4)], {}, {"weight": tensor(2, 4)}, "flatten it"),
    "kernel": ("conv2d", [(1, 2, 2)], CONV, {"weight": tensor(1, 1, 3, 3)}, "does not fit"),
    "groups": ("conv2d", [(3, 4, 4)], CONV | {"groups": 2}, {"weight": tensor(4, 1, 3, 3)}, "groups"),
    "stride": ("conv2d", [(1, 4, 4)], CONV | {"stride": (0, 1)}, {"weight": tensor(1, 1, 3, 3)}, "at least 1"),
    "zero divisor": ("div", [(3,)], {}, {"other": torch.tensor([1.0, 0.0, 2.0])}, "zero"),
    "rank of constant": ("add", [(2, 3)], {}, {"other": tensor(3)}, "ranks"),
    "broadcast": ("add", [(2, 3)], {}, {"other": tensor(2, 2)}, "broadcast"),
    "node products": ("mul", [(3,), (3,)], {}, {}, "takes 1 to 1 inputs"),
    "reverse of nodes": ("sub", [(3,), (3,)], {"reverse": 1}, {}, "reverse"),
    "reshape": ("reshape", [(2, 3)], {"shape": (5,)}, {}, "does not fit"),
    "negative reshape": ("reshape", [(2, 3)], {"shape": (-2, -3)}, {}, "does not fit"),
    "transpose": ("transpose", [(2, 3)], {"axes": (0, 0)}, {}, "no order"),
    "concat": ("concat", [(2, 3), (3, 3)], {"axis": 1}, {}, "do not fit"),
    "slice": ("slice", [(3,)], {"axis": 0, "start": 2, "stop": 2, "step": 1}, {}, "does not fit"),
    "huge pad": ("pad", [(3,)], {"padding": (2**28, 0), "value": 0.0}, {}, "too large"),
    "clip": ("clip", [(3,)], {"min": 1.0, "max": 0.0}, {}, "above max"),
    "variance": (
        "batch_norm",
        [(1,)],
        {"eps": 0.0},
        {name: torch.zeros(1) for name in ("mean", "var", "weight", "bias")},
        "must be positive",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_by_name(case):
    op, shapes, attributes, constants, message = BAD[case]
    nodes = [Node("input", shape=shape) for shape in shapes]
    with pytest.raises(GraphError, match=message) as raised:
        apply(op, nodes, tuple(range(len(shapes))), attributes, constants)
    assert "\n" not in str(raised.value)


def test_a_graph_is_refused_where_a_shape_an_order_or_a_number_is_wrong():
    start = Node("input", shape=(3,))
    with pytest.raises(GraphError, match="starts with its input"):
        validate(Graph((Node("relu", (0,), shape=(3,)),)))
    with pytest.raises(GraphError, match="declares"):
        validate(Graph((start, Node("relu", (0,), shape=(4,)))))
    with pytest.raises(GraphError, match="do not come before"):
        validate(Graph((start, Node("relu", (1,), shape=(3,)))))
    with pytest.raises(GraphError, match="one axis"):
        validate(Graph((Node("input", shape=(3, 1)), Node("relu", (0,), shape=(3, 1)))))
    infinite = {"other": torch.tensor([1.0, math.inf, 0.0])}
    with pytest.raises(GraphError, match=r"node 1 \(add\): other holds a value that is not finite"):
        validate(Graph((start, Node("add", (0,), {}, infinite, (3,)))))
