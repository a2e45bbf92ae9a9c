"""Training on interval bounds: Gowal et al. 2018, initialised as in Shi et al. 2021."""

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
from robench_plugins.training.intervals import worst_margins
from robench_plugins.training.networks import Initialisation

__all__ = ["Ibp"]


@dataclass(frozen=True)
class Ibp(Settings):
    """Minimise κ·CE(f(x)) + (1 − κ)·CE(worst logits over the linf ball), bounded by intervals.

    ε and 1 − κ are 0 for the first `wait` of all steps, rise linearly for the next `ramp`, and stay. Trained
    at a larger ε than it is judged at, as in the paper, a network is certified on more new samples: the default
    aims at ε = 0.1.

    History, per epoch: `loss`, `accuracy`, `certified` (at the ε of that step), `eps`.
    """

    epochs: int = param(60, "passes through the training data", minimum=1)
    batch: int = param(32, "samples per step", minimum=1)
    lr: float = param(0.003, "learning rate at the start", above=0)
    eps: Epsilon = param(Epsilon.parse("0.15"), "radius of the linf ball at the end")
    kappa: float = param(0.5, "weight of the clean loss at the end", minimum=0, maximum=1)
    wait: float = param(0.05, "part of all steps with the clean loss alone", minimum=0, maximum=1)
    ramp: float = param(0.5, "part of all steps in which ε and 1 − κ rise", minimum=0, maximum=1)
    init: Initialisation = param("ibp", "initial weights: ibp (Shi et al. 2021) keeps bounds narrow, he does not")

    def __post_init__(self) -> None:
        """Refuse a ramp that ends after the training."""
        if self.wait + self.ramp > 1:
            raise ValueError(f"wait={self.wait:g} and ramp={self.ramp:g} are parts of the training: at most 1 together")

    def schedule(self, part: float) -> tuple[float, float]:
        """Return (ε, κ) when `part` of the training is done."""
        after = part - self.wait
        risen = 0.0 if after < 0 else 1.0 if after >= self.ramp else after / self.ramp
        return self.eps.value * risen, 1 - (1 - self.kappa) * risen

    def train(self, train: Samples, context: TrainContext) -> Trained:
        """Train on `train`; the ball is cut at the domain."""
        domain = train.domain

        def prepare(network: nn.Sequential) -> BatchLoss:
            def batch_loss(batch: Batch, part: float) -> tuple[Tensor, Mapping[str, Tensor]]:
                eps, kappa = self.schedule(part)
                logits = network(batch.x)
                lower = (batch.x - eps).clamp_min(domain.lower)
                upper = (batch.x + eps).clamp_max(domain.upper)
                worst = worst_margins(network, lower, upper, batch.y)
                loss = kappa * F.cross_entropy(logits, batch.y)
                if kappa < 1:
                    loss = loss + (1 - kappa) * F.cross_entropy(worst, batch.y)
                rivals = worst.detach().scatter(1, batch.y[:, None], -1.0)
                figures = {
                    "accuracy": hits(logits, batch.y),
                    "certified": (rivals < 0).all(1).sum(),
                    "eps": torch.tensor(eps * len(batch.y), dtype=torch.float64),
                }
                return loss, figures

            return batch_loss

        return fit(self, train, context, prepare, self.init)
