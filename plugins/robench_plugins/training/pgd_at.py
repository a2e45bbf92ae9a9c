"""Adversarial training with projected gradient descent: Madry et al. 2018, eq. 2.1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robench import param
from robench.contracts import TrainContext, Trained
from robench.samples import Samples
from robench.streams import Stream
from robench_plugins.attacks.gradients import ascent
from robench_plugins.attacks.regions import Region
from robench_plugins.attacks.steps import move, step_sizes
from robench_plugins.training._ball import BallSettings
from robench_plugins.training._data import Batch
from robench_plugins.training._live import Live
from robench_plugins.training._loop import BatchLoss, fit, hits

__all__ = ["PgdAt"]


@dataclass(frozen=True)
class PgdAt(BallSettings):
    """Minimise the cross-entropy at the point that PGD reaches from a random start in the ball, cut at the domain.

    The attack is the `pgd` evaluator's ascent on cross-entropy, without its early exit: every sample takes all steps
    and the last point counts, as in the paper. Training costs `steps` + 1 times as many passes as `standard`.

    History, per epoch: `loss` and `robust_accuracy` at the points trained on, `accuracy` at their random starts.
    """

    steps: int = param(7, "steps of the attack", minimum=1)
    step: float | None = param(None, "size of each step in units of ε; 2.5/steps where not given", above=0)

    def train(self, train: Samples, context: TrainContext) -> Trained:
        """Train on `train`."""
        streams = Stream.for_samples(context.seed, "pgd-at", train.index, context.device)

        def prepare(network: nn.Sequential) -> BatchLoss:
            live = Live(network, train.shape, len(train.classes), context.device)

            def batch_loss(batch: Batch, part: float) -> tuple[Tensor, Mapping[str, Tensor]]:
                stream = streams.select(batch.rows.to(context.device)).child(batch.epoch)
                region = Region.around(batch.x, self.threat(batch.epoch, train.domain))
                points, before = self._ascend(live, batch, region, stream)
                logits = network(points)
                figures = {"accuracy": before, "robust_accuracy": hits(logits, batch.y)}
                return F.cross_entropy(logits, batch.y), figures

            return batch_loss

        return fit(self, train, context, prepare)

    def _ascend(self, live: Live, batch: Batch, region: Region, stream: Stream) -> tuple[Tensor, Tensor]:
        """Return the last point of PGD, and how many samples were correct at its random start."""
        point = region.start(stream)
        correct = torch.zeros((), dtype=torch.int64, device=point.device)
        for number, size in enumerate(step_sizes("fixed", self.steps, self.step)):
            now = ascent(live, point, batch.y, "ce")
            if number == 0:
                correct = (now.margin > 0).sum()
            point = move(region, point, now.direction, size)
        return point.detach(), correct
