"""Losses for networks whose logits cannot grow: they ask for a margin (Prach & Lampert 2025, section 3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["offset_cross_entropy", "self_normalizing_cross_entropy"]


def offset_cross_entropy(logits: Tensor, y: Tensor, offset: float, temperature: float) -> Tensor:
    """Return the mean of T·CE(softmax((s − offset·onehot(y)) / T), y).

    The label's logit is lowered by `offset`, so that the loss asks for a margin beyond it; the factor T keeps
    gradients from growing as T falls.
    """
    lowered = logits - offset * F.one_hot(y, logits.shape[1])
    return F.cross_entropy(lowered / temperature, y) * temperature


def self_normalizing_cross_entropy(logits: Tensor, y: Tensor, t: float) -> Tensor:
    """Return the mean of CE(softmax(s / (std(s) + t) − onehot(y)), y), their equation (4).

    With t = 0 only the directions of logits count, as in training for accuracy; with a large t the loss
    asks for margins of about t. The paper does not say over what std runs: here over the classes of each sample, as
    for a population, so that a sample's loss depends on no other.
    """
    # A variance of 0 has no gradient of its root.
    std = (logits.var(1, correction=0, keepdim=True) + 1e-12).sqrt()
    return F.cross_entropy(logits / (std + t) - F.one_hot(y, logits.shape[1]), y)
