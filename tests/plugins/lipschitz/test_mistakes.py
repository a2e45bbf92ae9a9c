"""Mistakes that such code is prone to, made on purpose: the checks of the other files see every one of them.

Each case puts a mistake in the place of a rule. What held before must then fail: a pair of inputs is expanded by more
than L, or a radius reaches beyond the nearest error.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from oracles.enumeration import TOLERANCE, exact_radius
from oracles.expansion import expanded
from oracles.random_graphs import Draft, mlp
from robench.graph import GraphClassifier
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.lipschitz import _matrices, _rules, _series, _walk, constant, margin, symbol
from robench_plugins.lipschitz._rules import RULES
from robench_plugins.lipschitz._step import Reach
from robench_plugins.lipschitz.constant import lipschitz_constant
from robench_plugins.lipschitz.margin import LipschitzMargin


@pytest.fixture(autouse=True)
def _forget():
    """Norms are kept by the content of their matrices."""
    constant._NORMS.clear()
    yield
    constant._NORMS.clear()


def _draft(*shape):
    return Draft(shape, np.random.default_rng(0))


def _linear():
    return _draft(12).linear(12)


def _power_iteration(matrix, roundings=0):
    vector = torch.ones(matrix.shape[1], dtype=torch.float64)
    for _ in range(5):
        vector = matrix.T @ (matrix @ vector)
        vector /= vector.norm()
    return float((matrix @ vector).norm())


def _conv():
    weight = torch.tensor([[[-4.0, 3.0, 4.0]]])
    d = _draft(1, 2)
    d.add("conv1d", constants={"weight": weight}, stride=(1,), padding=(1, 1), dilation=(1,), groups=1)
    return d.flatten()


def _circular(position, node, shape):
    weight = node.constants["weight"].double()
    units = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    matrix = F.conv1d(F.pad(units, (1, 1), mode="circular"), weight).flatten(1).T
    return _matrices.Matrix(position, node.op, 1, tuple(matrix.shape), lambda block: matrix)


def _strided(kernel, stride):
    """A convolution on a map so large that its kernel alone bounds it."""
    weight = torch.tensor(np.random.default_rng(2).normal(size=(3, 2, kernel)))
    d = _draft(2, 60)
    d.add("conv1d", constants={"weight": weight}, stride=(stride,), padding=(1, 1), dilation=(1,), groups=1)
    return d.flatten()


def _by_kernel(norm):
    return lambda self, columns, rows, limit: (norm(self.weight.double(), self.stride[0]), "grid")


def _iterated(weight, stride):
    """Power iteration on a circular map (Prach & Lampert's way to evaluate), too few steps."""
    x = torch.ones(1, weight.shape[1], 64, dtype=torch.float64)
    for _ in range(4):
        y = F.conv1d(F.pad(x, (2, 2), mode="circular"), weight, stride=stride)
        x = F.conv_transpose1d(y, weight, stride=stride)[..., 2:66]
        x = x / x.norm()
    return float(F.conv1d(F.pad(x, (2, 2), mode="circular"), weight, stride=stride).norm())


def _on_the_grid(points):
    return lambda weight, stride: float(torch.linalg.svdvals(torch.fft.fft(weight, points).permute(2, 0, 1)).amax())


def _grouped():
    weight = torch.arange(1.0, 9.0).reshape(4, 1, 2)
    d = _draft(2, 3)
    d.add("conv1d", constants={"weight": weight}, stride=(1,), padding=(0, 0), dilation=(1,), groups=2)
    return d.flatten()


def _first_group(position, node, shape):
    whole = _matrices.convolution(position, node, shape)
    return _matrices.Matrix(position, node.op, 1, whole.shape, whole.build)


def _norm():
    constants = {"mean": [20.0, 15.0], "var": [3.875, 0.125], "weight": [6.0, 0.5], "bias": [0.5, 0.25]}
    return _draft(2).add("batch_norm", constants={k: torch.tensor(v) for k, v in constants.items()}, eps=0.125)


def _scaled_by(factor):
    def rule(step):
        c = {name: value.double() for name, value in step.node.constants.items()}
        return _rules._factors(step, factor(c).abs(), factor(c).sign())

    return rule


def _pool():
    return _draft(1, 5, 5).add("max_pool2d", kernel=(3, 3), stride=(1, 1), padding=(0,) * 4, dilation=(1, 1)).flatten()


def _average():
    return (
        _draft(1, 5, 5).add("avg_pool2d", kernel=(3, 3), stride=(1, 1), padding=(0,) * 4, count_include_pad=1).flatten()
    )


def _branches(op, **attributes):
    d = _draft(4).linear(4).add("relu")
    return d.add(op, 2, 0, **attributes)


def _largest(step):
    return Reach(max(step.settle(reach) for reach in step.inputs))


def _broadcast():
    return _draft(2, 1).add("add", constants={"other": torch.ones(2, 5)}).flatten()


def _powers(first, second):
    """x + Ax + BAx/2."""
    d = _draft(3).add("linear", constants={"weight": first}).add("linear", constants={"weight": second})
    return d.add("mul", constants={"other": torch.tensor([0.5])}).add("add", 0, 1).add("add", 3, 4)


def _skew(seed=0):
    weight = torch.tensor(np.random.default_rng(seed).normal(size=(3, 3)))
    return weight - weight.T


MISTAKES = {
    "a norm from below, by power iteration": (_linear, (_matrices, "spectral_norm_upper"), _power_iteration),
    "circular instead of zero padding": (_conv, (_rules, "convolution"), _circular),
    "power iteration on a kernel": (lambda: _strided(3, 1), (_matrices.Kernel, "norm"), _by_kernel(_iterated)),
    "few frequencies without a correction": (
        lambda: _strided(3, 1),
        (_matrices.Kernel, "norm"),
        _by_kernel(_on_the_grid(4)),
    ),
    "one phase of a stride": (
        lambda: _strided(4, 2),
        (_matrices.Kernel, "norm"),
        _by_kernel(lambda weight, stride: symbol.convolution_norm_upper(weight[..., ::stride])[0]),
    ),
    "the first group alone": (_grouped, (_rules, "convolution"), _first_group),
    "batch norm without its weight": (
        _norm,
        "batch_norm",
        _scaled_by(lambda c: 1 / (c["var"] + 0.125).sqrt() * c["bias"]),
    ),
    "batch norm by its mean": (_norm, "batch_norm", _scaled_by(lambda c: c["weight"] / (c["mean"] + 0.125).sqrt())),
    "batch norm without the root": (_norm, "batch_norm", _scaled_by(lambda c: c["weight"] / (c["var"] + 0.125))),
    "overlapping max pool of factor 1": (_pool, "max_pool2d", lambda step: step.times(1.0)),
    "overlapping average pool as if disjoint": (_average, "avg_pool2d", lambda step: step.times(1 / 3)),
    "the larger branch of a sum": (lambda: _branches("add"), "add", _largest),
    "the larger branch of a difference": (lambda: _branches("sub", reverse=0), "sub", _largest),
    "the larger branch of a concatenation": (lambda: _branches("concat", axis=0), "concat", _largest),
    "broadcasting as if it repeated nothing": (_broadcast, "add", lambda step: step.times(1.0)),
    "leaky slope above 1": (
        lambda: _draft(3).add("leaky_relu", slope=-2.0),
        "leaky_relu",
        lambda step: step.times(1.0),
    ),
    "sigmoid's curvature for its slope": (lambda: _draft(3).add("sigmoid"), "sigmoid", lambda step: step.times(0.0963)),
    "a truncated exponential as if it were orthogonal": (
        lambda: _powers(_skew(), _skew()),
        (_walk, "largest"),
        lambda coefficients, norm: 1.0,
    ),
    "powers of a symmetric layer as of a skew one": (
        lambda: _powers(-_skew() @ _skew(), -_skew() @ _skew()),
        (_series, "_is_skew"),
        lambda layer: True,
    ),
    "powers of two layers as of one": (
        lambda: _powers(_skew(), -4 * _skew()),
        (_series, "_is_same"),
        lambda node, layer: True,
    ),
    "factors after the matrix forgotten": (
        lambda: _linear().add("mul", constants={"other": torch.linspace(1, 3, 12)}),
        "mul",
        lambda step: step.inputs[0],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_search_finds_a_pair_that_a_mistake_allows(mistake, monkeypatch):
    draft, place, wrong = MISTAKES[mistake]
    if place == (_matrices.Kernel, "norm"):
        monkeypatch.setattr(_matrices, "_QUICK", 0.0)
    graph = draft().graph()
    assert expanded(graph, lipschitz_constant(graph).value, steps=60) is None
    if isinstance(place, str):
        monkeypatch.setitem(RULES, place, wrong)
    else:
        monkeypatch.setattr(*place, wrong)
    constant._NORMS.clear()
    graph = draft().graph()  # constants are kept with their graph
    assert expanded(graph, lipschitz_constant(graph).value, steps=60) is not None


def _radii(classifier, x, y):
    stream = Stream.for_samples(0, "lipschitz", range(len(x)))
    wrong = LipschitzMargin(pairs=0)  # whose search would find the mistake as well
    return wrong.certify(classifier, x, y, Threat("l2", None, Domain()), stream).lower.tolist()


@pytest.mark.parametrize("mistake", ["√2 forgotten", "logits' own margin", "branches", "layers", "half a row"])
def test_enumeration_finds_the_error_within_a_radius_that_is_too_large(mistake, monkeypatch):
    """f = (w·x, −w·x) behind an orthogonal layer has radii equal to the certificate's."""
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    weights, biases = [turn, np.array([[2.0, 1.0], [-2.0, -1.0]])], [np.array([3.0, 3.0]), np.array([-9.5, 9.5])]
    x = torch.tensor(np.random.default_rng(0).random((8, 2)))

    def excess():
        classifier = GraphClassifier(mlp(weights, biases), dtype=torch.float64)
        y = classifier.logits(x).argmax(1)
        exact = [
            exact_radius(weights, biases, point.numpy(), int(label), "l2") for point, label in zip(x, y, strict=True)
        ]
        return max(lower - radius for lower, radius in zip(_radii(classifier, x, y), exact, strict=True))

    assert excess() <= TOLERANCE
    if mistake == "√2 forgotten":
        monkeypatch.setattr(margin, "ROOT_TWO", 1.0)
    elif mistake == "logits' own margin":
        monkeypatch.setattr(margin, "_margins", lambda values, error, y: 2 * values.amax(1, keepdim=True) + 0.5)
    elif mistake == "branches":
        monkeypatch.setattr(_matrices, "spectral_norm_upper", lambda m, roundings=0: float(m.abs().amax()))
    elif mistake == "layers":
        monkeypatch.setattr(_matrices.Matrix, "norm", lambda self, limit: (1.0, "matrix"))
    else:
        monkeypatch.setattr(margin, "_distances", lambda row, head: (row - head.weight).norm(dim=1) / 2)
    constant._NORMS.clear()
    assert excess() > 0.01
