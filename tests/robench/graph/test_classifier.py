"""A graph as a classifier: precision, device, gradients, memory."""

import gc
import weakref

import pytest
import torch
from torch import nn

from robench.classifier import Classifier
from robench.errors import GraphError, InputError
from robench.graph import GraphClassifier, GraphModule, fingerprint, from_torch


@pytest.fixture
def graph():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, eps=0.1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    return from_torch(net.eval(), (2, 6, 6))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_it_runs_in_its_precision_and_says_what_it_is(graph, dtype):
    classifier = GraphClassifier(graph, dtype=dtype)
    assert isinstance(classifier, Classifier)
    assert (classifier.input_shape, classifier.classes, classifier.dtype) == ((2, 6, 6), 5, dtype)
    assert classifier.device == torch.device("cpu")
    assert classifier.fingerprint == fingerprint(graph, dtype) == fingerprint(classifier.graph, dtype)
    logits = classifier.logits(torch.rand(3, 2, 6, 6, dtype=dtype))
    assert (logits.shape, logits.dtype) == ((3, 5), dtype)
    assert classifier.logits(torch.rand(0, 2, 6, 6, dtype=dtype)).shape == (0, 5)
    assert all(c.dtype == dtype for node in classifier.graph.nodes for c in node.constants.values())
    assert classifier.fingerprint[:12] in repr(classifier)


def test_its_graph_is_the_function_that_runs(graph):
    low = GraphClassifier(graph, dtype=torch.bfloat16)
    exact = GraphClassifier(low.graph, dtype=torch.float64)
    x = torch.rand(3, 2, 6, 6, dtype=torch.bfloat16)
    assert low.graph.nodes[2].attributes["eps"] == float(torch.tensor(0.1, dtype=torch.bfloat16))
    # Rounded weights explain all but the activations' rounding; the weights' own rounding is 100 times larger.
    torch.testing.assert_close(low.logits(x).double(), exact.logits(x.double()), rtol=0.02, atol=0.02)


def test_gradients_reach_the_input_alone(graph):
    classifier = GraphClassifier(graph)
    x = torch.rand(3, 2, 6, 6, requires_grad=True)
    classifier.logits(x).sum().backward()
    theirs = torch.autograd.grad(GraphModule(graph)(x).sum(), x)[0]
    torch.testing.assert_close(x.grad, theirs)
    assert not any(c.requires_grad for node in classifier.graph.nodes for c in node.constants.values())


@pytest.mark.parametrize("x", [torch.rand(3, 2, 6, 5), torch.rand(2, 6, 6), torch.rand(3, 2, 6, 6).double()])
def test_inputs_of_another_shape_or_dtype_are_refused(graph, x):
    with pytest.raises(InputError, match=r"the classifier takes \[batch, 2, 6, 6\] of torch\.float32"):
        GraphClassifier(graph).logits(x)


def test_nets_that_are_no_classifiers_are_refused(graph):
    with pytest.raises(GraphError, match="at least 2 logits"):
        GraphClassifier(from_torch(nn.Linear(3, 1).eval(), (3,)))
    with pytest.raises(InputError, match="no floating point type"):
        GraphClassifier(graph, dtype=torch.int64)
    huge = nn.Linear(3, 2).double().eval()
    huge.weight.data.fill_(1e300)
    with pytest.raises(GraphError, match="not finite"):
        GraphClassifier(from_torch(huge, (3,)))


def test_activations_are_freed_as_soon_as_nothing_reads_them(graph, monkeypatch):
    alive, seen = [], []
    classifier = GraphClassifier(graph)

    def watched(run):
        def step(*inputs):
            out = run(*inputs)
            seen.append(sum(link() is not None for link in alive))
            alive.append(weakref.ref(out))
            return out

        return step

    monkeypatch.setattr(classifier, "_steps", [(watched(run), *rest) for run, *rest in classifier._steps])
    gc.disable()
    try:
        with torch.no_grad():
            classifier.logits(torch.rand(3, 2, 6, 6))
    finally:
        gc.enable()
    assert seen == [0, 1, 1, 1, 2]  # the flattened view keeps its base, in the same memory


@pytest.mark.gpu
def test_it_runs_where_it_is_put(graph):
    here, there = GraphClassifier(graph, dtype=torch.float64), GraphClassifier(graph, "cuda", torch.float64)
    x = torch.rand(3, 2, 6, 6, dtype=torch.float64)
    assert here.fingerprint == there.fingerprint
    torch.testing.assert_close(there.logits(x.cuda()).cpu(), here.logits(x))


def test_a_graph_counts_its_constants(graph):
    assert graph.parameters == 4 * 2 * 9 + 4 + 4 * 4 + 64 * 5 + 5
