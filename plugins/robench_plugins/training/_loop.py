"""The training loop that the recipes share; they differ in the loss of a batch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from robench import param
from robench.contracts import TrainContext, Trained, TrainState
from robench.errors import DataError, InputError
from robench.samples import Samples
from robench_plugins.training._augment import Augmentation, augmentation
from robench_plugins.training._data import Batch, Batches, normalisation
from robench_plugins.training._monitor import Monitor
from robench_plugins.training._schedules import Schedule, scheduled
from robench_plugins.training._state import restore, state_of
from robench_plugins.training.networks import Architecture, Divide, Initialisation, build

__all__ = ["BatchLoss", "Method", "Settings", "descend", "fit", "hits"]

BatchLoss = Callable[[Batch, float], tuple[Tensor, Mapping[str, Tensor]]]
"""(batch, part of the training that is done, 0 … 1) → mean loss, and sums over the batch for the history."""


@dataclass(frozen=True)
class Method:
    """How weights descend. `schedule(optimizer, steps)` sets the learning rate of each of the training's steps.

    `augment` says how the inputs of each batch are changed.
    """

    epochs: int
    batch: int
    lr: float
    optimizer: Callable[[nn.Module], Optimizer]
    schedule: Callable[[Optimizer, int], LRScheduler]
    augment: Augmentation = "none"


@dataclass(frozen=True)
class Settings:
    """What every recipe can be told about network, optimizer and data."""

    arch: Architecture = param(
        "cnn",
        "cnn: two convolutions and a hidden layer, for images; mlp: two hidden layers; "
        "simple-convnet: eight convolutions with batch norm, for images",
    )
    width: int = param(16, "channels of the first convolution; hidden layers have 8 times as many units", minimum=1)
    epochs: int = param(30, "passes through the training data", minimum=1)
    batch: int = param(64, "samples per step", minimum=1)
    lr: float = param(0.002, "highest learning rate", above=0)
    schedule: Schedule = param(
        "cosine",
        "learning rate: cosine falls to 0 on half a cosine; cyclic rises from 0 until 2/5, then falls to 0; "
        "piecewise falls to a tenth at each of drops; one-cycle is torch's",
    )
    drops: tuple[float, ...] = param(
        (0.5, 0.75), "parts of the training after which a piecewise learning rate falls", above=0, maximum=1
    )
    optimizer: Literal["adam", "sgd"] = param("adam", "adam (with decoupled weight decay) or sgd (Nesterov momentum)")
    momentum: float = param(0.9, "momentum of sgd", minimum=0, maximum=1)
    weight_decay: float = param(0.0, "weight decay", minimum=0)
    augment: Augmentation = param(
        "none", "change images: crop; crop-flip; crop-flip-erase (2x2 squares) or crop-flip-erase-16th (of the area)"
    )
    temperature: float = param(1.0, "T: the network divides its scores by it, its loss is multiplied by it", above=0)


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
        made = build(settings.arch, settings.width, normalisation(train), shape, classes, initialisation, generator)
        return made if settings.temperature == 1 else made.append(Divide(settings.temperature))

    def prepared(network: nn.Sequential) -> BatchLoss:
        batch_loss = prepare(network)
        if settings.temperature == 1:
            return batch_loss

        def tempered(batch: Batch, part: float) -> tuple[Tensor, Mapping[str, Tensor]]:
            loss, figures = batch_loss(batch, part)
            return settings.temperature * loss, figures

        return tempered

    momentum = settings.optimizer == "adam" or settings.momentum > 0
    method = Method(
        settings.epochs,
        settings.batch,
        settings.lr,
        lambda network: _optimizer(settings, network),
        scheduled(settings.schedule, settings.lr, settings.drops, momentum),
        settings.augment,
    )
    return descend(method, train, context, network, prepared)


def descend(
    method: Method,
    train: Samples,
    context: TrainContext,
    network: Callable[[torch.Generator], nn.Sequential],
    prepare: Callable[[nn.Sequential], BatchLoss],
) -> Trained:
    """Train `network(generator)` on `prepare(network)` and return it in evaluation mode.

    Weights and orders are drawn on the CPU from one generator seeded with `context.seed`, whatever the device. Where
    the loss or a weight stops being finite, the weights of the epoch before are returned, and that epoch ends the
    history. Raises InputError where it is the first.
    """
    if not len(train):
        raise DataError("there is no sample to train on")
    run = _Run(method, train, context, network, prepare)
    if context.resume is not None:
        run.go_on(context.resume)
    watch = Monitor(run.module, context.held_out, context.seed, context.device) if context.held_out else None
    good = {name: tensor.clone() for name, tensor in run.module.state_dict().items()}
    for epoch in range(len(run.history) + 1, method.epochs + 1):
        figures = run.epoch(epoch)
        finite = math.isfinite(figures["loss"])
        if not finite and epoch == 1:
            raise InputError(
                f"the loss became {figures['loss']} in epoch 1 of {method.epochs}: "
                f"try a smaller learning rate than lr={method.lr:g}"
            )
        run.history.append({**figures, **watch()} if watch and finite else figures)
        if finite:
            good = {name: tensor.clone() for name, tensor in run.module.state_dict().items()}
            if context.keep is not None:
                context.keep(run.state())
        context.report(epoch, method.epochs, run.history[-1])
        if not finite:
            run.module.load_state_dict(good)
            break
    return Trained(run.module.eval(), tuple(run.history))


class _Run:
    """A training under way."""

    def __init__(
        self,
        method: Method,
        train: Samples,
        context: TrainContext,
        network: Callable[[torch.Generator], nn.Sequential],
        prepare: Callable[[nn.Sequential], BatchLoss],
    ) -> None:
        self.history: list[Mapping[str, float]] = []
        self._samples = len(train)
        self._generator = torch.Generator().manual_seed(context.seed)
        self.module = network(self._generator).to(context.device).train()
        self._loss = prepare(self.module)
        self._batches = Batches(train, method.batch, context.device, self._generator)
        self._augment = augmentation(method.augment, train, context.seed, context.device)
        self._steps, self._done = method.epochs * len(self._batches), 0
        self._optimizer = method.optimizer(self.module)
        self._schedule = method.schedule(self._optimizer, self._steps)

    def state(self) -> TrainState:
        """Return what `go_on` needs."""
        return TrainState(tuple(self.history), state_of(self.module, self._optimizer, self._generator))

    def go_on(self, state: TrainState) -> None:
        """Go on from `state`: the schedule repeats its steps, which gives the same bits as ever."""
        restore(state.tensors, self.module, self._optimizer, self._generator)
        self.history = list(state.history)
        self._done = len(self.history) * len(self._batches)
        if self._done > self._steps:
            raise DataError(f"the state of the unfinished training has {len(self.history)} epochs: too many")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
            for _ in range(self._done):
                self._schedule.step()

    def epoch(self, number: int) -> dict[str, float]:
        """Pass through the data once; return the figures, with a loss of NaN where a weight is not finite."""
        sums: dict[str, Tensor] = {}
        lr = 0.0
        for batch in self._batches.epoch(number):
            if self._augment is not None:
                batch = replace(batch, x=self._augment(batch))
            loss, figures = self._loss(batch, self._done / self._steps)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            lr = self._optimizer.param_groups[0]["lr"]
            self._optimizer.step()
            self._schedule.step()
            for name, value in {"loss": loss.detach() * len(batch.y), **figures}.items():
                sums[name] = sums[name] + value if name in sums else value
            self._done += 1
        row = {name: float(value) / self._samples for name, value in sums.items()}
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.module.parameters()):
            row["loss"] = math.nan
        return {**row, "lr": float(lr)}


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
