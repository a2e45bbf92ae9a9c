"""Attack losses, as directions in logit space.

An attack needs only the direction of ∇ₓL, so a loss is given by its cotangent v ∝ ∂L/∂z at the logits z;
∇ₓL is then one vector-Jacobian product with v. Each v is scaled so that it depends on differences and
ratios of logits alone: the usual cross-entropy, whose gradient underflows to 0 on confident logits
(z · 10⁴ is enough), keeps its exact direction here, because (softmax(z) − e_y) / (1 − p_y) is
softmax over the other classes − e_y. As 1 − p_y vanishes that is the margin loss's direction.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Loss", "cotangent", "likely_targets", "log_mean_softmax"]

Loss = Literal["ce", "margin", "dlr"]


def log_mean_softmax(logits: Tensor) -> Tensor:
    """Return log (1/m) Σ softmax [B, classes] over the logits of m draws [m, B, classes]."""
    return logits.log_softmax(2).logsumexp(0) - math.log(len(logits))


def cotangent(
    loss: Loss, logits: Tensor, y: Tensor, target: Tensor | None = None, broken: Tensor | None = None
) -> Tensor:
    """Return v [B, C] ∝ ∂L/∂z, the loss to be increased; 0 in rows whose logits are not finite.

    `ce`: −log p_y, towards a target log p_t. `margin`: max_{j≠y} z_j − z_y (Carlini & Wagner 2017,
    f_6), towards a target z_t − z_y. `dlr`: the difference of logits ratio (Croce & Hein 2020).
    It needs 3 classes (4 with a target) and the label among the two largest logits; otherwise it is the margin.
    `broken` are the rows whose logits are not finite, bool [B, 1], where that is known already.
    """
    broken = ~(logits.abs().amax(1, keepdim=True) < torch.inf) if broken is None else broken
    z = logits.masked_fill(broken, 0)
    if target is None:
        v = _rivals(loss, z, y).scatter_(1, y[:, None], -1)
        spread = (0, 2, 2)
    elif loss == "ce":
        v, spread = _one_hot(z, target) - z.softmax(1), (0, 2, 3)
    else:
        v, spread = _one_hot(z, target).scatter_(1, y[:, None], -1), (0, 2, 3)
    if loss == "dlr" and z.shape[1] > spread[2]:
        v = _ratio(z, v, spread, y)
    return v.masked_fill(broken, 0)


def likely_targets(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """Return the `count` most likely classes other than `y`, int64 [B, count], most likely first."""
    return logits.scatter(1, y[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :count]


def _one_hot(z: Tensor, index: Tensor) -> Tensor:
    return torch.zeros_like(z).scatter(1, index[:, None], 1)


def _rivals(loss: Loss, z: Tensor, y: Tensor) -> Tensor:
    """Return the weights of the other classes: their softmax for `ce`, the largest alone otherwise."""
    rest = z.scatter(1, y[:, None], -torch.inf)
    return rest.softmax(1) if loss == "ce" else _one_hot(z, rest.argmax(1))


def _ratio(z: Tensor, v: Tensor, spread: tuple[int, int, int], y: Tensor) -> Tensor:
    """Return s · ∂(m / s)/∂z for m = ⟨v, z⟩ and s = z_π1 − (z_πb + z_πc)/2, ranks descending from 0.

    v itself where s is 0, or where the label is in neither of the first two places: with the label third,
    untargeted DLR is constant, and its misclassified points need no scaling.
    """
    first, second, third = spread
    by_rank = [0.0] * z.shape[1]
    by_rank[first] = 1.0
    by_rank[second] -= 0.5
    by_rank[third] -= 0.5
    order = z.argsort(dim=1, descending=True, stable=True)
    weight = torch.empty_like(z).scatter_(1, order, z.new_tensor(by_rank).expand_as(z))
    margin, scale = (v * z).sum(1, keepdim=True), (weight * z).sum(1, keepdim=True)
    useful = (scale > 0) & (order[:, :2] == y[:, None]).any(1, keepdim=True)
    return torch.where(useful, v - margin / torch.where(useful, scale, 1) * weight, v)
