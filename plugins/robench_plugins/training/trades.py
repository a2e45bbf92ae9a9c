"""TRADES: Zhang et al. 2019, "Theoretically principled trade-off between robustness and accuracy"."""

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
from robench_plugins.attacks.regions import Region
from robench_plugins.attacks.steps import move, step_sizes
from robench_plugins.training._ball import BallSettings
from robench_plugins.training._data import Batch
from robench_plugins.training._live import evaluating
from robench_plugins.training._loop import BatchLoss, fit, hits

__all__ = ["Trades", "divergence"]


@dataclass(frozen=True)
class Trades(BallSettings):
    """Minimise CE(f(x), y) + β·max KL(f(x) ‖ f(x')) over the ball (their eq. 5), the maximum by projected ascent.

    The ascent starts at x + 0.001·N(0, I), as in the authors' code, where the divergence is almost flat; β trades
    accuracy (small) against robustness. Training costs `steps` + 2 times as many passes as `standard`.

    As published for CIFAR-10 at ε = 0.031: `steps=10,step=0.226` (0.007), `beta=6`; MNIST at ε = 0.3:
    `steps=40,step=0.0333` (0.01).

    History, per epoch: `loss`, `accuracy` at x, `robust_accuracy` at x'.
    """

    beta: float = param(6.0, "weight of the divergence (1/λ in the paper)", minimum=0)
    steps: int = param(10, "steps of the ascent", minimum=1)
    step: float | None = param(None, "size of each step in units of ε; 2.5/steps where not given", above=0)

    def train(self, train: Samples, context: TrainContext) -> Trained:
        """Train on `train`; points are cut at the domain."""
        streams = Stream.for_samples(context.seed, "trades", train.index, context.device)

        def prepare(network: nn.Sequential) -> BatchLoss:
            def batch_loss(batch: Batch, part: float) -> tuple[Tensor, Mapping[str, Tensor]]:
                stream = streams.select(batch.rows.to(context.device)).child(batch.epoch)
                region = Region.around(batch.x, self.threat(batch.epoch, train.domain))
                with evaluating(network):
                    point = self.ascend(network, region, stream)
                there = network(point)
                here = network(batch.x)
                loss = F.cross_entropy(here, batch.y) + self.beta * divergence(here, there).mean()
                return loss, {"accuracy": hits(here, batch.y), "robust_accuracy": hits(there, batch.y)}

            return batch_loss

        return fit(self, train, context, prepare)

    def ascend(self, network: nn.Module, region: Region, stream: Stream) -> Tensor:
        """Return where projected ascent on the divergence from f(x) ends."""
        with torch.no_grad():
            here = network(region.x)
        point = region.project(region.x + 0.001 * stream.normal(region.x.shape[1:]))
        for size in step_sizes("fixed", self.steps, self.step):
            point = point.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(divergence(here, network(point)).sum(), point)
            point = move(region, point.detach(), gradient, size)
        return point


def divergence(here: Tensor, there: Tensor) -> Tensor:
    """Return KL(softmax(here) ‖ softmax(there)) [B] of logits [B, classes]."""
    return F.kl_div(there.log_softmax(1), here.log_softmax(1), reduction="none", log_target=True).sum(1)
