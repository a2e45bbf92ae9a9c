"""The soft vote: a smoothed classifier as gradients see it, one look at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robench.classifier import RandomizedClassifier, outputs_of
from robench.votes import votes_of
from robench_plugins.attacks.apgd_losses import temperature
from robench_plugins.attacks.losses import log_mean_softmax

if TYPE_CHECKING:
    from robench.streams import Stream

__all__ = ["SoftVote", "trial_margins"]


class SoftVote:
    """log (1/m) Σ softmax(f(x + noise)) over m draws: logits whose softmax is the soft vote (Salman et al. 2019).

    So cross-entropy on them is −log of the mean softmax, equation 6 of the paper. Each row has m draws of its own, in
    any batch; `fresh` ones at every look, otherwise always the same.

    Logits in an unusual unit, spread over less than 5 or more than 100 in the mean, are seen scaled to spread over 10:
    times 10⁴ every draw's softmax is 0 or 1 and has no gradient left, while the vote is the same.
    """

    graph = None

    def __init__(self, classifier: RandomizedClassifier, stream: Stream, draws: int, fresh: bool = True) -> None:
        """See `classifier` through `draws` draws for each of the rows that `stream` is of."""
        self._classifier, self._stream, self._draws, self._fresh = classifier, stream, draws, fresh
        self._looks = 0
        self.input_shape = classifier.input_shape
        self.classes = classifier.classes
        self.dtype = classifier.dtype
        self.device = classifier.device
        self.fingerprint = classifier.fingerprint
        self.outputs = outputs_of(classifier)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logarithm of the soft vote [B, classes] at `x` [B, ...], differentiable where the draws are."""
        streams = self._stream.repeat(self._draws, "look", self._looks if self._fresh else 0)
        self._looks += 1
        z = self._classifier.sample(x.repeat(self._draws, *[1] * (x.dim() - 1)), streams)
        z = z.reshape(self._draws, len(x), self.classes)
        spread = (z.detach().amax(2) - z.detach().amin(2)).mean(0)
        unit = temperature("ce", torch.stack([torch.zeros_like(spread), spread], 1))
        return log_mean_softmax(z * unit[:, None])


@torch.no_grad()
def trial_margins(
    classifier: RandomizedClassifier, x: Tensor, y: Tensor, stream: Stream, draws: int, copies: int
) -> Tensor:
    """Return the label's share of `draws` votes less the largest other class's, float64 [B]; negative: it loses.

    Ties and logits that are not finite are no vote. At most `copies` draws of each row are in a pass.
    """
    counts = torch.zeros(len(x), classifier.classes + 1, dtype=torch.float64, device=x.device)
    for first in range(0, draws, copies):
        times = min(copies, draws - first)
        streams = stream.repeat(times, "trial", first=first)
        found = votes_of(classifier.sample(x.repeat(times, *[1] * (x.dim() - 1)), streams)).reshape(times, len(x)).T
        counts.scatter_add_(1, found, torch.ones_like(found, dtype=counts.dtype))
    label = counts.gather(1, y[:, None])[:, 0]
    rival = counts[:, :-1].scatter(1, y[:, None], -1.0).amax(1)
    return (label - rival) / draws
