"""Training with a Lipschitz constant of 1: almost-orthogonal layers and a cross-entropy that asks for a margin.

Prach & Lampert 2022, "Almost-orthogonal layers for efficient general-purpose Lipschitz networks"; the MLP, its
loss and its optimizer as in Prach & Lampert 2025, "Intriguing properties of robust classification".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from robench import param
from robench.contracts import TrainContext, Trained
from robench.samples import Samples
from robench_plugins.training._data import Batch, normalisation
from robench_plugins.training._loop import BatchLoss, Method, descend, hits
from robench_plugins.training.almost_orthogonal import build, frozen

__all__ = ["Aol", "offset_cross_entropy"]


@dataclass(frozen=True)
class Aol:
    """Minimise the offset cross-entropy of an MLP of almost-orthogonal layers with MaxMin: 1-Lipschitz in l2.

    A margin γ between the label's logit and the next is an l2 radius of γ/√2. Inputs are centred and not
    scaled. SGD with Nesterov momentum, learning rate and momentum by torch's one-cycle schedule, as in the
    authors' code. The result has plain linear layers with the effective weights.

    History, per epoch: `loss`, `accuracy`, and `certified`: the part with a margin above `offset`, which is an l2
    radius above offset/√2.
    """

    width: int = param(128, "units of a hidden layer, an even number", minimum=2)
    depth: int = param(4, "linear layers", minimum=1)
    epochs: int = param(100, "passes through the training data", minimum=1)
    batch: int = param(64, "samples per step", minimum=1)
    lr: float = param(0.1, "highest learning rate", above=0)
    offset: float = param(0.5, "margin that the loss asks for, in the units of the domain", minimum=0)
    temperature: float = param(0.25, "temperature of the cross-entropy", above=0)

    def __post_init__(self) -> None:
        """MaxMin sorts pairs."""
        if self.width % 2:
            raise ValueError(f"width={self.width} must be even: the activation sorts pairs of units")

    def train(self, train: Samples, context: TrainContext) -> Trained:
        """Train on `train`."""

        def network(generator: torch.Generator) -> nn.Sequential:
            mean = normalisation(train).mean
            return build(mean, train.shape, len(train.classes), self.width, self.depth, generator)

        def prepare(network: nn.Sequential) -> BatchLoss:
            def batch_loss(batch: Batch, part: float) -> tuple[Tensor, Mapping[str, Tensor]]:
                logits = network(batch.x)
                loss = offset_cross_entropy(logits, batch.y, self.offset, self.temperature)
                demanded = logits.detach() - self.offset * F.one_hot(batch.y, logits.shape[1])
                return loss, {"accuracy": hits(logits, batch.y), "certified": hits(demanded, batch.y)}

            return batch_loss

        method = Method(self.epochs, self.batch, self.lr, self._sgd, self._one_cycle)
        trained = descend(method, train, context, network, prepare)
        assert isinstance(trained.module, nn.Sequential)
        return Trained(frozen(trained.module, train.shape), trained.history)

    def _sgd(self, network: nn.Module) -> Optimizer:
        return SGD(network.parameters(), lr=self.lr, momentum=0.9, nesterov=True)

    def _one_cycle(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        return OneCycleLR(optimizer, self.lr, total_steps=steps)


def offset_cross_entropy(logits: Tensor, y: Tensor, offset: float, temperature: float) -> Tensor:
    """Return the mean of T·CE(softmax((s − offset·onehot(y)) / T), y) (Prach & Lampert 2025, section 3).

    The label's logit is lowered by `offset`, so that the loss asks for a margin beyond it; the factor T keeps
    gradients from growing as T falls.
    """
    lowered = logits - offset * F.one_hot(y, logits.shape[1])
    return F.cross_entropy(lowered / temperature, y) * temperature
