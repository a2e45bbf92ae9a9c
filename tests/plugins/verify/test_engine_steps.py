"""Affine steps: forward is the operator, back its transpose, offset its constant, magnitude its absolute values."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from oracles.linear_bounds import step_values
from oracles.random_graphs import evaluate, random_graph, step_names
from oracles.rational import rational_logits
from robench.graph import Graph, Node
from robench.graph.operators import apply
from robench_plugins.verify._engine.lower import Activation, Program, lower, unsupported
from robench_plugins.verify._engine.steps import Affine, Conv

SEEDS = st.integers(0, 2**32 - 1)


def close(made, expected):
    torch.testing.assert_close(made, expected, rtol=1e-12, atol=1e-12)


def matrices(step: Affine, shapes: list[tuple[int, ...]]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return the dense matrix [outputs, inputs] of each argument and the constant [outputs], by unit vectors."""
    zeros = [torch.zeros(1, *shape, dtype=torch.float64) for shape in shapes]
    constant = step.forward(*zeros).flatten()
    found = []
    for k, shape in enumerate(shapes):
        units = torch.eye(int(np.prod(shape)), dtype=torch.float64).reshape(-1, *shape)
        arguments = [units if i == k else zero.expand(len(units), *zero.shape[1:]) for i, zero in enumerate(zeros)]
        found.append((step.forward(*arguments).flatten(1) - constant).T)
    return found, constant


def check_step(step: Affine, shapes: list[tuple[int, ...]], rng: np.random.Generator) -> None:
    dense, constant = matrices(step, shapes)
    rows = torch.tensor(rng.normal(size=(5, *step.shape)))
    for matrix, back, shape in zip(dense, step.back(rows), shapes, strict=True):
        assert back.shape == (5, *shape)
        close(back.flatten(1), rows.flatten(1) @ matrix)
    offset = step.offset(rows)
    close(torch.zeros(5).double() if offset is None else offset, rows.flatten(1) @ constant)
    sizes = [torch.tensor(rng.random((3, *shape))) for shape in shapes]
    total = sum(size.flatten(1) @ matrix.abs().T for size, matrix in zip(sizes, dense, strict=True))
    close(step.magnitude(*sizes, constant=False).flatten(1), total)
    # Constants of two parts that cancel may only be counted too high.
    assert (step.magnitude(*sizes).flatten(1) >= total + constant.abs() - 1e-12).all()
    most = torch.stack([(matrix != 0).sum(0).max() for matrix in dense] + [
        sum((matrix != 0).sum(1) for matrix in dense).max()
    ])  # fmt: skip
    assert step.terms >= most.max() - (len(dense) if step.terms else 1)
    index = torch.arange(constant.numel())
    units = step.unit_rows(index)
    if units is not None:
        (matrix,) = dense
        close(units.flatten(1), matrix)


def check_program(program: Program, rng: np.random.Generator) -> None:
    for step in program.steps[1:]:
        if isinstance(step, Affine):
            check_step(step, [program.steps[source].shape for source in step.inputs], rng)


@settings(max_examples=40)
@given(st.lists(st.sampled_from(step_names()), min_size=1, max_size=4), SEEDS)
def test_every_step_of_a_random_program_is_its_own_dense_matrix(steps, seed):
    rng = np.random.default_rng(seed)
    check_program(lower(random_graph(steps, rng)), rng)


