"""Interval rules of elementwise operators, sums of nodes, sorting, pooling by maxima, and moved elements.

A single rounded operation errs by at most half a unit in the last place, so its bounds are the neighbours of the
computed ones. Comparisons and copies are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robench.graph.intervals._affine import UNDERFLOW
from robench.graph.intervals._layers import Layer
from robench.graph.intervals._sets import Box, sane
from robench.graph.operators import OPERATORS
from robench.numerics import LIBRARY_ERROR, UNIT_ROUNDOFF, round_down, round_up

__all__ = ["NARY", "SCALES", "UNARY"]


def _outward(lower: Tensor, upper: Tensor) -> Box:
    return sane(round_down(lower), round_up(upper))


def _copied(layer: Layer, box: Box) -> Box:
    """Non-decreasing and exact: the operator itself, on both bounds."""
    return box.map(layer.evaluate)


def _add_nodes(layer: Layer, a: Box, b: Box) -> Box:
    return _outward(a.lower + b.lower, a.upper + b.upper)


def _sub_nodes(layer: Layer, a: Box, b: Box) -> Box:
    return _outward(a.lower - b.upper, a.upper - b.lower)


def _add(layer: Layer, box: Box) -> Box:
    other = layer.constants["other"]
    return _outward(box.lower + other, box.upper + other)


def _sub(layer: Layer, box: Box) -> Box:
    other = layer.constants["other"]
    if layer.attributes.get("reverse"):
        return _outward(other - box.upper, other - box.lower)
    return _outward(box.lower - other, box.upper - other)


def _neg(layer: Layer, box: Box) -> Box:
    return box.map(torch.neg) if box.is_point else Box(-box.upper, -box.lower)


def _mul(layer: Layer, box: Box) -> Box:
    other = layer.constants["other"]
    a, b = box.lower * other, box.upper * other
    return _outward(torch.minimum(a, b), torch.maximum(a, b))


def _div(layer: Layer, box: Box) -> Box:
    # A cast may have flushed a divisor to 0, where there is no function to bound.
    other = layer.once(
        "divisor", lambda: torch.where(layer.constants["other"] == 0, torch.nan, layer.constants["other"])
    )
    a, b = box.lower / other, box.upper / other
    return _outward(torch.minimum(a, b), torch.maximum(a, b))


def _leaky_relu(layer: Layer, box: Box) -> Box:
    slope = layer.number("slope")
    # Two linear pieces: the extremes are at the ends or at 0, whatever the slope's sign.
    ends = [torch.where(v < 0, v * slope, v) for v in (box.lower, box.upper)]
    low, high = torch.minimum(*ends), torch.maximum(*ends)
    across = (box.lower < 0) & (box.upper > 0)
    return _outward(torch.where(across, low.clamp_max(0), low), torch.where(across, high.clamp_min(0), high))


def _sigmoid(layer: Layer, box: Box) -> Box:
    bounds = _with_library_error(box.map(torch.sigmoid))
    return Box(bounds.lower.clamp_min_(0), bounds.upper.clamp_max_(1))


def _tanh(layer: Layer, box: Box) -> Box:
    bounds = _with_library_error(box.map(torch.tanh))
    return Box(bounds.lower.clamp_min_(-1), bounds.upper.clamp_max_(1))


def _with_library_error(box: Box) -> Box:
    lower = torch.sub(box.lower, box.lower.abs(), alpha=LIBRARY_ERROR).sub_(UNDERFLOW)
    upper = torch.add(box.upper, box.upper.abs(), alpha=LIBRARY_ERROR).add_(UNDERFLOW)
    return sane(lower, upper)


@dataclass(frozen=True, eq=False)
class _ScaleShift:
    """v · scale + shift per channel, [C, 1, ...]; `floor` is the part of the error that v does not enter."""

    scale: Tensor
    shift: Tensor
    floor: Tensor


def _scale_shift(layer: Layer) -> _ScaleShift:
    """Return batch normalisation as w / √(var + eps) · v + (b − w mean / √(var + eps))."""

    def compute() -> _ScaleShift:
        mean, weight, bias = (layer.constants[name] for name in ("mean", "weight", "bias"))
        scale = weight / (layer.constants["var"] + layer.number("eps")).sqrt()
        moved = mean * scale
        shift = bias - moved
        # `_batch_norm` counts 32 roundings; those behind the shift enter here, and so does underflow.
        floor = 32 * UNIT_ROUNDOFF * (bias.abs() + moved.abs()) + UNDERFLOW * (1 + mean.abs())
        # A scale that underflowed has no relative error bound.
        lost = (scale.abs() < 2.0**-960) & (weight != 0)
        floor = torch.where(lost | ~scale.isfinite() | ~shift.isfinite(), torch.inf, floor)
        return _ScaleShift(*(v.reshape(-1, *[1] * (len(layer.shape) - 1)) for v in (scale, shift, floor)))

    return layer.once("scale and shift", compute)


def _batch_norm(layer: Layer, box: Box) -> Box:
    constants = _scale_shift(layer)
    a, b = box.lower * constants.scale, box.upper * constants.scale
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    # |fl(v·s + t) − exact| ≤ 8 u |v·s| + floor / 2 + 2 u |t|: four roundings in s, one each in the product and sum.
    factor = 32 * UNIT_ROUNDOFF
    lower = (low + constants.shift).sub_(low.abs(), alpha=factor).sub_(constants.floor)
    upper = (high + constants.shift).add_(high.abs(), alpha=factor).add_(constants.floor)
    return sane(lower, upper)


def _concat(layer: Layer, *boxes: Box) -> Box:
    return Box(layer.evaluate(*(box.lower for box in boxes)), layer.evaluate(*(box.upper for box in boxes)))


def _scaled_by(magnitude: Tensor, scale: Tensor) -> Tensor:
    """Return scale · |constant| rounded up; a scale of 0 stays 0."""
    return torch.where(scale == 0, 0.0, round_up(scale * magnitude))


def _same_scale(layer: Layer, scale: Tensor) -> Tensor:
    return scale


def _moved_scale(layer: Layer, scale: Tensor) -> Tensor:
    return layer.evaluate(scale)


def _mul_scale(layer: Layer, scale: Tensor) -> Tensor:
    return _scaled_by(layer.constants["other"].abs(), scale)


def _div_scale(layer: Layer, scale: Tensor) -> Tensor:
    return torch.where(scale == 0, 0.0, round_up(scale / layer.constants["other"].abs()))


def _batch_norm_scale(layer: Layer, scale: Tensor) -> Tensor:
    return _scaled_by(_scale_shift(layer).scale.abs() * (1 + 32 * UNIT_ROUNDOFF), scale)


def _pad_scale(layer: Layer, scale: Tensor) -> Tensor:
    return OPERATORS["pad"].bind({**layer.attributes, "value": 0.0}, {})(scale)


UNARY: dict[str, Callable[[Layer, Box], Box]] = {
    "add": _add,
    "batch_norm": _batch_norm,
    "clip": _copied,
    "concat": _concat,
    "div": _div,
    "group_sort": _copied,
    "leaky_relu": _leaky_relu,
    "max_pool2d": _copied,
    "mul": _mul,
    "neg": _neg,
    "pad": _copied,
    "relu": _copied,
    "reshape": _copied,
    "sigmoid": _sigmoid,
    "slice": _copied,
    "sub": _sub,
    "tanh": _tanh,
    "transpose": _copied,
}
"""Operators with one input."""

NARY: dict[str, Callable[..., Box]] = {"add": _add_nodes, "concat": _concat, "sub": _sub_nodes}
"""Operators with several inputs."""

SCALES: dict[str, Callable[[Layer, Tensor], Tensor]] = {
    "add": _same_scale,
    "batch_norm": _batch_norm_scale,
    "div": _div_scale,
    "mul": _mul_scale,
    "neg": _same_scale,
    "pad": _pad_scale,
    "reshape": _moved_scale,
    "slice": _moved_scale,
    "sub": _same_scale,
    "transpose": _moved_scale,
}
"""What elementwise affine operators make of a ball's scale, rounded up."""
