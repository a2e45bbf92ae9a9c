"""What a probe reads off logits and gradients, one number per row; NaN where a figure would say nothing.

Points a, b near a sample x, margins m, and g = −∇m(x): a figure compares what really happened, m(a) − m(b), with what
the gradient promised, ⟨g, b − a⟩. Inner products are summed in double precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["cosine", "kept", "outputs", "promised", "range_needed", "softmax_like", "surprise", "underflow", "zeros"]

_ROUNDING = 256.0
"""Changes of the margin below this many roundings of the largest logit say nothing."""


def outputs(logits: Tensor, again: Tensor) -> Tensor:
    """Return the largest difference between two sets of logits [R, C] as a share of the largest logit."""
    size = logits.double().abs().amax(1).clamp_min(torch.finfo(torch.float64).tiny)
    return (logits.double() - again.double()).abs().amax(1) / size


def softmax_like(logits: Tensor) -> Tensor:
    """Return 1 where logits [R, C] are probabilities: in [0, 1], with sum 1 up to rounding; else 0."""
    z = logits.double()
    return ((z >= 0).all(1) & (z <= 1).all(1) & ((z.sum(1) - 1).abs() <= 1e-5)).double()


def underflow(logits: Tensor, y: Tensor) -> Tensor:
    """Return 1 where softmax(z) − e_y, the gradient of the cross-entropy by the logits z, is 0 in their precision."""
    gradient = logits.softmax(1).scatter_add(1, y[:, None], -torch.ones_like(logits[:, :1]))
    return (gradient == 0).all(1).double()


def zeros(way: Tensor) -> Tensor:
    """Return the share of the entries of each gradient [R, ...] that are exactly 0."""
    return (way == 0).flatten(1).double().mean(1)


def promised(way: Tensor, step: Tensor) -> Tensor:
    """Return by how much `step` [R, ...] would lower the margin if it were linear: ⟨−∇m, step⟩, float64."""
    return (way.double() * step.double()).flatten(1).sum(1)


def kept(before: Tensor, after: Tensor, promise: Tensor, logits: Tensor) -> Tensor:
    """Return (m_before − m_after) / promise: 1 where the margin is linear; NaN where rounding could be all of it."""
    drop = before.double() - after.double()
    return torch.where(promise > _noise(logits), drop / promise, torch.nan)


def range_needed(margin: Tensor, way: Tensor, x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return the margin over the most that it could fall by in the box if it were linear; NaN without a gradient."""
    room = torch.where(way > 0, upper - x, lower - x)
    reach = promised(way, room)
    return torch.where(reach > 0, margin.double() / reach, torch.nan)


def surprise(here: Tensor, there: Tensor, step: Tensor, way: Tensor, logits: Tensor) -> Tensor:
    """Return |what a random step changed − what the gradient promised| over the promise's size in a random direction.

    `here`, `there`: margins at both ends of `step` [R, ...], drawn without regard to the gradient. In a random
    direction, the promise ⟨g, s⟩ is of size ‖g‖₂‖s‖₂/√d (root mean square).
    """
    change = (here.double() - there.double() - promised(way, step)).abs()
    size = _norm(way) * _norm(step) / way[0].numel() ** 0.5
    return torch.where(size > _noise(logits), change / size, torch.nan)


def cosine(way: Tensor, other: Tensor) -> Tensor:
    """Return the cosine between two gradients [R, ...]; NaN where the first is 0, 0 where only the other is."""
    first, second = way.double() / _scale(way), other.double() / _scale(other)
    sizes = _norm(first) * _norm(second)
    alike = promised(first, second) / torch.where(sizes > 0, sizes, 1)
    return torch.where(zeros(way) == 1, torch.nan, alike)


def _noise(logits: Tensor) -> Tensor:
    """Return the change of a margin that roundings of the logits may make."""
    return _ROUNDING * torch.finfo(logits.dtype).eps * logits.double().abs().amax(1)


def _norm(values: Tensor) -> Tensor:
    size: Tensor = values.double().flatten(1).norm(dim=1)
    return size


def _scale(values: Tensor) -> Tensor:
    """Return the largest |entry| of each row, 1 where that is 0: squares of tiny gradients vanish."""
    peak = values.double().flatten(1).abs().amax(1)
    return torch.where(peak > 0, peak, 1).reshape(-1, *[1] * (values.ndim - 1))
