"""Small random graphs that together use every operator, with the degenerate weights that bounds get wrong.

About a tenth of all weights and inputs are exactly 0, so dead units, zero rows and pre-activations of exactly 0
occur often. All constants are float32 numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from robench.graph import OPERATORS, Graph, Node
from robench.graph.operators import apply

__all__ = ["Draft", "evaluate", "mlp", "random_graph", "step_names"]


def evaluate(graph: Graph, x: torch.Tensor) -> torch.Tensor:
    """Return the logits in x's dtype, straight from the operators; differentiable."""
    values = [x]
    for node in graph.nodes[1:]:
        constants = {name: value.to(x.dtype) for name, value in node.constants.items()}
        values.append(OPERATORS[node.op].bind(node.attributes, constants)(*(values[i] for i in node.inputs)))
    return values[-1]


class Draft:
    """A graph under construction; every method appends to the end."""

    def __init__(self, shape: Sequence[int], rng: np.random.Generator) -> None:
        self.nodes = [Node("input", shape=tuple(shape))]
        self.rng = rng

    @property
    def shape(self) -> tuple[int, ...]:
        return self.nodes[-1].shape

    @property
    def end(self) -> int:
        return len(self.nodes) - 1

    def add(self, op, *inputs: int, constants=None, **attributes) -> Draft:
        self.nodes.append(apply(op, self.nodes, inputs or (self.end,), attributes, constants))
        return self

    def values(self, *shape: int, scale: float = 1.0) -> torch.Tensor:
        drawn = self.rng.normal(size=shape) * scale
        drawn[self.rng.random(shape) < 0.1] = 0.0
        return torch.tensor(drawn, dtype=torch.float32)

    def linear(self, out: int, bias: bool = True) -> Draft:
        self.flatten()
        size = self.shape[0]
        constants = {"weight": self.values(out, size, scale=size**-0.5)}
        return self.add("linear", constants=constants | ({"bias": self.values(out)} if bias else {}))

    def flatten(self) -> Draft:
        return self if len(self.shape) == 1 else self.add("reshape", shape=(math.prod(self.shape),))

    def graph(self) -> Graph:
        return Graph(tuple(self.nodes))


def mlp(weights: Sequence[np.ndarray], biases: Sequence[np.ndarray], dtype: torch.dtype = torch.float64) -> Graph:
    """Return a ReLU network as a graph."""
    draft = Draft((weights[0].shape[1],), np.random.default_rng(0))
    for depth, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if depth:
            draft.add("relu")
        draft.add(
            "linear", constants={"weight": torch.tensor(weight, dtype=dtype), "bias": torch.tensor(bias, dtype=dtype)}
        )
    return draft.graph()


def _image(d: Draft) -> bool:
    return len(d.shape) == 3 and min(d.shape[1:]) >= 2


