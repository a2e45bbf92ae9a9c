"""The networks of the portfolio's benchmark: trained here, small enough for a cascade of thousands of passes a sample.

The schedule was chosen on the development list, the table of the docs is made on the test list. The lists share no
network: other recipes' seeds, widths and training samples. Training is deterministic; networks are kept in the cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robench.contracts import TrainContext
from robench.graph import GraphModule
from robench.samples import Samples
from robench.threat import Domain, Epsilon, Norm
from robench_plugins.datasets.digits import Digits
from robench_plugins.datasets.mnist import Mnist
from robench_plugins.training.ibp import Ibp
from robench_plugins.training.networks import Normalise, build
from robench_plugins.training.pgd_at import PgdAt
from robench_plugins.training.standard import Standard
from robench_plugins.zoo.digits import BUNDLED

__all__ = ["LISTS", "Bundled", "Net", "Quantised", "Sharp"]

_TRAINED_ON_MNIST = 6000


@dataclass(frozen=True)
class Net:
    """A network, how it is trained, and the ε at which it is attacked: where 30 to 80 % survive, or nearly.

    `fold` says which third of digits is trained on (the others are attacked), or which part of MNIST is taken.
    """

    name: str
    data: str
    recipe: Any
    seed: int
    fold: int
    eps: dict[Norm, float]
    samples: int = 1000
    masked: Callable[[nn.Module], nn.Module] | None = None

    def points(self) -> tuple[Tensor, Tensor]:
        """Return the inputs [n, 1, H, W] and labels [n] that are attacked."""
        if self.data == "digits":
            whole = _digits()
            rows = np.flatnonzero(np.arange(len(whole)) % 3 != self.fold)[: self.samples]
        else:
            whole, start = Mnist().load("test"), self.fold * 2000
            rows = np.arange(start, start + self.samples)
        part = whole.select(rows)
        return torch.from_numpy(part.batch(0, len(part)).astype(np.float32)), torch.from_numpy(part.y.copy())

    def module(self, cache: Path) -> nn.Module:
        """Return the network, trained once."""
        train = self._training_samples()
        settings = self.recipe
        digest = hashlib.sha256(f"{settings!r} {self.data} {self.seed} {self.fold}".encode()).hexdigest()[:8]
        file = cache / f"{self.name}-{digest}.pt"
        if not file.exists():
            trained = settings.train(train, TrainContext(self.seed, torch.device("cpu")))
            cache.mkdir(parents=True, exist_ok=True)
            torch.save(trained.module.state_dict(), file)
        blank = Normalise(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
        init = getattr(settings, "init", "he")
        shape, classes = train.shape, len(train.classes)
        module = build(settings.arch, settings.width, blank, shape, classes, init, torch.Generator())
        module.load_state_dict(torch.load(file))
        module.eval().requires_grad_(False)
        return self.masked(module).eval() if self.masked else module

    def _training_samples(self) -> Samples:
        if self.data == "digits":
            whole = _digits()
            return whole.select(np.flatnonzero(np.arange(len(whole)) % 3 == self.fold))
        start = self.fold * _TRAINED_ON_MNIST
        return Mnist().load("train").select(np.arange(start, start + _TRAINED_ON_MNIST))


@dataclass(frozen=True)
class Bundled:
    """A bundled network, attacked at the first test points of digits."""

    name: str
    eps: dict[Norm, float]
    samples: int = 100

    def points(self) -> tuple[Tensor, Tensor]:
        """Return the inputs [n, 1, 8, 8] and labels [n] that are attacked."""
        test = Digits().load("test")
        return torch.from_numpy(test.batch(0, self.samples).copy()), torch.from_numpy(test.y[: self.samples].copy())

    def module(self, cache: Path) -> nn.Module:
        """Return the network, which needs no cache."""
        (bundled,) = (one for one in BUNDLED if one.name == self.name)
        graph = bundled().load(torch.device("cpu"), torch.float32).graph
        assert graph is not None
        return GraphModule(graph).requires_grad_(False)


class Quantised(nn.Module):
    """Inputs rounded to `levels` grey levels, whose gradient is 0 (Guo et al. 2018): only scores tell anything."""

    def __init__(self, inner: nn.Module, levels: int = 16) -> None:
        """Wrap `inner`."""
        super().__init__()
        self.inner, self.levels = inner, levels

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [B, classes]."""
        return self.inner((x * self.levels).round() / self.levels)  # type: ignore[no-any-return]


