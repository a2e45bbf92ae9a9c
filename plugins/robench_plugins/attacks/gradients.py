"""One forward and one backward pass: the direction that increases the loss, per sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robench.classifier import Classifier, margins, outputs_of
from robench.errors import InputError
from robench.numerics import per_sample
from robench_plugins.attacks.losses import Loss, cotangent

__all__ = ["Ascent", "applies", "ascent", "pull_back", "rounding"]

_SLACK = 1024.0
"""Errors have margins below −1024 u max|logit|: enough to still be errors when asked again."""


@dataclass(frozen=True, eq=False)
class Ascent:
    """What one gradient pass tells about each row.

    Attributes:
        margin: f_y − max_{j≠y} f_j [B], NaN where the logits are not finite.
        scale: the largest |logit| [B], the unit of the margin's rounding errors.
        direction: ∇ₓL divided by its largest entry [B, ...]; entries that are not finite are 0.
        flat: bool [B], no direction: the gradient is 0 or not a number.
    """

    margin: Tensor
    scale: Tensor
    direction: Tensor
    flat: Tensor

    def select(self, rows: Tensor) -> Ascent:
        """Return some rows (bool mask or int64 positions)."""
        return Ascent(self.margin[rows], self.scale[rows], self.direction[rows], self.flat[rows])


def ascent(classifier: Classifier, x: Tensor, y: Tensor, loss: Loss, target: Tensor | None = None) -> Ascent:
    """Return the loss's direction of ascent at `x` [B, ...]; no gradient reaches the classifier's parameters.

    Raises InputError where the classifier's logits carry no gradient.
    """
    seen, gradient = pull_back(classifier, x, lambda logits: cotangent(loss, logits, y, target))
    margin, gradient = margins(seen, y), torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
    peak = gradient.flatten(1).abs().amax(1)
    flat = (peak == 0) | margin.isnan()
    return Ascent(margin, seen.abs().amax(1), gradient / per_sample(torch.where(flat, 1, peak), gradient), flat)


def pull_back(classifier: Classifier, x: Tensor, vector: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Return the logits z at `x` [B, ...] and the gradient of ⟨v, z⟩ there, v = `vector`(z) held fixed.

    No gradient reaches the classifier's parameters. Raises InputError where the logits carry none.
    """
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        logits = classifier.logits(point)
        if not logits.requires_grad:
            raise InputError(_NO_GRADIENT)
        seen = logits.detach()
        (gradient,) = torch.autograd.grad(logits, point, vector(seen), allow_unused=True, materialize_grads=True)
    return seen, gradient


def rounding(scale: Tensor) -> Tensor:
    """Return by how much a margin may differ when logits of size `scale` are asked for again."""
    return _SLACK * torch.finfo(scale.dtype).eps * scale


_NO_GRADIENT = "the classifier gives no gradients: use an attack that needs only its outputs"


def applies(classifier: Classifier) -> str | None:
    """Return None, or why a gradient attack cannot run on `classifier`."""
    if not hasattr(classifier, "logits"):
        return "the classifier draws at inference: write `ATTACK | eot`, which takes the mean over draws"
    if classifier.graph is not None:
        return None
    if outputs_of(classifier) == "labels":
        return _NO_GRADIENT
    with torch.enable_grad():
        probe = torch.zeros((1, *classifier.input_shape), dtype=classifier.dtype, device=classifier.device)
        logits = classifier.logits(probe.requires_grad_())
    return None if logits.requires_grad else _NO_GRADIENT
