"""Standard training: empirical risk minimisation with cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from robench.contracts import TrainContext, Trained
from robench.samples import Samples
from robench_plugins.training._data import Batch
from robench_plugins.training._loop import BatchLoss, Settings, fit, hits

__all__ = ["Standard"]


@dataclass(frozen=True)
class Standard(Settings):
    """Minimise the mean cross-entropy on the training samples: the baseline that no attack was shown to.

    As published for SimpleConvNet (Prach & Lampert 2025, and its code): `arch=simple-convnet,width=64,temperature=8,
    optimizer=sgd,lr=0.1,schedule=one-cycle,batch=256,epochs=3000,augment=crop-flip-erase-16th`.

    History, per epoch: `loss` and `accuracy` on the samples as they were met.
    """

    def train(self, train: Samples, context: TrainContext) -> Trained:
        """Train on `train`."""

        def prepare(network: nn.Sequential) -> BatchLoss:
            def batch_loss(batch: Batch, part: float) -> tuple[Tensor, Mapping[str, Tensor]]:
                logits = network(batch.x)
                return F.cross_entropy(logits, batch.y), {"accuracy": hits(logits, batch.y)}

            return batch_loss

        return fit(self, train, context, prepare)
