"""Pushes a set through the layers of a graph, one box after the other (IBP, Gowal et al. 2018)."""

from __future__ import annotations

import math

from robench.errors import GraphError
from robench.graph._ir import Graph
from robench.graph.intervals import _elementwise, _sums
from robench.graph.intervals._layers import Layer
from robench.graph.intervals._sets import Ball, Box, intersect, widen
from robench.numerics import per_sample, round_up

__all__ = ["propagate", "propagate_all", "unsupported"]

_UNARY = {**_elementwise.UNARY, **_sums.RULES}


def unsupported(graph: Graph) -> str | None:
    """Return None, or why `graph` has no interval bounds: the first operator without a rule."""
    for position, node in enumerate(graph.nodes[1:], 1):
        if node.op not in (_UNARY if len(node.inputs) == 1 else _elementwise.NARY):
            return f"node {position}: no interval rule for {node.op} with {len(node.inputs)} inputs"
    if len(graph.nodes[-1].shape) != 1 or graph.classes < 2:
        return f"the output has the shape {list(graph.nodes[-1].shape)}: a margin needs at least two logits"
    return None


def propagate(layers: tuple[Layer, ...], start: Box | Ball, stop: int) -> Box | Ball:
    """Return the set at node `stop` for the input set `start`. Raises GraphError for an operator without a rule."""
    values: dict[int, Box | Ball] = {0: start}
    for position in range(1, stop + 1):
        layer = layers[position]
        values[position] = _apply(layer, [values[source] for source in layer.inputs])
        for source in layer.last:
            del values[source]
    return values[stop]


def propagate_all(layers: tuple[Layer, ...], start: Box | Ball) -> list[Box | Ball]:
    """Return the sets at all nodes. Raises GraphError for an operator without a rule."""
    values: list[Box | Ball] = [start]
    for layer in layers[1:]:
        values.append(_apply(layer, [values[source] for source in layer.inputs]))
    return values


def _apply(layer: Layer, arguments: list[Box | Ball]) -> Box | Ball:
    first = arguments[0]
    if not layer.finite:
        return _everything(layer, first)
    if len(arguments) > 1:
        if layer.op not in _elementwise.NARY:
            raise GraphError(f"no interval rule for {layer.op} with {len(arguments)} inputs")
        return _elementwise.NARY[layer.op](layer, *map(_box, arguments))
    if layer.op not in _UNARY:
        raise GraphError(f"no interval rule for {layer.op}")
    rule = _UNARY[layer.op]
    if not isinstance(first, Ball):
        return rule(layer, first)
    if _keeps_ball(layer, first):
        scale = layer.once("scale", lambda: _elementwise.SCALES[layer.op](layer, first.scale))
        return Ball(rule(layer, first.box), rule(layer, first.centre), scale, first.eps, first.norm)
    box = rule(layer, first.box)
    if layer.op not in _sums.RADII:
        return box
    unit = layer.once(("radius", first.norm), lambda: _sums.RADII[layer.op](layer, first.scale, first.norm))
    centre = rule(layer, first.centre)
    return intersect(box, widen(centre, round_up(per_sample(first.eps, centre.lower) * unit)))


def _keeps_ball(layer: Layer, ball: Ball) -> bool:
    """Whether the output is a ball again. Broadcasting repeats coordinates, which the norm would count twice."""
    repeats = layer.op != "pad" and math.prod(layer.shape) > ball.scale.numel()
    return layer.op in _elementwise.SCALES and not repeats


def _box(value: Box | Ball) -> Box:
    return value.box if isinstance(value, Ball) else value


def _everything(layer: Layer, like: Box | Ball) -> Box:
    lower = _box(like).lower
    return Box(*(lower.new_full((len(lower), *layer.shape), side) for side in (-math.inf, math.inf)))
