"""A search for two inputs that a network moves apart by more than a claimed Lipschitz constant.

It can only falsify. What it finds says how loose the constant is: the network's own lies between the two. Directions
follow the power method of a map that is not linear, d ← J(x + d)ᵀ (f(x + d) − f(x)), at a fixed length of d.
"""

from __future__ import annotations

import math
from typing import Final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from robench.errors import PluginError
from robench.graph import Graph, GraphModule
from robench_plugins.lipschitz._forward import logits
from robench_plugins.lipschitz.constant import Lipschitz

__all__ = ["expansion"]

_LENGTHS: Final = (0.01, 0.3, 3.0)
_STEPS: Final = 8
_SLACK: Final = 1 - 2.0**-40
_FOUND: WeakKeyDictionary[Graph, dict[int, float]] = WeakKeyDictionary()


def expansion(graph: Graph, constant: Lipschitz, pairs: int) -> float:
    """Return ‖f(x) − f(z)‖₂ / ‖x − z‖₂, rounded down, for the worst of `pairs` pairs after the search; at least 0.

    Logits are taken in float64 less their error, so that the network's Lipschitz constant is at least what is
    returned. Pairs start from random points of [0, 1], the same for every network; kept with the graph. Raises
    PluginError where that is more than `constant`.
    """
    kept = _FOUND.setdefault(graph, {})
    if pairs not in kept:
        kept[pairs] = _search(graph, constant, pairs)
    if kept[pairs] > constant.value:
        raise PluginError(
            "lipschitz",
            f"two inputs are moved apart by {kept[pairs]:.17g} times their distance, L was {constant.value}",
        )
    return kept[pairs]


def _search(graph: Graph, constant: Lipschitz, pairs: int) -> float:
    generator = torch.Generator().manual_seed(0)
    shape = (pairs, *graph.input_shape)
    x = torch.rand(shape, dtype=torch.float64, generator=generator)
    length = x.new_tensor(_LENGTHS).repeat(pairs)[:pairs].reshape(-1, *[1] * len(graph.input_shape))
    z = x + length * _unit(torch.randn(shape, dtype=torch.float64, generator=generator))
    network = GraphModule(graph, torch.float64)
    with torch.no_grad():
        here = network(x)
    best = _expansion(graph, constant, x, z)
    for _ in range(_STEPS):
        z.requires_grad_()
        with torch.enable_grad():
            moved = network(z) - here
            (pull,) = torch.autograd.grad((moved * moved.detach()).sum(), z)
        z = x + length * _unit(pull)
        best = max(best, _expansion(graph, constant, x, z))
    return best


def _expansion(graph: Graph, constant: Lipschitz, x: Tensor, z: Tensor) -> float:
    (first, error), (second, other) = (logits(graph, constant, point) for point in (x, z))
    moved = torch.linalg.vector_norm(second - first, dim=1) * _SLACK - (error + other) / _SLACK
    apart = torch.linalg.vector_norm((z - x).flatten(1), dim=1) / _SLACK
    ratio = float((moved / apart).nan_to_num(nan=0.0, posinf=0.0).max()) * _SLACK
    return max(ratio, 0.0)


def _unit(d: Tensor) -> Tensor:
    """Return directions; where there is none, one along all coordinates."""
    norm = torch.linalg.vector_norm(d.flatten(1), dim=1).reshape(-1, *[1] * (d.dim() - 1))
    even = torch.full_like(d, 1 / math.sqrt(d[0].numel()))
    return torch.where((norm > 0) & norm.isfinite(), d / norm, even)