@pytest.mark.parametrize("name", step_names())
def test_the_lowered_form_equals_the_graph_exactly(name):
    """Each operator by itself and twice, in float64 against the operators and, at one point, in fractions."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        graph = random_graph([name, "relu", name] if seed % 2 else [name], rng, shape=(2, 4, 3))
        program = lower(graph)
        assert program.piecewise_linear is (name not in ("sigmoid", "tanh"))
        x = torch.tensor(rng.normal(size=(16, *graph.input_shape)))
        close(program.forward(x), evaluate(graph, x))
        exact = rational_logits(graph, x[0])
        assert all(
            abs(Fraction(a) - b) <= Fraction(1, 10**12) * (1 + abs(b))
            for a, b in zip(program.forward(x[:1])[0].tolist(), exact, strict=True)
        )
        values = step_values(program, x)
        for place, node in program.sources.items():
            assert values[place].shape[1:] == graph.nodes[node].shape
        assert program.uses[-1] == 0
        assert all(program.uses[k] == sum(s.inputs.count(k) for s in program.steps) for k in range(len(program.uses)))


@settings(max_examples=60)
@given(st.data())
def test_convolutions_of_every_setting(data):
    """Stride, padding (uneven too), dilation and groups, in one and two dimensions, strides that leave a rest."""
    rank = data.draw(st.sampled_from([1, 2]))
    draw = lambda low, high, count: tuple(data.draw(st.integers(low, high)) for _ in range(count))  # noqa: E731
    kernel, stride, dilation = draw(1, 3, rank), draw(1, 3, rank), draw(1, 2, rank)
    padding, groups = draw(0, 2, 2 * rank), data.draw(st.sampled_from([1, 2]))
    sizes = [d * (k - 1) + 1 + data.draw(st.integers(0, 4)) for d, k in zip(dilation, kernel, strict=True)]
    rng = np.random.default_rng(data.draw(SEEDS))
    weight = torch.tensor(rng.normal(size=(2 * groups, 2, *kernel)))
    constants = {"weight": weight} | ({"bias": torch.tensor(rng.normal(size=2 * groups))} if rng.random() < 0.7 else {})
    attributes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    nodes = [Node("input", shape=(2 * groups, *sizes))]
    nodes.append(apply(f"conv{rank}d", nodes, (0,), attributes, constants))
    nodes.append(apply("reshape", nodes, (1,), {"shape": (int(np.prod(nodes[1].shape)),)}, None))
    assume(nodes[2].shape[0] >= 2)
    graph = Graph(tuple(nodes))
    program = lower(graph)
    (step,) = (step for step in program.steps if isinstance(step, Conv))
    check_step(step, [graph.input_shape], rng)
    rows = torch.tensor(rng.normal(size=(3, *step.shape)))
    single = step.cast(torch.float32, rows.device).back(rows.float())[0].double()
    torch.testing.assert_close(single, step.back(rows)[0], rtol=1e-4, atol=1e-4)
    x = torch.tensor(rng.normal(size=(3, *graph.input_shape)))
    close(program.forward(x), evaluate(graph, x))


def test_back_is_what_autograd_says():
    """A second derivation of the transpose, through a whole program without its activations."""
    rng = np.random.default_rng(5)
    graph = random_graph(["conv2d", "batch_norm", "avg_pool2d", "pad", "add nodes", "transpose"], rng, shape=(2, 5, 5))
    program = lower(graph)
    assert not any(isinstance(step, Activation) for step in program.steps)
    x = torch.tensor(rng.normal(size=(1, *graph.input_shape))).requires_grad_()
    values = step_values(program, x)
    for place in range(1, len(values)):
        step = program.steps[place]
        rows = torch.tensor(rng.normal(size=values[place].shape))
        sources = [values[source] for source in step.inputs]
        expected = torch.autograd.grad(values[place], sources, rows, retain_graph=True, materialize_grads=True)
        made = list(step.back(rows))
        for source in set(step.inputs):
            together = sum(one for one, other in zip(made, step.inputs, strict=True) if other == source)
            close(together, expected[step.inputs.index(source)])


def test_an_operator_without_a_rule_is_named():
    foreign = Graph((Node("input", shape=(3,)), Node("erf", (0,), shape=(3,))))
    assert "node 1" in unsupported(foreign) and "erf" in unsupported(foreign)
    assert "logits" in unsupported(Graph((Node("input", shape=(1, 2)),)))
    assert unsupported(random_graph(["conv2d"], np.random.default_rng(0))) is None
