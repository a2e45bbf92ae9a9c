"""The bundled classifiers of digits. Each is a checkpoint folder beside this file, held by its hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from robench.classifier import Classifier
from robench.errors import DataError
from robench.graph import GraphClassifier, load, read_metadata
from robench_plugins.models.cards import training_card
from robench_plugins.zoo.digests import DIGESTS

__all__ = ["BUNDLED", "Aol", "Bundled", "Gaussian", "Ibp", "PgdL2", "PgdLinf", "Standard"]


@dataclass(frozen=True)
class Bundled:
    """A checkpoint folder that came with robench: `name` is its folder's and its plugin's."""

    name: ClassVar[str]
    title: ClassVar[str]
    method: ClassVar[str]
    paper: ClassVar[str] = ""

    @property
    def card(self) -> Mapping[str, str]:
        """What boards show: title, method, paper where there is one, licence, and how it was made."""
        made = training_card(read_metadata(self._folder()), self.name)
        paper = {"paper": self.paper} if self.paper else {}
        return {"name": self.title, "method": self.method, **paper, "licence": "MIT", **made}

    def load(self, device: torch.device, dtype: torch.dtype) -> Classifier:
        """Return the classifier. Raises DataError where a file is not the one that robench came with."""
        graph, _ = load(self._folder())
        return GraphClassifier(graph, device, dtype)

    def _folder(self) -> Path:
        folder = Path(__file__).with_name(self.name)
        for file, digest in DIGESTS[self.name].items():
            path = folder / file
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                raise DataError(f"{self.name}/{file} is not the file that robench came with: install robench again")
        return folder


@dataclass(frozen=True)
class Standard(Bundled):
    """A CNN trained on the samples as they are: high clean accuracy, and what attacks leave of it."""

    name: ClassVar[str] = "digits-standard"
    title: ClassVar[str] = "Standard CNN"
    method: ClassVar[str] = "cross-entropy on the samples as they are"


@dataclass(frozen=True)
class Gaussian(Bundled):
    """A CNN trained on Gaussian noise, without a certificate of its own; the base of a smoothed classifier."""

    name: ClassVar[str] = "digits-gaussian"
    title: ClassVar[str] = "Gaussian-noise CNN"
    method: ClassVar[str] = "Gaussian augmentation (Cohen et al. 2019, section 3.3)"
    paper: ClassVar[str] = "https://arxiv.org/abs/1902.02918"


@dataclass(frozen=True)
class PgdLinf(Bundled):
    """A CNN trained against PGD in linf."""

    name: ClassVar[str] = "digits-pgd-linf"
    title: ClassVar[str] = "PGD-trained CNN, linf"
    method: ClassVar[str] = "adversarial training with PGD (Madry et al. 2018)"
    paper: ClassVar[str] = "https://arxiv.org/abs/1706.06083"


@dataclass(frozen=True)
class PgdL2(Bundled):
    """A CNN trained against PGD in l2."""

    name: ClassVar[str] = "digits-pgd-l2"
    title: ClassVar[str] = "PGD-trained CNN, l2"
    method: ClassVar[str] = "adversarial training with PGD (Madry et al. 2018)"
    paper: ClassVar[str] = "https://arxiv.org/abs/1706.06083"


@dataclass(frozen=True)
class Ibp(Bundled):
    """A CNN trained on interval bounds: what it gets right in linf is certified by the same bounds."""

    name: ClassVar[str] = "digits-ibp"
    title: ClassVar[str] = "IBP-trained CNN"
    method: ClassVar[str] = "interval bound propagation (Gowal et al. 2018)"
    paper: ClassVar[str] = "https://arxiv.org/abs/1810.12715"


@dataclass(frozen=True)
class Aol(Bundled):
    """An MLP of almost-orthogonal layers, 1-Lipschitz in l2: a margin γ certifies the radius γ/√2."""

    name: ClassVar[str] = "digits-aol"
    title: ClassVar[str] = "1-Lipschitz MLP (AOL)"
    method: ClassVar[str] = "almost-orthogonal layers (Prach & Lampert 2022)"
    paper: ClassVar[str] = "https://arxiv.org/abs/2208.03160"


BUNDLED: tuple[type[Bundled], ...] = (Standard, Gaussian, PgdLinf, PgdL2, Ibp, Aol)
