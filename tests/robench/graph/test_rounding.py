"""The forward error bound holds for executions in low precision, and is not vacuous."""

import numpy as np
import pytest
import torch
from torch import nn

from oracles.random_graphs import evaluate, random_graph, step_names
from robench.graph import GraphModule, forward_error, from_torch, in_precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", range(30))
def test_an_execution_is_within_the_bound_of_the_exact_logits(seed, dtype):
    rng = np.random.default_rng(seed)
    graph = random_graph(list(rng.permutation(step_names())[:14]), rng, shape=(2, 5, 4))
    x = torch.from_numpy(rng.normal(size=(50, *graph.input_shape))).to(dtype)
    logits, bound = forward_error(graph, x, dtype)
    exact = evaluate(in_precision(graph, dtype), x.double())
    torch.testing.assert_close(logits, exact, rtol=1e-12, atol=1e-12)
    # bfloat16 stands for a precision in which every single rounding shows.
    executed = GraphModule(graph, dtype)(x).double()
    assert ((executed - logits).abs() <= bound).all()


def test_the_bound_stays_near_the_error():
    torch.manual_seed(0)
    graph = from_torch(nn.Sequential(nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 10)).eval(), (100,))
    x = torch.rand(200, 100)
    logits, bound = forward_error(graph, x, torch.float32)
    error = (GraphModule(graph)(x).double() - logits).abs()
    assert 0 < error.max() <= bound.max() < 1e-3


def test_a_wrong_weight_is_outside_the_bound():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 50), nn.ReLU(), nn.Linear(50, 10)).eval()
    graph = from_torch(net, (20,))
    net[0].weight.data[3, 4] += 0.01
    x = torch.rand(20, 20)
    logits, bound = forward_error(graph, x, torch.float32)
    assert ((net(x).double() - logits).abs() > bound).any()
