"""How fast the differences of logits can fall between x and the points of a ball around it.

For a fixed x′ in the ball, every node's value changes from x to x′ by a linear function of its arguments' changes. An
affine operator gives its matrix; an elementwise φ gives φ(v′) − φ(v) = d (v′ − v), d a quotient of differences; maxima
and sorting, convex combinations of choices. Put together, exactly and without any derivative,

    (f_y − f_j)(x′) − (f_y − f_j)(x) = J (x′ − x)

with a row J that depends on x′. Bounds of the values over the ball give intervals of all d, and a pass of interval rows
from the logits back to the input encloses every J. Where [a_i, b_i] holds its entry i, f_y − f_j falls along x′ − x at
most at the rate of the dual norm of max(−a_i, b_i, 0), with −a_i only where x_i may rise within the domain and b_i only
where it may fall.

With d between any two points of the ball, which is where derivatives are, this is Fast-Lip (Weng et al. 2018, "Towards
fast computation of certified robustness for ReLU networks"; Zhang, Zhang & Hsieh 2019, "RecurJac", follow
the same intervals). With x at one end the intervals of d lie within those: they are the interval slopes of Krawczyk &
Neumaier (1985, "Interval slopes for rational functions and associated centered forms").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from robench.graph import Graph, Node
from robench.graph.intervals import dual_norm_up, ieee_arithmetic
from robench.threat import Domain, Norm
from robench_plugins.lipschitz.local._affine import AFFINE
from robench_plugins.lipschitz.local._choices import CHOICES
from robench_plugins.lipschitz.local._rows import Rows, added, scaled
from robench_plugins.lipschitz.local._slopes import SLOPES, Reach

__all__ = ["Boxes", "margin_rows", "margin_slopes", "open_neurons", "unsupported"]

Boxes = Sequence[tuple[Tensor, Tensor]]
"""(lower, upper), float64 [B, ...], around the value of each node."""

_MEMORY = 2**28
"""Bytes that the rows of one pass may take: more go in pieces."""

_COPIES = 12
"""Tensors of the size of all rows that a rule may hold at once."""


@dataclass(frozen=True)
class _Step:
    node: Node
    back: Callable[[Rows], list[Rows]] | None


_PREPARED: WeakKeyDictionary[Graph, dict[torch.device, tuple[_Step, ...]]] = WeakKeyDictionary()


def unsupported(graph: Graph) -> str | None:
    """Return None, or the first operator without a rule."""
    for position, node in enumerate(graph.nodes[1:], 1):
        if node.op not in AFFINE and node.op not in SLOPES and node.op not in CHOICES:
            return f"node {position}: no local slopes for {node.op}"
    return None


def margin_slopes(
    graph: Graph, x: Tensor, y: Tensor, norm: Norm, domain: Domain, ball: Boxes, point: Boxes | None
) -> Tensor:
    """Return how fast f_y − f_j falls from `x` [B, ...] on, at most, float64 [B, classes]; 0 at j = y.

    Per unit of `norm`, for every point of the set that `ball` is about; +inf where nothing is known. `point` are boxes
    at x; without them the bound is about any two points of the set.
    """
    every = torch.arange(graph.classes, device=x.device)
    slopes = torch.zeros(len(x), graph.classes, dtype=torch.float64, device=x.device)
    widest = max(math.prod(node.shape) for node in graph.nodes)
    rows = max(1, _MEMORY // (8 * _COPIES * widest))
    each = min(rows, graph.classes)
    for samples in torch.split(torch.arange(len(x), device=x.device), max(1, rows // each)):
        inner = [(low[samples], high[samples]) for low, high in ball]
        at = None if point is None else [(low[samples], high[samples]) for low, high in point]
        for rivals in torch.split(every, each):
            found = margin_rows(graph, y[samples], rivals, inner, at)
            slopes[samples[:, None], rivals] = _rates(found, x[samples].double(), norm, domain)
    return slopes.scatter(1, y[:, None], 0.0)


def margin_rows(graph: Graph, y: Tensor, rivals: Tensor, ball: Boxes, point: Boxes | None) -> Rows:
    """Return the rows [B, rivals, ...] of f_y − f_j for j in `rivals` [K], as `margin_slopes` has them."""
    steps = _steps(graph, y.device)
    with ieee_arithmetic(y.device):
        start = torch.zeros(len(y), len(rivals), graph.classes, dtype=torch.float64, device=y.device)
        start[torch.arange(len(y), device=y.device), :, y] = 1.0
        start[:, torch.arange(len(rivals), device=y.device), rivals] -= 1.0
        pending: dict[int, Rows] = {len(steps) - 1: Rows(start, start)}
        for position in range(len(steps) - 1, 0, -1):
            rows = pending.pop(position, None)
            if rows is None:
                continue
            node = steps[position].node
            for source, part in zip(node.inputs, _back(steps[position], rows, ball, point), strict=True):
                pending[source] = added(pending[source], part) if source in pending else part
        zeros = start.new_zeros(*start.shape[:2], *graph.input_shape)
        return pending.get(0, Rows(zeros, zeros))


def _steps(graph: Graph, device: torch.device) -> tuple[_Step, ...]:
    kept = _PREPARED.setdefault(graph, {})
    if device not in kept:
        shapes = [node.shape for node in graph.nodes]
        kept[device] = tuple(
            _Step(node, AFFINE[node.op](node, [shapes[i] for i in node.inputs], device) if node.op in AFFINE else None)
            for node in graph.nodes
        )
    return kept[device]


def _back(step: _Step, rows: Rows, ball: Boxes, point: Boxes | None) -> list[Rows]:
    if step.back is not None:
        return step.back(rows)
    (source,) = step.node.inputs
    reach = Reach(*ball[source], *(ball if point is None else point)[source])
    if step.node.op in CHOICES:
        return [CHOICES[step.node.op](step.node, reach, rows)]
    return [scaled(rows, *SLOPES[step.node.op](step.node, reach))]


def _rates(rows: Rows, x: Tensor, norm: Norm, domain: Domain) -> Tensor:
    """Return the dual norms [B, K], rounded up. A point at or beyond a side of the domain cannot move out further."""
    rises, falls = (x < domain.upper)[:, None], (x > domain.lower)[:, None]
    up = torch.where(rises, -rows.lower, 0.0)
    down = torch.where(falls, rows.upper, 0.0)
    magnitudes = torch.maximum(up, down).clamp_min(0.0).flatten(2)
    return dual_norm_up(magnitudes, norm).nan_to_num(nan=math.inf, posinf=math.inf)


def open_neurons(graph: Graph, ball: Boxes) -> Tensor:
    """Return how many slopes of piecewise linear activations are not known over the set, int64 [B]."""
    count = torch.zeros(len(ball[0][0]), dtype=torch.int64, device=ball[0][0].device)
    for node in graph.nodes[1:]:
        if node.op in ("clip", "leaky_relu", "relu"):
            low, high = ball[node.inputs[0]]
            least, most = SLOPES[node.op](node, Reach(low, high, low, high))
            count += ((most - least) > 0.0 if node.op != "leaky_relu" else (low < 0) & (high > 0)).flatten(1).sum(1)
    return count
