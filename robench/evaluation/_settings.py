"""What an evaluation is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from robench.contracts import Attack, Certifier, CompositeAttack, Dataset, Model
from robench.loading import Data
from robench.runs import Display
from robench.samples import Samples
from robench.threat import Epsilon

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """What `robench eval` was asked for; the field names are its options.

    `attacks` and `certifiers`: None asks for the defaults, an empty sequence switches the side off.
    `draws`: how often a classifier that draws is asked at each point.
    `trust_certificates`: whether attacks skip what is certified deterministically, or the share of it that is audited.
    `search`: folders in which files written as `name@sha256:…` are looked for.
    """

    model: str | torch.nn.Module | Model | Any
    dataset: str | Samples | Dataset | Data
    eps: Sequence[str | float | Epsilon]
    norm: str = "linf"
    attacks: Sequence[str | Attack | CompositeAttack] | None = None
    certifiers: Sequence[str | Certifier] | None = None
    samples: str | None = None
    split: str = "test"
    device: str = "auto"
    batch_size: int | None = None
    seed: int = 0
    precision: str = "fp32"
    draws: int = 100
    trust_certificates: bool | float = False
    display: Display = field(default_factory=Display)
    search: Sequence[Path] = (Path(),)
