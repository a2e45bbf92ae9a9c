"""Model and data of a run that is asked again: found where the manifest says, and the ones evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from robench import registry
from robench.classifier import is_random
from robench.errors import InputError
from robench.loading import Data, Subject, given_data, given_subject, load_data, load_subject, wrapped
from robench.runs import Manifest
from robench.spec import Chain, parse

__all__ = ["Imported", "ObjectNeeded", "OtherFound", "load_recorded_data", "load_recorded_subject"]

_CALL = "robench.replay(run, model=…, dataset=…)"


class Imported(InputError):
    """A run of somebody's published results: there is no model to ask."""


class ObjectNeeded(InputError):
    """A run of a Python object that was not given: nothing that its manifest says leads there."""


class OtherFound(InputError):
    """A model or dataset that is not the one evaluated."""


def load_recorded_data(manifest: Manifest, dataset: Any, search: Sequence[Path]) -> Data:
    given = dataset or manifest.dataset.canonical
    if isinstance(given, str):
        _refuse_python(manifest, given, "-d DATASET")
        data = load_data(registry.load_plugins().resolve("datasets", given, search=search), manifest.dataset.split)
    else:
        data = given_data(given, manifest.dataset.split)
    if data.hash != manifest.dataset.hash:
        found, recorded = data.hash[:12], manifest.dataset.hash[:12]
        what = f"{data.canonical} is not the data evaluated"
        raise _other(manifest.dataset.canonical, f"run {manifest.run}: {what}: hash {found}, recorded {recorded}")
    return data


def load_recorded_subject(
    manifest: Manifest, model: Any, data: Data, device: torch.device, search: Sequence[Path]
) -> Subject:
    given, precision = model or manifest.classifier.canonical, manifest.request.precision
    if isinstance(given, str):
        _refuse_python(manifest, given, "-m MODEL")
        subject = load_subject(registry.load_plugins().resolve("models", given, search=search), device, precision)
    else:
        subject = given_subject(given, data.whole.shape, device, precision)
    if manifest.classifier.smoothed and not is_random(subject.classifier):
        # The model that votes was given, and the vote was evaluated.
        wrapper = str(Chain(parse(manifest.classifier.canonical).specs[-1:]))
        subject = wrapped(subject, registry.load_plugins().resolve("wrappers", wrapper, search=search))
    found, recorded = subject.classifier.fingerprint[:12], manifest.classifier.fingerprint[:12]
    if found != recorded:
        what = f"{subject.canonical} is not the function evaluated"
        text = f"run {manifest.run}: {what}: fingerprint {found}, recorded {recorded}"
        raise _other(manifest.classifier.canonical, text)
    return subject


def _other(recorded: str, text: str) -> InputError:
    if recorded.startswith("python:"):
        return ObjectNeeded(f"{text}; it used a Python object ({recorded}): {_CALL}")
    return OtherFound(text)


def _refuse_python(manifest: Manifest, text: str, option: str) -> None:
    if text.startswith("python:"):
        raise ObjectNeeded(
            f"run {manifest.run} used a Python object ({text}): name its file with {option}, or from Python {_CALL}"
        )
