"""Linear bounds of activations on intervals: slopes may be chosen, intercepts are proven.

For the ReLU on [l, u], l < 0 < u, any lower line through 0 with a slope in [0, 1], and the chord above (Zhang et al.
2018, "Efficient neural network robustness certification with general activation functions"; adaptive slope as in
section 3.3). For sigmoid and tanh tangents and chords; whatever the slope k, the intercept is a proven bound of
f(x) − k x, so an unfortunate slope is loose, never wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from robench.numerics import LIBRARY_ERROR, round_down, round_up

__all__ = ["Lines", "Op", "Relaxed", "relax", "shifts"]

Op = Literal["relu", "sigmoid", "tanh"]


@dataclass(frozen=True, eq=False)
class Relaxed:
    """lower_slope · x + lower_shift ≤ f(x) ≤ upper_slope · x + upper_shift for x in [l, u]; [B, ...] each.

    `lower` and `upper` are l and u; `unstable` says where the slope below may be chosen. A `lower_shift` of None is 0.
    """

    lower: Tensor
    upper: Tensor
    lower_slope: Tensor
    upper_slope: Tensor
    lower_shift: Tensor | None
    upper_shift: Tensor
    unstable: Tensor

    def to(self, dtype: torch.dtype) -> Relaxed:
        """Return the lines rounded to nearest, for searching."""
        return self._map(lambda values: values.to(dtype) if values.is_floating_point() else values)

    def select(self, index: Tensor | slice) -> Relaxed:
        """Return the samples at `index` [N]."""
        return self._map(lambda values: values[index])

    def columns(self, index: Tensor) -> Relaxed:
        """Return the lines of the entries at `index` [k] of a vector."""
        return self._map(lambda values: values[:, index])

    def _map(self, function: Callable[[Tensor], Tensor]) -> Relaxed:
        values = (getattr(self, one.name) for one in fields(self))
        return Relaxed(*(None if value is None else function(value) for value in values))  # type: ignore[arg-type]


Lines = dict[int, Relaxed]
"""The lines of each activation, by its position."""


def relax(op: str, lower: Tensor, upper: Tensor) -> Relaxed:
    """Return the default lines for inputs within [lower, upper] float64 [B, ...]; intercepts are rounded outward."""
    if op == "relu":
        return _relu(lower, upper)
    low, high = _tangents(op, lower, upper)
    below, above = shifts(op, lower, upper, low, high)
    return Relaxed(lower, upper, low, high, below, above, torch.ones_like(lower, dtype=torch.bool))


def _relu(lower: Tensor, upper: Tensor) -> Relaxed:
    active, unstable = lower >= 0, (lower < 0) & (upper > 0)
    slope = torch.where(unstable, (upper / (upper - lower)).clamp(0, 1), active.to(lower))
    # Above the chord at both ends: −s l at l, (1 − s) u at u.
    left = round_up(-slope * lower)
    right = round_up(upper - round_down(slope * upper))
    shift = torch.where(unstable, torch.maximum(left, right), torch.zeros_like(lower))
    adaptive = torch.where(unstable, (upper > -lower).to(lower), active.to(lower))
    return Relaxed(lower, upper, adaptive, slope, None, shift, unstable)


# ---------------------------------------------------------------------------------------------- sigmoid and tanh


def value(op: str, x: Tensor) -> Tensor:
    """Return f(x)."""
    return torch.sigmoid(x) if op == "sigmoid" else torch.tanh(x)


def slope_at(op: str, x: Tensor) -> Tensor:
    """Return f'(x)."""
    y = value(op, x)
    return y * torch.sigmoid(-x) if op == "sigmoid" else 1 - y * y


