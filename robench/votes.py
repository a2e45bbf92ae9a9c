"""What a smoothed classifier's votes tell: its class, or that they do not tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from robench import binomial
from robench.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from robench.classifier import SmoothedClassifier
    from robench.streams import Stream

__all__ = ["predict", "winner"]


def predict(vote: SmoothedClassifier, x: Tensor, stream: Stream, alpha: float) -> Tensor:
    """Return the class [B] of the vote at `x` [B, ...], int64, or −1 where `vote.n` draws do not tell.

    PREDICT of Cohen et al. 2019: a class that is not the most likely one is returned with probability at most `alpha`
    per sample. −1 as well where ties and logits that are not finite, together, are too many to tell.

    Raises:
        InputError: another shape or dtype than the classifier's, or an α outside (0, 1).
    """
    return winner(vote.draws(x, stream).count(range(len(x)), [vote.n] * len(x)), alpha)


def winner(votes: Tensor, alpha: float) -> Tensor:
    """Return the class [B] that wins a vote, int64, or −1 where the votes do not tell (`binomial.predict`).

    Args:
        votes: int64 [B, classes + 1]; the last column counts the draws without a vote, and is nobody's class.
        alpha: the rate at which another class than the most likely one is returned, in (0, 1).

    Raises:
        InputError: an α outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha must lie between 0 and 1, not {alpha!r}")
    found = torch.from_numpy(binomial.predict(votes.cpu().numpy(), alpha))
    return found.masked_fill(found == votes.shape[1] - 1, binomial.ABSTAIN).to(votes.device)
