"""Networks of other libraries' 1-Lipschitz layers, trained as our own are."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

from robench import param
from robench.contracts import TrainContext, Trained
from robench.samples import Samples
from robench_plugins.peers._library import Library
from robench_plugins.peers.freeze import double, freeze
from robench_plugins.training.lipschitz.layers import Constrained
from robench_plugins.training.lipschitz.networks import Family
from robench_plugins.training.lipschitz.recipes import OneLipschitz

__all__ = ["Orthogonium", "Torchlip"]

_PASSES: Final = 50


class Borrowed(Constrained):
    """A layer of a library, whose weight follows from what is trained."""

    def __init__(self, make: Callable[[], nn.Module], generator: torch.Generator) -> None:
        """Make the layer; the library draws from torch's global generator, which is seeded and put back."""
        super().__init__()
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.layer = make()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        out: Tensor = self.layer(x)
        return out

    def effective(self) -> Tensor:
        """Return its weight."""
        weight = self.layer.weight
        assert isinstance(weight, Tensor)
        return weight

    def exact(self) -> Tensor:
        """Return the weight of the frozen layer before it is rounded."""
        weight = self._settled().weight
        assert isinstance(weight, Tensor)
        return weight

    def frozen(self) -> nn.Module:
        """Return the layer with the weight that its iterations come to, rounded once."""
        return self._settled().to(self.effective().dtype)

    @torch.no_grad()
    def _settled(self) -> nn.Module:
        # Passes in training mode renew what layers keep for evaluation, which may be a step old, and their estimates.
        layer = double(self.layer).train()
        for _ in range(_PASSES):
            layer.weight  # noqa: B018
        return freeze(layer)


class _Theirs(OneLipschitz):
    """What both recipes share: the library, and its version among those that a checkpoint records."""

    library: ClassVar[Library]

    @property
    def versions(self) -> Mapping[str, str]:
        """The library's version."""
        version = self.library.version
        return {} if version is None else {self.library.distribution: version}

    def train(self, train: Samples, context: TrainContext) -> Trained:
        """Train on `train`. Raises InputError where the library is not installed."""
        self.library.load()
        return super().train(train, context)


def _layers(module: str) -> Any:
    return importlib.import_module(module)


@dataclass(frozen=True)
class Orthogonium(_Theirs):
    """A network of orthogonium's layers: OrthoLinear, and adaptive orthogonal convolutions (Boissin et al. 2025).

    Convolutions are padded with zeros. MaxMin, losses and optimizer as for the other 1-Lipschitz recipes.
    """

    library: ClassVar[Library] = Library("orthogonium.layers", "orthogonium", "orthogonium")
    family: ClassVar[Family] = Family(
        dense=lambda out, inner, generator: Borrowed(
            lambda: _layers("orthogonium.layers").OrthoLinear(inner, out), generator
        ),
        conv=lambda out, inner, size, spatial, generator: Borrowed(
            lambda: _layers("orthogonium.layers").AdaptiveOrthoConv2d(
                inner, out, size, padding=size // 2, padding_mode="zeros"
            ),
            generator,
        ),
    )

    epochs: int = param(30, "passes through the training data", minimum=1)


@dataclass(frozen=True)
class Torchlip(_Theirs):
    """A network of deel-torchlip's SpectralLinear and SpectralConv2d (Serrurier et al. 2021).

    The library divides kernels by √(k·k), a bound that holds for all and is reached by few, so that networks with
    `arch=convnet` contract. MaxMin, losses and optimizer as for the other 1-Lipschitz recipes.
    """

    library: ClassVar[Library] = Library("deel.torchlip", "deel-torchlip", "torchlip")
    family: ClassVar[Family] = Family(
        dense=lambda out, inner, generator: Borrowed(
            lambda: _layers("deel.torchlip").SpectralLinear(inner, out), generator
        ),
        conv=lambda out, inner, size, spatial, generator: Borrowed(
            lambda: _layers("deel.torchlip").SpectralConv2d(inner, out, (size, size), padding=size // 2), generator
        ),
    )

    epochs: int = param(30, "passes through the training data", minimum=1)
