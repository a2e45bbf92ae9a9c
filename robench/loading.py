"""From specs and Python objects to what a run works on: a device, a classifier, samples with their identity."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch

from robench.classifier import Classifier, RandomizedClassifier, deterministic, evaluable
from robench.contracts import Dataset, Model, Wrapper
from robench.errors import InputError, PluginError
from robench.graph import from_module
from robench.registry import Part, Resolved
from robench.runs import DatasetInfo, PluginInfo, samples_hash
from robench.samples import Samples
from robench.text import one_line
from robench.threat import Domain

__all__ = [
    "PRECISIONS",
    "Data",
    "Subject",
    "given_data",
    "given_subject",
    "identified",
    "load_data",
    "load_subject",
    "parse_device",
    "parse_rows",
    "plugin_infos",
    "python_name",
    "samples_from",
    "wrapped",
]

PRECISIONS = {"fp32": torch.float32, "fp64": torch.float64}


@dataclass(frozen=True)
class Data:
    """The samples of a run and the identity of the split that they come from.

    Attributes:
        samples: the selected samples, in order.
        whole: the whole split after the transforms that change inputs: what `hash` is about.
        canonical: spec of `whole`.
        selection: what chose the rows, as text; empty for all of them.
    """

    samples: Samples
    whole: Samples
    split: str
    canonical: str
    full: str
    selection: str
    parts: tuple[Part, ...] = ()

    @property
    def described(self) -> str:
        """The spec that the samples are from, its plugins in canonical form: no places of files."""
        return " | ".join(part.canonical for part in self.parts) or self.canonical

    @cached_property
    def hash(self) -> str:
        """sha256 of the whole split."""
        return self.whole.digest()

    @cached_property
    def samples_hash(self) -> str:
        """sha256 of the selected indices."""
        return samples_hash(self.samples.index)

    @property
    def info(self) -> DatasetInfo:
        """What manifests say about the samples. Raises pydantic's ValidationError for what cannot be published."""
        lower, upper = self.samples.domain.lower, self.samples.domain.upper
        return DatasetInfo(
            canonical=self.canonical,
            full=self.full,
            plugins=plugin_infos(self.parts),
            hash=self.hash,
            split=self.split,
            selection=self.selection,
            samples_hash=self.samples_hash,
            n=len(self.samples),
            domain=(lower if np.isfinite(lower) else None, upper if np.isfinite(upper) else None),
            classes=self.samples.classes,
            thresholds=self.samples.thresholds or {},
            regions=None if self.whole.regions is None else self.whole.regions.kind(self.whole.y),
            names=self._names,
            facts=self.samples.facts or {},
        )

    @property
    def _names(self) -> dict[int, str]:
        regions = self.samples.regions
        return {} if regions is None else dict(zip(self.samples.index.tolist(), regions.names, strict=True))


@dataclass(frozen=True)
class Subject:
    """The classifier under evaluation and how it is named."""

    classifier: Classifier | RandomizedClassifier
    canonical: str
    full: str
    parts: tuple[Part, ...] = ()


def plugin_infos(parts: Sequence[Part]) -> tuple[PluginInfo, ...]:
    """Return what manifests say about the plugins behind a spec, those in its parameters among them."""
    found = []
    for part in parts:
        found.append(PluginInfo(name=part.name, distribution=part.distribution, version=part.version))
        found += plugin_infos(part.nested)
    return tuple(found)