def shifts(op: str, lower: Tensor, upper: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return (intercept below for slope `low`, intercept above for slope `high`), proven in float64.

    f is convex up to 0 and concave from there, and f(−x) = c − f(x): a line below f on [l, u] is one above on
    [−u, −l], turned around.
    """
    above = _above(op, lower, upper, high)
    mirrored = _above(op, -upper, -lower, low)
    constant = 1.0 if op == "sigmoid" else 0.0
    below = constant - mirrored
    return below - below.abs() * 2.0**-50, above


def _above(op: str, lower: Tensor, upper: Tensor, slope: Tensor) -> Tensor:
    """Return an upper bound of max f(x) − slope · x over [lower, upper].

    On the convex part the maximum is at an end. On the concave part f lies below each of its tangents: the one at p,
    where f'(p) ≈ slope, gives f(x) − k x ≤ f(p) − k p + (f'(p) − k)(x − p), greatest at an end of [max(l, 0), u].
    """
    ends = torch.maximum(_gap_up(op, lower, slope), _gap_up(op, upper, slope))
    start = lower.clamp_min(0)
    point = torch.minimum(torch.maximum(_touching(op, slope), start), torch.maximum(start, upper))
    derivative = slope_at(op, point)
    off = torch.maximum(_product_up(derivative - slope, upper - point), _product_up(derivative - slope, start - point))
    # Where y is off by e, relative, 1 − y² is off by up to 2 |e| + e² and two roundings; a sigmoid's slope by less.
    reach = (upper - start).abs()
    inside = _gap_up(op, point, slope) + off + (3 * LIBRARY_ERROR * reach + 1e-290)
    bound = torch.where(upper > 0, torch.maximum(ends, inside), ends)
    return bound + bound.abs() * 2.0**-50


def _product_up(a: Tensor, b: Tensor) -> Tensor:
    product = a * b
    return product + product.abs() * 2.0**-48


def _gap_up(op: str, x: Tensor, slope: Tensor) -> Tensor:
    """Return f(x) − slope · x, rounded up."""
    y = value(op, x)
    product = slope * x
    return y - product + (y.abs() * LIBRARY_ERROR + product.abs() * 2.0**-50 + 1e-290)


def _touching(op: str, slope: Tensor) -> Tensor:
    """Return about the x ≥ 0 with f'(x) = slope; it is optimal, so no gradient goes through it."""
    slope = slope.detach()
    if op == "sigmoid":
        y = (1 + (1 - 4 * slope).clamp_min(0).sqrt()) / 2
        return torch.logit(y.clamp(0.5, 1 - 1e-16))
    return torch.atanh((1 - slope).clamp(0, 1 - 1e-16).sqrt().clamp_max(1 - 1e-16))


def _tangents(op: str, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Return default slopes (below, above).

    The tangent in the middle or the chord where f is concave or convex; across 0 the tangent through the far end.
    """
    above = _slope_above(op, lower, upper)
    below = _slope_above(op, -upper, -lower)
    return below, above


def _slope_above(op: str, lower: Tensor, upper: Tensor) -> Tensor:
    width = upper - lower
    chord = torch.where(
        width > 1e-9, (value(op, upper) - value(op, lower)) / width.clamp_min(1e-300), slope_at(op, upper)
    )
    chord = chord.clamp(0, 1)
    middle = slope_at(op, lower / 2 + upper / 2)
    # Across 0: the tangent at d ≥ 0 that passes through (l, f(l)); right of d the chord lies below f.
    d = _meeting(op, lower, upper)
    across = torch.where(d < upper, slope_at(op, d), chord)
    slope = torch.where(lower >= 0, middle, torch.where(upper <= 0, chord, across))
    return torch.where(slope.isfinite(), slope, 0.0).clamp(0, 1)


def _meeting(op: str, lower: Tensor, upper: Tensor) -> Tensor:
    """Return the d ≥ 0 whose tangent meets (l, f(l)), found by bisection; the upper end where there is none."""
    low, high = torch.zeros_like(lower), upper.clamp_min(0)
    base = value(op, lower)
    for _ in range(40):
        middle = (low + high) / 2
        over = value(op, middle) + slope_at(op, middle) * (lower - middle) >= base
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    return high
