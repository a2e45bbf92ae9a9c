"""Training on Gaussian noise: Lecuyer et al. 2019, Cohen et al. 2019, section 3.3."""

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

__all__ = ["Gaussian"]


@dataclass(frozen=True)
class Gaussian(Settings):
    """Minimise the cross-entropy at x + N(0, σ² I): the base of a smoothed classifier.

    Noise is drawn anew in each epoch, a sample's own on every device, and not cut at the domain.

    History, per epoch: `loss` and `accuracy` at the noisy points.
    """

    sigma: float = param(0.25, "standard deviation of the noise, in the units of the domain", above=0)

    @property
    def evaluate(self) -> tuple[str, ...]:
        """Certificates of the vote over the noise of the training."""
        return "-c", f"smoothing:sigma={self.sigma:g}", "--norm", "l2", "--eps", f"{self.sigma:g}"

    def train(self, train: Samples, context: TrainContext) -> Trained:
        """Train on `train`."""
        streams = Stream.for_samples(context.seed, "gaussian", train.index, context.device)

        def prepare(network: nn.Sequential) -> BatchLoss:
            def batch_loss(batch: Batch, part: float) -> tuple[Tensor, Mapping[str, Tensor]]:
                stream = streams.select(batch.rows.to(context.device)).child(batch.epoch)
                logits = network(batch.x + self.sigma * stream.normal(train.shape))
                return F.cross_entropy(logits, batch.y), {"accuracy": hits(logits, batch.y)}

            return batch_loss

        return fit(self, train, context, prepare)