def _conv2d(d: Draft) -> None:
    channels = d.shape[0]
    groups = int(d.rng.choice([g for g in (1, 2) if channels % g == 0]))
    kernel = [int(d.rng.integers(1, 3)) for _ in range(2)]
    weight = d.values(2 * groups, channels // groups, *kernel, scale=0.6)
    padding = tuple(int(p) for p in d.rng.integers(0, 2, 4))
    constants = {"weight": weight} | ({"bias": d.values(2 * groups)} if d.rng.random() < 0.7 else {})
    stride = tuple(int(s) for s in d.rng.integers(1, 3, 2))
    d.add("conv2d", constants=constants, stride=stride, padding=padding, dilation=(1, 1), groups=groups)


def _conv1d(d: Draft) -> None:
    if len(d.shape) != 2:
        d.add("reshape", shape=(d.shape[0], math.prod(d.shape[1:])) if len(d.shape) > 1 else (1, d.shape[0]))
    dilation = 2 if d.shape[1] >= 3 else 1
    constants = {"weight": d.values(2, d.shape[0], 2, scale=0.6), "bias": d.values(2)}
    d.add("conv1d", constants=constants, stride=(1,), padding=(1, 0), dilation=(dilation,), groups=1)


def _batch_norm(d: Draft) -> None:
    channels = d.shape[0]
    # var + eps is 0.25, 1 or 4, so that its root is rational.
    var = torch.tensor(d.rng.choice([0.25, 1.0, 4.0], channels) - 0.125, dtype=torch.float32)
    constants = {"mean": d.values(channels), "var": var, "weight": d.values(channels), "bias": d.values(channels)}
    d.add("batch_norm", constants=constants, eps=0.125)


def _max_pool(d: Draft) -> None:
    dilation = 2 if min(d.shape[1:]) >= 3 and d.rng.random() < 0.3 else 1
    padding = tuple(int(p) for p in d.rng.integers(0, 2, 4))
    d.add("max_pool2d", kernel=(2, 2), stride=(1, 2), padding=padding, dilation=(dilation, dilation))


def _avg_pool(d: Draft) -> None:
    padding = tuple(int(p) for p in d.rng.integers(0, 2, 4))
    d.add("avg_pool2d", kernel=(2, 2), stride=(2, 1), padding=padding, count_include_pad=int(d.rng.integers(0, 2)))


def _constant(op: str) -> Callable[[Draft], None]:
    def step(d: Draft) -> None:
        shape = d.shape if d.rng.random() < 0.5 else (d.shape[0], *[1] * (len(d.shape) - 1))
        other = d.values(*shape)
        if op == "div":
            other = other.sign() * (other.abs() + 0.25) + (other == 0)
        d.add(op, constants={"other": other}, **({"reverse": int(d.rng.integers(0, 2))} if op == "sub" else {}))

    return step


def _residual(op: str) -> Callable[[Draft], None]:
    def step(d: Draft) -> None:
        same = [i for i, node in enumerate(d.nodes) if node.shape == d.shape]
        other = int(d.rng.choice(same))
        d.add(op, d.end, other, **({"reverse": 0} if op == "sub" else {}))

    return step


def _concat(d: Draft) -> None:
    fitting = [i for i, node in enumerate(d.nodes) if node.shape[1:] == d.shape[1:] and len(node.shape) == len(d.shape)]
    d.add("concat", d.end, int(d.rng.choice(fitting)), axis=0)


def _pad(d: Draft) -> None:
    rank = len(d.shape)
    d.add("pad", padding=(0,) * (rank - 1) + (1,) + (0,) * rank, value=float(np.float32(d.rng.normal())))


def _slice(d: Draft) -> None:
    axis = int(np.argmax(d.shape))
    d.add("slice", axis=axis, start=0, stop=d.shape[axis], step=2)


def _clip(d: Draft) -> None:
    low, high = ((-0.5, 0.75), (-math.inf, 0.5), (0.0, math.inf))[int(d.rng.integers(0, 3))]
    d.add("clip", min=low, max=high)


def _mean(d: Draft) -> None:
    d.add("mean", axes=(len(d.shape) - 1,))


STEPS: dict[str, tuple[Callable[[Draft], bool], Callable[[Draft], object]]] = {
    "add": (lambda d: True, _constant("add")),
    "add nodes": (lambda d: True, _residual("add")),
    "avg_pool2d": (_image, _avg_pool),
    "batch_norm": (lambda d: True, _batch_norm),
    "clip": (lambda d: True, _clip),
    "concat": (lambda d: math.prod(d.shape) <= 40, _concat),
    "conv1d": (lambda d: math.prod(d.shape[1:]) >= 2, _conv1d),
    "conv2d": (_image, _conv2d),
    "div": (lambda d: True, _constant("div")),
    "global_avg_pool2d": (_image, lambda d: d.add("global_avg_pool2d")),
    "group_sort": (lambda d: d.shape[0] % 2 == 0, lambda d: d.add("group_sort", group=2)),
    "leaky_relu": (lambda d: True, lambda d: d.add("leaky_relu", slope=float(d.rng.choice([0.125, -0.5, 1.5])))),
    "linear": (lambda d: True, lambda d: d.linear(6)),
    "max_pool2d": (_image, _max_pool),
    "mean": (lambda d: len(d.shape) > 1, _mean),
    "mul": (lambda d: True, _constant("mul")),
    "neg": (lambda d: True, lambda d: d.add("neg")),
    "pad": (lambda d: True, _pad),
    "relu": (lambda d: True, lambda d: d.add("relu")),
    "reshape": (lambda d: True, lambda d: d.flatten()),
    "sigmoid": (lambda d: True, lambda d: d.add("sigmoid")),
    "slice": (lambda d: max(d.shape) >= 2, _slice),
    "sub": (lambda d: True, _constant("sub")),
    "sub nodes": (lambda d: True, _residual("sub")),
    "tanh": (lambda d: True, lambda d: d.add("tanh")),
    "transpose": (lambda d: len(d.shape) > 1, lambda d: d.add("transpose", axes=tuple(reversed(range(len(d.shape)))))),
}


def step_names() -> list[str]:
    """Return the names of all steps; each stands for one operator or one use of it."""
    return sorted(STEPS)


def random_graph(steps: Sequence[str], rng: np.random.Generator, shape=(2, 3, 3), classes: int = 3) -> Graph:
    """Return a graph that applies `steps` where they fit, and a linear layer to `classes` logits at the end."""
    draft = Draft(shape, rng)
    for name in steps:
        fits, step = STEPS[name]
        if fits(draft):
            step(draft)
    if rng.random() < 0.8:
        return draft.linear(classes).graph()
    return draft.linear(classes).add("mul", constants={"other": torch.tensor([0.5])}).graph()
