"""What tests of the adapters need: the libraries, or a skip that names what is missing."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

from oracles.classifiers import Function, linear
from robench.errors import InputError
from robench.streams import Stream
from robench.threat import Domain, Threat

__all__ = ["WIDE", "boxed", "library", "propose", "stand_in"]

WIDE = Domain(-1.0, 3.0)


def stand_in(*modules: str) -> None:
    """Provide empty modules where real ones cannot be imported: adv-lib imports them for what is not used here."""
    for name in modules:
        try:
            __import__(name)
        except Exception:
            module = ModuleType(name)
            module.models = module.Visdom = None  # type: ignore[attr-defined]
            sys.modules[name] = module


def library(factory: type) -> None:
    """Skip where the library of an adapter is not installed."""
    try:
        factory.library.load()
    except InputError as error:
        pytest.skip(str(error))


def boxed(classes: int = 4, size: int = 12, shape=None) -> tuple[Function, torch.Tensor, torch.Tensor]:
    """Return a linear classifier and points well inside of the domain −1 … 3 that it gets right by far less."""
    draw = torch.Generator().manual_seed(5)
    classifier = linear(torch.randn(classes, size, generator=draw), torch.zeros(classes), shape, torch.float32)
    x = torch.rand(24, *classifier.input_shape, generator=draw) * 0.6 + 0.7
    return classifier, x, classifier.logits(x).argmax(1)


def propose(attack, classifier, x, y, norm, eps, rows=None):
    """Ask `attack` about `x`; `rows` are the samples' indices."""
    stream = Stream.for_samples(0, "test", range(len(x)) if rows is None else rows)
    return attack.perturb(classifier, x, y, Threat(norm, eps if attack.per_eps else None, WIDE), stream)
