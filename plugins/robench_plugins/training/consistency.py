"""Consistency regularisation (Jeong & Shin 2020, "Consistency regularization for certified robustness …")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from robench import param
from robench.contracts import TrainContext, Trained
from robench.samples import Samples
from robench.streams import Stream
from robench_plugins.training._data import Batch
from robench_plugins.training._loop import BatchLoss, Settings, fit, hits

__all__ = ["Consistency", "disagreement"]


@dataclass(frozen=True)
class Consistency(Settings):
    """Minimise the cross-entropy at x + N(0, σ² I), and by how much the draws of a sample disagree.

    Of each sample `draws` noisy copies are learnt. With F the softmax of each and F̂ their mean, λ times the mean of
    KL(F̂ ‖ F) and η times the entropy of F̂ are added: predictions that do not change with the noise, and sure ones.
    Training costs `draws` times as many passes as `gaussian`.

    History, per epoch: `loss` and `accuracy` at the noisy points, and `divergence`, the mean KL.
    """

    sigma: float = param(0.25, "standard deviation of the noise, in the units of the domain", above=0)
    draws: int = param(2, "noisy copies of each sample (m)", minimum=2)
    divergence: float = param(20.0, "weight of the divergence from the mean prediction (λ)", minimum=0)
    entropy: float = param(0.5, "weight of the mean prediction's entropy (η)", minimum=0)

    def train(self, train: Samples, context: TrainContext) -> Trained:
        """Train on `train`."""
        streams = Stream.for_samples(context.seed, "consistency", train.index, context.device)

        def prepare(network: nn.Sequential) -> BatchLoss:
            def batch_loss(batch: Batch, part: float) -> tuple[Tensor, Mapping[str, Tensor]]:
                stream = streams.select(batch.rows.to(context.device)).child(batch.epoch)
                noise = self.sigma * stream.repeat(self.draws, "draw").normal(train.shape)
                logits = network(batch.x.repeat(self.draws, *[1] * (batch.x.dim() - 1)) + noise)
                y = batch.y.repeat(self.draws)
                divergence, entropy = disagreement(logits.reshape(self.draws, len(batch.y), -1))
                loss = F.cross_entropy(logits, y) + self.divergence * divergence + self.entropy * entropy
                figures = {
                    "accuracy": hits(logits, y) / self.draws,
                    "divergence": divergence.detach() * len(batch.y),
                }
                return loss, figures

            return batch_loss

        return fit(self, train, context, prepare)


def disagreement(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean KL(F̂ ‖ F_i) and the mean entropy of F̂, in nats, for logits [m, B, C] of m draws.

    F_i is the softmax of draw i and F̂ the mean over the draws (equations 7 and 8).
    """
    each = logits.log_softmax(2)
    mean = each.exp().mean(0)
    # Below 1e-20 a probability counts as that, as the authors have it: 0 log 0 is 0.
    log = mean.clamp_min(1e-20).log()
    divergence = (mean * (log - each)).sum(2).mean()
    return divergence, -(mean * log).sum(1).mean()
