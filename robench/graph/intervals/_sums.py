"""Interval rules of the operators that sum products: linear, convolution, average pooling, mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from robench.graph.intervals._affine import Rounding, centre_and_spread, enclose
from robench.graph.intervals._layers import Layer
from robench.graph.intervals._norms import dual_norm_up
from robench.graph.intervals._sets import Box
from robench.numerics import gamma, round_up
from robench.threat import Norm

__all__ = ["RADII", "RULES", "Rows", "apply_rows", "rows_radius"]


@dataclass(frozen=True, eq=False)
class Rows:
    """A matrix with the constants that its bounds need: weight, |weight| [out, in], bias [out] or None."""

    weight: Tensor
    magnitude: Tensor
    bias: Tensor | None
    rounding: Rounding

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None, extra: int = 0) -> Rows:
        """Prepare `weight` [out, in]; `extra` roundings went into each of its entries and the bias's."""
        magnitude = weight.abs()
        return cls(weight, magnitude, bias, Rounding.of(weight.shape[1] + extra, magnitude.sum(1), bias))


def apply_rows(rows: Rows, box: Box) -> Box:
    """Return the box [B, out] around W v + b for v in `box` [B, in]."""
    centre, spread = centre_and_spread(box, rows.rounding)
    return enclose(F.linear(centre, rows.weight, rows.bias), F.linear(spread, rows.magnitude), rows.rounding)


def rows_radius(rows: Rows, scale: Tensor, norm: Norm) -> Tensor:
    """Return how far W (scale · δ) reaches for ‖δ‖ ≤ 1, rounded up, [out]: the dual norm of each scaled row."""
    return dual_norm_up(_product_up(rows.magnitude, scale.reshape(1, -1)), norm)


def _product_up(a: Tensor, b: Tensor) -> Tensor:
    """Return the product of two magnitudes, rounded up; 0 where a factor is 0."""
    return torch.where((a == 0) | (b == 0), 0.0, round_up(a * b))


def _linear_rows(layer: Layer) -> Rows:
    return layer.once("rows", lambda: Rows.of(layer.constants["weight"], layer.constants.get("bias")))


def _linear(layer: Layer, box: Box) -> Box:
    return apply_rows(_linear_rows(layer), box)


def _linear_radius(layer: Layer, scale: Tensor, norm: Norm) -> Tensor:
    return rows_radius(_linear_rows(layer), scale, norm)[None]


def _conv_rounding(layer: Layer) -> Rounding:
    weight, bias = layer.constants["weight"], layer.constants.get("bias")
    rounding = Rounding.of(weight[0].numel(), weight.abs().flatten(1).sum(1), bias)
    return Rounding(rounding.terms, rounding.floor.reshape(-1, *[1] * (weight.ndim - 2)))


def _conv(layer: Layer, box: Box) -> Box:
    # In float64 and without cuDNN a convolution is im2col and a matrix product, so γ_n holds.
    rounding = layer.once("rounding", lambda: _conv_rounding(layer))
    centre, spread = centre_and_spread(box, rounding)
    magnitude = layer.once("magnitude", lambda: layer.constants["weight"].abs())
    return enclose(layer.evaluate(centre), layer.evaluate(spread, constants={"weight": magnitude}), rounding)


def _conv_radius(layer: Layer, scale: Tensor, norm: Norm) -> Tensor:
    """Return the dual norm of every output's scaled patch, [1, out, ...], rounded up."""
    weight = layer.constants["weight"].abs()
    ones = [1] * (weight.ndim - 2)
    largest = weight.flatten(1).amax(1).reshape(1, -1, *ones)
    if norm == "l2":
        # The squares' sum is a convolution of squares. Scaled to at most 1 they cannot overflow, and what
        # underflows stays below 2**-1060 a term.
        top, terms = scale.amax(), weight[0].numel()
        kernel = weight / torch.where(largest > 0, largest, 1.0).reshape(-1, 1, *ones)
        reach = scale / torch.where(top > 0, top, 1.0)
        squares = layer.evaluate(reach.square(), constants={"weight": kernel.square()}) * (1 + 4 * gamma(terms + 12))
        radius = (squares + terms * 2.0**-1060).sqrt() * (largest * top) * (1 + 4 * gamma(4))
        return torch.where((largest == 0) | (top == 0), 0.0, round_up(radius))
    # The largest |w| · scale, with each input channel's largest scale: an upper bound at the borders too.
    groups = int(layer.number("groups"))
    channel = scale.flatten(2).amax(2).reshape(groups, -1).repeat_interleave(len(weight) // groups, 0)
    patches = _product_up(weight.flatten(2), channel[..., None]).flatten(1)
    return dual_norm_up(patches, norm).reshape(1, -1, *ones)


def _average(layer: Layer, box: Box, terms: int) -> Box:
    """A mean of at most `terms` entries: the sum is divided, or each entry multiplied by a rounded weight."""
    one = box.lower.new_ones(())
    rounding = layer.once("rounding", lambda: Rounding.of(terms + 3, one, None))
    centre, spread = centre_and_spread(box, rounding)
    return enclose(layer.evaluate(centre), layer.evaluate(spread), rounding)


def _avg_pool2d(layer: Layer, box: Box) -> Box:
    return _average(layer, box, math.prod(layer.sizes("kernel")))


def _global_avg_pool2d(layer: Layer, box: Box) -> Box:
    return _average(layer, box, math.prod(box.lower.shape[2:]))


def _mean(layer: Layer, box: Box) -> Box:
    return _average(layer, box, math.prod(box.lower.shape[axis + 1] for axis in layer.sizes("axes")))


RULES: dict[str, Callable[[Layer, Box], Box]] = {
    "avg_pool2d": _avg_pool2d,
    "conv1d": _conv,
    "conv2d": _conv,
    "global_avg_pool2d": _global_avg_pool2d,
    "linear": _linear,
    "mean": _mean,
}
"""Boxes through operators."""

RADII: dict[str, Callable[[Layer, Tensor, Norm], Tensor]] = {
    "conv1d": _conv_radius,
    "conv2d": _conv_radius,
    "linear": _linear_radius,
}
"""How far each output moves over the unit ball, scaled: [1, ...], rounded up."""
