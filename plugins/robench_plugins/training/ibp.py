"""Training on interval bounds: Gowal et al. 2018, initialised and regularised as in Shi et al. 2021."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robench import param
from robench.contracts import TrainContext, Trained
from robench.samples import Samples
from robench.threat import Epsilon
from robench_plugins.training._data import Batch
from robench_plugins.training._loop import BatchLoss, Settings, fit, hits
from robench_plugins.training._schedules import Rise, risen
from robench_plugins.training.intervals import Box, imbalance, layer_inputs, worst_margins
from robench_plugins.training.networks import Initialisation

__all__ = ["Ibp"]


@dataclass(frozen=True)
class Ibp(Settings):
    """Minimise κ·CE(f(x)) + (1 − κ)·CE(worst logits over the linf ball), bounded by intervals.

    ε and 1 − κ are 0 for the first `wait` of all steps, rise for the next `ramp`, and stay. Trained
    at a larger ε than it is judged at, as in the paper, a network is certified on more new samples: the default
    aims at ε = 0.1.

    As published for MNIST (Gowal et al. 2018): `epochs=100,batch=100,lr=0.001,schedule=piecewise,
    drops=0.25+0.4167,wait=0.0333,ramp=0.1667,init=he`, ε 0.1 to 0.4. Shi et al. 2021 start from `init=ibp` with
    `regularise=0.5`, which makes short ramps work.

    History, per epoch: `loss`, `accuracy`, `certified` (at the ε of that step), `eps`.
    """

    epochs: int = param(60, "passes through the training data", minimum=1)
    batch: int = param(32, "samples per step", minimum=1)
    lr: float = param(0.003, "highest learning rate", above=0)
    eps: Epsilon = param(Epsilon.parse("0.15"), "radius of the linf ball at the end")
    kappa: float = param(0.5, "weight of the clean loss at the end", minimum=0, maximum=1)
    wait: float = param(0.05, "part of all steps with the clean loss alone", minimum=0, maximum=1)
    ramp: float = param(0.5, "part of all steps in which ε and 1 − κ rise", minimum=0, maximum=1)
    rise: Rise = param("linear", "how they rise: linear; smoothed, slowly at first (Xu et al. 2020, Shi et al. 2021)")
    init: Initialisation = param("ibp", "initial weights: ibp (Shi et al. 2021) keeps bounds narrow, he does not")
    regularise: float = param(0.0, "weight of Shi et al.'s regularisers, falling to 0 as ε rises", minimum=0)

    def __post_init__(self) -> None:
        """Refuse a ramp that ends after the training, and networks that intervals have no rules for."""
        if self.arch == "simple-convnet" or self.temperature != 1:
            raise ValueError("interval bounds are for arch=cnn and arch=mlp, with temperature=1")
        if self.wait + self.ramp > 1:
            raise ValueError(f"wait={self.wait:g} and ramp={self.ramp:g} are parts of the training: at most 1 together")

    def risen(self, part: float) -> float:
        """Return which part of its last value ε has when `part` of the training is done; 1 − κ goes with it."""
        after = part - self.wait
        return 0.0 if after < 0 else 1.0 if after >= self.ramp else risen(self.rise, after / self.ramp)

    def worst(self, network: nn.Sequential, boxes: list[Box], y: Tensor, risen: float) -> tuple[Tensor, Tensor]:
        """Return the upper bounds on f_j − f_y to train on, and those to count as certified, [B, classes]."""
        bounds = worst_margins(network[-1], boxes[-1], y)
        return bounds, bounds

    def train(self, train: Samples, context: TrainContext) -> Trained:
        """Train on `train`; the ball is cut at the domain."""
        domain = train.domain

        def prepare(network: nn.Sequential) -> BatchLoss:
            def batch_loss(batch: Batch, part: float) -> tuple[Tensor, Mapping[str, Tensor]]:
                risen = self.risen(part)
                eps, kappa = self.eps.value * risen, 1 - (1 - self.kappa) * risen
                logits = network(batch.x)
                box = (batch.x - eps).clamp_min(domain.lower), (batch.x + eps).clamp_max(domain.upper)
                boxes = layer_inputs(network, *box)
                worst, counted = self.worst(network, boxes, batch.y, risen)
                loss = kappa * F.cross_entropy(logits, batch.y)
                if kappa < 1:
                    loss = loss + (1 - kappa) * F.cross_entropy(worst, batch.y)
                if self.regularise and 0 < risen < 1:
                    loss = loss + self.regularise * (1 - risen) * imbalance(network, boxes)
                rivals = counted.detach().scatter(1, batch.y[:, None], -1.0)
                figures = {
                    "accuracy": hits(logits, batch.y),
                    "certified": (rivals < 0).all(1).sum(),
                    "eps": torch.tensor(eps * len(batch.y), dtype=torch.float64),
                }
                return loss, figures

            return batch_loss

        return fit(self, train, context, prepare, self.init)
