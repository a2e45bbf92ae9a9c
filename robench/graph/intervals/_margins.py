"""Rigorous bounds of logits and margins f_y − f_j at points and over balls.

The function is the real-arithmetic one of the graph's constants as they are stored (`Classifier.graph` holds them in
the classifier's precision). Computed in float64 with every rounding error inside the bounds.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robench.errors import GraphError
from robench.graph._ir import Graph
from robench.graph.intervals._arithmetic import ieee_arithmetic
from robench.graph.intervals._elementwise import UNARY
from robench.graph.intervals._layers import Layer, layers
from robench.graph.intervals._propagate import propagate, unsupported
from robench.graph.intervals._sets import Ball, Box, input_set, intersect, sane, widen
from robench.graph.intervals._sums import Rows, apply_rows, rows_radius
from robench.numerics import per_sample, round_down, round_up
from robench.threat import Domain, Norm

__all__ = ["ball_margin_lower", "logit_bounds", "pairwise_margins", "point_margins", "set_margins"]

_KEPT_ELEMENTS = 2**22
"""Differences of the last layer's rows are kept per label up to this many doubles in all."""


def point_margins(graph: Graph, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return (lower, upper), float64 [B], around f_y − max_{j≠y} f_j at the points `x` [B, ...].

    Every rounding error is inside. NaN or overflow anywhere gives (−inf, inf). Raises GraphError for an operator
    without an interval rule.
    """
    lower, upper = pairwise_margins(graph, x, y, "linf", 0.0, Domain.unbounded())
    return lower.amin(1), upper.amin(1)


def ball_margin_lower(graph: Graph, x: Tensor, y: Tensor, norm: Norm, eps: float | Tensor, domain: Domain) -> Tensor:
    """Return a lower bound, float64 [B], of f_y − max_{j≠y} f_j over the closed ball within the domain.

    Interval bound propagation (Gowal et al. 2018) with the dual norm in the first layer for l2 and l1, and the last
    linear layer merged with the margin. `eps` is one number or float64 [B]. Raises GraphError for an operator
    without an interval rule.
    """
    return pairwise_margins(graph, x, y, norm, eps, domain)[0].amin(1)


def pairwise_margins(
    graph: Graph, x: Tensor, y: Tensor, norm: Norm, eps: float | Tensor, domain: Domain
) -> tuple[Tensor, Tensor]:
    """Return (lower, upper), float64 [B, classes], around f_y − f_j over the closed ball within the domain.

    +inf at j = y, so that a minimum over classes skips it. `eps` 0 is the point itself.
    """
    _check(graph)
    prepared = layers(graph, x.device)
    with ieee_arithmetic(x.device):
        points = x.detach().double()
        point = isinstance(eps, float) and eps == 0
        start = Box(points, points) if point else input_set(points, norm, eps, domain)
        finite = points.flatten(1).isfinite().all(1)
        lower, upper = _label_margins(prepared, start, y, finite)
    return lower, upper


def set_margins(graph: Graph, start: Box | Ball, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return (lower, upper), float64 [B, classes], around f_y − f_j over the sets `start`; +inf at j = y."""
    _check(graph)
    box = start.box if isinstance(start, Ball) else start
    with ieee_arithmetic(box.lower.device):
        finite = (box.lower.isfinite() & box.upper.isfinite()).flatten(1).all(1)
        lower, upper = _label_margins(layers(graph, box.lower.device), start, y, finite)
    return lower, upper


def logit_bounds(graph: Graph, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Return (lower, upper), float64 [B, classes], around the logits over the boxes `lower` … `upper` [B, ...]."""
    _check(graph)
    prepared = layers(graph, lower.device)
    with ieee_arithmetic(lower.device):
        box = sane(lower.detach().double().clone(), upper.detach().double().clone())
        if lower is upper and lower.isfinite().all():
            box = Box(box.lower, box.lower)
        out = propagate(prepared, box, len(prepared) - 1)
    assert isinstance(out, Box)
    return out.lower, out.upper


def _check(graph: Graph) -> None:
    reason = unsupported(graph)
    if reason is not None:
        raise GraphError(reason)


def _label_margins(prepared: tuple[Layer, ...], start: Box | Ball, y: Tensor, finite: Tensor) -> tuple[Tensor, Tensor]:
    last, after = prepared[-1], []
    while _is_uniform(last):
        after.append(last)
        last = prepared[last.inputs[0]]
    if last.op == "linear" and last.finite:
        inside = propagate(prepared, start, last.inputs[0])
        margins = _merged(last, inside, y)
        for layer in reversed(after):
            margins = _on_margins(layer, margins)
    else:
        logits = propagate(prepared, start, len(prepared) - 1)
        box = logits.box if isinstance(logits, Ball) else logits
        own = Box(box.lower.gather(1, y[:, None]), box.upper.gather(1, y[:, None]))
        margins = sane(round_down(own.lower - box.upper), round_up(own.upper - box.lower))
    # Sums that skip zeros could lose a NaN input on the way.
    unknown = per_sample(~finite, margins.lower)
    lower, upper = margins.lower.masked_fill(unknown, -math.inf), margins.upper.masked_fill(unknown, math.inf)
    return lower.scatter(1, y[:, None], math.inf), upper.scatter(1, y[:, None], math.inf)


def _is_uniform(layer: Layer) -> bool:
    """Whether a layer does the same to every logit, like a temperature: arithmetic with one number."""
    if layer.op in ("add", "sub", "mul", "div"):
        return len(layer.inputs) == 1 and layer.finite and layer.constants["other"].numel() == 1
    return layer.op == "neg"


def _on_margins(layer: Layer, margins: Box) -> Box:
    """Do to differences of logits what a uniform layer does to the logits: shifts cancel."""
    if layer.op in ("add", "sub"):
        return Box(-margins.upper, -margins.lower) if layer.attributes.get("reverse") else margins
    return UNARY[layer.op](layer, margins)


def _merged(last: Layer, inside: Box | Ball, y: Tensor) -> Box:
    """Return the margins' box [B, classes]: rows w_y − w_j on what the last layer reads, one label at a time."""
    box = inside.box if isinstance(inside, Ball) else inside
    lower, upper = (box.lower.new_empty(len(y), last.shape[0]) for _ in range(2))
    order = y.argsort()
    labels, counts = torch.unique_consecutive(y[order], return_counts=True)
    for label, members in zip(labels.tolist(), torch.split(order, counts.tolist()), strict=True):
        rows = _rows(last, label)
        margins = apply_rows(rows, _select(box, members))
        if isinstance(inside, Ball):
            reach = round_up(per_sample(inside.eps[members], margins.lower) * _reach(last, label, rows, inside))
            margins = intersect(margins, widen(apply_rows(rows, _select(inside.centre, members)), reach))
        lower[members], upper[members] = margins.lower, margins.upper
    return Box(lower, upper)


def _select(box: Box, members: Tensor) -> Box:
    return box.map(lambda values: values[members])


def _rows(last: Layer, label: int) -> Rows:
    """Return w_y − w_j for y = `label`; the difference is one rounding more for each entry."""

    def compute() -> Rows:
        weight, bias = last.constants["weight"], last.constants.get("bias")
        return Rows.of(weight[label] - weight, None if bias is None else bias[label] - bias, extra=1)

    if last.shape[0] * last.constants["weight"].numel() > _KEPT_ELEMENTS:
        return compute()
    return last.once(("rows", label), compute)


def _reach(last: Layer, label: int, rows: Rows, ball: Ball) -> Tensor:
    """Return the dual norm of each scaled row, its difference's rounding included."""
    return last.once(("reach", label, ball.norm), lambda: rows_radius(rows, ball.scale, ball.norm) * (1 + 2.0**-50))
