"""The training loop that the recipes share; they differ in the loss of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from robench import param
from robench.contracts import TrainContext, Trained
from robench.errors import DataError, InputError
from robench.samples import Samples
from robench_plugins.training._data import Batch, Batches, normalisation
from robench_plugins.training.networks import Architecture, Initialisation, build

__all__ = ["BatchLoss", "Method", "Settings", "descend", "fit", "hits"]

BatchLoss = Callable[[Batch, float], tuple[Tensor, Mapping[str, Tensor]]]
"""(batch, part of the training that is done, 0 … 1) → mean loss, and sums over the batch for the history."""


@dataclass(frozen=True)
class Method:
    """How weights descend. `schedule(optimizer, steps)` sets the learning rate of each of the training's steps."""

    epochs: int
    batch: int
    lr: float
    optimizer: Callable[[nn.Module], Optimizer]
    schedule: Callable[[Optimizer, int], LRScheduler]


@dataclass(frozen=True)
class Settings:
    """What every recipe can be told about network and optimizer. The learning rate falls to 0 on half a cosine."""

    arch: Architecture = param("cnn", "cnn: two convolutions and a hidden layer, for images; mlp: two hidden layers")
    width: int = param(16, "channels of the first convolution; hidden layers have 8 times as many units", minimum=1)
    epochs: int = param(30, "passes through the training data", minimum=1)
    batch: int = param(64, "samples per step", minimum=1)
    lr: float = param(0.002, "learning rate at the start", above=0)
    optimizer: Literal["adam", "sgd"] = param("adam", "adam (with decoupled weight decay) or sgd (Nesterov momentum)")
    momentum: float = param(0.9, "momentum of sgd", minimum=0, maximum=1)
    weight_decay: float = param(0.0, "weight decay", minimum=0)


def hits(logits: Tensor, y: Tensor) -> Tensor:
    """Return how many of the samples are correct, as a tensor of one number."""
    return (logits.detach().argmax(1) == y).sum()


def fit(
    settings: Settings,
    train: Samples,
    context: TrainContext,
    prepare: Callable[[nn.Sequential], BatchLoss],
    initialisation: Initialisation = "he",
) -> Trained:
    """Train a new network of `settings` on `prepare(network)` and return it in evaluation mode."""

    def network(generator: torch.Generator) -> nn.Sequential:
        shape, classes = train.shape, len(train.classes)
        return build(settings.arch, settings.width, normalisation(train), shape, classes, initialisation, generator)

    method = Method(
        settings.epochs, settings.batch, settings.lr, lambda network: _optimizer(settings, network), _half_cosine
    )
    return descend(method, train, context, network, prepare)


def descend(
    method: Method,
    train: Samples,
    context: TrainContext,
    network: Callable[[torch.Generator], nn.Sequential],
    prepare: Callable[[nn.Sequential], BatchLoss],
) -> Trained:
    """Train `network(generator)` on `prepare(network)` and return it in evaluation mode.

    Weights and orders are drawn on the CPU from one generator seeded with `context.seed`, whatever the device.
    """
    if not len(train):
        raise DataError("there is no sample to train on")
    generator = torch.Generator().manual_seed(context.seed)
    module = network(generator).to(context.device).train()
    batch_loss = prepare(module)
    batches = Batches(train, method.batch, context.device, generator)
    steps, done = method.epochs * len(batches), 0
    optimizer = method.optimizer(module)
    schedule = method.schedule(optimizer, steps)
    history: list[Mapping[str, float]] = []
    for epoch in range(1, method.epochs + 1):
        sums: dict[str, Tensor] = {}
        for batch in batches.epoch(epoch):
            loss, figures = batch_loss(batch, done / steps)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            for name, value in {"loss": loss.detach() * len(batch.y), **figures}.items():
                sums[name] = sums[name] + value if name in sums else value
            done += 1
        epoch_figures = {name: float(value) / len(train) for name, value in sums.items()}
        if not math.isfinite(epoch_figures["loss"]):
            raise InputError(
                f"the loss became {epoch_figures['loss']} in epoch {epoch} of {method.epochs}: "
                f"try a smaller learning rate than lr={method.lr:g}"
            )
        history.append(epoch_figures)
        context.report(epoch, method.epochs, epoch_figures)
    return Trained(module.eval(), tuple(history))


def _half_cosine(optimizer: Optimizer, steps: int) -> LRScheduler:
    return LambdaLR(optimizer, lambda done: (1 + math.cos(math.pi * done / steps)) / 2)


def _optimizer(settings: Settings, network: nn.Module) -> Optimizer:
    if settings.optimizer == "adam":
        return torch.optim.AdamW(network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        network.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.momentum > 0,
    )