def parse_device(text: str) -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda` or `cuda:1`. Raises InputError where it is not there."""
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = re.fullmatch(r"cpu|cuda(?::(\d{1,3}))?", text)
    if not found:
        raise InputError(f"unknown device {text!r}: choose auto, cpu, cuda or cuda:0")
    if text != "cpu" and int(found[1] or 0) >= torch.cuda.device_count():
        raise InputError(f"device {text!r} is not there ({torch.cuda.device_count()} CUDA devices): use --device auto")
    return torch.device(text)


def parse_rows(text: str | None, count: int) -> slice:
    """Return positions `A:B` (after selection) as a slice of `count` rows. Raises InputError."""
    if text is None:
        return slice(0, count)
    found = re.fullmatch(r"(\d{0,18}):(\d{0,18})", text.strip())
    if not found:
        raise InputError(f"--samples {text!r}: write positions like 0:1000")
    start, stop = int(found[1] or 0), min(int(found[2]) if found[2] else count, count)
    if start >= stop:
        raise InputError(f"--samples {text!r} selects nothing from {count} samples")
    return slice(start, stop)


@contextmanager
def _contained(what: str) -> Iterator[None]:
    """Let a plugin load: what it prints goes to stderr, and it must not end the command."""
    try:
        with redirect_stdout(sys.stderr):  # stdout is for results
            yield
    except SystemExit as error:
        raise PluginError(what, f"wanted to end the process ({one_line(error)})") from error


def load_data(resolved: Resolved, split: str, rows: str | None = None) -> Data:
    """Load a dataset chain: the whole split for its identity, the selected rows for the run.

    What is chosen before a transform that is fitted is part of the identity: inputs depend on it.
    """
    fitted = max((at for at, part in enumerate(resolved.parts) if getattr(part.value, "fits", False)), default=0)
    later = resolved.parts[fitted + 1 :]
    choosing = [part for part in later if getattr(part.value, "selects", False)]
    identity = Resolved((*resolved.parts[: fitted + 1], *(part for part in later if part not in choosing)))
    with _contained(f"dataset {identity.canonical}"):
        whole = cast(Dataset, identity.value).load(split)
        samples = cast(Dataset, resolved.value).load(split) if choosing else whole
    names = identity.canonical, identity.full
    return _select(samples, whole, split, names, [part.canonical for part in choosing], rows, resolved.parts)


def given_data(dataset: Any, split: str, rows: str | None = None) -> Data:
    """Load a dataset given as a Python object: Samples, a pair (x, y), or anything with `load(split)`.

    `Data` was loaded before and is returned as it is: its hash is not computed again. Raises InputError for anything
    else.
    """
    if isinstance(dataset, Data):
        return dataset
    if isinstance(dataset, tuple) and len(dataset) == 2:
        dataset = samples_from(*dataset)
    value = _InMemory(dataset) if isinstance(dataset, Samples) else dataset
    kind = type(value).__name__.lstrip("_")
    if not callable(getattr(value, "load", None)):
        raise InputError(f"a {kind} is no dataset: give a spec, a pair of arrays (x, y), robench.Samples or a Dataset")
    whole = value.load(split)
    return _select(whole, whole, split, (f"python:{kind}", f"python:{kind}"), [], rows, ())


@dataclass(frozen=True)
class _InMemory:
    """Samples given from Python, whatever the split's name."""

    samples: Samples

    def load(self, split: str) -> Samples:
        return self.samples


def given_subject(model: Any, input_shape: tuple[int, ...], device: torch.device, precision: str) -> Subject:
    """Return the classifier of a Python object: a torch module, a Model, or anything with `logits` or `sample`."""
    name, dtype = f"python:{type(model).__name__}", PRECISIONS[precision]
    if isinstance(model, torch.nn.Module):
        return Subject(from_module(model, input_shape, device=device, dtype=dtype), name, name)
    if hasattr(model, "load"):
        model = model.load(device, dtype)
    elif not hasattr(model, "logits") and not hasattr(model, "sample"):
        raise InputError(
            f"a {type(model).__name__} is no classifier yet: robench.from_sklearn makes one of a fitted scikit-learn "
            "estimator, robench.from_module of a torch module, robench.from_function of a function of arrays"
        )
    return Subject(evaluable(model, name), name, name)


def _select(
    samples: Samples,
    whole: Samples,
    split: str,
    names: tuple[str, str],
    steps: list[str],
    rows: str | None,
    parts: tuple[Part, ...],
) -> Data:
    wanted = parse_rows(rows, len(samples))
    if (wanted.start, wanted.stop) != (0, len(samples)):
        samples = samples.select(wanted)
        steps = [*steps, f"{wanted.start}:{wanted.stop}"]
    return Data(samples, whole, split, *names, " | ".join(steps), parts)


def load_subject(resolved: Resolved, device: torch.device, precision: str) -> Subject:
    """Load a model chain on `device`. Raises PluginError for what is no classifier."""
    with _contained(f"model {resolved.canonical}"):
        classifier = cast(Model, resolved.value).load(device, PRECISIONS[precision])
    return Subject(evaluable(classifier, resolved.canonical), resolved.canonical, resolved.full, resolved.parts)


def wrapped(subject: Subject, wrapper: Resolved) -> Subject:
    """Return the subject behind a wrapper, as `MODEL | WRAPPER` names it. Raises InputError for one that draws."""
    base = deterministic(subject.classifier, subject.canonical)
    return Subject(
        cast(Wrapper, wrapper.value).wrap(base),
        f"{subject.canonical} | {wrapper.canonical}",
        f"{subject.full} | {wrapper.full}",
        (*subject.parts, *wrapper.parts),
    )


def samples_from(x: Any, y: Any, domain: tuple[float, float] = (0.0, 1.0)) -> Samples:
    """Return Samples of two arrays or tensors: `x` [N, ...] in the domain, `y` [N] labels from 0."""
    x, y = (one.detach().cpu().numpy() if isinstance(one, torch.Tensor) else np.asarray(one) for one in (x, y))
    if len(x) != len(y):
        raise InputError(f"{len(x)} inputs but {len(y)} labels: x and y must have one entry for each sample")
    if x.ndim < 2 or y.ndim != 1 or y.dtype.kind not in "iu" or x.dtype.kind != "f" or x.dtype.itemsize > 8:
        raise InputError(f"x {x.dtype} {list(x.shape)} and y {y.dtype} {list(y.shape)}: need floats [N, ...], ints [N]")
    x = x.astype(x.dtype.newbyteorder("="), copy=False)  # torch reads no other
    classes = tuple(str(label) for label in range(int(y.max(initial=0)) + 1))
    return Samples(x, y.astype(np.int64), np.arange(len(y)), Domain(*map(float, domain)), classes)


def python_name(value: object) -> str:
    """Name an object given from Python: its class, with its parameters where `identified` holds."""
    return f"python:{_shown(value) if identified(value) else type(value).__name__}"


def identified(value: object) -> bool:
    """Whether the repr of an object given from Python says all about it: a dataclass, short, and without a path."""
    shown = _shown(value)
    plain = len(shown) <= 200 and shown.isprintable() and " object at " not in shown and "/" not in shown
    return plain and is_dataclass(value)


def _shown(value: object) -> str:
    return " ".join(repr(value).split())
