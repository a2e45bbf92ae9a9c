"""Gradient steps of convex potentials: x − Wᵀσ(Wx + b), of which the general rule 1 + L would be a poor bound.

Let σ act element by element, nondecreasing with slopes of at most s. Then σ(u) − σ(v) = D(u − v) for a diagonal D with
entries in [0, s], which depends on u and v, and for F(x) = x − Wᵀσ(Wx + b) + c

    F(x) − F(x′) = (I − WᵀDW)(x − x′).

WᵀDW is symmetric with eigenvalues in [0, s‖W‖₂²], so that ‖F(x) − F(x′)‖₂ ≤ max(1, s‖W‖₂² − 1) ‖x − x′‖₂: F is
1-Lipschitz where s‖W‖₂² ≤ 2 (Meunier et al. 2022, "A dynamical system perspective for Lipschitz neural networks", for
W scaled to that). This needs Wᵀ itself: one rounding more in either factor, and the general rule stands.

The transposed operator of a convolution of stride 1 with padding p and dilation d of K taps reads the output at
j + p − dk: a convolution again, with its channels swapped within each group, its taps in reverse and the padding
d(K − 1) − p.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robench.graph import Graph, Node
from robench_plugins.lipschitz._up import mul_up

__all__ = ["PotentialStep", "are_transposed", "potential_step", "stretch"]

_SLOPES = {"clip": 1.0, "relu": 1.0, "sigmoid": 0.25, "tanh": 1.0}


@dataclass(frozen=True)
class PotentialStep:
    """A difference node that is such a step.

    Attributes:
        chain: positions of the first layer, the activation, the second layer.
        slope: the largest slope of the activation.
    """

    chain: tuple[int, int, int]
    slope: float


def potential_step(graph: Graph, position: int) -> PotentialStep | None:
    """Return what `position`, a `sub` node, is a step of; None where it is anything else."""
    node = graph.nodes[position]
    if node.op != "sub" or len(node.inputs) != 2:
        return None
    source, second = node.inputs
    back = graph.nodes[second]
    if back.op not in ("linear", "conv1d", "conv2d"):
        return None
    activation = graph.nodes[back.inputs[0]]
    slope = _slope(activation)
    if slope is None:
        return None
    first = activation.inputs[0]
    layer = graph.nodes[first]
    fits = layer.inputs == (source,) and layer.op == back.op and graph.nodes[source].shape == back.shape
    return PotentialStep((first, back.inputs[0], second), slope) if fits and are_transposed(layer, back) else None


def stretch(norm: float, slope: float) -> float:
    """Return max(1, slope · norm² − 1), rounded up."""
    square = mul_up(slope, mul_up(norm, norm))
    return 1.0 if square <= 2 else math.nextafter(square - 1, math.inf)


def _slope(node: Node) -> float | None:
    if node.op == "leaky_relu":
        slope = node.attributes["slope"]
        assert isinstance(slope, float)
        return max(1.0, slope) if slope >= 0 else None
    return _SLOPES.get(node.op)


def are_transposed(layer: Node, back: Node) -> bool:
    """Whether the second is the transposed operator of the first: by entries and settings, biases aside."""
    weight, other = layer.constants["weight"], back.constants["weight"]
    if layer.op == "linear":
        return _equal(weight.T, other)
    if any(layer.attributes[name] != back.attributes[name] for name in ("stride", "dilation", "groups")):
        return False
    groups = layer.attributes["groups"]
    assert isinstance(groups, int)
    settings = [layer.attributes[name] for name in ("stride", "dilation", "padding")] + [back.attributes["padding"]]
    stride, dilation, padding, opposite = (value for value in settings if isinstance(value, tuple))
    if any(step != 1 for step in stride):
        return False
    taps = weight.shape[2:]
    reach = [d * (k - 1) for d, k in zip(dilation, taps, strict=True)] * 2
    swapped = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
    swapped = swapped.flip(tuple(range(2, weight.dim())))
    return [r - p for r, p in zip(reach, padding, strict=True)] == list(opposite) and _equal(swapped, other)


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and torch.equal(first, second)
