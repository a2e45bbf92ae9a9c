"""Training with a Lipschitz constant of 1: the recipes, which differ in their layers.

Networks, losses and optimizer as in Prach & Lampert 2025, "Intriguing properties of robust classification". A margin γ
between the label's logit and the next is an l2 radius of γ/√2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from robench import param
from robench.contracts import TrainContext, Trained
from robench.samples import Samples
from robench_plugins.training._augment import Augmentation
from robench_plugins.training._data import Batch, normalisation
from robench_plugins.training._loop import BatchLoss, Method, descend, hits
from robench_plugins.training._schedules import one_cycle
from robench_plugins.training.lipschitz.almost_orthogonal import Aol as AolLayer
from robench_plugins.training.lipschitz.convex_potential import ConvexPotential
from robench_plugins.training.lipschitz.layers import centred_orthogonal, uniform
from robench_plugins.training.lipschitz.losses import offset_cross_entropy, self_normalizing_cross_entropy
from robench_plugins.training.lipschitz.networks import Family, convnet, freeze, mlp
from robench_plugins.training.lipschitz.orthogonal import Bcop as BcopLayer
from robench_plugins.training.lipschitz.orthogonal import Cayley as CayleyLayer
from robench_plugins.training.lipschitz.skew_orthogonal import SkewConvolution, SkewMatrix
from robench_plugins.training.lipschitz.spectral import SpectralNorm as SpectralNormLayer

__all__ = ["Aol", "Bcop", "Cayley", "Cpl", "OneLipschitz", "Soc", "SpectralNorm"]


@dataclass(frozen=True)
class OneLipschitz:
    """What the recipes share: a 1-Lipschitz network, and SGD on a loss that asks for a margin.

    Inputs are centred and not scaled. SGD with Nesterov momentum, learning rate and momentum by torch's one-cycle
    schedule, as in the authors' code. The result has plain layers with the effective weights.

    History, per epoch: `loss`, `accuracy`, and `certified`: the part with a margin above `offset`, which is an l2
    radius above offset/√2 once the constant is at most 1.
    """

    family: ClassVar[Family]
    evaluate: ClassVar[tuple[str, ...]] = ("--norm", "l2", "--eps", "36/255")

    arch: Literal["mlp", "convnet"] = param("mlp", "mlp: dense layers; convnet: blocks of convolutions, for images")
    width: int = param(128, "mlp: units of a hidden layer, an even number", minimum=2)
    depth: int = param(4, "mlp: dense layers", minimum=1)
    channels: int = param(16, "convnet: channels of the first block, even; each next has twice as many", minimum=2)
    convolutions: int = param(1, "convnet: 3 x 3 convolutions of a block", minimum=0)
    blocks: int | None = param(
        None,
        "convnet: blocks, each of which halves the image; until a pixel is left, at most 5, where not given",
        minimum=0,
    )
    epochs: int = param(100, "passes through the training data", minimum=1)
    batch: int = param(64, "samples per step", minimum=1)
    lr: float = param(0.1, "highest learning rate", above=0)
    loss: Literal["offset", "self-normalizing"] = param("offset", "the cross-entropy, with an offset or normalised")
    offset: float = param(0.5, "margin that loss=offset asks for, in the units of the domain", minimum=0)
    temperature: float = param(0.25, "temperature of loss=offset", above=0)
    t: float = param(1.0, "loss=self-normalizing: 0 is for accuracy alone, more is for margins", minimum=0)
    augment: Augmentation = param(
        "none", "change images: crop; crop-flip; crop-flip-erase (2x2 squares) or crop-flip-erase-16th (of the area)"
    )

    def __post_init__(self) -> None:
        """MaxMin sorts pairs; not every family has convolutions."""
        for name, size in (("width", self.width), ("channels", self.channels)):
            if size % 2:
                raise ValueError(f"{name}={size} must be even: the activation sorts pairs of units")
        if self.arch == "convnet" and self.family.conv is None:
            raise ValueError(
                "arch=convnet: these layers have no convolution with a finite kernel, use arch=mlp or bcop"
            )

    def train(self, train: Samples, context: TrainContext) -> Trained:
        """Train on `train`."""
        shape, classes = train.shape, len(train.classes)

        def network(generator: torch.Generator) -> nn.Sequential:
            mean = normalisation(train).mean
            if self.arch == "mlp":
                return mlp(self.family, mean, shape, classes, self.width, self.depth, generator)
            return convnet(self.family, mean, shape, classes, self.channels, self.convolutions, self.blocks, generator)

        def prepare(network: nn.Sequential) -> BatchLoss:
            def batch_loss(batch: Batch, part: float) -> tuple[Tensor, Mapping[str, Tensor]]:
                logits = network(batch.x)
                demanded = logits.detach() - self.offset * F.one_hot(batch.y, classes)
                figures = {"accuracy": hits(logits, batch.y), "certified": hits(demanded, batch.y)}
                return self._loss(logits, batch.y), figures

            return batch_loss

        method = Method(self.epochs, self.batch, self.lr, self._sgd, one_cycle(self.lr), self.augment)
        trained = descend(method, train, context, network, prepare)
        assert isinstance(trained.module, nn.Sequential)
        return Trained(freeze(trained.module, shape), trained.history)

    def _loss(self, logits: Tensor, y: Tensor) -> Tensor:
        if self.loss == "offset":
            return offset_cross_entropy(logits, y, self.offset, self.temperature)
        return self_normalizing_cross_entropy(logits, y, self.t)

    def _sgd(self, network: nn.Module) -> Optimizer:
        return SGD(network.parameters(), lr=self.lr, momentum=0.9, nesterov=True)


@dataclass(frozen=True)
class Aol(OneLipschitz):
    """A network of almost-orthogonal layers, rescaled by what their columns share (Prach & Lampert 2022).

    Published: width=3072 (MNIST: 1024), depth=8 or channels=64, convolutions=3, with batch=256, epochs=3000, lr=0.1,
    offset=0.1997 (36/255 · √2), temperature=0.25.
    """

    family: ClassVar[Family] = Family(
        dense=lambda out, inner, generator: AolLayer(centred_orthogonal((out, inner), generator)),
        conv=lambda out, inner, size, spatial, generator: AolLayer(
            centred_orthogonal((out, inner, size, size), generator), padding=size // 2
        ),
    )


@dataclass(frozen=True)
class Cpl(OneLipschitz):
    """A network of convex potential layers, x − 2/‖W‖² Wᵀ relu(Wx + b) (Meunier et al. 2022).

    Published: channels=64, convolutions=3, batch=256, epochs=3000, lr=1.0, offset=0.1997, temperature=0.25. Norms are
    estimated in training, so that its `certified` is an estimate too.
    """

    family: ClassVar[Family] = Family(
        dense=lambda out, inner, generator: ConvexPotential(uniform((out, inner), generator), (), generator),
        conv=lambda out, inner, size, spatial, generator: ConvexPotential(
            uniform((out, inner, size, size), generator), spatial, generator
        ),
        residual=True,
    )

    lr: float = param(1.0, "highest learning rate", above=0)


@dataclass(frozen=True)
class Cayley(OneLipschitz):
    """An MLP of orthogonal matrices, made by the Cayley transform (Trockman & Kolter 2021).

    Their convolution is circular and as large as the image, which is no convolution of a finite kernel: see `bcop`.
    """

    family: ClassVar[Family] = Family(
        dense=lambda out, inner, generator: CayleyLayer(centred_orthogonal((out, inner), generator)), conv=None
    )

    arch: Literal["mlp"] = param("mlp", "mlp: dense layers, of which alone there are orthogonal ones here")
    channels: int = field(default=16, init=False)  # no parameters: they are about convolutions
    convolutions: int = field(default=1, init=False)
    blocks: int | None = field(default=None, init=False)
    lr: float = param(0.3, "highest learning rate", above=0)


@dataclass(frozen=True)
class Bcop(OneLipschitz):
    """A network of convolutions composed of symmetric projectors, orthogonal on a torus (Li et al. 2019).

    Dense layers, and the bases of projectors, are orthogonal by the Cayley transform.
    """

    family: ClassVar[Family] = Family(
        dense=Cayley.family.dense,
        conv=lambda out, inner, size, spatial, generator: BcopLayer(out, inner, size, generator, padding=size // 2),
    )

    arch: Literal["mlp", "convnet"] = param("convnet", "mlp: dense layers; convnet: blocks of convolutions, for images")
    epochs: int = param(50, "passes through the training data", minimum=1)


@dataclass(frozen=True)
class Soc(OneLipschitz):
    """A network of exponentials of skew-symmetric convolutions, orthogonal but for 1e-6 (Singla & Feizi 2021).

    Published: channels=64, convolutions=3, batch=256, epochs=2412, lr=0.0712, temperature=0.25, offset=0.3993. Dense
    layers and 1 x 1 convolutions are exponentials of matrices. Series end earlier in training, so that its `certified`
    is an estimate.
    """

    family: ClassVar[Family] = Family(
        dense=lambda out, inner, generator: SkewMatrix(out, inner, generator),
        conv=lambda out, inner, size, spatial, generator: (
            SkewMatrix(out, inner, generator, kernel=True)
            if size == 1
            else SkewConvolution(out, inner, size, generator)
        ),
    )

    arch: Literal["mlp", "convnet"] = param("convnet", "mlp: dense layers; convnet: blocks of convolutions, for images")
    epochs: int = param(50, "passes through the training data", minimum=1)


@dataclass(frozen=True)
class SpectralNorm(OneLipschitz):
    """A network of weights over their spectral norms (Yoshida & Miyato 2017, Miyato et al. 2018).

    Norms are estimated by the power method in training, so that its `certified` is an estimate too.
    """

    family: ClassVar[Family] = Family(
        dense=lambda out, inner, generator: SpectralNormLayer(
            centred_orthogonal((out, inner), generator), (), generator
        ),
        conv=lambda out, inner, size, spatial, generator: SpectralNormLayer(
            centred_orthogonal((out, inner, size, size), generator), spatial, generator, padding=size // 2
        ),
    )