class Sharp(nn.Module):
    """Logits times `factor`: the softmax saturates and cross-entropy has no gradient in float32."""

    def __init__(self, inner: nn.Module, factor: float = 1e4) -> None:
        """Wrap `inner`."""
        super().__init__()
        self.inner, self.factor = inner, factor

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [B, classes]."""
        return self.inner(x) * self.factor  # type: ignore[no-any-return]


def _digits() -> Samples:
    """Return all 1,797 samples of digits, in scikit-learn's order."""
    parts = [Digits().load(split) for split in ("train", "test")]
    index = np.concatenate([part.index for part in parts])
    order = np.argsort(index)
    x = np.concatenate([part.batch(0, len(part)) for part in parts])[order]
    y = np.concatenate([part.y for part in parts])[order]
    return Samples(x, y, index[order], Domain(0.0, 1.0), parts[0].classes)


def _pgd(norm: Norm, eps: str, **settings: Any) -> PgdAt:
    return PgdAt(norm=norm, eps=Epsilon.parse(eps), **settings)


def _ibp(eps: str, **settings: Any) -> Ibp:
    return Ibp(eps=Epsilon.parse(eps), **settings)


def _eps(linf: float, l2: float, l1: float) -> dict[Norm, float]:
    return {"linf": linf, "l2": l2, "l1": l1}


LISTS: dict[str, Sequence[Net | Bundled]] = {
    "development": [
        Net("dev-pgd-linf", "digits", _pgd("linf", "0.15", width=4, epochs=60), 0, 0, _eps(0.14, 0.6, 1.3), 500),
        Net("dev-pgd-l2", "digits", _pgd("l2", "0.75", width=6, epochs=60), 1, 0, _eps(0.14, 0.6, 1.8), 500),
        Net("dev-ibp", "digits", _ibp("0.15", width=6, epochs=100), 2, 0, _eps(0.17, 0.5, 0.9), 500),
        Net("dev-standard", "digits", Standard(width=4, epochs=40), 3, 0, _eps(0.08, 0.4, 1.05), 500),
        Net("dev-mlp", "digits", _pgd("linf", "0.1", arch="mlp", width=8, epochs=60), 4, 0, _eps(0.13, 0.6, 1.4), 500),
        Net("dev-pgd-l1", "digits", _pgd("l1", "2", width=6, epochs=60), 6, 0, _eps(0.1, 0.5, 2.0), 500),
        Net("dev-mnist-ibp", "mnist", _ibp("0.2", width=4, epochs=20), 5, 0, _eps(0.2, 1.0, 5.0), 300),
    ],
    "test": [
        Net("pgd-linf", "digits", _pgd("linf", "0.15", width=6, epochs=80), 10, 1, _eps(0.15, 0.6, 1.2)),
        Net("pgd-l2", "digits", _pgd("l2", "0.75", width=4, epochs=80), 11, 1, _eps(0.13, 0.6, 1.7)),
        Net("pgd-l1", "digits", _pgd("l1", "2", width=5, epochs=80), 12, 2, _eps(0.1, 0.5, 2.0)),
        Net("ibp", "digits", _ibp("0.15", width=4, epochs=120), 13, 1, _eps(0.17, 0.55, 0.9)),
        Net("standard", "digits", Standard(width=6, epochs=40), 14, 2, _eps(0.09, 0.45, 1.2)),
        Net("mlp", "digits", _pgd("linf", "0.1", arch="mlp", width=6, epochs=80), 15, 2, _eps(0.13, 0.55, 1.4)),
        Net("mnist-pgd", "mnist", _pgd("linf", "0.1", width=8, epochs=12), 16, 1, _eps(0.15, 1.5, 5.0)),
        Net("mnist-ibp", "mnist", _ibp("0.15", width=4, epochs=20), 17, 1, _eps(0.15, 1.0, 5.0)),
        Net("rounded", "digits", Standard(width=4, epochs=40), 18, 2, _eps(0.09, 0.45, 1.2), masked=Quantised),
        Net("sharp", "digits", _pgd("linf", "0.15", width=4, epochs=80), 19, 1, _eps(0.15, 0.6, 1.2), masked=Sharp),
    ],
    "bundled": [
        Bundled("digits-pgd-linf", _eps(0.12, 0.5, 1.5)),
        Bundled("digits-standard", _eps(0.05, 0.25, 0.8)),
    ],
}
