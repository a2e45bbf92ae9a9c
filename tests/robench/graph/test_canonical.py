"""The canonical form keeps the function, and the fingerprint names the function rather than its spelling."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from oracles.random_graphs import evaluate, random_graph, step_names
from robench.graph import Graph, Node, fingerprint, from_torch, in_precision
from robench.graph._canonical import canonical
from robench.graph.operators import apply


def drawn(seed):
    rng = np.random.default_rng(seed)
    return random_graph(list(rng.permutation(step_names())[:16]), rng, shape=(2, 5, 4)), rng


@pytest.mark.parametrize("seed", range(40))
def test_the_canonical_form_is_the_same_function_and_its_own_canonical_form(seed):
    graph, rng = drawn(seed)
    simple = canonical(graph)
    x = torch.from_numpy(rng.normal(size=(5, *graph.input_shape)))
    torch.testing.assert_close(evaluate(simple, x), evaluate(graph, x), rtol=1e-12, atol=1e-12)
    assert canonical(simple) is simple
    assert len(simple.nodes) <= len(graph.nodes)
    assert fingerprint(simple, torch.float32) == fingerprint(graph, torch.float32)


def build(*steps, shape=(2, 4, 4)):
    """Return a chain of operators, each (op, attributes, constants)."""
    nodes = [Node("input", shape=shape)]
    for op, attributes, constants in steps:
        nodes.append(apply(op, nodes, (len(nodes) - 1,), attributes, constants))
    return Graph(tuple(nodes))


CONV = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
POOL = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0, 0, 0)}
W = torch.linspace(-1, 1, 54).view(3, 2, 3, 3)
LINEAR = torch.linspace(-1, 1, 96).view(3, 32)
END = [("reshape", {"shape": (32,)}, {}), ("linear", {}, {"weight": LINEAR})]
CHANNELS = torch.tensor([1.0, 2.0, 3.0])

EQUAL = {
    "reshapes": ([("reshape", {"shape": (4, 8)}, {}), ("reshape", {"shape": (2, 16)}, {}), *END], END),
    "transposes": ([("transpose", {"axes": (1, 2, 0)}, {}), ("transpose", {"axes": (2, 0, 1)}, {}), *END], END),
    "empty pad": ([("pad", {"padding": (0,) * 6, "value": 1.0}, {}), *END], END),
    "full slice": ([("slice", {"axis": 1, "start": 0, "stop": 4, "step": 1}, {}), *END], END),
    "relu as clip": ([("clip", {"min": 0.0, "max": float("inf")}, {}), *END], [("relu", {}, {}), *END]),
    "relu as leaky relu": ([("leaky_relu", {"slope": 0.0}, {}), *END], [("relu", {}, {}), *END]),
    "bias after linear": (
        [*END, ("add", {}, {"other": CHANNELS})],
        [END[0], ("linear", {}, {"weight": LINEAR, "bias": CHANNELS})],
    ),
    "one number after linear": (
        [*END, ("add", {}, {"other": torch.tensor([2.0])})],
        [END[0], ("linear", {}, {"weight": LINEAR, "bias": torch.full((3,), 2.0)})],
    ),
    "bias and pad around conv": (
        [
            ("pad", {"padding": (0, 1, 0, 0, 0, 2), "value": 0.0}, {}),
            ("conv2d", CONV, {"weight": W}),
            ("add", {}, {"other": CHANNELS.view(3, 1, 1)}),
            ("global_avg_pool2d", {}, {}),
            ("reshape", {"shape": (3,)}, {}),
        ],
        [
            ("conv2d", CONV | {"padding": (1, 0, 0, 2)}, {"weight": W, "bias": CHANNELS}),
            ("mean", {"axes": (1, 2)}, {}),
            ("reshape", {"shape": (3,)}, {}),
        ],
    ),
    "pool of everything": (
        [("avg_pool2d", POOL | {"kernel": (4, 4), "count_include_pad": 0}, {}), ("reshape", {"shape": (2,)}, {})],
        [("global_avg_pool2d", {}, {}), ("reshape", {"shape": (2,)}, {})],
    ),
    "pad before max pool": (
        [
            ("pad", {"padding": (0, 1, 0, 0, 0, 1), "value": -float("inf")}, {}),
            ("max_pool2d", POOL | {"dilation": (1, 1)}, {}),
            ("reshape", {"shape": (8,)}, {}),
        ],
        [
            ("max_pool2d", POOL | {"dilation": (1, 1), "padding": (1, 0, 0, 1)}, {}),
            ("reshape", {"shape": (8,)}, {}),
        ],
    ),
}


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("op", ["avg_pool2d", "max_pool2d"])
def test_a_pad_that_a_pool_cannot_take_over_stays(op, include):
    extra = {"count_include_pad": include} if op == "avg_pool2d" else {"dilation": (1, 1)}
    value = 0.0 if op == "avg_pool2d" else -float("inf")
    graph = build(("pad", {"padding": (0, 2, 0, 0, 0, 0), "value": value}, {}), (op, POOL | extra, {}))
    assert [node.op for node in canonical(graph).nodes] == ["input", "pad", op]


@pytest.mark.parametrize("case", EQUAL)
def test_two_spellings_of_a_function_have_one_fingerprint(case):
    first, second = (build(*steps) for steps in EQUAL[case])
    assert fingerprint(first, torch.float32) == fingerprint(second, torch.float32)


DIFFERENT = {
    "base": [("relu", {}, {}), *END],
    "operator": [("tanh", {}, {}), *END],
    "setting": [("leaky_relu", {"slope": 0.1}, {}), *END],
    "another setting": [("leaky_relu", {"slope": 0.2}, {}), *END],
    "constant": [("relu", {}, {}), END[0], ("linear", {}, {"weight": torch.nextafter(LINEAR, torch.tensor(2.0))})],
    "bias": [("relu", {}, {}), END[0], ("linear", {}, {"weight": LINEAR, "bias": CHANNELS})],
    "padding that is not zero": [
        ("relu", {}, {}),
        ("pad", {"padding": (0, 1, 0, 0, 0, 0), "value": 0.5}, {}),
        ("slice", {"axis": 1, "start": 0, "stop": 4, "step": 1}, {}),
        *END,
    ],
    "order": [("reshape", {"shape": (32,)}, {}), ("linear", {}, {"weight": LINEAR}), ("relu", {}, {})],
    "transposed": [("relu", {}, {}), ("transpose", {"axes": (0, 2, 1)}, {}), *END],
}


def test_different_functions_have_different_fingerprints():
    seen = {fingerprint(build(*steps), torch.float32) for steps in DIFFERENT.values()}
    assert len(seen) == len(DIFFERENT)
    other_shape = build(*DIFFERENT["base"], shape=(4, 2, 4))
    assert fingerprint(other_shape, torch.float32) not in seen
    assert fingerprint(build(*DIFFERENT["base"]), torch.float64) not in seen


def test_a_layer_that_is_read_twice_keeps_its_own_bias():
    start = Node("input", shape=(32,))
    nodes = [start]
    nodes.append(apply("linear", nodes, (0,), {}, {"weight": LINEAR}))
    nodes.append(apply("add", nodes, (1,), {}, {"other": CHANNELS}))
    nodes.append(apply("add", nodes, (1, 2)))
    assert [node.op for node in canonical(Graph(tuple(nodes))).nodes] == ["input", "linear", "add", "add"]


def test_the_order_of_branches_and_of_sums_does_not_matter():
    def residual(swap):
        nodes = [Node("input", shape=(32,))]
        tensors = {"a": LINEAR, "b": LINEAR.flip(0)}
        for name in ("b", "a") if swap else ("a", "b"):
            nodes.append(apply("linear", nodes, (0,), {}, {"weight": tensors[name]}))
        nodes.append(apply("add", nodes, (1, 2)))
        return Graph(tuple(nodes))

    assert fingerprint(residual(False), torch.float32) == fingerprint(residual(True), torch.float32)


def test_the_fingerprint_is_that_of_the_precision():
    torch.manual_seed(0)
    graph = from_torch(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double().eval(), (4,))
    single = in_precision(graph, torch.float32)
    assert fingerprint(graph, torch.float32) == fingerprint(single, torch.float32)
    assert fingerprint(graph, torch.float64) != fingerprint(single, torch.float64)
    assert fingerprint(graph, torch.float32) != fingerprint(graph, torch.bfloat16)


def test_the_fingerprint_is_written_down():
    """What it hashes, once more by hand: published evidence joins on it, so it must not change unnoticed."""
    weight = torch.tensor([[1.0, -2.0], [0.1, 0.0]])
    nodes = [Node("input", shape=(2,))]
    nodes.append(apply("leaky_relu", nodes, (0,), {"slope": 0.1}))
    nodes.append(apply("linear", nodes, (1,), {}, {"weight": weight}))
    tenth = float(np.float32(0.1))
    start = hashlib.sha256(repr(("input", (2,), [], [], 0)).encode()).digest()
    leaky = hashlib.sha256(repr(("leaky_relu", (), [("slope", tenth.hex())], [], 1)).encode() + start).digest()
    values = np.array([1.0, -2.0, tenth, 0.0], "<f8").tobytes()
    tensor = hashlib.sha256(b"torch.float64[2, 2]" + values).digest()
    linear = hashlib.sha256(repr(("linear", (), [], ["weight"], 1)).encode() + tensor + leaky).digest()
    expected = hashlib.sha256(b"robench graph 1\0torch.float32\0" + linear).hexdigest()
    assert fingerprint(Graph(tuple(nodes)), torch.float32) == expected
