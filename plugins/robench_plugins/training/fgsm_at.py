"""Adversarial training with a single step: Goodfellow et al. 2015; with a random start, Wong et al. 2020."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from robench import param
from robench.contracts import TrainContext, Trained
from robench.samples import Samples
from robench.streams import Stream
from robench.threat import Epsilon, Threat
from robench_plugins.attacks.gradients import ascent
from robench_plugins.attacks.regions import Region
from robench_plugins.attacks.steps import move
from robench_plugins.training._data import Batch
from robench_plugins.training._live import Live
from robench_plugins.training._loop import BatchLoss, Settings, fit, hits

__all__ = ["FgsmAt"]


@dataclass(frozen=True)
class FgsmAt(Settings):
    """Minimise the cross-entropy at x + δ, δ one step of `alpha`·ε along the gradient's sign, cut at the linf ball.

    The step starts at a uniform point of the ball (`start=true`, Wong et al. 2020), or at x, where `alpha` ≥ 1 is FGSM.
    Training costs twice as many passes as `standard`. A network may learn to make that one step useless instead of
    becoming robust, *catastrophic overfitting*: without a random start soon, with one at larger ε.
    `robench train --monitor EPS` watches for it.

    As published for CIFAR-10 at ε = 8/255 (PreAct-ResNet-18, crops and flips): `optimizer=sgd,lr=0.2,schedule=cyclic,
    batch=128,weight_decay=0.0005,epochs=15` to 30.

    History, per epoch: `loss` and `robust_accuracy` at the points trained on, `accuracy` at their starts.
    """

    eps: Epsilon = param(Epsilon.parse("0.1"), "radius of the linf ball")
    start: bool = param(True, "start at a random point of the ball")
    alpha: float = param(1.25, "length of the step in units of ε", above=0)

    @property
    def evaluate(self) -> tuple[str, ...]:
        """The ball of the training."""
        return "--norm", "linf", "--eps", str(self.eps)

    def train(self, train: Samples, context: TrainContext) -> Trained:
        """Train on `train`; points are cut at the domain."""
        threat = Threat("linf", self.eps.value, train.domain)
        streams = Stream.for_samples(context.seed, "fgsm-at", train.index, context.device)

        def prepare(network: nn.Sequential) -> BatchLoss:
            live = Live(network, train.shape, len(train.classes), context.device)

            def batch_loss(batch: Batch, part: float) -> tuple[Tensor, Mapping[str, Tensor]]:
                stream = streams.select(batch.rows.to(context.device)).child(batch.epoch)
                region = Region.around(batch.x, threat)
                start = region.start(stream) if self.start else batch.x
                now = ascent(live, start, batch.y, "ce")
                logits = network(move(region, start, now.direction, self.alpha).detach())
                loss = F.cross_entropy(logits, batch.y)
                figures = {"accuracy": (now.margin > 0).sum(), "robust_accuracy": hits(logits, batch.y)}
                return self.regularised(loss, figures, network, batch, region, stream)

            return batch_loss

        return fit(self, train, context, prepare)

    def regularised(
        self,
        loss: Tensor,
        figures: Mapping[str, Tensor],
        network: nn.Module,
        batch: Batch,
        region: Region,
        stream: Stream,
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return loss and figures; `gradalign` adds its regulariser here."""
        return loss, figures
