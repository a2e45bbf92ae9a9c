"""The losses whose values Auto-PGD compares, each in a form that neither saturates nor depends on the logits' unit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robench.classifier import Classifier, margins
from robench_plugins.attacks.gradients import pull_back
from robench_plugins.attacks.losses import Loss, cotangent

__all__ = ["Look", "height", "look", "temperature"]

_USUAL = (5.0, 100.0)
"""Where max z − min z lies for logits made for softmax; outside, cross-entropy sees them scaled to `_TYPICAL`."""
_TYPICAL = 10.0
_ROUNDING = 64.0
"""A loss has risen when it did by more than 64 u max|logit|: the same point in another batch is not higher."""


@dataclass(frozen=True, eq=False)
class Look:
    """One look at each row.

    Attributes:
        loss: the loss [R], −inf where logits are not finite.
        blur: its rounding error [R]: differences below it say nothing.
        margin: f_y − max_{j≠y} f_j [R], NaN where logits are not finite.
        scale: the largest |logit| [R], the unit of the margin's rounding errors.
        unit: the factor by which the loss saw the logits [R].
        way: the loss's gradient, up to a positive factor per row [R, ...]; None where none was asked for.
    """

    loss: Tensor
    blur: Tensor
    margin: Tensor
    scale: Tensor
    unit: Tensor
    way: Tensor | None


def height(loss: Loss, logits: Tensor, y: Tensor, target: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the loss [R], or what rises and falls with it (−inf where logits are not finite), and its rounding error.

    `ce`: the log-odds of a class other than y (of the target), log Σ_{j≠y} exp z_j − z_y, which unlike −log p_y keeps
    telling confident points apart; `margin`: max_{j≠y} z_j − z_y, or z_t − z_y; `dlr`: that divided by z_π1 − z_π3, or
    by z_π1 − (z_π3 + z_π4)/2 (Croce & Hein 2020, eqs. 6 and 7), undivided with too few classes.
    """
    own = y if target is None else target
    broken = ~(logits.abs().amax(1) < torch.inf)
    z = logits.masked_fill(broken[:, None], 0)
    blur = _ROUNDING * torch.finfo(z.dtype).eps * z.abs().amax(1)
    if loss == "ce":
        rest = z.scatter(1, own[:, None], -torch.inf)
        top = rest.amax(1, keepdim=True)
        odds = (top + (rest - top).exp().sum(1, keepdim=True).log() - z.gather(1, own[:, None]))[:, 0]
        value = odds if target is None else -odds
    else:
        rival = z.scatter(1, y[:, None], -torch.inf).amax(1) if target is None else _at(z, target)
        value = rival - _at(z, y)
        if loss == "dlr" and z.shape[1] >= (3 if target is None else 4):
            ranked = z.topk(3 if target is None else 4, 1).values
            scale = ranked[:, 0] - (ranked[:, 2] if target is None else (ranked[:, 2] + ranked[:, 3]) / 2)
            scale = scale.masked_fill(~(scale > 0), 1)
            value, blur = value / scale, blur / scale
    return value.masked_fill(broken, -torch.inf), blur


def temperature(loss: Loss, logits: Tensor) -> Tensor:
    """Return the factors [R] by which the logits are seen: 1, but for cross-entropy on logits in an unusual unit.

    Times 10⁴ cross-entropy sees the strongest rival alone, times 10⁻⁴ all rivals alike: another, weaker attack on
    the same classifier. So logits that spread over less than 5 or more than 100 are scaled to spread over 10.
    """
    spread = logits.amax(1) - logits.amin(1)
    if loss != "ce":
        return torch.ones_like(spread)
    usual = ~(torch.isfinite(spread) & (spread > 0)) | ((spread >= _USUAL[0]) & (spread <= _USUAL[1]))
    return _TYPICAL / spread.masked_fill(usual, _TYPICAL)


def look(
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    loss: Loss,
    target: Tensor | None = None,
    *,
    unit: Tensor | None = None,
    steer: bool = True,
) -> Look:
    """Return a look at `x` [R, ...]; the `unit` is chosen by the logits there unless it is given.

    Without `steer` no gradient is taken.
    """
    way: Tensor | None = None

    def vector(logits: Tensor) -> Tensor:
        seen = logits * (temperature(loss, logits) if unit is None else unit)[:, None]
        return cotangent(loss, seen, y, target)

    if steer:
        logits, gradient = pull_back(classifier, x, vector)
        way = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
    else:
        with torch.no_grad():
            logits = classifier.logits(x)
    unit = temperature(loss, logits) if unit is None else unit
    value, blur = height(loss, logits * unit[:, None], y, target)
    return Look(value, blur, margins(logits, y), logits.abs().amax(1), unit, way)


def _at(z: Tensor, index: Tensor) -> Tensor:
    return z.gather(1, index[:, None])[:, 0]
