"""The losses whose values Auto-PGD compares, each in a form that neither saturates nor depends on the logits' unit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robench.classifier import Classifier
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
        unit: the factor by which the loss saw the logits [R], or 1 for all.
        way: the loss's gradient, up to a positive factor per row [R, ...]; None where none was asked for.
    """

    loss: Tensor
    blur: Tensor
    margin: Tensor
    scale: Tensor
    unit: Tensor | float
    way: Tensor | None


@dataclass(frozen=True, eq=False)
class _Scores:
    """What is read off logits once, for all that is made of them.

    Attributes:
        logits: the logits [R, C].
        scale: the largest |logit| [R].
        broken: which rows have logits that are not finite, bool [R].
        label, rival: the label's logit and the largest other one [R].
        others: the logits, −inf at the label [R, C].
    """

    logits: Tensor
    scale: Tensor
    broken: Tensor
    label: Tensor
    rival: Tensor
    others: Tensor

    @classmethod
    def of(cls, logits: Tensor, y: Tensor) -> _Scores:
        scale = logits.abs().amax(1)
        others = logits.scatter(1, y[:, None], -torch.inf)
        return cls(logits, scale, ~(scale < torch.inf), _at(logits, y), others.amax(1), others)

    def times(self, unit: Tensor | float) -> _Scores:
        """Return the scores of the logits times `unit` [R], which is positive; any number stands for 1."""
        if not isinstance(unit, Tensor):
            return self
        scale, logits, others = self.scale * unit, self.logits * unit[:, None], self.others * unit[:, None]
        return _Scores(logits, scale, ~(scale < torch.inf), self.label * unit, self.rival * unit, others)


def height(loss: Loss, logits: Tensor, y: Tensor, target: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the loss [R], or what rises and falls with it (−inf where logits are not finite), and its rounding error.

    `ce`: the log-odds of a class other than y (of the target), log Σ_{j≠y} exp z_j − z_y, which unlike −log p_y keeps
    telling confident points apart; `margin`: max_{j≠y} z_j − z_y, or z_t − z_y; `dlr`: that divided by z_π1 − z_π3, or
    by z_π1 − (z_π3 + z_π4)/2 (Croce & Hein 2020, eqs. 6 and 7), undivided with too few classes.
    """
    return _height(loss, _Scores.of(logits, y), target)


def _height(loss: Loss, seen: _Scores, target: Tensor | None) -> tuple[Tensor, Tensor]:
    # Rows whose logits are not finite take part, whatever comes out.
    z, label, rival, others = seen.logits, seen.label, seen.rival, seen.others
    blur = seen.scale * (_ROUNDING * torch.finfo(z.dtype).eps)
    if loss == "ce":
        if target is not None:
            label, others = _at(z, target), z.scatter(1, target[:, None], -torch.inf)
            rival = others.amax(1)
        odds = rival + (others - rival[:, None]).exp_().sum(1).log_() - label
        value = odds if target is None else -odds
    else:
        value = (rival if target is None else _at(z, target)) - label
        if loss == "dlr" and z.shape[1] >= (3 if target is None else 4):
            ranked = z.topk(3 if target is None else 4, 1).values
            scale = ranked[:, 0] - (ranked[:, 2] if target is None else (ranked[:, 2] + ranked[:, 3]) / 2)
            scale = scale.masked_fill(~(scale > 0), 1)
            value, blur = value / scale, blur / scale
    return value.masked_fill(seen.broken, -torch.inf), blur


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
    unit: Tensor | float | None = None,
    steer: bool = True,
) -> Look:
    """Return a look at `x` [R, ...]; the `unit` is chosen by the logits there unless it is given.

    Without `steer` no gradient is taken.
    """
    way: Tensor | None = None
    read: list[tuple[_Scores, _Scores, Tensor | float]] = []

    def take(logits: Tensor) -> _Scores:
        scores, factor = _Scores.of(logits, y), _unit(loss, logits) if unit is None else unit
        seen = scores.times(factor)
        read.append((scores, seen, factor))
        return seen

    def vector(logits: Tensor) -> Tensor:
        seen = take(logits)
        return cotangent(loss, seen.logits, y, target, seen.broken[:, None])

    if steer:
        _, gradient = pull_back(classifier, x, vector)
        way = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
    else:
        with torch.no_grad():
            take(classifier.logits(x))
    scores, seen, factor = read[0]
    value, blur = _height(loss, seen, target)
    margin = (scores.label - scores.rival).masked_fill(scores.broken, torch.nan)
    return Look(value, blur, margin, scores.scale, factor, way)


def _unit(loss: Loss, logits: Tensor) -> Tensor | float:
    """Return the temperature, as a number where it is 1 in every row."""
    unit = temperature(loss, logits) if loss == "ce" else 1.0
    return 1.0 if isinstance(unit, float) or bool((unit == 1).all()) else unit


def _at(z: Tensor, index: Tensor) -> Tensor:
    return z.gather(1, index[:, None])[:, 0]
